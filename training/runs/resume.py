"""From what was typed to a whole RunConfig: preset, then facts about the data, then the typed settings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stylegan.checkpoints.snapshot import MAX_NAME
from stylegan.networks.registry import family_of
from torch_utils.errors import UserError
from torch_utils.settings import declared, differences, leaves, replaced, shown
from torch_utils.text import counted, listed_classes, shortened
from training.config import FLAGS, LossConfig, RunConfig
from training.data.archive import Archive
from training.data.dataset import subset_of
from training.data.labels import folder_labels
from training.data.sizes import base_for
from training.presets import PRESETS
from training.runs.check import check
from training.runs.run_dir import OPTIONS, has_state, is_finished, parse_options, plain_name
from training.schedule import GrowthSchedule, PerResolution

# What may differ between a run and its resumption: where and how often, nothing of the mathematics. The data may have
# moved; that they are the same images is checked by their hash.
_FLAGS = {found.name: found.flag for found in declared(RunConfig, FLAGS)}
FREE_ON_RESUME = {name for name, flag in _FLAGS.items() if flag.resume == "free"}
AHEAD_ON_RESUME = {name for name, flag in _FLAGS.items() if flag.resume == "ahead"}

FEW = 1000  # images: with fewer, discriminators that see them unchanged remember them soon (Zhao et al. 2020)


@dataclass(frozen=True)
class DataFacts:
    """What a run needs to know of its data: height, width and channels of every image, 0 classes if unlabelled.

    class_names: that of each class, as far as they have names     labels: int64 [count], or None
    folders: sub-folders that could be classes, and are none without labels     is_what: see `Archive`
    summary: all that in a line, for people
    """

    name: str
    count: int
    height: int
    width: int
    channels: int
    num_classes: int
    content_hash: str
    class_names: tuple[str, ...] = ()
    summary: str = ""
    folders: tuple[str, ...] = ()
    labels: np.ndarray | None = field(default=None, compare=False, repr=False)
    is_what: Callable[[str], bool] = field(default=lambda content_hash: False, compare=False, repr=False)

    @classmethod
    def of(cls, archive: Archive) -> DataFacts:
        names = tuple(shortened(name, MAX_NAME) for name in archive.class_names or ())
        folders = folder_labels(archive.names) if archive.labels is None else None
        return cls(archive.name, len(archive), archive.height, archive.width, archive.channels, archive.num_classes,
                   archive.content_hash, names, archive.summary, folders.class_names if folders else (),
                   archive.labels, archive.is_what)  # fmt: skip

    @property
    def base(self) -> tuple[int, int]:
        return base_for(self.height, self.width)

    @property
    def resolution(self) -> int:
        """The nominal resolution of the whole images: 4 * 2^(number of halvings down to the base)."""
        return 4 * self.height // self.base[0]

    def same(self, stored: RunConfig) -> bool:
        """Whether these are the data that a run began with."""
        found = stored.data.content_hash
        return found in ("", self.content_hash) or self.is_what(found)

    def empty_classes(self, subset: int | None, seed: int) -> tuple[int, ...]:
        """The classes of which a run does not show any image."""
        if self.labels is None:
            return ()
        shown = self.labels if subset is None else self.labels[subset_of(self.count, subset, seed)]
        return tuple(sorted(set(range(self.num_classes)) - set(shown.tolist())))

    def about(self, cfg: RunConfig) -> str:
        """One line: how many images, and whether their labels are used."""
        text = self.summary or f"{self.name}: {counted(self.count, 'image')} of {self.width}x{self.height}"
        if cfg.data.subset:
            text += f", of which {cfg.data.subset:,} are used (--subset)"
        if cfg.data.cond:
            text += "; the classes are learned (--cond 0 ignores them)"
            if cfg.data.empty_classes:
                empty = listed_classes(cfg.data.empty_classes, cfg.data.class_names)
                text += f". Without a single image: {empty}; dataset_tool.py makes an archive without such classes"
        elif self.num_classes:
            text += "; the classes are not used (--cond learns them)"
        elif self.folders:
            names = ", ".join(self.folders[:3]) + (", ..." if len(self.folders) > 3 else "")
            text += f"; no classes: the sub-folders {names} become classes with dataset_tool.py --labels folders"
        used = cfg.data.subset or self.count
        if used < FEW and not cfg.loss.diffaugment:
            text += f". {used:,} are few and may be memorised: --diffaugment and --init-from help against that"
        return text


def resolve(typed: Mapping[str, Any], facts: DataFacts) -> RunConfig:
    """The whole configuration of a new run. `typed` holds settings by dotted name. Raises UserError if they clash."""
    if "hours" in typed and "total_kimg" in typed:
        raise UserError(
            f"--hours {typed['hours']:g} and --kimg {typed['total_kimg']:g} both say how long to train; give one"
        )
    gpus = typed.get("gpus", 1)
    if gpus < 1:
        raise UserError(f"--gpus {gpus} cannot be; give 1 or more, and --device cpu to train on the CPU")
    chosen = typed.get("preset") or preset_for(facts)
    cfg = preset(chosen, gpus)
    _require_settings(cfg, typed)
    resolution = typed.get("model.resolution", cfg.model.resolution)
    cond = typed.get("data.cond", cfg.data.cond)
    if "preset" not in typed:  # a preset that we chose bends to the data, one that was asked for does not
        resolution = typed.get("model.resolution", min(resolution, facts.resolution))
        cond = typed.get("data.cond", cfg.data.cond and facts.num_classes > 0)
    if resolution > facts.resolution:
        raise UserError(
            f"--cfg {chosen} grows to {resolution}, but images of {facts.width}x{facts.height} ({facts.name}) "
            f"only allow {facts.resolution}; use --resolution {facts.resolution}, or convert them with "
            f"dataset_tool.py --resolution {resolution}"
        )
    if typed.get("data.subset", 1) > facts.count:
        raise UserError(f"--subset {typed['data.subset']} is more than the {facts.count} images of {facts.name}")
    from_data: dict[str, Any] = {
        "model.base": facts.base,
        "model.resolution": resolution,
        "model.channels": facts.channels,
        "model.num_classes": facts.num_classes if cond else 0,
        "growth.final": resolution,
        "data.cond": cond,
        "data.content_hash": facts.content_hash,
        "data.class_names": facts.class_names if cond else (),
        "data.empty_classes": facts.empty_classes(typed.get("data.subset"), typed.get("seed", 0)) if cond else (),
    }
    if cfg.growth.initial == cfg.model.stages[0]:  # what begins with a network's first stage still does
        from_data["growth.initial"] = replace(cfg.model, base=facts.base, resolution=resolution).stages[0]
    cfg = replaced(cfg, from_data | _loss_companions(cfg, typed) | dict(typed) | {"preset": chosen})
    check(cfg)
    _require_taken(cfg, typed)
    return cfg


def preset(name: str, gpus: int) -> RunConfig:
    """The configuration of a preset for `gpus` GPUs: of the nearest smaller count listed, with batches that all GPUs
    share evenly. Raises UserError for an unknown name."""
    if name not in PRESETS:
        raise UserError(f"there is no --cfg {name}; choose one of {', '.join(PRESETS)}")
    entry = PRESETS[name]
    cfg = replaced(RunConfig(model=family_of(entry.family).config()), entry.settings(gpus) | {"preset": name})
    batch = cfg.growth.batch
    base, *sizes = (_rounded(size, gpus, cfg.model.minibatch_group) for size in batch.values())
    divisible = PerResolution(base, dict(zip(batch.table, sizes, strict=True)))
    return replace(cfg, gpus=gpus, growth=replace(cfg.growth, batch=divisible))


def _rounded(batch: int, gpus: int, group: int) -> int:
    """`batch` rounded down so that every GPU has equally many images, in whole groups where it has that many."""
    unit = gpus * group if batch >= gpus * group else gpus
    return max(unit, batch - batch % unit)


def _require_settings(cfg: RunConfig, typed: Mapping[str, Any]) -> None:
    """Raises UserError for a typed setting that networks of this family do not have."""
    known = {name for name, _ in leaves(cfg)}
    for name in typed:
        if name not in known:
            flag = FLAGS[name].spellings[0]
            raise UserError(f"{flag} is not a setting of {cfg.model.TITLE}, the network of --cfg {cfg.preset}; leave "
                            "it out, or take another --cfg")  # fmt: skip


def _require_taken(cfg: RunConfig, typed: Mapping[str, Any]) -> None:
    """Raises UserError for a typed setting that networks of this family derive from others."""
    values = dict(leaves(cfg))
    for name, value in typed.items():
        if values[name] != value:
            raise UserError(f"{FLAGS[name].spellings[0]} {shown(value)} is not possible with {cfg.model.TITLE}, where "
                            f"it is {shown(values[name])}; leave it out, or take another --cfg")  # fmt: skip


def _loss_companions(cfg: RunConfig, typed: Mapping[str, Any]) -> dict[str, Any]:
    """The penalties of a loss typed in place of the preset's: WGAN-GP has its own, R3GAN uses R1 and R2 alike."""
    name = typed.get("loss.name", cfg.loss.name)
    if name == cfg.loss.name:
        return {}
    none = PerResolution(0.0)
    if name == "wgan-gp":
        return {"loss.r1_gamma": none, "loss.r2_gamma": none, "loss.r1_interval": 1}
    usual = cfg.loss.r1_gamma if any(cfg.loss.r1_gamma.values()) else LossConfig().r1_gamma
    r1_gamma = typed.get("loss.r1_gamma", usual)
    return {"loss.r1_gamma": r1_gamma, "loss.r2_gamma": r1_gamma if name == "relativistic" else none}


