"""`stylegan VERB`: all commands behind one name. Each is imported only when it is used.

The scripts at the root of the repository are the same commands under the names that the field knows.
"""

from __future__ import annotations

import importlib

import click

from torch_utils.cli import Group

VERBS = {
    "train": "Train a network on a folder or archive of images.",
    "generate": "Generate images from seeds, latents or photographs.",
    "mix": "Mix the styles of images: a matrix of rows and columns.",
    "film": "Make a film of a walk from image to image.",
    "project": "Find the latents of real images, also with pivotal tuning.",
    "directions": "Find directions in latent space, and move images along them.",
    "metrics": "Measure a network: FID, KID, precision and recall, path length, ...",
    "data": "Make a training archive from images, or download a public data set.",
    "convert": "Convert a published network file or a snapshot.",
    "doctor": "Check this machine: versions, compilers, caches and every fused op.",
}
"""Each command is the `main` of the module of its name in this folder. Its line is for `stylegan --help`."""


class LazyGroup(Group):
    """A group that imports the module of a command when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"stylegan.cli.{name}").main
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup, context_settings={"max_content_width": 110})
def main() -> None:
    """Grow, explore and edit with StyleGAN.

    \b
      stylegan generate --network faces64 --seeds 0-31 --outdir out --grid
      stylegan train --outdir runs --data faces.zip --cfg faces64
      stylegan train --help
    """


if __name__ == "__main__":
    main()
