"""Which run `--resume auto` means: the newest unfinished one that the same command would have made, or a new one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_utils.errors import UserError
from torch_utils.settings import declared, differences, shown
from training.config import BORROWED_FLAGS, RunConfig
from training.resolve import AHEAD_ON_RESUME, FREE_ON_RESUME, DataFacts, resolve
from training.rundir import OPTIONS, has_state, is_finished, parse_options, plain_name

# Told apart elsewhere: the data by `same_data`, and the length by `resumed`, as it counts only where it was typed.
ELSEWHERE = FREE_ON_RESUME | {"data.content_hash", "total_kimg"}
# What --hours plans when a run begins: it stays, however fast the machine is when the command is repeated.
PLANNED = {"growth.stable_kimg", "growth.fade_kimg", "growth.anneal_from", "growth.anneal_kimg", "time_limit"}
# What --init-from takes from a snapshot, unless it is typed; the snapshot may be gone by now.
INHERITED = {"model.fmap_base", "model.fmap_max", "model.d_fmap_max"}


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
    desc = description(resolve(typed, facts), facts)
    free = (AHEAD_ON_RESUME | (INHERITED if inherits else set())) - typed.keys()
    finished = None
    for run_dir in _runs(outdir, plain_name(desc)):
        stored = parse_options(run_dir / OPTIONS)
        against = _contradiction(stored, typed, facts, free)
        # Of a run planned by --hours, any end is the end: the clock may come before the last image.
        length = stored.total_kimg if stored.time_limit is None else 0.0
        if is_finished(run_dir, typed.get("total_kimg", length)):
            same = not against and stored.data.content_hash in ("", facts.content_hash)
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
                      "prolongs it, another --desc starts anew", finished, saved=True, finished=True)  # fmt: skip
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
    flags = {found.name: found.flag.spellings[0] for found in declared(RunConfig, BORROWED_FLAGS)}
    made = resolve({**typed, "gpus": stored.gpus}, facts)  # on which some presets depend, and which may change
    elsewhere = ELSEWHERE | free | (PLANNED if made.hours is not None else set())
    for name, ours, theirs in differences(made, stored):
        if name not in elsewhere:
            meant = "" if name in typed else ", which is meant where none is typed,"
            return f"{flags.get(name, name)} {shown(ours)}{meant} contradicts {shown(theirs)}"
    return ""
