"""Generating images: weights that are prepared once, and images that do not depend on those beside them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ops import BuildError, build, mode
from stylegan.networks.arguments import edits_of, integer, maps_of, number, seeds_of, shown, ws_of, z_of
from stylegan.networks.base import Generator, Noise, Synthesis
from stylegan.networks.config import NetworkConfig, NoiseMode, Precision, Stage
from stylegan.networks.layers import Foldable
from stylegan.networks.mapping import class_weights
from stylegan.networks.sampling import noise_for_seeds, z_for_seeds
from torch_utils.device import GENERATING, GpuMath, collected, gpu_math, memory_of, sent, single_thread_workers
from torch_utils.errors import UserError
from torch_utils.images import as_uint8

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


# How images are computed


DTYPES: Mapping[Precision, torch.dtype] = {
    "fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16,
}  # fmt: skip
CPU_BATCH, GPU_BATCH = 8, 64
MAP_BATCH = 64  # of the mapping network on a GPU: always the same, so that ws do not depend on --batch


@dataclass(frozen=True)
class Execution:
    """How images are computed.

    precision: of the synthesis network; z, w, statistics, styles and images are float32 whatever it is
    batched: many images in each operation, without which a GPU would wait most of the time. It always computes so. A
    CPU is as fast with one by one, and computes so unless it is asked for this.
    """

    precision: Precision = "fp32"
    batched: bool = False

    def in_batches(self, device: torch.device) -> bool:
        """Whether images are computed in batches on this device."""
        return self.batched or device.type != "cpu"


def require_precision(precision: str, device: torch.device, called: str = "--precision") -> None:
    """Raises UserError for a precision that there is not, or not on this device. called: for messages"""
    if precision not in DTYPES:
        raise UserError(f"{called} must be one of {', '.join(DTYPES)}, got {shown(precision)}")
    if device.type == "cpu" and precision in ("tf32", "fp16"):
        raise UserError(f"{called} {precision} is for GPUs; a CPU computes in fp32, or faster in bf16 if it is new")


def usual_batch(config: NetworkConfig, resolution: int, execution: Execution, device: torch.device) -> int:
    """How many images to compute at a time where nobody says.

    One by one 8, side by side. In batches 64, or 32 where the feature maps of one image take 64 MiB or more (from
    512x512 on, with the channels of StyleGAN), as a GPU has enough to do with them; fewer by halves where the feature
    maps of all would take more than half of its memory.
    """
    if not execution.in_batches(device):
        return CPU_BATCH
    each = 4 * config.generator_cost(resolution).activations
    batch = GPU_BATCH if each < 64 << 20 else GPU_BATCH // 2
    while batch > 1 and batch * each > memory_of(device) / 2:
        batch //= 2
    return batch


@dataclass(frozen=True)
class Renderer:
    """A generator at a stage, with inference weights. It does not follow when the generator learns.

    One by one, as on a CPU, an image is the same to the last bit for any batch size and number of threads. Both would
    change the order of summation, so each image is computed by itself, and on a CPU by a single thread.

    In batches, as on a GPU, kernels always get tensors of the same sizes, because a part that is smaller is filled up;
    and they add up in an order that depends on these sizes only (`GpuMath.repeatable`). So the images beside it do not
    change an image, and the same call gives the same bits on the same card. With another batch, and at another place in
    it, sums may be rounded otherwise.
    """

    G: Generator
    stage: Stage
    synthesis: Synthesis
    execution: Execution = Execution()

    @staticmethod
    def of(G: Generator, stage: Stage, execution: Execution = Execution()) -> Renderer:
        """Folds the weights of the synthesis network. Raises UserError as `require_precision` does."""
        require_precision(execution.precision, G.device, "precision")
        batch = None if execution.in_batches(G.device) else 1
        return Renderer(G, stage, folded(G.synthesis, DTYPES[execution.precision], batch), execution)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.G.config.size(self.stage.resolution)

    @property
    def batched(self) -> bool:
        """Whether images are computed in batches."""
        return self.execution.in_batches(self.G.device)

    def batch(self, asked: int | None = None) -> int:
        """How many images to compute at a time: as many as asked for, else `usual_batch`. Raises UserError below 1."""
        if asked is not None:
            return integer(asked, "batch", 1, 1 << 20)
        return usual_batch(self.G.config, self.stage.resolution, self.execution, self.G.device)

    def map(self, z: Tensor, c: Tensor | None = None, *, psi: float | None = None, cutoff: int | None = None) -> Tensor:
        """z [N,z_dim] -> ws [N,num_ws,ws_dim] on the CPU, for `draw`. Always in float32.

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
        if self.batched and c is not None:
            c = class_weights(c.cpu(), G.config.num_classes)  # here, where looking at the numbers stops no GPU

        def mapped(rows: Tensor) -> Tensor:
            classes = None if c is None else _rows(c, rows, G.device)
            with torch.inference_mode(), gpu_math(GENERATING, G.device):
                return G.latents(_rows(z, rows, G.device), classes, chosen_psi, cutoff)

        if self.batched:
            return collected(_in_batches(mapped, len(z), MAP_BATCH), ws)
        return _one_by_one(mapped, ws)

    def draw(
        self, ws: Tensor, noise: Noise = "const", batch: int | None = None, edits: Sequence[Tensor] = ()
    ) -> Tensor:  # fmt: skip
        """ws [N,num_ws,ws_dim] -> images [N,channels,H,W] on the CPU.

        noise: see `Noise`; maps are [N,1,H,W] with a row for each image, or [1,1,H,W] for all, places are [N,2].
        edits: as for `Synthesis.forward`: [N,style_dim], or [1,style_dim] for all.
        batch: number of images to compute at a time, see `Renderer`; None for `usual_batch`.

        Raises UserError for what does not fit the network, see `arguments.ws_of`, or is not finite, and for images that
        fp16 has no numbers for.
        """
        count, images = self._computing(ws, noise, edits)
        into = torch.empty(count, self.G.config.channels, *self.size)
        if self.batched:
            return collected(self._parts(images, count, batch), into)
        return _one_by_one(images, into, self.batch(batch))

    def draw_there(
        self, ws: Tensor, noise: Noise = "const", batch: int | None = None, edits: Sequence[Tensor] = ()
    ) -> Tensor:  # fmt: skip
        """The same, where the network is."""
        if not self.batched or not len(ws):
            return self.draw(ws, noise, batch, edits).to(self.G.device)
        count, images = self._computing(ws, noise, edits)
        return torch.cat(list(self._parts(images, count, batch)))

    def pixels(
        self, ws: Tensor, noise: Noise = "const", batch: int | None = None, edits: Sequence[Tensor] = ()
    ) -> np.ndarray:  # fmt: skip
        """The same as uint8 [N,H,W,channels], rounded where the network is: a quarter of the bytes to be copied."""
        count, images = self._computing(ws, noise, edits)
        into = torch.empty(count, *self.size, self.G.config.channels, dtype=torch.uint8)
        if self.batched:
            return collected(map(as_uint8, self._parts(images, count, batch)), into).numpy()
        return _one_by_one(lambda rows: as_uint8(images(rows)), into, self.batch(batch)).numpy()

    def _parts(self, images: Callable[[Tensor], Tensor], count: int, batch: int | None) -> Iterator[Tensor]:
        """Yield the images, `batch` at a time, where the network is. Raises UserError after images that overflow."""
        finite = []
        for part in _in_batches(images, count, self.batch(batch)):
            if self.execution.precision == "fp16":
                finite.append(part.isfinite().all())  # read when all is done, as a GPU would stop at each
            yield part
        if finite and not bool(torch.stack(finite).all()):
            raise UserError("this network has numbers that are too large for fp16; use bf16, or fp32")

    def _computing(self, ws: Tensor, noise: Noise, edits: Sequence[Tensor]) -> tuple[int, Callable[[Tensor], Tensor]]:
        """How many images there are, and what computes some of them, by their numbers. Raises UserError as `draw`."""
        device, config, resolution = self.G.device, self.G.config, self.stage.resolution
        ws = ws_of(ws, config)
        noise = maps_of(noise, len(ws), config.noise_shapes(resolution))
        edits = edits_of(edits, len(ws), config.style_dims(resolution))
        dtype, math = DTYPES[self.execution.precision], GpuMath(tf32=self.execution.precision == "tf32")
        noise = noise if isinstance(noise, (str, Tensor)) else _shared(noise, device)
        edits = _shared(edits, device)

        def images(rows: Tensor) -> Tensor:
            own: Noise = noise
            if isinstance(noise, Tensor):
                own = _rows(noise, rows, device)
            elif not isinstance(noise, str):
                own = _rows_of_each(noise, rows, device)
            added = _rows_of_each(edits, rows, device)
            with torch.inference_mode(), gpu_math(math, device):
                return self.synthesis(_rows(ws, rows, device), self.stage, own, dtype, edits=added)

        return len(ws), images

    def noise_of(self, seeds: Sequence[int]) -> list[Tensor]:
        """A noise map [N,1,H,W] for each layer with noise; each row depends only on its seed."""
        return noise_for_seeds(seeds_of(seeds), self.G.config.noise_shapes(self.stage.resolution))

    def render(
        self, seeds: Sequence[int], c: Tensor | None = None, *, psi: float | None = None, cutoff: int | None = None,
        noise: NoiseMode = "const", batch: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Seeds -> images [N,channels,H,W] on the CPU: `map`, then `draw`. "random" noise depends on the seed, too."""
        seeds = seeds_of(seeds)
        ws = self.map(z_for_seeds(seeds, self.G.config.z_dim), c, psi=psi, cutoff=cutoff)
        return self.draw(ws, self.noise_of(seeds) if noise == "random" else noise, batch)


def _rows(values: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Some rows of [N,...] on the device; a copy, as the order of summation depends on the memory address on a CPU."""
    return sent(values.index_select(0, rows.to(values.device)), device)


def _shared(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """With those of a single row, which are for all images, on the device, as they need to be sent only once."""
    return [sent(t, device) if len(t) == 1 else t for t in tensors]


def _rows_of_each(tensors: Sequence[Tensor], rows: Tensor, device: torch.device) -> list[Tensor]:
    """Some rows of each of the tensors [N,...], and those of a single row as they are."""
    return [t if len(t) == 1 else _rows(t, rows, device) for t in tensors]


def _in_batches(compute: Callable[[Tensor], Tensor], count: int, batch: int) -> Iterator[Tensor]:
    """Yield what `compute` makes of 0 ... count - 1, `batch` of them at a time. The last part is filled up with its
    last row, so that kernels always get the same sizes, and what that adds is cut off."""
    for start in range(0, count, batch):
        yield compute(torch.arange(start, start + batch).clamp(max=count - 1))[: count - start]


def _one_by_one(compute: Callable[[Tensor], Tensor], into: Tensor, side_by_side: int = 1) -> Tensor:
    """Fill [N,...] with what `compute` makes of each row, each on one thread, up to `side_by_side` in parallel."""

    def fill(i: int) -> None:
        with torch.inference_mode():
            (into[i],) = compute(torch.tensor([i]))

    build.available("cpu")  # now, because it reports the number of threads, which is 1 for each task of the pool
    with single_thread_workers(min(side_by_side, torch.get_num_threads())) as run:
        list(run(fill, range(len(into))))
    return into


def with_kernels(device: torch.device) -> torch.device:
    """Returns the device. With `--ops strict`, builds its kernels first; raises UserError if that fails."""
    try:
        if mode() == "strict":
            build.available(device.type)
    except BuildError as error:
        raise UserError(f"--ops strict: {error}; or run without kernels, with --ops auto") from error
    return device
