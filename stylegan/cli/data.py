"""Make an archive for training from a folder, zip, tar, LMDB, MNIST, CIFAR-10 or CelebA; or download a public data set.

dataset_tool.py --source photos/ --dest photos64.zip --resolution 64
dataset_tool.py download cifar10
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import click

from torch_utils.cli import Group, Option, settings_options, under
from torch_utils.files import cache_folder
from torch_utils.settings import replaced
from training.data.importers.catalogue import CATALOGUE, fetch
from training.data.importers.rules import IMAGES, Rules


class ConvertByDefault(Group):
    """Without a command's name in front, the options are those of `convert`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx):
            args = ["convert", *args]
        return super().parse_args(ctx, args)


def default_workers() -> int:
    """One thread for each usable core."""
    from torch_utils.device import cpu_threads

    return cpu_threads()


FILE = click.Path(path_type=Path)
DOWNLOADS = partial(cache_folder, "datasets")
FILES, WORKERS = "Files", click.IntRange(min=1)
SOURCE = Option(["--source"], type=FILE, required=True, help="Folder, zip, tar, LMDB, IDX, CIFAR-10 or CelebA.")
DEST = Option(["--dest"], type=FILE, required=True, help="Zip file to write.")
SKIP_LIST = Option(["--skip-list"], type=FILE, help="Write name and reason of every skipped image to this file.")
UPSCALE = Option(["--upscale"], is_flag=True, help="Enlarge images that are too small instead of skipping them.")
workers = click.option("--workers", type=WORKERS, default=default_workers, help="Threads. [default: cores]")
overwrite = click.option("--overwrite", is_flag=True, help="Replace --dest if it exists.")


@click.group(cls=ConvertByDefault)
def main() -> None:
    """Make an archive for training. `convert` is meant where no command is named.

    \b
    dataset_tool.py --source photos/ --dest photos64.zip --resolution 64
    dataset_tool.py download cifar10
    """
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image stands in the table


@main.command(
    params=[
        *(under(FILES, option) for option in (SOURCE, DEST, SKIP_LIST)),
        *settings_options(Rules),
        under(IMAGES, UPSCALE),
    ]
)
@click.option("-n", "--dry-run", is_flag=True, help="Look and report, write nothing.")
@overwrite
@workers
def convert(
    source: Path,
    dest: Path,
    skip_list: Path | None,
    typed: dict[str, Any],
    upscale: bool,
    dry_run: bool,
    overwrite: bool,
    workers: int,
) -> None:
    """Turn images of any kind into an archive of images of one size.

    Looks at everything first and says what it found. An image that cannot be used is left out, and named at the end.
    """
    # Here and not above: numpy and Pillow take a moment to load, and Ctrl-C may come meanwhile.
    from training.data.importers.convert import Job, run

    job = Job(source, dest, overwrite, dry_run, workers, skip_list)
    run(job, replaced(Rules(), {**typed, "upscale": upscale}))
    click.echo("Nothing was written (dry run)" if job.dry_run else f"Wrote {job.dest}")


@main.command("download")
@click.argument("name", type=click.Choice(list(CATALOGUE)))
@click.option("--dest", type=FILE, help="Zip file to write. [default: NAME.zip]")
@click.option("--cache", type=FILE, default=DOWNLOADS, help="Folder for the files as they come.")
@overwrite
@workers
def download_dataset(name: str, dest: Path | None, cache: Path, overwrite: bool, workers: int) -> None:
    """Fetch a public data set and make an archive of it. A download that was cut off goes on where it stopped."""
    from training.data.importers.convert import Job, check_dest, run

    dataset = CATALOGUE[name]
    folder = cache / name
    job = Job(folder, dest or Path(f"{name}.zip"), overwrite=overwrite, workers=workers)
    check_dest(job)
    click.echo(f"{dataset.title}; licence: {dataset.licence}")
    job = Job(fetch(dataset, folder), job.dest, overwrite=overwrite, workers=workers)
    meta: dict[str, Any] = {"source": dataset.title, "licence": dataset.licence}
    if dataset.class_names:
        meta["class_names"] = list(dataset.class_names)
    run(job, Rules(), meta)
    click.echo(f"Wrote {job.dest}")


if __name__ == "__main__":
    main()
