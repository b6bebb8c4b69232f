"""Everything a run is, besides its configuration: what resuming needs, saved and restored in one place."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.sampling import generator
from torch_utils.adam import Adam
from torch_utils.checkpoint import load_state, save_state
from torch_utils.errors import UserError
from torch_utils.settings import to_plain
from training.config import RunConfig
from training.inputs import NUMBERS
from training.vision_aid import VisionAid, build_vision_aid

# What steps report, added up where it is computed: to read it at every step would leave a GPU without work each time


@dataclass(frozen=True)
class Checks:
    """The numbers of a phase that must be finite, or its network stays as it is.

    names: of each: the parameter's place among the phase's, if it is the norm of a gradient; else that of a mean
    values: float32 [numbers]   finite: bool [numbers]   good: are they all, bool [], and those of the phase before?
    """

    phase: str
    names: tuple[int | str, ...]
    values: Tensor
    finite: Tensor
    good: Tensor

    @property
    def stats(self) -> dict[str, Tensor]:
        """The means by their names; they come last."""
        names = [name for name in self.names if isinstance(name, str)]
        return dict(zip(names, self.values[-len(names) :].unbind(), strict=True))


@dataclass(frozen=True)
class Reading:
    """What the steps since the last reading add up to.

    began: images that had been shown before them   sums: of the good ones, by name: (sum, count)
    culprits: what was the first not to be finite in how many bad ones, by phase and the name in `Checks`
    bad_steps: in a row at the end   most_bad_steps: in a row at any time
    """

    began: int
    sums: dict[str, tuple[float, int]]
    culprits: dict[tuple[str, int | str], int]
    bad_steps: int
    most_bad_steps: int


@dataclass
class _Sums:
    """Of so many steps with the same names. totals: [2,numbers]: the sums of good ones, and the culprits of bad ones"""

    steps: int
    totals: Tensor


class Tally:
    """Adds up what steps report, on their device, and is read now and then. The same in all processes of a run."""

    def __init__(self) -> None:
        self._began = 0
        self._sums: dict[tuple[tuple[str, tuple[int | str, ...]], ...], _Sums] = {}
        self._rows: list[Tensor] = []  # bad steps in a row: now, and the most

    @torch.no_grad()
    def add(self, phases: tuple[Checks, ...], nimg: int, bad_steps: int) -> None:
        """Count a step in. nimg: images shown before it   bad_steps: in a row, when this was last read"""
        values, finite = torch.cat([p.values for p in phases]), torch.cat([p.finite for p in phases])
        bad = ~phases[-1].good
        exact = torch.float32 if values.device.type == "mps" else torch.float64
        if not self._rows:
            self._began = nimg
            self._rows = [values.new_full((), bad_steps, dtype=exact) for _ in range(2)]
        key = tuple((p.phase, p.names) for p in phases)
        if key not in self._sums:
            self._sums[key] = _Sums(0, values.new_zeros(2, len(values), dtype=exact))
        sums = self._sums[key]
        sums.steps += 1
        good_sums, culprits = sums.totals
        good_sums.add_(values.masked_fill(bad, 0))  # and not times 0, which leaves NaN as it is
        first = finite.byte().argmin(dim=0, keepdim=True)
        culprits.index_add_(0, first, bad[None].to(exact))
        now, most = self._rows
        torch.maximum(most, now.add_(1).mul_(bad), out=most)

    def read(self) -> Reading | None:
        """What has been added up since the last time, or None if nothing has. Waits for the device."""
        if not self._rows:
            return None
        flat = torch.cat([torch.stack(self._rows), *(sums.totals.flatten() for sums in self._sums.values())])
        now, most, *rest = flat.tolist()
        reported: dict[str, tuple[float, int]] = {}
        culprits: Counter[tuple[str, int | str]] = Counter()
        for key, sums in self._sums.items():
            names = [(phase, name) for phase, of_phase in key for name in of_phase]
            values, bad, rest = rest[: len(names)], rest[len(names) : 2 * len(names)], rest[2 * len(names) :]
            good = sums.steps - round(sum(bad))
            culprits.update({name: round(count) for name, count in zip(names, bad, strict=True) if count})
            for (_, name), value in zip(names, values, strict=True):
                if isinstance(name, str) and good:
                    total, steps = reported.get(name, (0.0, 0))
                    reported[name] = total + value, steps + good
        self._sums, self._rows = {}, []
        return Reading(self._began, reported, dict(culprits), round(now), round(most))


@dataclass
class TrainState:
    """The one mutable thing in training. Resolution, alpha, batch and learning rate are not in it: `nimg` gives them.

    nimg: real images shown   phase: of the growth   tick, tick_nimg: the last status line, and when it was
    bad_steps: non-finite steps in a row   skipped: in all   rollbacks: returns to the last good state
    sums: what the next status line will report, by name: (sum, count)   log_bytes: length of each log file
    tally: of the steps that these three do not know of yet; it is not saved, `read` comes first
    vision_aid: a second discriminator, if there is one
    micro_batch: by resolution, how many images this process works on at once. Not saved: memories differ
    numbers: how the random numbers of the steps were made up to the state that was restored, see `inputs.NUMBERS`
    """

    G: Generator
    D: Discriminator
    G_ema: Generator
    opt_g: Adam
    opt_d: Adam
    vision_aid: VisionAid | None = None
    nimg: int = 0
    phase: int = 0
    tick: int = 0
    tick_nimg: int = 0
    bad_steps: int = 0
    skipped: int = 0
    rollbacks: int = 0
    seconds: float = 0.0
    sums: dict[str, list[float]] = field(default_factory=dict)
    log_bytes: dict[str, int] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    micro_batch: dict[int, int] = field(default_factory=dict)
    numbers: str = NUMBERS

    @property
    def parts(self) -> dict[str, Any]:
        """By name, whatever has a state of its own."""
        parts = {"G": self.G, "D": self.D, "G_ema": self.G_ema, "opt_g": self.opt_g, "opt_d": self.opt_d}
        return parts | ({"aid": self.vision_aid} if self.vision_aid else {})

    @property
    def discriminators(self) -> nn.Module:
        """What learns in the discriminator's phase of a step, with `opt_d`."""
        return _together(self.D, self.vision_aid)

    def learner(self, phase: str) -> tuple[nn.Module, Adam]:
        """What learns in the phase "D" or "G" of a step, and its optimiser."""
        return (self.discriminators, self.opt_d) if phase == "D" else (self.G, self.opt_g)

    def backward_order(self, phase: str) -> list[nn.Parameter]:
        """The parameters that learn in a phase, in about the order in which a backward pass reaches them."""
        if phase == "G":
            return self.G.backward_order()
        aid = [] if self.vision_aid is None else list(self.vision_aid.parameters())  # whose term comes first
        return aid + self.D.backward_order()

    def changing(self) -> list[Tensor]:
        """All tensors that a step changes."""
        networks = (self.G, self.G_ema, self.discriminators)
        found = [t for net in networks for t in (*net.parameters(), *net.buffers())]
        moments = (entry.values() for opt in (self.opt_g, self.opt_d) for entry in opt.state.values())
        return [t.detach() for t in (*found, *(t for entry in moments for t in entry))]

    def read(self) -> Reading | None:
        """Take over what the tally holds, and return it; None if there have been no steps. Waits for the device."""
        reading = self.tally.read()
        if reading is None:
            return None
        self.bad_steps = reading.bad_steps
        self.skipped += sum(reading.culprits.values())
        for name, (total, count) in reading.sums.items():
            entry = self.sums.setdefault(name, [0.0, 0])
            entry[0] += total
            entry[1] += count
        return reading

    def describe(self, reading: Reading) -> dict[str, int]:
        """Its culprits by what they are for a reader, in how many steps each."""
        parameters = {phase: [*dict(self.learner(phase)[0].named_parameters())] for phase in ("D", "G")}

        def what(phase: str, name: int | str) -> str:
            found = f"mean of '{name}'" if isinstance(name, str) else f"gradient of {parameters[phase][name]}"
            return f"{phase}'s {found}"

        return {what(phase, name): count for (phase, name), count in reading.culprits.items()}

    def save(self, path: Path, cfg: RunConfig, previous: Path | None = None) -> None:
        """Write everything, whole or not at all. Raises UserError when the disk is full. previous: see `save_state`"""
        parts: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
        plain = {name: getattr(self, name) for name in _PLAIN}
        save_state(path, parts | plain | {"config": to_plain(cfg), "numbers": NUMBERS}, previous)

    def restore(self, path: Path) -> None:
        """Become what was saved. Raises UserError if the file is damaged."""
        try:
            saved = load_state(path)
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            for name, fits in _PLAIN.items():
                if not fits(saved[name]):
                    raise ValueError(f"{name} is not what was saved")
                setattr(self, name, saved[name])
            self.numbers = str(saved.get("numbers", "numpy"))
            self.tally = Tally()
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, pickle.PickleError) as error:
            raise UserError(
                f"{path} is damaged, of other networks than the settings beside it describe, or was written by another "
                f"version ({type(error).__name__}); restore it or the settings, or start a new run with --init-from "
                f"{path.parent}"
            ) from error


