"""Convert a published network file or a snapshot. `stylegan convert --help` explains the options."""

from __future__ import annotations

from pathlib import Path

import click

from stylegan.cli.options import ops_option
from torch_utils.cli import Command
from torch_utils.errors import UserError
from torch_utils.output import replaces, require_folder, writing_to
from torch_utils.text import printable, say


@click.command(cls=Command, params=[ops_option()])
@click.option(
    "--source",
    "--network",
    "source",
    metavar="MODEL",
    help="Published .pkl file, snapshot, run directory, URL, or name.",
)
@click.option(
    "--latents",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Latents or directions of another tool (.npy, .npz, .pt) for this model, or ours for another tool.",
)
@click.option("--blend", "pair", metavar="A B", nargs=2, help="Two such models, to be made one.")
@click.option("--from-layer", metavar="K", type=click.IntRange(min=1), help="The first layer of B, with --blend.")
@click.option("--dest", type=click.Path(path_type=Path), required=True, help="The .safetensors file to write.")
@click.option("--with-d", is_flag=True, help="Include the discriminator, which further training needs.")
@click.option("--half", is_flag=True, help="Store weights with 16 bits, in half the size, for passing the network on.")
def main(
    source: str | None, latents: Path | None, pair: tuple[str, str] | None, from_layer: int | None, dest: Path,
    with_d: bool, half: bool,
) -> None:  # fmt: skip
    """Convert a published file (.pkl) of ProGAN, StyleGAN or StyleGAN2 to a snapshot, or a snapshot to a smaller one.

    \b
      convert.py --source karras2019stylegan-ffhq-1024x1024.pkl --dest ffhq1024.safetensors
      convert.py --source runs/00000-faces-faces64 --dest faces.safetensors --half
      convert.py --blend faces.safetensors drawings.safetensors --from-layer 6 --dest drawn.safetensors

    No code in the file is run, and TensorFlow is not needed. The averaged generator is converted, at the resolution to
    which it has grown. The copy is read back, and must generate and score the same image (with --half nearly the
    same). The licence of the weights does not change.

    With --blend, the mapping network and the layers below K come from A, the others from B. Best are two networks of
    which one was trained from the other: A decides poses and shapes, B colours and textures. Layers count as in
    style_mixing.py --styles: 0 and 1 work at 4x4, 2 and 3 at 8x8, and so on; in a StyleGAN2, 0 at 4x4, 1 and 2 at 8x8.

    With --latents, no network is converted, but latents of the network: projected_w.npz, arrays and tensors [N,L,D],
    [L,D] or [N,D], and directions: boundaries of InterFaceGAN, components of GANSpace. --dest says which of the two.
    From our files, arrays are written:

    \b
      convert.py --network faces64 --latents projected_w.npz --dest eva.latent.safetensors
      convert.py --network faces64 --latents smile_boundary.npy --dest smile.direction.safetensors
      convert.py --network faces64 --latents eva.latent.safetensors --dest eva.npy
    """
    # Not at the top, because --help should not wait for torch.
    import torch

    from stylegan.checkpoints.conversion import blend, convert
    from stylegan.networks.inference import with_kernels

    with_kernels(torch.device("cpu"))
    if latents is not None:
        if not source or pair or from_layer is not None or with_d or half:
            raise UserError("--latents needs --network MODEL and --dest, and no other option")
        convert_latents(source, latents, dest)
        return
    if bool(source) == bool(pair):
        raise UserError("which model? give either --source MODEL or --blend A B")
    if pair:
        if from_layer is None or with_d:
            cure = (
                "leave out --with-d, a blend has no discriminator"
                if with_d
                else "say where B begins, with --from-layer"
            )
            raise UserError(f"--blend: {cure}")
        found = blend(*pair, from_layer, dest, half)
    else:
        if from_layer is not None:
            raise UserError("--from-layer goes with --blend; leave it out")
        found = convert(source or "", dest, with_d, half)
    config, stage, image = found.copy.config, found.copy.stage, found.image
    classes = f", {config.num_classes} classes" if config.num_classes else ""
    say(f"{dest}: {config.family}, grown to {stage.resolution} of {config.resolution}{classes}.")
    for note in found.notes:
        say(f"{note}.")
    rounding = f"; 16 bits change it by {found.difference:.4f}, where white is 2 from black" if half else ""
    scored = "" if found.score is None else f"; the discriminator gives it {found.score:.3f}"
    say(f"Read back and checked: the image of seed 0 has mean {image.mean():.3f} and standard deviation "
               f"{image.std():.3f}{scored}{rounding}.")  # fmt: skip


def convert_latents(network: str, latents: Path, dest: Path) -> None:
    """Latents or directions of another tool as ours, or the other way round, with a line on what they are."""
    from stylegan.checkpoints.locate import open_snapshot
    from stylegan.editing.exchange import exchange

    replaced = replaces([dest], [latents])
    require_folder(dest.parent, "--dest")
    snapshot = open_snapshot(network)
    with writing_to(dest.parent):
        said = exchange(latents, dest, snapshot)
    origin = printable(str(latents))
    say(f"{origin}: {said}, for {printable(network)}, {snapshot.kimg:g} kimg of {snapshot.data}")
    say(f"1 file: {printable(str(dest))}{replaced}")


if __name__ == "__main__":
    main()
