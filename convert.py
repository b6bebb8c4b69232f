"""Turn a published StyleGAN or ProGAN network file (.pkl) into a snapshot (.safetensors) that every tool here opens.

python convert.py --source karras2019stylegan-ffhq-1024x1024.pkl --dest ffhq1024.safetensors
"""

from __future__ import annotations

from pathlib import Path

import click

from stylegan.kernels import ops_option, with_kernels
from torch_utils.cli import Command


@click.command(cls=Command, params=[ops_option()])
@click.option("--source", type=click.Path(path_type=Path), required=True, help="The published .pkl file.")
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="The .safetensors file to write.")
@click.option("--with-d", is_flag=True, help="Keep the discriminator as well, to train on from here.")
def main(source: Path, dest: Path, with_d: bool) -> None:
    """Convert a published network file. No code in it is run, and TensorFlow is not needed.

    The averaged generator is kept, with the resolution it had grown to. The copy is read back and must draw the very
    same picture before the command succeeds. The weights stay under the licence they came with.
    """
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    import torch

    from stylegan.official import convert_official

    with_kernels(torch.device("cpu"))
    copy, picture = convert_official(source, dest, with_d)
    click.echo(f"{dest}: {copy.config.family}, grown to {copy.resolution} of {copy.config.resolution}.")
    click.echo(f"Read back and checked: seed 0 has a mean of {picture.mean():.3f} and a spread of {picture.std():.3f}.")


if __name__ == "__main__":
    main()
