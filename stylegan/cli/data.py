"""Make a training archive from images, or download a public data set. `stylegan data --help` explains the options."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import click

from torch_utils.cli import Group, Option, settings_options, under
from torch_utils.files import cache_folder
from torch_utils.settings import replaced
from torch_utils.text import say
from training.data.importers.catalogue import CATALOGUE, fetch
from training.data.importers.rules import IMAGES, Rules


class ConvertByDefault(Group):
    """A group whose options belong to `convert` if they do not follow the name of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx):
            args = ["convert", *args]
        return super().parse_args(ctx, args)


def bounded_workers(workers: int) -> int:
    """Raises UserError for more threads than this machine can use."""
    from torch_utils.device import require_workers

    require_workers("--workers", workers)
    return workers


def default_workers() -> int:
    """The number of usable cores."""
    from torch_utils.device import cpu_threads

    return cpu_threads()


FILE = click.Path(path_type=Path)
DOWNLOADS = partial(cache_folder, "datasets")
FILES, WORKERS = "Files", click.IntRange(min=1)
SOURCE = Option(
    ["--source"],
    type=FILE,
    required=True,
    help="Folder, zip, tar, LMDB, IDX, CIFAR-10, CelebA, TFRecord, HDF5, .npy or .npz.",
)
DEST = Option(["--dest"], type=FILE, required=True, help="Zip file to write.")
SKIP_LIST = Option(["--skip-list"], type=FILE, help="Write the name of each skipped image, and why, to this file.")
UPSCALE = Option(["--upscale"], is_flag=True, help="Enlarge images that are too small instead of skipping them.")
workers = click.option(
    "--workers", type=WORKERS, default=default_workers, help="Number of threads. [default: usable cores]"
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace --dest if it exists.")


@click.group(cls=ConvertByDefault)
def main() -> None:
    """Make an archive for training. The command may be left out: it is then `convert`.

    \b
    dataset_tool.py --source photos/ --dest photos64.zip --resolution 64
    dataset_tool.py download cifar10
    """
    warnings.filterwarnings("ignore", module="PIL")  # the table lists images with problems


CONVERT = [
    *(under(FILES, option) for option in (SOURCE, DEST, SKIP_LIST)), *settings_options(Rules), under(IMAGES, UPSCALE),
]  # fmt: skip


@main.command(params=CONVERT)
@click.option("-n", "--dry-run", is_flag=True, help="Print the report, and write nothing.")
@overwrite
@workers
def convert(
    source: Path, dest: Path, skip_list: Path | None, typed: dict[str, Any], upscale: bool, dry_run: bool,
    overwrite: bool, workers: int,
) -> None:  # fmt: skip
    """Convert images of any kind into an archive of images with the same size and mode.

    This first inspects all files and reports what it found. Images that cannot be used are left out and listed.
    """
    # Not at the top, because numpy and Pillow take a moment to load, and Ctrl-C should work in the meantime.
    from training.data.importers.convert import Job, run

    job = Job(source, dest, overwrite, dry_run, bounded_workers(workers), skip_list)
    run(job, replaced(Rules(), {**typed, "upscale": upscale}))
    say("Nothing was written (dry run)" if job.dry_run else f"Wrote {job.dest}")


@main.command("download")
@click.argument("name", type=click.Choice(list(CATALOGUE)))
@click.option("--dest", type=FILE, help="Zip file to write. [default: NAME.zip]")
@click.option("--cache", type=FILE, default=DOWNLOADS, help="Folder for the downloaded files.")
@overwrite
@workers
def download_dataset(name: str, dest: Path | None, cache: Path, overwrite: bool, workers: int) -> None:
    """Download a public data set and make an archive of it. An interrupted download resumes where it stopped."""
    from training.data.importers.convert import Job, check_dest, run

    dataset = CATALOGUE[name]
    folder = cache / name
    job = Job(folder, dest or Path(f"{name}.zip"), overwrite=overwrite, workers=bounded_workers(workers))
    check_dest(job)
    say(f"{dataset.title}; licence: {dataset.licence}")
    job = Job(fetch(dataset, folder), job.dest, overwrite=overwrite, workers=workers)
    meta: dict[str, Any] = {"source": dataset.title, "licence": dataset.licence}
    if dataset.class_names:
        meta["class_names"] = list(dataset.class_names)
    run(job, Rules(), meta)
    say(f"Wrote {job.dest}")


if __name__ == "__main__":
    main()
