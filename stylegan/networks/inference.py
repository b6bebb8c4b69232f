"""Generating images: weights that are prepared once, and images that are the same to the last bit in any batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ops import BuildError, build, mode
from stylegan.networks.arguments import edits_of, integer, maps_of, number, seeds_of, ws_of, z_of
from stylegan.networks.base import Generator, Noise, Synthesis
from stylegan.networks.config import NoiseMode, Stage
from stylegan.networks.layers import Foldable
from stylegan.networks.sampling import noise_for_seeds, z_for_seeds
from torch_utils.device import single_thread_workers
from torch_utils.errors import UserError

Network = TypeVar("Network", bound=nn.Module)


@torch.no_grad()
def folded(network: Network, dtype: torch.dtype = torch.float32, batch: int | None = None) -> Network:
    """A copy of `network` that is faster for small batches. It computes the same to the last bit, for feature maps of
    `dtype` (except that the scores of a discriminator may be rounded differently).

    Each `Foldable` layer keeps its scaled weights and merged kernels, in `dtype`. The copy shares everything else with
    `network`, and does not follow when `network` learns.

    batch: number of images that a generator computes at a time. Weights are then kept in the order in which the
    convolutions of a CPU read them; there are no derivatives, and rounding may differ. None: any number, and there are
    derivatives.
    """
    shared = {id(t): t for t in (*network.parameters(), *network.buffers())}
    copied = copy.deepcopy(network, shared)
    for layer in copied.modules():
        if isinstance(layer, Foldable):
            layer.fold(dtype, batch)
    return copied


@dataclass(frozen=True)
class Renderer:
    """A generator at a stage, with folded weights. It does not follow when the generator learns.

    An image is the same to the last bit for any batch size and number of threads. Both would change the order of
    summation, so each image is computed by itself, and on a CPU by a single thread.
    """

    G: Generator
    stage: Stage
    synthesis: Synthesis

    @staticmethod
    def of(G: Generator, stage: Stage) -> Renderer:
        """Folds the weights of the synthesis network."""
        return Renderer(G, stage, folded(G.synthesis, batch=1))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.G.config.size(self.stage.resolution)

    def map(self, z: Tensor, c: Tensor | None = None, *, psi: float | None = None, cutoff: int | None = None) -> Tensor:
        """z [N,z_dim] -> ws [N,num_ws,ws_dim] on the CPU, for `draw`.

        c: classes [N], or weights of classes [N,num_classes]. psi: None for `Generator.default_psi`.
        Raises UserError for what does not fit the network or is not finite, and for missing classes.
        """
        G, z = self.G, z_of(z, self.G.config)
        if c is not None and not G.config.num_classes:
            raise UserError("this network is unconditional and has no classes; leave out the class")
        if c is not None and len(c) != len(z):
            raise UserError(f"there are {len(c)} classes for {len(z)} z; give one for each")
        chosen_psi = G.default_psi if psi is None else number(psi, "psi")
        if cutoff is not None:
            integer(cutoff, "cutoff", 0, G.config.num_ws)
        ws = torch.empty(len(z), G.config.num_ws, G.config.ws_dim)

        def map_one(i: int) -> None:
            with torch.inference_mode():
                classes = None if c is None else c[i : i + 1].to(G.device)
                (ws[i],) = G.latents(z[i : i + 1].clone().to(G.device), classes, chosen_psi, cutoff)

        _one_by_one(map_one, len(z), G.device)
        return ws

    def draw(self, ws: Tensor, noise: Noise = "const", batch: int = 8, edits: Sequence[Tensor] = ()) -> Tensor:
        """ws [N,num_ws,ws_dim] -> images [N,channels,H,W] on the CPU.

        noise: see `Noise`; maps are [N,1,H,W] with a row for each image, or [1,1,H,W] for all, places are [N,2].
        edits: as for `Synthesis.forward`: [N,style_dim], or [1,style_dim] for all.
        batch: number of images to compute in parallel. It does not change them.

        Raises UserError for what does not fit the network, see `arguments.ws_of`, or is not finite.
        """
        device, config, resolution = self.G.device, self.G.config, self.stage.resolution
        ws = ws_of(ws, config)
        noise = maps_of(noise, len(ws), config.noise_shapes(resolution))
        edits = edits_of(edits, len(ws), config.style_dims(resolution))
        images = torch.empty(len(ws), self.G.config.channels, *self.size)

        def draw_one(i: int) -> None:
            with torch.inference_mode():
                # A copy, because the order of summation in the kernels depends on the memory address.
                own: Noise = noise
                if isinstance(noise, Tensor):
                    own = noise[i : i + 1].to(device)
                elif not isinstance(noise, str):
                    own = [_row(maps, i).to(device) for maps in noise]
                added = [_row(styles, i).to(device) for styles in edits]
                (images[i],) = self.synthesis(ws[i : i + 1].clone().to(device), self.stage, own, edits=added)

        _one_by_one(draw_one, len(ws), device, batch)
        return images

    def noise_of(self, seeds: Sequence[int]) -> list[Tensor]:
        """A noise map [N,1,H,W] for each layer with noise; each row depends only on its seed."""
        return noise_for_seeds(seeds_of(seeds), self.G.config.noise_shapes(self.stage.resolution))

    def render(
        self, seeds: Sequence[int], c: Tensor | None = None, *, psi: float | None = None, cutoff: int | None = None,
        noise: NoiseMode = "const", batch: int = 8,
    ) -> Tensor:  # fmt: skip
        """Seeds -> images [N,channels,H,W] on the CPU: `map`, then `draw`. "random" noise depends on the seed, too."""
        seeds = seeds_of(seeds)
        ws = self.map(z_for_seeds(seeds, self.G.config.z_dim), c, psi=psi, cutoff=cutoff)
        return self.draw(ws, self.noise_of(seeds) if noise == "random" else noise, batch)


def _row(maps: Tensor, i: int) -> Tensor:
    return maps if len(maps) == 1 else maps[i : i + 1].clone()


def _one_by_one(task: Callable[[int], None], count: int, device: torch.device, side_by_side: int = 1) -> None:
    """Run task(0) ... task(count - 1). On a CPU each runs on one thread, and up to `side_by_side` in parallel."""
    if device.type != "cpu":
        for i in range(count):
            task(i)
        return
    build.available(device.type)  # now, because it reports the number of threads, which is 1 for each task of the pool
    with single_thread_workers(min(side_by_side, torch.get_num_threads())) as run:
        list(run(task, range(count)))


def with_kernels(device: torch.device) -> torch.device:
    """Returns the device. With `--ops strict`, builds its kernels first; raises UserError if that fails."""
    try:
        if mode() == "strict":
            build.available(device.type)
    except BuildError as error:
        raise UserError(f"--ops strict: {error}; or run without kernels, with --ops auto") from error
    return device