def preset_for(facts: DataFacts) -> str:
    """The preset that suits the size of the data."""
    if facts.resolution <= 32:
        return "digits32"
    if facts.resolution <= 128:
        return f"faces{facts.resolution}"
    return f"ffhq{min(facts.resolution, 1024)}"


def resumed(stored: RunConfig, typed: Mapping[str, Any], images_done: Callable[[], int]) -> RunConfig:
    """The stored configuration of a run, with what may change changed as typed; --kimg prolongs or shortens it.

    A run that was planned by --hours forgets its time once --kimg says how far to go. How its learning rate will fall
    can be said until it does.
    Nothing in training depends on the total, so such a run is the one that was meant to be as long from the start.
    images_done: how far the run has got, asked for only where it matters
    Raises UserError, naming both values, at the first typed setting that contradicts the run.
    """
    if "hours" in typed:
        raise UserError(
            f"--hours {typed['hours']:g} plans a whole run before it begins; leave it out to go on with this one up to "
            f"{stored.total_kimg:g} kimg, or give a larger --kimg to prolong it"
        )
    _require_settings(stored, typed)
    values = dict(leaves(stored))
    changed = {name: value for name, value in typed.items() if value != values[name]}
    for name, value in changed.items():
        if name == "total_kimg" and value < values[name] and 1000 * value < (nimg := images_done()):
            raise UserError(
                f"--kimg {value:g} is over: the run is at {nimg / 1000:.1f} of {values[name]:g} kimg; leave it out, or "
                "give more to prolong the run"
            )
        if name not in FREE_ON_RESUME | AHEAD_ON_RESUME | {"total_kimg"}:
            raise UserError(
                f"{_FLAGS[name].spellings[0]} {shown(value)} contradicts the run, which was started with "
                f"{shown(values[name])}; leave it out, or start a new run with --init-from"
            )
    if "total_kimg" in typed:
        changed |= {"hours": None, "time_limit": None}
    cfg = replaced(stored, changed)
    check(cfg)
    if AHEAD_ON_RESUME & changed.keys():
        name = next(name for name in changed if name in AHEAD_ON_RESUME)
        flag = _FLAGS[name].spellings[0]
        _require_ahead(stored.growth, cfg.growth, images_done(), f"{flag} {shown(typed[name])}")
    return cfg


