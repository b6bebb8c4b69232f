"""Make pictures with a trained network. `python generate.py --help` explains the options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from stylegan.kernels import ops_option
from stylegan.start import LATENTS, Start
from stylegan.view import View
from torch_utils.cli import Command, Option, require, require_batch, settings_options, under
from torch_utils.output import FILES, Output, check_output, in_words
from torch_utils.ranges import require_each_once
from torch_utils.settings import Flag, replaced, setting

if TYPE_CHECKING:
    import numpy as np

    from stylegan.latent_file import Latents
    from stylegan.painter import Painter

SAVED = f"pictures{LATENTS}"


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    view: View = View()
    start: Start = Start()
    output: Output = Output()
    save_latents: bool = setting(False, Flag("--save-latents", f"Also {SAVED}, for the other tools.", FILES))
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
      generate.py --network runs/00001-faces-faces64 --seeds 0-3,eva.latent.safetensors --outdir out
      generate.py --network ffhq1024.safetensors --seeds 0-9999 --format zip --outdir out
    """
    request = replaced(Request(), typed)
    check(request)
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from stylegan import painter as painters
    from stylegan import points
    from stylegan.classes import classes_for_seeds
    from stylegan.latent_file import save_latents
    from torch_utils.writing import write_pictures

    painter = painters.open_painter(request.view)
    start, config, output = request.start, painter.snapshot.config, request.output
    found = points.opened(start.seeds, painter, force=start.force)
    stems = points.names_of(found)
    check_output(output, len(stems), config.channels)
    seeds = [point for point in found if isinstance(point, int)]
    c = classes_for_seeds(start.classes, seeds, config.num_classes) if seeds or start.classes else None
    names = output.names(stems)
    files = in_words(output, names) + (f", {output.folder / SAVED}" if request.save_latents else "")
    if dry_run:
        chosen = "none" if c is None else ", ".join(map(str, sorted(set(c.tolist()))))
        about = [f"Classes:    {chosen}", f"Files:      {files}"]
        click.echo("\n".join(painters.in_words(painter, len(names)) + about))
        return
    kept: list[Latents] = []
    parts = points.in_batches(found, painter, start.classes, request.batch)
    write_pictures(output, names, drawn(parts, painter, request, kept))
    if request.save_latents:
        save_latents(output.folder / SAVED, points.together(kept, painter), painter.snapshot)
    click.echo(f"{len(names)} pictures: {files}")


def check(request: Request) -> None:
    """Raises UserError for what no network could serve."""
    seeds = request.start.seeds
    require("--network runs/00000-faces --seeds 0-35 --outdir out", network=request.view.network, seeds=seeds,
            outdir=request.output.outdir)  # fmt: skip
    require_each_once([point for point in seeds if isinstance(point, int)])
    require_batch(request.batch)


def drawn(parts: Iterator[Latents], painter: Painter, request: Request, kept: list[Latents]) -> Iterator[np.ndarray]:
    """The pictures, uint8 [N,H,W,C], --batch at a time. `kept` gets their latents, if they are to be saved."""
    from torch_utils.images import to_uint8

    for part in parts:
        if request.save_latents:
            kept.append(part)
        yield to_uint8(painter.draw(part, request.batch))


if __name__ == "__main__":
    main()
