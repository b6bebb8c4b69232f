"""An opened network together with how its images are rendered: what every tool that generates images begins with."""

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
    """A network, evaluated at the stage of its snapshot, and how latents become images.

    psi, cutoff: truncation of seeds, see `sampling.truncate`
    noise_mode: the network's own, drawn from the seed, or none
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
        """None: as the network itself says. Raises UserError for what the network cannot do."""
        if psi is not None:
            require_psi(psi)
        num_ws = snapshot.config.num_ws
        if cutoff is not None and not 0 <= cutoff <= num_ws:
            raise UserError(
                f"the truncation cutoff must be from 0 to {num_ws}, the layers of this network; got {cutoff}"
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
        """An image per seed, [N,channels,H,W] on the CPU; classes c [N]. See `Renderer.render`."""
        return self.renderer.render(
            seeds, c, psi=self.psi, cutoff=self.cutoff, noise=self.noise_mode, batch=batch
        )  # fmt: skip

    def draw(self, latents: Latents, batch: int = 8) -> Tensor:
        """An image for each, [N,channels,H,W] on the CPU, with their noise maps where they bring some.

        Raises UserError if those maps are of other sizes than the network's at the view's resolution.
        """
        maps, wanted = latents.noise, self.config.noise_shapes(self.stage.resolution)
        if self.noise_mode == "none":
            return self.renderer.draw(latents.ws, "none", batch, latents.styles)
        if not maps:
            if self.noise_mode == "random" and wanted:
                raise UserError("random noise is drawn from seeds, and these latents do not come from seeds")
            return self.renderer.draw(latents.ws, "const", batch, latents.styles)
        if [tuple(m.shape[2:]) for m in maps[: len(wanted)]] != wanted:
            raise UserError(f"the noise maps of {latents.origins[0]} do not have the sizes of this network at this "
                            "resolution; --noise-mode none draws without noise")  # fmt: skip
        return self.renderer.draw(latents.ws, maps, batch, latents.styles)


def stage_of(snapshot: Snapshot, resolution: int | None = None, alpha: float | None = None) -> Stage:
    """The stage to evaluate a network at. Raises UserError for one that it has not grown to."""
    own = snapshot.stage
    resolution = resolution or own.resolution
    trained = [r for r in snapshot.config.stages if r <= own.resolution]
    if resolution not in trained:
        raise UserError(f"--resolution {resolution}: this network generates images at {', '.join(map(str, trained))}")
    if alpha is not None and not 0 <= alpha <= 1:
        raise UserError(f"alpha must be from 0 to 1, got {alpha:g}")
    grown = own.alpha if resolution == own.resolution else 1.0
    return Stage(resolution, grown if alpha is None else alpha)


def open_for_tools(network: str | Path, device: str = "auto") -> Snapshot:
    """Open a network for a tool on "auto", "cpu", "cuda" or "cuda:1". Freed memory stays with the process from here on.

    Raises UserError for a network that cannot be opened, or a device that is not there.
    """
    keep_freed_memory()
    return open_snapshot(network, with_kernels(pick_device(device)))