def _require_ahead(stored: GrowthSchedule, changed: GrowthSchedule, nimg: int, typed: str) -> None:
    """Raises UserError unless the learning rate has been the same so far."""
    if stored.annealed(nimg) < 1:
        raise UserError(
            f"{typed} comes too late: the learning rate has been falling since {stored.anneal_start / 1000:g} kimg; "
            "leave it out, or start a new run with --init-from"
        )
    if changed.annealed(nimg) < 1:
        raise UserError(
            f"{typed}: the run is at {nimg / 1000:.1f} kimg, and the learning rate would have been falling since "
            f"{changed.anneal_start / 1000:g}; add --anneal-from {math.ceil(nimg / 100) / 10:g}, or more"
        )


def same_data(stored: RunConfig, facts: DataFacts, run_dir: Path = Path("RUN")) -> RunConfig:
    """`stored`, once its data are known to be those the run began with. Raises UserError otherwise.

    run_dir: for the message
    """
    if not facts.same(stored):
        raise UserError(
            f"{stored.data.path} is not what the run began with, or has changed since (names or contents). If the same "
            f"images are elsewhere, --resume {run_dir} --data NEWPATH; to go on with these, start a new run with "
            f"--init-from {run_dir}"
        )
    model, classes = stored.model, facts.num_classes if stored.data.cond else 0
    if model.num_classes != classes and stored.data.cond:
        raise UserError(
            f"the number of classes is {model.num_classes} in {run_dir} and {classes} in {stored.data.path}; one of "
            "the two was changed: restore it, or start a new run"
        )
    own = (model.base, model.channels, model.num_classes)
    if own != (facts.base, facts.channels, classes) or model.resolution > facts.resolution:
        raise UserError(
            f"the networks of the run are for other images than {facts.width}x{facts.height} with "
            f"{counted(facts.channels, 'channel')} and {classes} classes, as in {stored.data.path}; its settings are "
            "damaged: restore them, or start a new run"
        )
    data = replace(stored.data, content_hash=facts.content_hash, class_names=(), empty_classes=())
    if data.cond:
        empty = facts.empty_classes(data.subset, stored.seed)
        data = replace(data, class_names=facts.class_names, empty_classes=empty)
    return replace(stored, data=data)


