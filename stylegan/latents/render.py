"""A view: an opened network, and how its images are rendered. Every tool that generates images opens one first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import Latents
from stylegan.latents.notation import require_psi
from stylegan.networks.base import require_w
from stylegan.networks.config import NetworkConfig, NoiseMode, Stage
from stylegan.networks.inference import Renderer, with_kernels
from torch_utils.device import keep_freed_memory, pick_device
from torch_utils.errors import UserError


@dataclass(frozen=True)
class View:
    """A network, which is evaluated at the stage of its snapshot, and how latents become images.

    psi, cutoff: truncation of seeds, see `sampling.truncate`
    noise_mode: the network's own noise, noise drawn from the seed, or none
    """

    snapshot: Snapshot
    psi: float
    cutoff: int | None = None
    noise_mode: NoiseMode = "const"

    @staticmethod
    def of(
        snapshot: Snapshot, *, psi: float | None = None, cutoff: int | None = None, noise_mode: NoiseMode = "const",
        resolution: int | None = None, alpha: float | None = None,
    ) -> View:  # fmt: skip
        """A view with these settings; None stands for the default of the network.

        Raises UserError for settings that are out of range, or that the network does not support.
        """
        if psi is not None:
            require_psi(psi)
        num_ws = snapshot.config.num_ws
        if cutoff is not None and not 0 <= cutoff <= num_ws:
            raise UserError(
                f"--trunc-cutoff must be from 0 to {num_ws}, the number of layers of this network, got {cutoff}"
            )
        psi = snapshot.G.default_psi if psi is None else psi
        if psi != 1:
            require_w(snapshot.G, f"leave out the truncation of {psi:g}")
        stage = stage_of(snapshot, resolution, alpha)
        return View(snapshot if stage == snapshot.stage else replace(snapshot, stage=stage), psi, cutoff, noise_mode)

    @property
    def config(self) -> NetworkConfig:
        return self.snapshot.config

    @property
    def stage(self) -> Stage:
        return self.snapshot.stage

    @property
    def renderer(self) -> Renderer:
        return self.snapshot.renderer

    def render(self, seeds: Sequence[int], c: Tensor | None = None, batch: int = 8) -> Tensor:
        """Seeds, classes [N] -> images [N,channels,H,W] on the CPU. See `Renderer.render`."""
        return self.renderer.render(seeds, c, psi=self.psi, cutoff=self.cutoff, noise=self.noise_mode, batch=batch)

    def draw(self, latents: Latents, batch: int = 8) -> Tensor:
        """Latents -> images [N,channels,H,W] on the CPU, with the noise maps of the latents, if they have any.

        Raises UserError if these maps have other sizes than those of the network at this resolution, and for random
        noise without maps.
        """
        maps, wanted = latents.noise, self.config.noise_shapes(self.stage.resolution)
        if self.noise_mode == "none":
            return self.renderer.draw(latents.ws, "none", batch, latents.styles)
        if not maps:
            if self.noise_mode == "random" and wanted:
                raise UserError("noise_mode='random' needs seeds, but these latents do not come from seeds")
            return self.renderer.draw(latents.ws, "const", batch, latents.styles)
        if [tuple(m.shape[2:]) for m in maps[: len(wanted)]] != wanted:
            raise UserError(f"the noise maps of {latents.origins[0]} do not have the sizes of this network at this "
                            "resolution; leave them out with --noise-mode none")  # fmt: skip
        return self.renderer.draw(latents.ws, maps, batch, latents.styles)


def stage_of(snapshot: Snapshot, resolution: int | None = None, alpha: float | None = None) -> Stage:
    """The stage at which to evaluate a network; None stands for its own. Raises UserError for an impossible one."""
    own = snapshot.stage
    resolution = resolution or own.resolution
    trained = [r for r in snapshot.config.stages if r <= own.resolution]
    if resolution not in trained:
        raise UserError(f"--resolution must be one of {', '.join(map(str, trained))} here, got {resolution}")
    if alpha is not None and not 0 <= alpha <= 1:
        raise UserError(f"--alpha must be from 0 to 1, got {alpha:g}")
    grown = own.alpha if resolution == own.resolution else 1.0
    return Stage(resolution, grown if alpha is None else alpha)


def open_for_tools(network: str | Path, device: str = "auto") -> Snapshot:
    """Open a network for a tool, on "auto", "cpu", "cuda" or "cuda:1". From now on, the process keeps freed memory.

    Raises UserError if the network cannot be opened, or if the device does not exist.
    """
    keep_freed_memory()
    return open_snapshot(network, with_kernels(pick_device(device)))
