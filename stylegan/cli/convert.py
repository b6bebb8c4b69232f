"""Turn a published StyleGAN or ProGAN network file (.pkl) into a snapshot (.safetensors) that every tool here opens,
or a snapshot into one of half the size.

python convert.py --source karras2019stylegan-ffhq-1024x1024.pkl --dest ffhq1024.safetensors
python convert.py --source runs/00000-faces-faces64 --dest faces.safetensors --half
"""

from __future__ import annotations

from pathlib import Path

import click

from stylegan.cli.options import ops_option
from torch_utils.cli import Command


@click.command(cls=Command, params=[ops_option()])
@click.option(
    "--source", metavar="MODEL", required=True, help="Published .pkl file, snapshot, folder of a run, URL, or name."
)
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="The .safetensors file to write.")
@click.option("--with-d", is_flag=True, help="Keep the discriminator as well, to train on from here.")
@click.option("--half", is_flag=True, help="Weights in 16 bits: half the size, to pass it on.")
def main(source: str, dest: Path, with_d: bool, half: bool) -> None:
    """Convert a published network file, or a snapshot. No code in it is run, and TensorFlow is not needed.

    The averaged generator is kept, with the resolution it had grown to. The copy is read back and must draw the very
    same image before the command succeeds, or with --half one that can hardly be told from it. The weights stay
    under the licence they came with.
    """
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    import torch

    from stylegan.checkpoints.conversion import convert
    from stylegan.networks.inference import with_kernels

    with_kernels(torch.device("cpu"))
    made = convert(source, dest, with_d, half)
    click.echo(
        f"{dest}: {made.copy.config.family}, grown to {made.copy.stage.resolution} of {made.copy.config.resolution}."
    )
    rounding = f"; 16 bits change it by {made.difference:.4f}, of 2 from black to white" if half else ""
    mean, spread = made.image.mean(), made.image.std()
    click.echo(f"Read back and checked: seed 0 has a mean of {mean:.3f} and a spread of {spread:.3f}{rounding}.")


if __name__ == "__main__":
    main()
