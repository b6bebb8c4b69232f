"""Progressive growing as a pure function of the number of images shown to the discriminator.

The published arithmetic (Karras et al. 2018, "Progressive Growing of GANs") keeps a continuous level of detail, `lod`:
0 is the final resolution, each unit above it halves the image. `lod` rests at an integer for `stable_kimg`, then
falls linearly by one during `fade_kimg`. Everything that depends on progress (resolution, fade weight, batch, learning
rate) follows from it. Nothing here keeps state, so resuming a run needs the image count and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Generic, TypeVar

from stylegan.networks.config import Stage
from torch_utils.errors import UserError

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class PerResolution(Generic[Number]):
    """A number that may differ between resolutions: `table[resolution]` where listed, else `base`.

    Its text form lists `resolution:value` pairs and the bare base: "8:256,16:128,32". A lone number is a constant.
    """

    base: Number
    table: Mapping[int, Number] = field(default_factory=dict, hash=False)  # equal values still hash alike

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", dict(sorted(self.table.items())))

    def at(self, resolution: int) -> Number:
        """The value in force at `resolution`."""
        return self.table.get(resolution, self.base)

    def values(self) -> list[Number]:
        """Every number named: the base, then the table in order of resolution."""
        return [self.base] + list(self.table.values())

    def __str__(self) -> str:
        return ",".join([*(f"{res}:{_plain(value)}" for res, value in self.table.items()), _plain(self.base)])

    @classmethod
    def parse(cls, text: str, kind: type[Number]) -> PerResolution[Number]:
        """Read the text form, with values of `kind`. Raises UserError when it cannot be read."""
        bases: list[Number] = []
        table: dict[int, Number] = {}
        for entry in text.split(","):
            resolution, colon, value = entry.rpartition(":")
            try:
                if colon:
                    table[int(resolution)] = kind(value)
                else:
                    bases.append(kind(value))
            except ValueError:
                word = "a whole number" if kind is int else "a number"
                raise UserError(f"'{entry}' is neither {word} nor RESOLUTION:VALUE, as in 8:256,16:128,32") from None
        if len(bases) != 1:
            raise UserError(f"'{text}' needs exactly one bare number, used where no resolution is listed (8:256,32)")
        return cls(bases[0], table)


def _plain(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(value).removesuffix(".0")


@dataclass(frozen=True)
class TrainingStage(Stage):
    """What holds at one moment of a run, besides resolution and alpha.

    `phase` numbers the segments: 0 the first resolution, 1 the fade to the next, 2 that resolution held, and so on.
    `batch` is over all GPUs.
    """

    _: KW_ONLY
    phase: int
    batch: int
    lr: float


@dataclass(frozen=True)
class Phase:
    """One segment of a run, for tables and for the time left. `kind` is "stable" or "fade"."""

    phase: int
    resolution: int
    kind: str
    start_kimg: float
    end_kimg: float


@dataclass(frozen=True)
class GrowthSchedule:
    """When to grow, and the batch and learning rate on the way. The defaults are StyleGAN's for FFHQ on 8 GPUs.

    `stable_kimg` is looked up at the resolution that is held, the other tables at the one that is fading in or held.
    Once the final resolution has faded in and `anneal_from` is reached, the learning rate falls along half a cosine to
    the share `lr_end` of itself in `anneal_kimg`, and stays there (R3GAN, Huang et al. 2024); with 0 kimg it stays as
    it is.
    """

    initial: int = 8
    final: int = 1024
    stable_kimg: PerResolution[float] = PerResolution(600)
    fade_kimg: PerResolution[float] = PerResolution(600)
    batch: PerResolution[int] = PerResolution(32, {4: 512, 8: 256, 16: 128, 32: 64, 64: 32})
    lr: PerResolution[float] = PerResolution(0.001, {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003})
    anneal_from: float = 0.0
    anneal_kimg: float = 0.0
    lr_end: float = 0.1

    @property
    def resolutions(self) -> list[int]:
        """Every resolution that is trained, smallest first."""
        return [self.initial << k for k in range(int(math.log2(self.final // self.initial)) + 1)]

    def at(self, nimg: int) -> TrainingStage:
        """What holds after `nimg` images."""
        resolution, phase, alpha = self.initial, 0, 1.0
        for index, (begin, start) in enumerate(self._arrivals()):
            if nimg >= start:
                resolution, phase, alpha = self.initial << index, 2 * index, 1.0
            elif nimg > begin:
                resolution, phase, alpha = self.initial << index, 2 * index - 1, (nimg - begin) / (start - begin)
        lr = self.lr.at(resolution) * self.annealed(nimg)
        return TrainingStage(resolution, alpha, phase=phase, batch=self.batch.at(resolution), lr=lr)

    def annealed(self, nimg: int) -> float:
        """The share of the learning rate that is left after `nimg` images."""
        if self.anneal_kimg <= 0 or nimg <= self.anneal_start:
            return 1.0
        progress = min((nimg - self.anneal_start) / (1000 * self.anneal_kimg), 1.0)
        return self.lr_end + (1 - self.lr_end) * (1 + math.cos(math.pi * progress)) / 2

    @property
    def anneal_start(self) -> float:
        """The image count from which the learning rate falls, if it does."""
        return 1000 * max(self.grown_kimg, self.anneal_from)

    @property
    def grown_kimg(self) -> float:
        """When the final resolution has faded in."""
        *_, (_, arrived) = self._arrivals()
        return arrived / 1000

    def lod(self, stage: Stage) -> float:
        """The published level of detail at `stage`: 0 at the final resolution, +1 for each halving."""
        return math.log2(self.final / stage.resolution) + 1.0 - stage.alpha

    def phases(self, total_kimg: float) -> list[Phase]:
        """The segments of a run of `total_kimg`: they tile it without gap or overlap. Empty ones are left out."""
        arrivals = list(self._arrivals())
        segments = []
        for index, (begin, start) in enumerate(arrivals):
            end = arrivals[index + 1][0] if index + 1 < len(arrivals) else math.inf
            segments += [(2 * index - 1, "fade", begin, start), (2 * index, "stable", start, end)]
        spans = [(p, kind, a / 1000, min(b / 1000, total_kimg)) for p, kind, a, b in segments]
        return [Phase(p, self.initial << (p + 1) // 2, kind, a, b) for p, kind, a, b in spans if a < b]

    def _arrivals(self) -> Iterator[tuple[int, int]]:
        """For each resolution: the image count after which it fades in, and the one from which it has faded in."""
        begin = start = 0
        for resolution in self.resolutions:
            if resolution != self.initial:
                begin = start + round(1000 * self.stable_kimg.at(resolution // 2))
                start = begin + round(1000 * self.fade_kimg.at(resolution))
            yield begin, start
