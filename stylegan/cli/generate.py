"""Generate images with a trained network. `stylegan generate --help` explains the options."""

from __future__ import annotations

from dataclasses import dataclass

from stylegan.cli.options import (
    BATCH,
    SourceOptions,
    about_network,
    check_tool,
    projecting,
    say_unused,
    standing_in,
    tool,
)
from stylegan.latents.notation import RenderingOptions
from torch_utils.cli import require
from torch_utils.output import FILES, Output, check_output, planned_files, write_images
from torch_utils.settings import Flag, setting
from torch_utils.text import counted, listed_classes, require_each_once, say

SAVED = "pictures.latent.safetensors"


@dataclass(frozen=True)
class Request:
    """The command line."""

    rendering: RenderingOptions = RenderingOptions()
    start: SourceOptions = SourceOptions()
    output: Output = Output()
    save_latents: bool = setting(False, Flag("--save-latents", f"Also write {SAVED}, for the other tools.", FILES))
    batch: int | None = setting(None, BATCH)


@tool(Request)
def main(request: Request, dry_run: bool) -> None:
    """Generate the image of each seed. Seed 17 gives the same image on every machine, and in any batch of a CPU.

    \b
      generate.py --network runs/00000-mnist-digits32 --seeds 0-35 --class 0-9 --outdir out --grid
      generate.py --network runs/00002-pets-faces64 --seeds 5 --each-class --outdir out
      generate.py --network karras2019stylegan-ffhq-1024x1024.pkl --seeds 17 --trunc 0.5 --outdir out
      generate.py --network runs/00001-faces-faces64 --seeds 0-3,eva.latent.safetensors --outdir out
      generate.py --network ffhq1024.safetensors --seeds 0-9999 --format zip --outdir out
    """
    check(request)
    # Not at the top, because --help should not wait for torch.
    from stylegan.latents.latents import save_latents
    from stylegan.latents.render import Sources, opened, together

    start, output = request.start, request.output
    view = opened(request.rendering, start.force, request.batch)
    sources = Sources.of(start.seeds, view, start.classes, force=start.force, each_class=start.each_class)
    # With stand-ins for photographs, so that every mistake is reported before any projection.
    names = output.names(sources.projected(standing_in).names)
    check_output(output, len(names), view.snapshot.config.channels)
    say_unused(view, request.rendering, start.seeds, sources)
    files = planned_files(output, names, [SAVED] * request.save_latents, start.seeds)
    if dry_run:
        classes = sorted({c for c in sources.classes if c is not None})
        listed = listed_classes(classes, view.snapshot.class_names)
        lines = about_network(request.rendering.network, view, len(names), start.seeds, start.num_steps)
        lines += [f"Classes:    {listed or 'none'}", f"Files:      {files}"]
        say("\n".join(lines))
        return
    batch = view.batch(request.batch)
    batches = sources.projected(projecting(start.num_steps, request.batch)).batches(batch)
    kept = list(batches) if request.save_latents else []
    write_images(output, names, (view.pixels(latents, batch) for latents in kept or batches))
    if kept:
        save_latents(output.folder / SAVED, together(kept, view), view.snapshot)
    say(f"{counted(len(names), 'image')}: {files}")


def check(request: Request) -> None:
    """Raises UserError for options that are missing or invalid for any network."""
    start, output = request.start, request.output
    require("--network runs/00000-faces --seeds 0-35 --outdir out", network=request.rendering.network,
            seeds=start.seeds, outdir=output.outdir)  # fmt: skip
    require_each_once([point for point in start.seeds if isinstance(point, int)])
    check_tool(request.batch, start.num_steps, output.folder)


if __name__ == "__main__":
    main()
