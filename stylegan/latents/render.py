"""An opened network together with how to draw with it: what every tool that draws begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from stylegan.checkpoints.locate import open_snapshot
from stylegan.checkpoints.snapshot import Snapshot
from stylegan.cli.options import with_kernels
from stylegan.latents.latents import Latents
from stylegan.latents.view import View, require_psi
from stylegan.networks.base import require_w
from stylegan.networks.config import Stage
from stylegan.networks.inference import Renderer
from stylegan.projection.pivotal_tuning import apply_delta
from torch_utils.device import keep_freed_memory, pick_device
from torch_utils.errors import UserError
from torch_utils.text import counted

MODES = {1: "grey", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Painter:
    """A view that has been checked against its network, whose stage is the view's resolution and alpha."""

    view: View
    snapshot: Snapshot
    psi: float

    @property
    def renderer(self) -> Renderer:
        return self.snapshot.renderer

    def paint(self, seeds: Sequence[int], c: Tensor | None = None, batch: int = 8) -> Tensor:
        """A picture per seed, [N,channels,H,W] on the CPU; classes c [N]. See `Renderer.render`."""
        view = self.view
        return self.renderer.render(
            seeds, c, psi=self.psi, cutoff=view.trunc_cutoff, noise=view.noise_mode, batch=batch
        )  # fmt: skip

    def draw(self, latents: Latents, batch: int = 8) -> Tensor:
        """A picture for each, [N,channels,H,W] on the CPU, with their noise maps where they bring some.

        Raises UserError if those maps are of other sizes than the network's at the view's resolution.
        """
        renderer, maps = self.renderer, latents.noise
        if self.view.noise_mode == "none":
            return renderer.draw(latents.ws, "none", batch, latents.styles)
        if not maps:
            if self.view.noise_mode == "random":
                raise UserError("--noise-mode random draws noise from seeds, and these latents are of none")
            return renderer.draw(latents.ws, "const", batch, latents.styles)
        wanted = self.snapshot.config.noise_shapes(renderer.stage.resolution)
        if [tuple(m.shape[2:]) for m in maps[: len(wanted)]] != wanted:
            raise UserError(f"the noise maps of {latents.origins[0]} are not of the sizes of this network at this "
                            "resolution; --noise-mode none draws without noise")  # fmt: skip
        return renderer.draw(latents.ws, maps, batch, latents.styles)


def open_painter(view: View, force: bool = False) -> Painter:
    """Open the network and check the view against it. Freed memory stays with the process from here on.

    Raises UserError for a network that cannot be opened, and for what it cannot draw. force: take tuned weights
    (`view.delta`) of another network.
    """
    if view.trunc is not None:
        require_psi(view.trunc)
    keep_freed_memory()
    snapshot = open_snapshot(view.network, with_kernels(pick_device(view.device)))
    if view.delta:
        snapshot = apply_delta(snapshot, Path(view.delta), force)
    G = snapshot.G
    num_ws = snapshot.config.num_ws
    if view.trunc_cutoff is not None and not 0 <= view.trunc_cutoff <= num_ws:
        raise UserError(f"--trunc-cutoff {view.trunc_cutoff}: this network has {num_ws} layers to truncate")
    psi = G.default_psi if view.trunc is None else view.trunc
    if psi != 1:
        require_w(G, f"leave out --trunc {psi:g}")
    stage = stage_of(view, snapshot)
    return Painter(view, snapshot if stage == snapshot.stage else replace(snapshot, stage=stage), psi)


def stage_of(view: View, snapshot: Snapshot) -> Stage:
    """The stage to draw at. Raises UserError for what the network has not grown to."""
    resolution = view.resolution or snapshot.stage.resolution
    trained = [r for r in snapshot.config.stages if r <= snapshot.stage.resolution]
    if resolution not in trained:
        raise UserError(f"--resolution {resolution}: this network draws at {', '.join(map(str, trained))}")
    if view.alpha is not None and not 0 <= view.alpha <= 1:
        raise UserError(f"--alpha {view.alpha:g} is not from 0 to 1")
    alpha = snapshot.stage.alpha if resolution == snapshot.stage.resolution else 1.0
    return Stage(resolution, alpha if view.alpha is None else view.alpha)


def in_words(painter: Painter, count: int) -> list[str]:
    """The lines of a plan for `count` pictures that tell of the network."""
    view, snapshot = painter.view, painter.snapshot
    alpha, (height, width) = painter.renderer.stage.alpha, painter.renderer.size
    fading = f", of which the last step at {alpha:.2f}" if alpha < 1 else ""
    cutoff = "" if view.trunc_cutoff is None else f" in {counted(view.trunc_cutoff, 'layer')}"
    return [
        f"Network:    {view.network}: {snapshot.config.family}, {snapshot.kimg:g} kimg of {snapshot.data}",
        f"Pictures:   {count} of {width}x{height}, {MODES[snapshot.config.channels]}{fading}",
        f"Truncation: {painter.psi:g}{cutoff}",
    ]
