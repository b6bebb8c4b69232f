"""Measure a network: FID, KID and others. `stylegan metrics --help` explains the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylegan.cli.options import BATCH, WIDE, ops_option
from stylegan.editing.settings import Attribute, parse_attributes
from stylegan.latents.notation import WHAT, NetworkOptions
from torch_utils.cli import Command, Option, require, require_batch, settings_options, under
from torch_utils.errors import UserError
from torch_utils.output import FILES, require_folder
from torch_utils.settings import Flag, replaced, setting
from torch_utils.text import counted, say

if TYPE_CHECKING:
    from training.metrics.context import Context

COMPARED, ATTRIBUTES = "Comparison", "Attributes"


@dataclass(frozen=True)
class Request:
    """The command line."""

    model: NetworkOptions = NetworkOptions()
    metrics: str = setting("kid5k_full", Flag(
        "--metrics", "Names, with any number of images; see below.", WHAT, metavar="NAMES", is_list=True))  # fmt: skip
    data: str = setting("", Flag(
        "--data", "Archive or folder to compare with.  [the data that the network was trained on]", COMPARED,
        metavar="ZIP|DIR"))  # fmt: skip
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
    batch: int = setting(8, BATCH)


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
are used as generated ones, chosen by --seed.
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
    uses the same features.

    \b
      calc_metrics.py --network runs/00001-faces-faces64 --metrics fid5k_full,kid5k_full,pr5k3_full
      calc_metrics.py --network ffhq1024.safetensors --data ffhq.zip --metrics fid50k_full
                      --features inception-2015-12-05 --gpus 8
    """
    request = replaced(Request(), typed)
    require("--network runs/00000-faces --metrics kid5k_full", network=request.model.network)
    require_batch(request.batch)
    if request.gpus < 1:
        raise UserError(f"--gpus must be at least 1, got {request.gpus}")
    if not 0 <= request.seed < 2**64:
        raise UserError(f"--seed must be from 0 to {2**64 - 1}, got {request.seed}")
    # Not at the top, because --help should not wait for torch.
    from torch_utils.device import require_workers
    from training.metrics.evaluate import append, evaluate, table
    from training.metrics.registry import parse_names

    require_workers("--gpus", request.gpus)
    names = parse_names(request.metrics)
    run_dir = run_of(request.model.network)
    context = context_of(request, run_dir)
    outdir = Path(request.outdir) if request.outdir else run_dir
    if outdir is not None:
        require_folder(outdir)
    if dry_run:
        say(plan(request, context, names, outdir))
        return
    skipped: list[str] = []
    files: list[str] = []

    def skip(name: str, reason: str) -> None:
        skipped.append(name)
        say(f"{name} was skipped: {reason}", err=True)

    for result in evaluate(names, context, skip):
        say(table([result]))
        if outdir is not None:
            append(outdir, result)
            files.append(str(outdir / f"metric-{result.metric}.jsonl"))
    if files:
        say(f"Added to {', '.join(files)}")
    if skipped:
        every = counted(len(names), "metric")
        raise UserError(f"{len(skipped)} of {every} could not be measured: {', '.join(skipped)}")


def run_of(network: str) -> Path | None:
    """The directory of the run that a network comes from; None if it comes from elsewhere."""
    path = Path(network)
    folder = path if path.is_dir() else path.parent
    return folder if path.exists() and (folder / "training_options.json").is_file() else None


def context_of(request: Request, run_dir: Path | None) -> Context:
    """Open the network, its data, and the files for single metrics. Raises UserError if one cannot be used."""
    from stylegan.checkpoints.locate import locate
    from stylegan.latents.render import View, opened
    from training.data.archive import Archive
    from training.metrics.context import Aids, Context
    from training.metrics.feature_store import Compute
    from training.runs.run_dir import OPTIONS as RUN_OPTIONS
    from training.runs.run_dir import parse_options

    network = request.model.network
    view = View.of(opened(request.model).snapshot, psi=request.trunc)
    trained = parse_options(run_dir / RUN_OPTIONS).data if run_dir and not request.data else None
    where = request.data or (trained.path if trained else "")
    archive = Archive.open(where, request.cache) if where else None
    if archive and trained and trained.content_hash and not archive.is_what(trained.content_hash):
        say(f"{where} has changed since the network was trained on it", err=True)
    aids = Aids(
        classifier=_path(request.classifier), table=_path(request.labels), attributes=request.attributes,
        directions=_path(request.directions),
        validation=Archive.open(request.val, request.cache) if request.val else None,
        sheets=Path(request.outdir) if request.outdir else run_dir, crop=request.crop, say=say,
    )  # fmt: skip
    return Context(
        snapshot=view.snapshot, data=archive, features=request.features,
        weights=Path(request.weights) if request.weights else None,
        seed=request.seed, psi=view.psi, mirror=request.mirror,
        compute=Compute(view.snapshot.device, request.batch, request.gpus), aids=aids,
        file=network if network.startswith("http") else str(locate(network)),
    )  # fmt: skip


def _path(text: str) -> Path | None:
    """None for "". Raises UserError for a file that does not exist."""
    if text and not Path(text).exists():
        raise UserError(f"there is no file {text}; check the name")
    return Path(text) if text else None


def plan(request: Request, context: Context, names: Sequence[str], outdir: Path | None) -> str:
    """The text that --dry-run prints."""
    from training.metrics.evaluate import fakes_of
    from training.metrics.registry import parse

    asked = [(name, parse(name, request.features)) for name in names]
    fakes = [f"{name} ({counted(fakes_of(*found, context), 'fake')})" for name, found in asked]
    height, width = context.snapshot.config.size(context.snapshot.stage.resolution)
    mirrored = ", also mirrored" if context.mirror else ""
    return "\n".join([
        f"Network:    {context.file}: {context.snapshot.kimg:g} kimg of {context.snapshot.data}, {width}x{height}",
        f"Data:       {context.data.summary if context.data else 'none'}{mirrored}",
        f"Metrics:    {', '.join(fakes)}",
        f"Features:   {request.features}",
        f"Fakes:      seed {context.seed}, truncation {context.psi:g}",
        f"Files:      {f'{outdir}/metric-*.jsonl' if outdir else 'none; --outdir writes some'}",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
