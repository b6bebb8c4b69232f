"""z -> w -> ws -> picture, and seeds -> pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, overload

import torch
from PIL import Image
from torch import Tensor, nn

from ops import build
from stylegan.latents.styles import layers_of
from stylegan.networks.base import ModelConfig, NoiseMode
from stylegan.networks.inference import baked
from stylegan.networks.mapping import MappingNetwork
from stylegan.networks.sampling import broadcast, mix_layers, noise_for_seeds, truncate, z_for_seeds
from stylegan.networks.stylegan1 import Noise, SynthesisNetwork
from torch_utils.errors import UserError
from torch_utils.images import to_pil, to_uint8

if TYPE_CHECKING:
    from stylegan.editing.directions import Directions
    from stylegan.latents.latents import Latents


class Generator(nn.Module):
    """A mapping network and a synthesis network (StyleGAN, figure 1)."""

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        self.mapping = MappingNetwork(cfg)
        self.synthesis = SynthesisNetwork(cfg)

    @property
    def num_ws(self) -> int:
        return self.cfg.num_ws

    def broadcast(self, w: Tensor) -> Tensor:
        """w [N,w_dim] -> ws [N,num_ws,w_dim]."""
        return broadcast(w, self.num_ws)

    def latents(self, z: Tensor, c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """z [N,z_dim], classes [N] -> ws [N,num_ws,w_dim], truncated towards the average of their class."""
        return truncate(self.broadcast(self.mapping(z, c)), self.mapping.centre(c), psi, cutoff)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
        resolution: int | None = None,
        alpha: float | None = None,
        noise: Noise = "const",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """z [N,z_dim] -> pictures [N,channels,H,W]; the rest as in `latents` and `SynthesisNetwork.forward`."""
        return self.synthesis(self.latents(z, c, psi, cutoff), resolution, alpha, noise, dtype)

    @property
    def default_psi(self) -> float:
        """Truncation for show. ProGAN has no w to truncate."""
        return 1.0 if self.cfg.family == "progan" else 0.7

    def map(self, z: Tensor, psi: float | None = None, cutoff: int | None = None, c: Tensor | None = None) -> Tensor:
        """z [N,z_dim] -> ws [N,num_ws,w_dim] on the CPU, ready for `draw`, and the same to the last bit in any batch.

        psi: `default_psi` if None. c: classes [N], or weights of classes [N,num_classes].
        Raises UserError for classes that the network has not, and for none where it has some.
        """
        if c is not None and not self.cfg.num_classes:
            raise UserError("this network is unconditional: it has no classes to choose from")
        device = next(self.parameters()).device
        chosen_psi = self.default_psi if psi is None else psi
        ws = torch.empty(len(z), self.num_ws, self.cfg.w_dim)

        def map_one(i: int) -> None:
            with torch.inference_mode():
                classes = None if c is None else c[i : i + 1].to(device)
                (ws[i],) = self.latents(z[i : i + 1].clone().to(device), classes, chosen_psi, cutoff)

        _each_alone(map_one, len(z), device)
        return ws

    def draw(self, ws: Tensor, noise: Noise = "const", batch: int = 8, edits: Sequence[Tensor] = ()) -> Tensor:
        """One picture for each of ws [N,num_ws,w_dim]: [N,channels,H,W] on the CPU, as far as the network has grown.

        noise: as in `SynthesisNetwork.forward`; maps are [N,1,H,W], one picture's in each row, or [1,1,H,W] for all.
        edits: what is added to each layer's style, [N,2C] or [1,2C] for all; see there.
        batch: how many to work on at once. A picture is the same to the last bit whatever the batch and the number of
        threads: sums are added up in another order in batches of another size, and on more threads, so each picture is
        computed alone, and on a CPU by a single thread.
        """
        device = next(self.parameters()).device
        resolution = self.synthesis.grown[0]
        pictures = torch.empty(len(ws), self.cfg.channels, *self.cfg.size(resolution))
        synthesis = baked(self.synthesis, batch=1)

        def draw_one(i: int) -> None:
            with torch.inference_mode():
                # A copy, as the kernels may add up in another order where memory begins elsewhere.
                own = noise if isinstance(noise, str) else [_row(maps, i).to(device) for maps in noise]
                added = [_row(styles, i).to(device) for styles in edits]
                (pictures[i],) = synthesis(ws[i : i + 1].clone().to(device), noise=own, edits=added)

        _each_alone(draw_one, len(ws), device, batch)
        return pictures

    def render(
        self, seeds: Sequence[int], psi: float | None = None, cutoff: int | None = None, c: Tensor | None = None,
        noise: NoiseMode = "const", batch: int = 8,
    ) -> Tensor:  # fmt: skip
        """One picture per seed: `map`, then `draw`. "random" noise is drawn from the seed as well."""
        ws = self.map(z_for_seeds(seeds, self.cfg.z_dim), psi, cutoff, c)
        return self.draw(ws, self.noise_of(seeds) if noise == "random" else noise, batch)

    def noise_of(self, seeds: Sequence[int]) -> list[Tensor]:
        """A noise map [N,1,H,W] for each layer, as far as the network has grown, each row drawn from its seed."""
        return noise_for_seeds(seeds, self.synthesis.noise_sizes(self.synthesis.grown[0]))

    def generate(
        self,
        seeds: Sequence[int] | Tensor | Latents,
        psi: float | None = None,
        cutoff: int | None = None,
        c: int | Sequence[int] | None = None,
    ) -> list[Image.Image]:
        """One PIL picture per seed, or for each of ws [N,num_ws,w_dim] or of latents, which are drawn as they are.

        psi: 0.7 if None (1 for ProGAN). c: the class, or one for each seed.
        """
        from stylegan.latents.latents import Latents  # not above, as it needs this file

        if isinstance(seeds, Latents):
            pictures = self.draw(seeds.ws, seeds.noise or "const", edits=seeds.styles)
            return [to_pil(pixels) for pixels in to_uint8(pictures)]
        return [to_pil(pixels) for pixels in to_uint8(self.draw(self._ws(seeds, psi, cutoff, c)))]

    def mix(
        self,
        a: Sequence[int] | Tensor,
        b: Sequence[int] | Tensor,
        layers: str | Sequence[int | str],
        psi: float | None = None,
        c: int | Sequence[int] | None = None,
    ) -> Tensor:
        """a with the styles of b in `layers`, as ws [N,num_ws,w_dim] for `generate`.

        a, b: seeds or ws, as many of one as of the other, or a single one for all. layers: "coarse", "middle", "fine",
        "0-3,6", or their numbers. Raises UserError for layers that the network has not.
        """
        chosen = layers_of(layers, self.cfg, self.synthesis.grown[0])
        return mix_layers(self._ws(a, psi, None, c), self._ws(b, psi, None, c), chosen)

    @overload
    def move(
        self, points: Latents, direction: Directions, strength: float, layers: str | Sequence[int | str] | None = None,
        psi: float | None = None, c: int | Sequence[int] | None = None,
    ) -> Latents: ...  # fmt: skip

    @overload
    def move(
        self, points: Sequence[int] | Tensor, direction: Directions, strength: float,
        layers: str | Sequence[int | str] | None = None,
        psi: float | None = None, c: int | Sequence[int] | None = None,
    ) -> Tensor: ...  # fmt: skip

    def move(
        self, points: Sequence[int] | Tensor | Latents, direction: Directions, strength: float,
        layers: str | Sequence[int | str] | None = None,
        psi: float | None = None, c: int | Sequence[int] | None = None,
    ) -> Tensor | Latents:  # fmt: skip
        """Points moved by `strength` standard deviations along one direction: latents as latents, seeds and ws as ws.

        layers: as for `mix`; None for the direction's own. See `directions.moved`, also for the UserErrors.
        """
        from stylegan.editing import directions  # not above, as they need this file
        from stylegan.latents.latents import Latents

        chosen = None if layers is None else layers_of(layers, self.cfg, self.synthesis.grown[0])
        if isinstance(points, Latents):
            return directions.moved(points, direction, strength, chosen)
        return directions.moved_ws(self._ws(points, psi, None, c), direction, strength, chosen)

    def _ws(
        self, points: Sequence[int] | Tensor, psi: float | None, cutoff: int | None, c: int | Sequence[int] | None
    ) -> Tensor:
        if isinstance(points, Tensor) and points.ndim == 3:
            return points
        classes = None if c is None else torch.as_tensor(c).expand(len(points))
        return self.map(z_for_seeds([int(seed) for seed in points], self.cfg.z_dim), psi, cutoff, classes)


def _row(maps: Tensor, i: int) -> Tensor:
    return maps if len(maps) == 1 else maps[i : i + 1].clone()


def _each_alone(task: Callable[[int], None], count: int, device: torch.device, at_once: int = 1) -> None:
    """task(0) ... task(count - 1): on a CPU each by one thread, `at_once` side by side if torch may use so many."""
    if device.type != "cpu":
        for i in range(count):
            task(i)
        return
    threads = torch.get_num_threads()
    build.available(device.type)  # here: it says how many threads there are, and in the pool each is alone
    pool = ThreadPoolExecutor(min(at_once, threads), initializer=torch.set_num_threads, initargs=(1,))
    try:
        list(pool.map(task, range(count)))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # this thread kept its number, but new ones would get the pool's