# Which run `--resume auto` means: the newest unfinished one that the same command would have made, or a new one


# Compared elsewhere: the data by `same_data`, and the length by `resumed`, as it counts only where it was typed.
ELSEWHERE = FREE_ON_RESUME | {"data.content_hash", "data.class_names", "data.empty_classes", "total_kimg"}
# What --hours plans when a run begins: it stays, however fast the machine is when the command is repeated.
PLANNED = {"growth.stable_kimg", "growth.fade_kimg", "growth.anneal_from", "growth.anneal_kimg", "time_limit"}


@dataclass(frozen=True)
class Choice:
    """run_dir: of the run that is meant, None for a new one   said: what is chosen, in a line

    saved: it goes on from a state; without one it begins at the start   finished: nothing is left to do
    """

    said: str
    run_dir: Path | None = None
    saved: bool = False
    finished: bool = False


def description(cfg: RunConfig, facts: DataFacts) -> str:
    """What a run is called besides its number."""
    return "-".join(filter(None, [facts.name, cfg.preset, cfg.desc]))


def choose(outdir: Path, typed: Mapping[str, Any], facts: DataFacts, inherits: bool = False) -> Choice:
    """The newest unfinished run in `outdir` that `typed` would have made, else the newest finished one, else a new one.

    inherits: did it begin with the weights of another?
    A run without a state ended before its first save, and is begun again. Writes nothing. Raises UserError, naming both
    values, if the settings contradict those of the newest unfinished run of that description.
    """
    new = resolve(typed, facts)
    desc = description(new, facts)
    # What --init-from takes from a snapshot, unless it is typed; the snapshot may be gone by now.
    taken = {f"model.{name}" for name in new.model.inheritable} if inherits else set()
    free = (AHEAD_ON_RESUME | taken) - typed.keys()
    finished = None
    for run_dir in _runs(outdir, plain_name(desc)):
        stored = parse_options(run_dir / OPTIONS)
        against = _contradiction(stored, typed, facts, free)
        # Of a run planned by --hours, any end is the end: the clock may come before the last image.
        length = stored.total_kimg if stored.time_limit is None else 0.0
        if is_finished(run_dir, typed.get("total_kimg", length)):
            same = not against and facts.same(stored)
            finished = finished or (run_dir if same else None)
        elif has_state(run_dir):
            if against:
                raise UserError(f"--resume auto: {against} in {run_dir}, which is unfinished; repeat what that was "
                                "started with, or start another run with another --desc")  # fmt: skip
            return Choice(f"--resume auto: {run_dir} is unfinished, going on with it", run_dir, saved=True)
        elif not against:
            return Choice(f"--resume auto: {run_dir} ended before its first save, beginning it again", run_dir)
    if finished:
        return Choice(f"--resume auto: {finished} is finished already; --resume {finished} with a larger --kimg "
                      "prolongs it, another --desc starts a new one", finished, saved=True, finished=True)  # fmt: skip
    return Choice(f"--resume auto: no run {desc} in {outdir} to go on with, starting one")


def unplanned(typed: Mapping[str, Any]) -> Mapping[str, Any]:
    """`typed` for a run that goes on: if by --hours, then without it and without what it has planned at the start."""
    return {name: value for name, value in typed.items() if "hours" not in typed or name not in PLANNED | {"hours"}}


def _runs(outdir: Path, name: str) -> list[Path]:
    """Directories of runs of that name, the newest first."""
    found = outdir.glob(f"*-{name}") if outdir.is_dir() else []
    named = [path for path in found if re.fullmatch(r"\d{5,}", path.name[: -len(name) - 1])]
    return sorted((path for path in named if (path / OPTIONS).exists()), key=lambda path: -int(path.name.split("-")[0]))


def _contradiction(stored: RunConfig, typed: Mapping[str, Any], facts: DataFacts, free: set[str]) -> str:
    """The first setting in which a run is not what `typed` would have made, with both values; "" if there is none.

    free: settings that may differ
    """
    made = resolve({**typed, "gpus": stored.gpus}, facts)  # on which some presets depend, and which may change
    elsewhere = ELSEWHERE | free | (PLANNED if made.hours is not None else set())
    for name, ours, theirs in differences(made, stored):
        if name not in elsewhere:
            meant = "" if name in typed else ", which is meant where none is typed,"
            flag = _FLAGS[name].spellings[0] if name in _FLAGS else name
            return f"{flag} {shown(ours)}{meant} contradicts {shown(theirs)}"
    return ""
