"""The files of a projection: latents, tuned weights and pictures of each photo, one report of all, and how to go on."""

from __future__ import annotations

import hashlib
import json
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.latents.latents import SUFFIX, Latents, load_latents, save_latents
from stylegan.projection.distance import Distance
from stylegan.projection.photos import Photo, as_targets
from stylegan.projection.pivotal_tuning import apply_delta, save_delta, tune
from stylegan.projection.project_photos import as_pictures, named, show, total_steps
from stylegan.projection.projector import centre_of_w, project
from stylegan.projection.settings import DELTA, Moment, ProjectionSettings, TuningSettings
from torch_utils.checkpoint import load_state, save_state
from torch_utils.errors import UserError
from torch_utils.files import write_atomically
from torch_utils.images import encode, enlarge, to_uint8
from torch_utils.interrupt import deferred_interrupts
from torch_utils.output import write_film
from torch_utils.progress import Progress
from torch_utils.settings import leaves
from torch_utils.text import counted
from torch_utils.untrusted import read_json

REPORT, STATE = "report.json", "projection-state.pt"
FILM_PIXELS, FILM_FPS = 256, 20


@dataclass(frozen=True)
class Folder:
    """Where all of it goes."""

    path: Path

    def latents(self, name: str) -> Path:
        return self.path / f"{name}{SUFFIX}"

    def delta(self, name: str) -> Path:
        return self.path / f"{name}{DELTA}"

    def picture(self, name: str) -> Path:
        return self.path / f"{name}.png"

    def film(self, name: str, kind: str) -> Path:
        return self.path / f"{name}.{kind}"

    def make(self) -> None:
        """Only when there is something to put into it, so that none is left empty."""
        self.path.mkdir(parents=True, exist_ok=True)

    def records(self) -> dict[str, dict[str, Any]]:
        """What report.json says of each photo, by name; none where there is no report, or not one of ours."""
        try:
            photos = read_json(self.path / REPORT)["photos"]
            return {photo["name"]: photo for photo in photos}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{self.path / REPORT} is not a report of this tool; move it away") from error

    def record(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Write report.json, whole or not at all."""
        text = json.dumps({"photos": list(records.values())}, indent=1) + "\n"
        write_atomically(self.path / REPORT, text.encode())

    def state(self, key: str) -> dict[str, Any] | None:
        """What a search that was interrupted left behind, if it was this very one."""
        path = self.path / STATE
        if not path.is_file():
            return None
        try:
            found = load_state(path)
        except (OSError, pickle.UnpicklingError) as error:
            raise UserError(f"{path} cannot be read; delete it to begin anew") from error
        return found if found.get("key") == key else None

    def keep_state(self, key: str, state: Mapping[str, Any]) -> None:
        self.make()
        save_state(self.path / STATE, {"key": key, **state})

    def saved_in_words(self) -> str:
        """What an interrupt leaves."""
        if (self.path / STATE).is_file():
            return f"and the search under way is saved in {self.path}; the same command goes on from there"
        return "nothing else is saved; the same command begins with the rest"

    def drop_state(self) -> None:
        (self.path / STATE).unlink(missing_ok=True)


def key_of(*parts: Any) -> str:
    """A hash of plain data and arrays, to tell whether something that was made is still what is asked for."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part, sort_keys=True).encode())
    return found.hexdigest()[:16]


def film_of(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Frames uint8 [H,W,C], enlarged to be seen; the last stays for a while."""
    large = list(enlarge(np.stack(frames), max(1, FILM_PIXELS // frames[0].shape[0])))
    return large + large[-1:] * FILM_FPS


# What a projection depends on, part by part, to tell what is done from what is to be made anew, and why


OLDER = "it was made with other settings, or by an older version"


@dataclass(frozen=True)
class Wanted:
    """All that something depends on. key: a hash of it   parts: the same as plain data, by flags or in a word"""

    key: str
    parts: dict[str, Any]


def wanted(**parts: Any) -> Wanted:
    """parts: plain data by a word, and settings, whose parts go by their flags."""
    plain: dict[str, Any] = {}
    for word, value in parts.items():
        plain |= by_flag(value) if isinstance(value, (ProjectionSettings, TuningSettings)) else {word: value}
    return Wanted(key_of(plain), plain)


def by_flag(settings: ProjectionSettings | TuningSettings) -> dict[str, Any]:
    """Each setting's value under the flag that sets it."""
    fields = type(settings).__dataclass_fields__
    return {fields[name].metadata["flag"].spelling: value for name, value in leaves(settings)}


def changes(record: Mapping[str, Any], now: Wanted) -> str | None:
    """What is other than when `record` was made, in words; None if nothing is."""
    if record.get("key") == now.key:
        return None
    before = record.get("parts")
    if before is None:
        return OLDER
    found = [
        f"{name} was {before.get(name)}, is {value}" if name.startswith("-") else f"another {name}"
        for name, value in now.parts.items() if before.get(name) != value
    ]  # fmt: skip
    return ", ".join(found) or OLDER


def say_why(reasons: Mapping[str, str | None], what: str, say: Callable[[str], object]) -> None:
    """A line for each reason, with the photos that it is of. reasons: by photo; None or "" for nothing to say."""
    for reason in dict.fromkeys(filter(None, reasons.values())):
        say(f"{', '.join(name for name, own in reasons.items() if own == reason)}: {what}, as {reason}")


# A projection of many photos as a job: in batches, each photo's files as soon as it is done, and resumable


SAVE_EVERY_S = 15.0
FRAMES = 90

Records = dict[str, dict[str, Any]]
Measures = list[dict[str, float]]


@dataclass(frozen=True)
class Job:
    """tuning: None for none. also: distances that are reported besides. film: the kind of one of each search, or ""."""

    snapshot: Snapshot
    settings: ProjectionSettings
    tuning: TuningSettings | None
    distance: Distance
    folder: Folder
    also: tuple[Distance, ...] = ()
    batch: int = 8
    film: str = ""

    def wanted(self, photo: Photo, c: int | None) -> Wanted:
        """All that a photo's latents depend on."""
        return wanted(
            picture=key_of(photo.pixels), network=self.snapshot.fingerprint, settings=self.settings,
            **{"--class": c, "--distance": self.distance.name},
        )  # fmt: skip

    def measured(self, found: Tensor, targets: Tensor) -> list[dict[str, float]]:
        """For each of the pictures [N,C,H,W] on the CPU: every distance, and the mean square, to its target."""
        device = self.snapshot.device
        rows = []
        with torch.no_grad():
            for a, b in zip(found.split(1), targets.split(1), strict=True):
                row = {d.name: float(d(a.to(device), b.to(device))) for d in (self.distance, *self.also)}
                rows.append(row | {"mse": float((a - b).square().mean())})
        return rows


def run(
    job: Job, photos: Sequence[Photo], c: Tensor | None = None, say: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """Project all that is not done yet, tune where that is asked for; the report of each photo, in their order.

    c: classes [N]. say: hears of what is made anew, and why, and when it is interrupted of what is done.
    An interrupt waits for the end of a step, and for the search to be saved; a second one does not.
    Raises UserError where the files cannot be written, and as `project` and `tune` do.
    """
    kinds = [None] * len(photos) if c is None else [int(kind) for kind in c]
    goals = {photo.name: job.wanted(photo, kind) for photo, kind in zip(photos, kinds, strict=True)}
    records = job.folder.records()
    reasons = {photo.name: _reason(job, records, photo.name, goals[photo.name]) for photo in photos}
    say_why(reasons, "projected anew", say)
    todo = [i for i, photo in enumerate(photos) if reasons[photo.name] is not None]
    try:
        with deferred_interrupts() as stopping:
            for start in range(0, len(todo), job.batch):
                rows = todo[start : start + job.batch]
                batch = _Batch([photos[i] for i in rows], None if c is None else c[rows], goals)
                _project_batch(job, batch, records, stopping)
            if job.tuning is not None:
                _tune_each(job, job.tuning, photos, records, stopping, say)
            _report_more(job, photos, records)
    except OSError as error:
        raise UserError(f"cannot write to {job.folder.path}: {error.strerror or error}") from error
    except KeyboardInterrupt:
        done = sum(_reason(job, records, name, goal) is None for name, goal in goals.items())
        say(f"{done} of {counted(len(photos), 'photo')} projected, {job.folder.saved_in_words()}")
        raise
    return [records[photo.name] for photo in photos]


def _reason(job: Job, records: Records, name: str, goal: Wanted) -> str | None:
    """Why a photo is to be projected, "" where it never was; None where that is done."""
    if name not in records:
        return ""
    for path in [job.folder.latents(name), *([job.folder.film(name, job.film)] if job.film else [])]:
        if not path.is_file():
            return f"{path.name} is missing"
    return changes(records[name], goal)


@dataclass(frozen=True)
class _Batch:
    """Photos that are projected at once. c: their classes [N]   goals: by name"""

    photos: Sequence[Photo]
    c: Tensor | None
    goals: Mapping[str, Wanted]


def _project_batch(job: Job, batch: _Batch, records: Records, stopping: Callable[[], bool]) -> None:
    photos, c = batch.photos, batch.c
    targets = as_targets(photos)
    keys = [batch.goals[photo.name].key for photo in photos]
    diary = _Diary(job, targets, key_of(keys, bool(job.film)))
    resume = diary.resumed()
    names = photos[0].name if len(photos) == 1 else f"{len(photos)} photos"
    with Progress(f"Projecting {names}", total_steps(job.settings), unit="step") as bar:
        bar.move_to(diary.steps_done(resume), bar.total)

        def watch(moment: Moment) -> None:
            show(bar, moment)
            diary.note(moment, at_once=stopping())
            if stopping():
                raise KeyboardInterrupt

        latents, report = project(job.snapshot, targets, job.settings, job.distance, c, watch, resume)
    latents = named(latents, photos)
    pictures, before, after = _measures(job, latents, targets, c)
    job.folder.make()
    for i, (photo, key) in enumerate(zip(photos, keys, strict=True)):
        save_latents(job.folder.latents(photo.name), latents[i : i + 1], job.snapshot)
        _save_picture(job, photo.name, pictures[i : i + 1], targets[i : i + 1])
        job.folder.delta(photo.name).unlink(missing_ok=True)  # it was tuned to what is replaced
        if job.film:
            write_film(job.folder.film(photo.name, job.film), film_of([frame[i] for frame in diary.frames]), FILM_FPS)
        records[photo.name] = {
            "name": photo.name, "file": str(photo.path), "key": key, "parts": batch.goals[photo.name].parts,
            "notes": list(photo.notes), "distance": job.distance.name, "space": job.settings.space,
            "steps": report.steps, "seconds": round((report.seconds + diary.seconds_before) / len(photos), 2),
            "mean": before[i], "found": after[i],
        }  # fmt: skip
    job.folder.record(records)
    job.folder.drop_state()


def _measures(job: Job, latents: Latents, targets: Tensor, c: Tensor | None) -> tuple[Tensor, Measures, Measures]:
    """The pictures of what was found, and every distance of the mean picture, and of these, to the targets."""
    G, renderer = job.snapshot.G, job.snapshot.renderer
    pictures = renderer.draw(latents.ws, latents.noise or "const", job.batch)
    centre, _ = centre_of_w(G, len(latents), c if c is None else c.to(job.snapshot.device), job.settings)
    start = renderer.draw(G.broadcast(centre), "const", job.batch)
    return pictures, job.measured(start, targets), job.measured(pictures, targets)


def _report_more(job: Job, photos: Sequence[Photo], records: Records) -> None:
    """Distances that are asked for now, of what was found earlier."""
    for photo in photos:
        record, name, targets = records[photo.name], photo.name, as_targets([photo])
        if all(distance.name in record["found"] for distance in job.also):
            continue
        latents = load_latents(job.folder.latents(name), job.snapshot)
        _, (record["mean"],), (record["found"],) = _measures(job, latents, targets, latents.c)
        if "pti" in record:
            tuned = apply_delta(job.snapshot, job.folder.delta(name))
            (record["pti"]["found"],) = job.measured(tuned.renderer.draw(latents.ws, latents.noise or "const"), targets)
        job.folder.record(records)


def _save_picture(job: Job, name: str, found: Tensor, targets: Tensor) -> None:
    (pixels,) = to_uint8(as_pictures(found, targets))
    job.folder.picture(name).write_bytes(encode(pixels, "png"))


def _tune_each(
    job: Job, tuning: TuningSettings, photos: Sequence[Photo], records: Records, stopping: Callable[[], bool],
    say: Callable[[str], object],
) -> None:  # fmt: skip
    """A changed network for each photo, made from its pivot alone, so that no photo depends on the others."""
    goals = {photo.name: wanted(pivot=records[photo.name]["key"], tuning=tuning) for photo in photos}
    reasons = {name: _reason_to_tune(job, records[name], goal) for name, goal in goals.items()}
    say_why(reasons, "tuned anew", say)
    todo = [photo for photo in photos if reasons[photo.name] is not None]
    steps = tuning.steps * len(todo)
    with Progress(f"Tuning to {counted(len(todo), 'photo')}", steps, unit="step", quiet=not todo) as bar:

        def seen(step: int, distances: Tensor, pictures: Tensor) -> None:
            bar.advance(note=f"{float(distances.mean()):.4f}")
            if stopping():
                raise KeyboardInterrupt

        for photo in todo:
            targets = as_targets([photo])
            pivot = load_latents(job.folder.latents(photo.name), job.snapshot)
            _, delta, report = tune(job.snapshot, pivot, targets, tuning, job.distance, seen)
            save_delta(job.folder.delta(photo.name), delta, job.snapshot)
            tuned = apply_delta(job.snapshot, job.folder.delta(photo.name))
            found = tuned.renderer.draw(pivot.ws, pivot.noise or "const")
            _save_picture(job, photo.name, found, targets)
            goal, (measured,) = goals[photo.name], job.measured(found, targets)
            records[photo.name]["pti"] = {
                "key": goal.key, "parts": goal.parts, "steps": report.steps, "seconds": round(report.seconds, 2),
                "found": measured,
            }  # fmt: skip
            job.folder.record(records)


def _reason_to_tune(job: Job, record: Mapping[str, Any], goal: Wanted) -> str | None:
    """As `_reason`, for the tuned network."""
    if "pti" not in record:
        return ""
    path = job.folder.delta(record["name"])
    return changes(record["pti"], goal) if path.is_file() else f"{path.name} is missing"


@dataclass
class _Diary:
    """Keeps a search's state on disk now and then, and frames of it, beside the targets, where a film is made."""

    job: Job
    targets: Tensor
    key: str
    frames: list[np.ndarray] = field(default_factory=list)
    seconds_before: float = 0.0
    started: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)

    def resumed(self) -> dict[str, Any] | None:
        """The state to go on from, if there is one."""
        found = self.job.folder.state(self.key)
        if found is not None:
            self.frames = [frame.numpy() for frame in found.pop("frames")]
            self.seconds_before = found.pop("seconds")
        return found

    def steps_done(self, resume: dict[str, Any] | None) -> int:
        if resume is None:
            return 0
        return int(resume["step"]) + (self.job.settings.num_steps if resume["stage"] == "w+" else 0)

    def note(self, moment: Moment, at_once: bool = False) -> None:
        """at_once: keep the state now, and not only now and then."""
        every = max(1, total_steps(self.job.settings) // FRAMES)
        if self.job.film and (moment.step % every == 0 or moment.step == moment.steps - 1):
            self.frames.append(to_uint8(torch.cat([self.targets, moment.pictures.cpu()], dim=3)))
        if at_once or time.monotonic() - self.saved > SAVE_EVERY_S:
            seconds = self.seconds_before + time.monotonic() - self.started
            frames = [torch.from_numpy(frame) for frame in self.frames]
            self.job.folder.keep_state(self.key, moment.state() | {"frames": frames, "seconds": seconds})
            self.saved = time.monotonic()


def table(records: Sequence[dict[str, Any]]) -> str:
    """The report for people: a line per photo and their mean; each number for the mean picture, found, and tuned."""
    columns = [("mean", [r["mean"] for r in records]), ("found", [r["found"] for r in records])]
    if all("pti" in r for r in records):
        columns.append(("tuned", [r["pti"]["found"] for r in records]))
    measures = [name for name in records[0]["found"] if all(name in row for _, rows in columns for row in rows)]
    lines = [["", *(f"{m} {kind}" for m in measures for kind, _ in columns), "steps", "s"]]
    for i, r in enumerate(records):
        seconds = r["seconds"] + r.get("pti", {}).get("seconds", 0)
        lines.append([r["name"], *(f"{rows[i][m]:.4f}" for m in measures for _, rows in columns),
                      str(r["steps"] + r.get("pti", {}).get("steps", 0)), f"{seconds:.1f}"])  # fmt: skip
    if len(records) > 1:
        means = [f"{np.mean([row[m] for row in rows]):.4f}" for m in measures for _, rows in columns]
        lines.append(["mean of all", *means, "", ""])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
    )