# What a file must hold for each of a state's plain parts


MOST = 2**53  # for whatever is counted: far beyond any run, and exact as a float


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < MOST


def _are_sums(value: Any) -> bool:
    """By name, a sum, which may be infinite, and a count."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(entry, list) and len(entry) == 2
        and (type(entry[0]) is float or _is_count(entry[0])) and _is_count(entry[1])
        for name, entry in value.items()
    )  # fmt: skip


def _are_lengths(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) and _is_count(size) for name, size in value.items())


_PLAIN: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("nimg", "phase", "tick", "tick_nimg", "bad_steps", "skipped", "rollbacks"), _is_count),
    "seconds": _is_seconds, "sums": _are_sums, "log_bytes": _are_lengths,
}  # fmt: skip


def fresh_state(cfg: RunConfig, device: torch.device) -> TrainState:
    """New networks, drawn from a stream of the run's seed.

    Seeding torch directly would make z equal to rows of the first layer's weights, for the same seed: images would be
    far off.
    """
    torch.manual_seed(int(generator(cfg.seed, "weights", 0).integers(2**63)))
    G, D = build_generator(cfg.model).to(device), build_discriminator(cfg.model).to(device)
    G_ema = copy.deepcopy(G).eval().requires_grad_(False)
    aid = build_vision_aid(cfg.loss, cfg.model.minibatch_group, device)
    return TrainState(G, D, G_ema, _adam(G, cfg, 1), _adam(_together(D, aid), cfg, cfg.loss.r1_interval), aid)


def _together(D: Discriminator, aid: VisionAid | None) -> nn.Module:
    return D if aid is None else nn.ModuleDict({"D": D, "aid": aid})


def _adam(net: torch.nn.Module, cfg: RunConfig, interval: int) -> Adam:
    """Adam, its memory shortened where a penalty comes only every `interval` steps (StyleGAN2, appendix B)."""
    lazy = lazy_factor(interval)
    betas = (cfg.optim.beta1**lazy, cfg.optim.beta2**lazy)
    return Adam(net.parameters(), betas, cfg.optim.eps)


def lazy_factor(interval: int) -> float:
    """interval / (interval + 1) for lazy regularisation, 1 for a penalty at every step."""
    return interval / (interval + 1) if interval > 1 else 1.0
