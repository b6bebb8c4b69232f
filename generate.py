"""Make pictures with a trained network. `python generate.py --help` explains the options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from stylegan.kernels import ops_option
from stylegan.view import WHAT, View
from torch_utils.cli import Command, Option, settings_options, under
from torch_utils.errors import UserError
from torch_utils.output import FILES, Output, check_output, in_words
from torch_utils.ranges import parse_classes, parse_seeds, require_each_once
from torch_utils.settings import Flag, replaced, setting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from stylegan.painter import Painter


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    view: View = View()
    seeds: Sequence[int] = setting((), Flag("--seeds", "Which pictures, as in 0-35,40.", WHAT, parse=parse_seeds))
    classes: Sequence[int] = setting((), Flag(
        "--class", "Class, for conditional networks. Of a list as in 0-9, seed S gets number S, counted round.", WHAT,
        parse=parse_classes, metavar="CLASS"))  # fmt: skip
    output: Output = Output()
    batch: int = setting(8, Flag("--batch", "Pictures in work at once. Does not change them."))


OPTIONS = [
    *settings_options(Request),
    ops_option(),
    under(FILES, Option(["-n", "--dry-run"], is_flag=True, help="Print what would be made and stop.")),
]


@click.command(cls=Command, params=OPTIONS, context_settings={"max_content_width": 110})
def main(typed: dict[str, Any], dry_run: bool) -> None:
    """Make the picture of each seed: seed 17 is the same picture whatever the batch, on every machine.

    \b
      generate.py --network runs/00000-mnist-digits32 --seeds 0-35 --class 0-9 --outdir out --grid
      generate.py --network karras2019stylegan-ffhq-1024x1024.pkl --seeds 17 --trunc 0.5 --outdir out
      generate.py --network ffhq1024.safetensors --seeds 0-9999 --format zip --outdir out
    """
    request = replaced(Request(), typed)
    check(request)
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from stylegan import painter as painters
    from stylegan.classes import classes_for_seeds
    from torch_utils.writing import write_pictures

    painter = painters.open_painter(request.view)
    config, seeds, output = painter.snapshot.config, request.seeds, request.output
    check_output(output, len(seeds), config.channels)
    c = classes_for_seeds(request.classes, seeds, config.num_classes)
    names = output.names(f"seed{seed:04d}" for seed in seeds)
    if dry_run:
        chosen = "none" if c is None else ", ".join(map(str, sorted(set(c.tolist()))))
        about = [f"Classes:    {chosen}", f"Files:      {in_words(output, names)}"]
        click.echo("\n".join(painters.in_words(painter, len(seeds)) + about))
        return
    write_pictures(output, names, drawn(painter, request, c))
    click.echo(f"{len(seeds)} pictures: {in_words(output, names)}")


def check(request: Request) -> None:
    """Raises UserError for what no network could serve."""
    needed = (("--network", request.view.network), ("--seeds", request.seeds), ("--outdir", request.output.outdir))
    for flag, value in needed:
        if not value:
            raise UserError(f"{flag} is missing; for example: --network runs/00000-faces --seeds 0-35 --outdir out")
    require_each_once(request.seeds)
    if request.batch < 1:
        raise UserError(f"--batch {request.batch} is no number of pictures; use 1 or more")


def drawn(painter: Painter, request: Request, c: Tensor | None) -> Iterator[np.ndarray]:
    """The pictures, uint8 [N,H,W,C], --batch at a time; classes c [N]."""
    from torch_utils.images import to_uint8

    for start in range(0, len(request.seeds), request.batch):
        part = slice(start, start + request.batch)
        yield to_uint8(painter.paint(request.seeds[part], None if c is None else c[part], request.batch))


if __name__ == "__main__":
    main()
