"""Measure a network: FID, KID and others. `stylegan metrics --help` explains the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan.cli.options import BATCH, WIDE, ops_option
from stylegan.editing.settings import Attribute, parse_attributes
from stylegan.latents.notation import WHAT, GeneratingOptions
from torch_utils.cli import Command, Option, require, require_batch, settings_options, under
from torch_utils.errors import UserError
from torch_utils.output import FILES, GRID, replaces, require_folder, writing_to
from torch_utils.settings import Flag, replaced, setting
from torch_utils.text import counted, parse_seeds, printable, say

if TYPE_CHECKING:
    from stylegan.checkpoints.snapshot import Snapshot
    from training.data.archive import Archive
    from training.metrics.context import Context
    from training.metrics.evaluate import Result

COMPARED, ATTRIBUTES = "Comparison", "Attributes"
FILES_GIVEN = "files"  # what --rank without seeds ranks


@dataclass(frozen=True)
class Request:
    """The command line."""

    model: GeneratingOptions = GeneratingOptions()
    metrics: str = setting("kid5k_full", Flag(
        "--metrics", "Names, with any number of images; see below. With --fakes, kid of all of them if left out.", WHAT,
        metavar="NAMES", is_list=True))  # fmt: skip
    data: str = setting("", Flag(
        "--data", "Archive or folder to compare with.  [the data that the network was trained on]", COMPARED,
        metavar="ZIP|DIR"))  # fmt: skip
    fakes: str = setting("", Flag(
        "--fakes", "Images of any tool, to measure in place of a network's.", WHAT, metavar="ZIP|DIR"))  # fmt: skip
    per_class: bool = setting(False, Flag("--per-class", "Measure or rank each class by itself.", COMPARED))
    rank: str = setting("", Flag(
        "--rank", "Instead of measuring, rank images by the score of the discriminator: those of --fakes or --data "
        "(else the data that the network was trained on), or generated ones of these seeds.", WHAT, metavar="[SEEDS]",
        bare=FILES_GIVEN))  # fmt: skip
    mirror: bool = setting(False, Flag("--mirror", "Compare with the data and their mirror images.", COMPARED))
    features: str = setting("efficientnet-lite0", Flag(
        "--features", "efficientnet-lite0, inception-2015-12-05 (for the published numbers), lpips-vgg16, lpips-alex, "
        "a TorchScript file, or module:function; the last two are programs, so use only ones that you trust.", COMPARED,
        metavar="NAME"))  # fmt: skip
    weights: str = setting("", Flag(
        "--features-weights", "File with their weights.  [the cache, a package, or a download]", COMPARED,
        metavar="FILE"))  # fmt: skip
    val: str = setting("", Flag(
        "--val", "Images that the network was not trained on, for overfit.", COMPARED, metavar="ZIP|DIR"))  # fmt: skip
    classifier: str = setting("", Flag(
        "--classifier", "File of `directions.py learn`, for ls, dci and purity.", ATTRIBUTES,
        metavar="FILE"))  # fmt: skip
    labels: str = setting("", Flag(
        "--labels", "Instead, a CSV of attributes, from which a classifier learns; its column 'file' names images of "
        "the data.", ATTRIBUTES, metavar="CSV"))  # fmt: skip
    attributes: Sequence[Attribute] = setting((), Flag(
        "--attributes", "Which columns of the CSV, as in smile>0.5,gender=male,yaw.  [all]", ATTRIBUTES,
        parse=parse_attributes))  # fmt: skip
    directions: str = setting("", Flag(
        "--directions", "File of `directions.py find`, for purity.", ATTRIBUTES, metavar="FILE"))  # fmt: skip
    crop: bool = setting(False, Flag(
        "--crop", "Use only the middle of faces, as for the published path length of FFHQ.", COMPARED))  # fmt: skip
    trunc: float = setting(1.0, Flag("--trunc", "Truncation psi of the generated images.", COMPARED))
    seed: int = setting(0, Flag("--seed", "Seed of the generated images, and of everything random.", COMPARED))
    outdir: str = setting("", Flag(
        "--outdir", "Where to add lines to metric-NAME.jsonl.  [the run directory]", FILES, metavar="DIR"))  # fmt: skip
    cache: str = setting("", Flag(
        "--cache", "Folder for the reduced images of --data, in place of the one beside it.", FILES,
        metavar="DIR"))  # fmt: skip
    gpus: int = setting(1, Flag("--gpus", "Number of processes, each on its own GPU if there are GPUs."))
    batch: int | None = setting(None, BATCH)


EPILOG = """\b
Metrics, where N is a number such as 500 or 50k:
  fidN_full, kidN_full       distance to the data, by the Frechet and the kernel measure (KID for few images)
  prN_K_full, dcN_full       precision and recall with K neighbours (pr5k3_full, pr500_3), density and coverage
  isN, swdN, msssimN         inception score, sliced Wasserstein distance, similarity of pairs
  pplN_wfull, wend, zfull, zend     perceptual path length (ppl1k_wend), of 50k paths if N is left out
  lsN, dciN, purityN         separability, disentanglement and purity of directions, by a classifier of attributes
  diversityN, nearestN       whether images differ from each other (collapse), and from the data (copies)
  overfitN                   whether the discriminator has memorised its data
