"""Make pictures with a trained network. `python generate.py --help` explains the options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from stylegan.cli.options import (
    RenderingOptions,
    SourceOptions,
    about_network,
    about_photographs,
    check_steps,
    opened,
    tool_options,
)
from stylegan.latents.notation import LATENTS
from torch_utils.cli import Command, require, require_batch
from torch_utils.output import FILES, Output, check_output, planned_files, require_folder, write_images
from torch_utils.settings import Flag, replaced, setting
from torch_utils.text import counted, require_each_once

if TYPE_CHECKING:
    import numpy as np

    from stylegan.latents.latents import Latents
    from stylegan.latents.render import View

SAVED = f"pictures{LATENTS}"


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    rendering: RenderingOptions = RenderingOptions()
    start: SourceOptions = SourceOptions()
    output: Output = Output()
    save_latents: bool = setting(False, Flag("--save-latents", f"Also {SAVED}, for the other tools.", FILES))
    batch: int = setting(8, Flag("--batch", "Pictures in work at once. Does not change them."))


@click.command(cls=Command, params=tool_options(Request), context_settings={"max_content_width": 110})
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
    from stylegan.latents import sources as points
    from stylegan.latents.latents import save_latents
    from stylegan.projection.photos import projecting, standing_in

    start, output = request.start, request.output
    view = opened(request.rendering, start.force)
    kinds = points.classes_of(start.seeds, start.classes, view.config.num_classes)
    find = partial(points.opened, start.seeds, view, kinds, force=start.force)
    found = find(project=standing_in)  # so that what cannot be is said before any projection
    names = output.names(points.names_of(found))
    check_output(output, len(names), view.config.channels)
    files = planned_files(output, names, [SAVED] * request.save_latents, start.seeds)
    if dry_run:
        chosen = sorted({kind for kind in kinds if kind is not None})
        about = [f"Classes:    {', '.join(map(str, chosen)) or 'none'}", f"Files:      {files}"]
        photos = about_photographs(start.seeds, view, start.num_steps)
        click.echo("\n".join(about_network(request.rendering.network, view, len(names)) + photos + about))
        return
    found = find(project=projecting(start.num_steps, request.batch))
    kept: list[Latents] = []
    parts = points.in_batches(found, view, kinds, request.batch)
    write_images(output, names, drawn(parts, view, request, kept))
    if request.save_latents:
        save_latents(output.folder / SAVED, points.together(kept, view), view.snapshot)
    click.echo(f"{counted(len(names), 'picture')}: {files}")


def check(request: Request) -> None:
    """Raises UserError for what no network could serve."""
    start, output = request.start, request.output
    require("--network runs/00000-faces --seeds 0-35 --outdir out", network=request.rendering.network,
            seeds=start.seeds, outdir=output.outdir)  # fmt: skip
    require_each_once([point for point in start.seeds if isinstance(point, int)])
    require_batch(request.batch)
    check_steps(start.num_steps)
    require_folder(output.folder)


def drawn(parts: Iterator[Latents], view: View, request: Request, kept: list[Latents]) -> Iterator[np.ndarray]:
    """The pictures, uint8 [N,H,W,C], --batch at a time. `kept` gets their latents, if they are to be saved."""
    from torch_utils.images import to_uint8

    for part in parts:
        if request.save_latents:
            kept.append(part)
        yield to_uint8(view.draw(part, request.batch))


if __name__ == "__main__":
    main()
