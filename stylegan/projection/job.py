"""A projection of many photographs as a job: in batches, with the files of each as soon as it is done, and resumable.

The output directory gets NAME.latent.safetensors and NAME.png of each photograph; with pivotal tuning also
NAME.delta.safetensors, and on request a film of the search. report.json tells the distances, and with which settings
each photograph was projected, so that a job does only what is missing or would come out differently.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.editing.film_files import write_film
from stylegan.latents.latents import SUFFIX, Latents, joined, load_latents, save_latents
from stylegan.projection.distance import Distance
from stylegan.projection.photos import Photo, as_targets, named, show
from stylegan.projection.pivotal_tuning import DELTA, apply_delta, nearby_statistics, save_delta, tune
from stylegan.projection.projector import (
    Projector,
    Report,
    SearchPhase,
    SearchStep,
    distances_between,
    mean_square_errors,
    phases,
)
from stylegan.projection.records import (
    PIXELS,
    START,
    Record,
    hash_of,
    is_of,
    read_report,
    reason_to_repeat,
    write_report,
)
from stylegan.projection.sequences import frames_before
from stylegan.projection.settings import ProjectionSettings, TuningSettings, by_flag
from torch_utils.checkpoint import load_state, save_state
from torch_utils.errors import UserError, in_words
from torch_utils.files import write_atomically
from torch_utils.images import encode, enlarge, to_uint8
from torch_utils.interrupt import deferred_interrupts
from torch_utils.progress import Progress
from torch_utils.text import counted, printable

STATE = "projection-state.pt"
SAVE_EVERY_S = 15.0
FILM_PIXELS, FILM_FPS, FILM_FRAMES = 256, 20, 90

Say = Callable[[str], object]


@dataclass(frozen=True)
class Job:
    """What is done with each photograph, and where the results go.

    tuning: settings of pivotal tuning, None for none   also: further distances to report
    batch: how many photographs to project at a time   film: its file type, "" for none
    overwrite: whether results of other photographs, and other files, may be replaced
    starts: latents to start at, one for all or one for each; none for the mean of w
    sequence: whether each starts where the one before ended; then only the first can have a start
    """

    snapshot: Snapshot
    settings: ProjectionSettings
    distance: Distance
    outdir: Path
    tuning: TuningSettings | None = None
    also: tuple[Distance, ...] = ()
    batch: int = 8
    film: str = ""
    overwrite: bool = False
    starts: tuple[Latents, ...] = ()
    sequence: bool = False

    def file(self, name: str, suffix: str) -> Path:
        return self.outdir / f"{name}{suffix}"

    def files(self, name: str) -> list[Path]:
        """What a search writes for tools and viewers, without which it is not done."""
        return [self.file(name, SUFFIX), *([self.file(name, f".{self.film}")] if self.film else [])]

    def touched(self, name: str) -> list[Path]:
        """What a search writes, or deletes because it no longer belongs to the latents."""
        return [*self.files(name), self.file(name, ".png"), self.file(name, DELTA)]

    def parts(self, photo: Photo, c: int | None) -> dict[str, Any]:
        """All that the latents of a photograph depend on."""
        return {
            PIXELS: hash_of(photo.pixels), "network": self.snapshot.fingerprint, **by_flag(self.settings),
            "--class": c, "--distance": self.distance.name,
        }  # fmt: skip


def run(job: Job, photos: Sequence[Photo], c: Tensor | None = None, say: Say = print) -> list[Record]:
    """Project all that is not done yet, tune where that is asked for; the record of each photograph, in their order.

    c: classes [N]. say: gets a line on what is done again, and why, and on an interrupt what has been saved.
    An interrupt waits for the end of a step, and until the search has been saved; a second one does not.
    Raises UserError where the files cannot be written, as `replaced_files` does, and as `Projector.project` and `tune`.
    """
    replaced_files(job, photos, c)
    parts = _parts_of_each(job, photos, c)
    records = read_report(job.outdir)
    reasons = {name: reason_to_repeat(records.get(name), own, job.files(name)) for name, own in parts.items()}
    _say_why(reasons, "projected again", say)
    todo = [i for i, photo in enumerate(photos) if reasons[photo.name] is not None]
    projector = Projector(job.snapshot, job.settings, job.distance)
    recent: dict[str, Latents] = {}
    try:
        with deferred_interrupts() as stopping:
            before = _before(job, photos)
            for rows in _batches(job, todo):
                batch, own = [photos[i] for i in rows], None if c is None else c[rows]
                start = _start_of(job, photos, rows, before, recent)
                recent = _project_batch(job, projector, batch, own, parts, records, stopping, start)
            if job.tuning is not None:
                _tune_each(job, job.tuning, photos, recent, records, stopping, say)
            _report_more(job, projector, photos, records)
    except OSError as error:
        raise UserError(f"cannot write to {job.outdir}: {in_words(error)}") from error
    except KeyboardInterrupt:
        done = sum(reason_to_repeat(records.get(name), own, job.files(name)) is None for name, own in parts.items())
        saved = "nothing else is saved, and the same command starts with the rest"
        if (job.outdir / STATE).is_file():
            saved = f"the search in progress is saved in {job.outdir}, and the same command resumes it"
        say(f"{done} of {counted(len(photos), 'photograph')} projected; {saved}")
        raise
    return [records[photo.name] for photo in photos]


def replaced_files(job: Job, photos: Sequence[Photo], c: Tensor | None = None) -> list[Path]:
    """The files that `run` would replace or delete.

    Raises UserError for those that are not of the same photograph, unless the job may overwrite them.
    """
    records, found, foreign = read_report(job.outdir), list[Path](), list[str]()
    parts = _parts_of_each(job, photos, c)
    for photo in photos:
        record = records.get(photo.name)
        existing = [path for path in job.touched(photo.name) if path.exists()]
        own = is_of(record, photo) or (record is None and _holds(job.file(photo.name, SUFFIX), photo))
        if existing and not own:
            whose = f"of {record['file']}" if record else "not in the report there"
            foreign.append(f"{existing[0]} is {whose}")
        if not own or reason_to_repeat(record, parts[photo.name], job.files(photo.name)) is not None:
            found += existing
        elif record is not None and job.tuning is not None:
            pivot = {"pivot": record["key"], **by_flag(job.tuning)}
            if reason_to_repeat(record.get("pti"), pivot, [job.file(photo.name, DELTA)]) is not None:
                found += [path for path in existing if path.suffix == ".png" or path.name.endswith(DELTA)]
    if foreign and not job.overwrite:
        others = f", and so on: {len(foreign)} names are taken" if len(foreign) > 1 else ""
        raise UserError(f"{printable(foreign[0])}, and would be replaced{others}; name another --outdir, or replace "
                        "with --overwrite")  # fmt: skip
    return found


def _holds(path: Path, photo: Photo) -> bool:
    """Whether a latent file says of itself that it is of this photograph, as after an interrupt before the report."""
    try:
        return path.exists() and photo.crop is not None and photo.crop in load_latents(path, None).crops
    except UserError:
        return False


def _parts_of_each(job: Job, photos: Sequence[Photo], c: Tensor | None) -> dict[str, dict[str, Any]]:
    """All that the latents of each photograph depend on, by its name."""
    kinds = [None] * len(photos) if c is None else c.tolist()
    found: dict[str, dict[str, Any]] = {}
    before = _before(job, photos)
    for i, (photo, kind) in enumerate(zip(photos, kinds, strict=True)):
        own = job.parts(photo, kind)
        if (frame := before[i]) is not None:
            own[START] = hash_of(found[photos[frame].name])
        elif start := _given(job, i):
            own[START] = hash_of(*(tensor.cpu().numpy() for tensor in (start.ws, *start.noise)))
        found[photo.name] = own
    return found


def _before(job: Job, photos: Sequence[Photo]) -> list[int | None]:
    """The number of the photograph where the search for each starts; None for no other."""
    return frames_before(photos) if job.sequence else [None] * len(photos)


def _given(job: Job, i: int) -> Latents | None:
    """The latents that were given for the search of a photograph to start at."""
    return job.starts[i if len(job.starts) > 1 else 0] if job.starts else None


def _batches(job: Job, todo: Sequence[int]) -> list[list[int]]:
    """Photographs that are projected together: of those that start alike, in W or in W+, with or without noise maps."""

    def kind(i: int) -> tuple[bool, int]:
        start = _given(job, i)
        return (False, 0) if start is None else (start.plus, len(start.noise))

    if job.sequence:
        return [[i] for i in todo]
    alike: dict[tuple[bool, int], list[int]] = {}
    for i in todo:
        alike.setdefault(kind(i), []).append(i)
    return [rows[at : at + job.batch] for rows in alike.values() for at in range(0, len(rows), job.batch)]


def _start_of(
    job: Job, photos: Sequence[Photo], rows: Sequence[int], before: Sequence[int | None], recent: Mapping[str, Latents]
) -> Latents | None:  # fmt: skip
    """The latents at which the search for some photographs starts; None for the mean of w.

    before: of each photograph   recent: latents that are still in memory, by name
    """
    if (frame := before[rows[0]]) is not None:
        name = photos[frame].name
        return recent[name] if name in recent else load_latents(job.file(name, SUFFIX), job.snapshot)
    given = [start for i in rows if (start := _given(job, i))]
    return joined(given) if given else None


# The work


def _project_batch(
    job: Job, projector: Projector, photos: Sequence[Photo], c: Tensor | None, parts: Mapping[str, dict[str, Any]],
    records: dict[str, Record], stopping: Callable[[], bool], start: Latents | None,
) -> dict[str, Latents]:  # fmt: skip
    """Project some photographs at once, write their files and add their records; their latents by name."""
    searched = phases(job.settings, start)
    total = sum(phase.steps for phase in searched)
    targets = as_targets(photos)
    keys = [hash_of(parts[photo.name]) for photo in photos]
    saved = _SavedSearch.opened(job.outdir / STATE, hash_of(keys, bool(job.film)))
    label = photos[0].name if len(photos) == 1 else f"{len(photos)} photos"
    with Progress(f"Projecting {label}", total, unit="step") as bar:
        bar.move_to(saved.steps_done(searched), bar.total)

        def watch(step: SearchStep) -> None:
            show(bar, step)
            if job.film and is_frame(step, total):
                saved.frames.append(to_uint8(torch.cat([targets, step.images.cpu()], dim=3)))
            stop = stopping()
            if stop or saved.is_due:
                saved.write(step.state())
            if stop:
                raise KeyboardInterrupt

        latents, report = projector.project(targets, c, watch, saved.state, start)
    latents = named(latents, photos)
    starts = _distances(job, projector.mean_images(latents.c, len(latents)), targets)
    found = _distances(job, report.images, targets, report)
    job.outdir.mkdir(parents=True, exist_ok=True)  # not earlier, so that it never stays empty
    for i, (photo, key) in enumerate(zip(photos, keys, strict=True)):
        save_latents(job.file(photo.name, SUFFIX), latents[i : i + 1], job.snapshot)
        _save_comparison(job, photo.name, report.images[i : i + 1], targets[i : i + 1])
        job.file(photo.name, DELTA).unlink(missing_ok=True)  # it was tuned to the latents that are replaced
        if job.film:
            write_film(job.file(photo.name, f".{job.film}"), film_of([frame[i] for frame in saved.frames]), FILM_FPS)
        records[photo.name] = {
            "name": photo.name, "file": str(photo.path.resolve()), "face": photo.face, "key": key,
            "parts": parts[photo.name], "notes": list(photo.notes), "distance": job.distance.name,
            "space": job.settings.space, "steps": report.steps,
            "seconds": round((report.seconds + saved.seconds) / len(photos), 2),
            "mean": starts[i], "found": found[i],
        }  # fmt: skip
    write_report(job.outdir, records)
    saved.path.unlink(missing_ok=True)
    return {photo.name: _as_from_file(latents[i : i + 1]) for i, photo in enumerate(photos)}


def _as_from_file(latents: Latents) -> Latents:
    """In memory of its own, as kernels may add up in another order where memory begins elsewhere."""
    return replace(latents, ws=latents.ws.clone(), noise=tuple(m.clone() for m in latents.noise))


def _tune_each(
    job: Job, tuning: TuningSettings, photos: Sequence[Photo], recent: Mapping[str, Latents],
    records: dict[str, Record], stopping: Callable[[], bool], say: Say,
) -> None:  # fmt: skip
    """A changed network for each photograph, made from its pivot only, so that none depends on the others.

    recent: latents that are still in memory, by name; the others are opened from their files.
    """
    parts = {photo.name: {"pivot": records[photo.name]["key"], **by_flag(tuning)} for photo in photos}
    reasons = {
        name: reason_to_repeat(records[name].get("pti"), own, [job.file(name, DELTA)]) for name, own in parts.items()
    }
    _say_why(reasons, "tuned again", say)
    todo = [photo for photo in photos if reasons[photo.name] is not None]
    w_statistics = nearby_statistics(job.snapshot)
    steps = tuning.steps * len(todo)
    with Progress(f"Tuning to {counted(len(todo), 'photo')}", steps, unit="step", quiet=not todo) as bar:

        def watch(step: int, distances: Tensor, images: Tensor) -> None:
            bar.advance(note=f"{float(distances.mean()):.4f}")
            if stopping():
                raise KeyboardInterrupt

        for photo in todo:
            targets = as_targets([photo])
            file = job.file(photo.name, SUFFIX)
            pivot = recent[photo.name] if photo.name in recent else load_latents(file, job.snapshot)
            _, delta, report = tune(job.snapshot, pivot, targets, tuning, job.distance, watch, w_statistics)
            (found,) = _distances(job, report.images, targets, report)
            save_delta(job.file(photo.name, DELTA), delta, job.snapshot)
            _save_comparison(job, photo.name, report.images, targets)
            records[photo.name]["pti"] = {
                "key": hash_of(parts[photo.name]), "parts": parts[photo.name], "steps": report.steps,
                "seconds": round(report.seconds, 2), "found": found,
            }  # fmt: skip
            write_report(job.outdir, records)


def _report_more(job: Job, projector: Projector, photos: Sequence[Photo], records: dict[str, Record]) -> None:
    """Add distances that are asked for now to the records of photographs that were projected earlier."""
    for photo in photos:
        record, targets = records[photo.name], as_targets([photo])
        if all(distance.name in record["found"] for distance in job.also):
            continue
        latents = load_latents(job.file(photo.name, SUFFIX), job.snapshot)
        noise = latents.noise or "const"
        (record["mean"],) = _distances(job, projector.mean_images(latents.c, 1), targets)
        (record["found"],) = _distances(job, job.snapshot.renderer.draw(latents.ws, noise), targets)
        if "pti" in record:
            tuned = apply_delta(job.snapshot, job.file(photo.name, DELTA))
            (record["pti"]["found"],) = _distances(job, tuned.renderer.draw(latents.ws, noise), targets)
        write_report(job.outdir, records)


def _distances(job: Job, images: Tensor, targets: Tensor, report: Report | None = None) -> list[dict[str, float]]:
    """All distances of each image [N,C,H,W] to its target, and its mean square error. report: of the same images."""
    columns: dict[str, Tensor] = {}
    for d in (job.distance, *job.also):
        known = report.distance if report is not None and d is job.distance else None
        columns[d.name] = distances_between(images, targets, d, job.snapshot.device) if known is None else known
    columns["mse"] = mean_square_errors(images, targets) if report is None else report.mse
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(images))]


def _save_comparison(job: Job, name: str, found: Tensor, targets: Tensor) -> None:
    (pixels,) = to_uint8(side_by_side(found, targets))
    write_atomically(job.file(name, ".png"), encode(pixels, "png"), durable=False)


def side_by_side(found: Tensor, targets: Tensor) -> Tensor:
    """target | what was found | their difference, black where there is none. [N,C,H,W] -> [N,C,H,3W]."""
    return torch.cat([targets, found.clamp(-1, 1), (found.clamp(-1, 1) - targets).abs() - 1], dim=3)


def is_frame(step: SearchStep, total: int) -> bool:
    """Whether a step of `total` is shown in the film: some FILM_FRAMES of them are, and the last of each phase."""
    return step.step % max(1, total // FILM_FRAMES) == 0 or step.step == step.steps - 1


def film_of(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Frames uint8 [H,W,C], enlarged for the viewer; the last is shown for a second."""
    large = list(enlarge(np.stack(frames), max(1, FILM_PIXELS // frames[0].shape[0])))
    return large + large[-1:] * FILM_FPS


def _say_why(reasons: Mapping[str, str | None], what: str, say: Say) -> None:
    """A line for each reason, with the photographs that have it. reasons: by name; None or "" for nothing to say."""
    for reason in dict.fromkeys(filter(None, reasons.values())):
        say(f"{', '.join(name for name, own in reasons.items() if own == reason)}: {what}, because {reason}")


# The search in progress, on disk


@dataclass
class _SavedSearch:
    """A search that can be resumed: its state is saved every SAVE_EVERY_S, and on an interrupt.

    key: a hash of all that it depends on   state: where to resume, None for the start
    frames: of its film, uint8 [N,H,W,C] each   seconds: that it took before it was interrupted
    """

    path: Path
    key: str
    state: dict[str, Any] | None = None
    frames: list[np.ndarray] = field(default_factory=list)
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)

    @staticmethod
    def opened(path: Path, key: str) -> _SavedSearch:
        """With the state in the file, if it belongs to this very search. Raises UserError for a damaged file."""
        if not path.is_file():
            return _SavedSearch(path, key)
        try:
            found = load_state(path)
        except (OSError, pickle.UnpicklingError) as error:
            raise UserError(f"{path}, the search to resume, cannot be read; delete it to start again") from error
        if found.get("key") != key:
            return _SavedSearch(path, key)
        frames = [frame.numpy() for frame in found.pop("frames")]
        return _SavedSearch(path, key, found, frames, found.pop("seconds"))

    def steps_done(self, searched: Sequence[SearchPhase]) -> int:
        if self.state is None:
            return 0
        before = searched[: [phase.name for phase in searched].index(self.state["stage"])]
        return int(self.state["step"]) + sum(phase.steps for phase in before)

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self.saved > SAVE_EVERY_S

    def write(self, state: Mapping[str, Any]) -> None:
        """Save the state after a step."""
        seconds = self.seconds + time.monotonic() - self.started
        frames = [torch.from_numpy(frame) for frame in self.frames]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_state(self.path, {"key": self.key, **state, "frames": frames, "seconds": seconds})
        self.saved = time.monotonic()


# For people


def table(records: Sequence[Record]) -> str:
    """A line for each photograph and one for their mean; each distance of the mean of w, as found, and as tuned."""
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