A name may end in features: kid5k_full-inception, ppl1k_wend-discriminator. Without _full, as many images of the data
are used as generated ones, chosen by --seed. With --per-class, N is of each class.
"""

OPTIONS = [
    *settings_options(Request),
    ops_option(),
    under(FILES, Option(["-n", "--dry-run"], is_flag=True, help="Print the plan and stop.")),
]


@click.command(cls=Command, params=OPTIONS, epilog=EPILOG, context_settings=WIDE)
def main(typed: dict[str, Any], dry_run: bool) -> None:
    """Measure how good the images of a network are, and how well its latents are disentangled.

    The name of every result says in which features it was measured: fid5k_full-effnetlite0. Only plain fid5k_full is in
    features of Inception, as published. Features are cached, so a metric that was stopped resumes, and the next one
    uses the same features. A name that there are too few images for is refused.

    \b
      calc_metrics.py --network runs/00001-faces-faces64 --metrics fid5k_full,kid5k_full,pr5k3_full
      calc_metrics.py --network ffhq1024.safetensors --data ffhq.zip --metrics fid50k_full
                      --features inception-2015-12-05 --gpus 8
      calc_metrics.py --fakes out/faces --data faces.zip --metrics kid500_full
      calc_metrics.py --network runs/00001-faces-faces64 --rank --outdir out
    """
    request = replaced(Request(), typed)
    if not request.fakes or request.rank:
        require("--network runs/00000-faces --metrics kid5k_full", network=request.model.network)
    elif request.model.network:
        raise UserError("--fakes are measured in place of the images of a network; leave out --network, or --fakes")
    require_batch(request.batch)
    if request.gpus < 1:
        raise UserError(f"--gpus must be at least 1, got {request.gpus}")
    if not 0 <= request.seed < 2**64:
        raise UserError(f"--seed must be from 0 to {2**64 - 1}, got {request.seed}")
    # Not at the top, because --help should not wait for torch.
    from torch_utils.device import require_workers

    require_workers("--gpus", request.gpus)
    run_dir = run_of(request.model.network)
    outdir = Path(request.outdir) if request.outdir else run_dir
    if outdir is not None:
        require_folder(outdir)
    if request.rank:
        rank(request, run_dir, outdir, dry_run)
    else:
        measure(request, run_dir, outdir, dry_run, "metrics" in typed)


def measure(request: Request, run_dir: Path | None, outdir: Path | None, dry_run: bool, named: bool) -> None:
    """Measure, print the numbers, and add them to files. named: were metrics asked for by name?"""
    # Not at the top, because --help should not wait for torch.
    from training.metrics.evaluate import append, classes_to_measure, evaluate, refused, table, worst_first
    from training.metrics.registry import parse_names

    names = parse_names(request.metrics)
    context = context_of(request, run_dir)
    if request.fakes and not named:
        names = [f"kid{context.fakes.limit}_full"]
    classes: Sequence[int | None] = [None]
    if request.per_class:
        classes, others = classes_to_measure(context)
        if others:
            say(f"Classes left out, as one side has no image of them: {', '.join(map(str, others))}", err=True)
    skipped: dict[str, None] = {}
    files: dict[str, None] = {}
    measured: list[Result] = []

    def skip(name: str, reason: str) -> None:
        where = "" if one.c is None else f" of class {one.c}"
        skipped[f"{name}{where}"] = None
        say(f"{name}{where} was skipped: {reason}", err=True)

    if dry_run:
        say(plan(request, context, names, outdir))
    for c in classes:
        one = replace(context, c=c)
        if dry_run:
            for name, reason in refused(names, one):
                skip(name, reason)
            continue
        for result in evaluate(names, one, skip):
            say(table([result]))
            measured.append(result)
            if outdir is not None:
                files[str(append(outdir, result))] = None
    if request.per_class and (order := worst_first(measured)):
        say(order)
    if files:
        say(f"Added to {', '.join(files)}")
    elif outdir is None and not dry_run:
        say("Not saved; --outdir DIR adds the numbers to files there.", err=True)
    if skipped:
        every = counted(len(names) * len(classes), "metric")
        raise UserError(f"{len(skipped)} of {every} could not be measured: {', '.join(skipped)}")


def rank(request: Request, run_dir: Path | None, outdir: Path | None, dry_run: bool) -> None:
    """Rank images by the discriminator, and write a list and a contact sheet."""
    seeds = [] if request.rank == FILES_GIVEN else parse_seeds(request.rank)
    if seeds and (request.fakes or request.data):
        raise UserError(f"--rank {request.rank} is of generated images; leave out --fakes and --data, or the seeds")
    if outdir is None:
        raise UserError("--outdir is missing; for example: --rank --outdir out")
    from stylegan.latents.render import View, opened
    from torch_utils.files import write_atomically
    from torch_utils.images import encode
    from training.metrics.discriminator import (
        class_sheet,
        contact_sheet,
        discriminator_of,
        listed,
        rank_files,
        rank_seeds,
        require_classes,
        table_of_classes,
    )  # fmt: skip

    view = View.of(opened(request.model, batch=request.batch).snapshot, psi=request.trunc)
    discriminator_of(view.snapshot)
    archive = None if seeds else fakes_of(request.fakes, request.cache) if request.fakes else data_of(request, run_dir)
    if not seeds and archive is None:
        raise UserError("which images? give --fakes or --data NEWPATH, or seeds, as in --rank 0-499")
    if request.per_class:
        require_classes(view.snapshot if archive is None else archive)
    files = [outdir / name for name in ("rank.csv", "rank.png")]
    what = archive.summary if archive is not None else f"{counted(len(seeds), 'seed')}, truncation {view.psi:g}"
    written = f"{', '.join(map(str, files))}{replaces(files)}"
    if dry_run:
        say(f"Network:    {request.model.network}\nImages:     {what}\nFiles:      {written}")
        return
    batch = view.batch(request.batch)
    ranking = rank_seeds(view, seeds, batch) if archive is None else rank_files(
        view.snapshot, archive, batch, labelled=request.per_class)  # fmt: skip
    with writing_to(outdir):
        outdir.mkdir(parents=True, exist_ok=True)
        write_atomically(files[0], listed(ranking, request.per_class).encode("utf-8", "backslashreplace"))
        write_atomically(files[1], encode((class_sheet if request.per_class else contact_sheet)(ranking), "png"))
    if request.per_class:
        names = (archive.class_names if archive else view.snapshot.class_names) or ()
        say(table_of_classes(ranking, names))
    order, scores = ranking.order, ranking.scores
    for title, place in (("Best", order[0]), ("Worst", order[-1])):
        say(f"{title + ':':11} {printable(str(ranking.keys[place]))}, score {scores[place]:+.3f}")
    say(f"Ranked {counted(len(order), 'image')}: {written}")


def run_of(network: str) -> Path | None:
    """The directory of the run that a network comes from; None if it comes from elsewhere."""
    path = Path(network)
    folder = path if path.is_dir() else path.parent
    return folder if network and path.exists() and (folder / "training_options.json").is_file() else None


def data_of(request: Request, run_dir: Path | None) -> Archive | None:
    """The data to compare with, or that of the run, as far as it can be opened: without, some work is still possible.

    Raises UserError if what was asked for cannot be opened.
    """
    from training.data.archive import Archive
    from training.runs.run_dir import OPTIONS as RUN_OPTIONS
    from training.runs.run_dir import parse_options

    if request.data:
        return Archive.open(request.data, request.cache)
    trained = parse_options(run_dir / RUN_OPTIONS).data if run_dir else None
    if trained is None or not trained.path:
        return None
    try:
        archive = Archive.open(trained.path, request.cache)
    except UserError as error:
        say(f"The data that the network was trained on cannot be opened: {error}. If they are elsewhere now, give "
            "their new place with --data NEWPATH", err=True)  # fmt: skip
        return None
    if trained.content_hash and not archive.is_what(trained.content_hash):
        say(f"{trained.path} has changed since the network was trained on it; if the data are elsewhere now, give "
            "their new place with --data NEWPATH", err=True)  # fmt: skip
    return archive


def fakes_of(path: str, cache: str) -> Archive:
    """Images in files. Raises UserError if there are none, and for a grid that `generate.py` wrote beside them."""
    from training.data.archive import Archive

    if (Path(path) / GRID).is_file():
        raise UserError(f"{Path(path) / GRID} is a grid of the other images; move it out of {path}")
    return Archive.open(path, cache)


def context_of(request: Request, run_dir: Path | None) -> Context:
    """Open the network or the images, the data, and the files for single metrics.

    Raises UserError if one cannot be used.
    """
    from stylegan.checkpoints.locate import locate
    from stylegan.latents.render import View, opened
    from torch_utils.device import GENERATING, pick_device, set_gpu_math
    from training.data.archive import Archive
    from training.metrics.context import Aids, Context
    from training.metrics.feature_store import Compute

    source: Snapshot | Archive
    if request.fakes:
        if request.model.precision != "fp32":
            raise UserError("--precision has no effect with --fakes, which are not generated here; leave it out")
        set_gpu_math(GENERATING)
        source, file, psi = fakes_of(request.fakes, request.cache), request.fakes, 1.0
        device, batch = pick_device(request.model.device), request.batch or 8
    else:
        network = request.model.network
        view = View.of(opened(request.model, batch=request.batch).snapshot, psi=request.trunc)
        source, psi, device = view.snapshot, view.psi, view.snapshot.device
        batch = view.batch(request.batch)
        file = network if network.startswith("http") else str(locate(network))
    aids = Aids(
        classifier=_path(request.classifier), table=_path(request.labels), attributes=request.attributes,
        directions=_path(request.directions),
        validation=Archive.open(request.val, request.cache) if request.val else None,
        sheets=Path(request.outdir) if request.outdir else run_dir, crop=request.crop, say=say,
    )  # fmt: skip
    return Context(
        source=source, data=data_of(request, run_dir), features=request.features,
        weights=Path(request.weights) if request.weights else None, seed=request.seed, psi=psi, mirror=request.mirror,
        compute=Compute(device, batch, request.gpus), aids=aids, file=file,
    )  # fmt: skip


def _path(text: str) -> Path | None:
    """None for "". Raises UserError for a file that does not exist."""
    if text and not Path(text).exists():
        raise UserError(f"there is no file {text}; check the name")
    return Path(text) if text else None


def plan(request: Request, context: Context, names: Sequence[str], outdir: Path | None) -> str:
    """The text that --dry-run prints."""
    from training.data.archive import Archive
    from training.metrics.evaluate import fakes_of
    from training.metrics.registry import parse

    asked = [(name, parse(name, request.features)) for name in names]
    fakes = [f"{name} ({counted(fakes_of(*found), 'fake')})" for name, found in asked]
    if isinstance(context.source, Archive):
        source = [f"Fakes:      {context.source.summary}"]
    else:
        snapshot, (height, width) = context.snapshot, context.size
        source = [f"Network:    {context.file}: {snapshot.kimg:g} kimg of {snapshot.data}, {width}x{height}",
                  f"Fakes:      seed {context.seed}, truncation {context.psi:g}"]  # fmt: skip
    mirrored = ", also mirrored" if context.mirror else ""
    return "\n".join([
        *source,
        f"Data:       {context.data.summary if context.data else 'none'}{mirrored}",
        f"Metrics:    {', '.join(fakes)}{', of each class by itself' if request.per_class else ''}",
        f"Features:   {request.features}",
        f"Files:      {f'{outdir}/metric-*.jsonl' if outdir else 'none; --outdir writes some'}",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
