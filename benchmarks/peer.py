"""What one iteration of NVIDIA's stylegan2-ada-pytorch launches and moves, for `traffic.py --peer`.

    python benchmarks/peer.py ~/stylegan2-ada-pytorch --resolution 64 --batch 32

It imports the networks and the loss of a checkout, which stays where it is, and prints what it counts as JSON. The
iteration is the published one, with the settings of `--cfg=auto` on one GPU and without augmentation: Gmain, Greg at
every 4th step, Dmain, Dreg at every 16th, each with its optimiser, then the average of the generator. The four highest
resolutions are in float16, with the published memory format.

The checkout's own CUDA kernels are counted as what they launch: its autograd functions run unchanged, for all orders of
derivatives, and below them stands an operation for each kernel. Its replacement for convolutions, whose derivatives are
convolutions again, runs as well. Adam works on lists of tensors, as current versions of PyTorch do by themselves.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.counting import Counts, Traffic, weighed

META = torch.device("meta")
INTERVALS = {"Gmain": 1, "Greg": 4, "Dmain": 1, "Dreg": 16}
library = torch.library.Library("peer", "DEF")


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--resolution", type=int, default=64)
@click.option("--batch", type=int, default=32, help="Images per step.")
def main(path: Path, resolution: int, batch: int) -> None:
    """Print the operations of an iteration, with their kernels and bytes, as one JSON object."""
    counts = iteration(path, resolution, batch)
    click.echo(json.dumps({name: asdict(count) for name, count in counts.items()}))


def iteration(path: Path, resolution: int, batch: int) -> Counts:
    """Averages over steps, with and without the lazy penalties."""
    networks, losses = checkout(path)
    G, D = built(networks, resolution, batch)
    average = built(networks, resolution, batch)[0].eval()
    loss = losses.StyleGAN2Loss(META, G.mapping, G.synthesis, D)
    adam = {name: torch.optim.Adam(net.parameters(), foreach=True) for name, net in (("G", G), ("D", D))}
    real, z = torch.empty(batch, 3, resolution, resolution, device=META), torch.empty(batch, G.z_dim, device=META)
    c = torch.empty(batch, 0, device=META)
    found: dict[str, Counts] = {}
    for _ in range(2):  # in the first, the optimisers and the statistics set themselves up
        for phase, interval in INTERVALS.items():
            with Traffic() as traffic:
                torch.randn(batch, G.z_dim, device=META)
                net = {"G": G, "D": D}[phase[0]]
                adam[phase[0]].zero_grad()
                net.requires_grad_(True)
                loss.accumulate_gradients(phase, real, c, z, c, sync=True, gain=interval)
                net.requires_grad_(False)
                with_gradient = [p.grad for p in net.parameters() if p.grad is not None]
                for gradient in with_gradient:
                    torch.nan_to_num(gradient, nan=0, posinf=1e5, neginf=-1e5, out=gradient)
                adam[phase[0]].step()
            found[phase] = traffic.counts
    with Traffic() as traffic, torch.no_grad():
        for mine, theirs in zip(average.parameters(), G.parameters(), strict=True):
            mine.copy_(theirs.lerp(mine, 0.999))
        for mine, theirs in zip(average.buffers(), G.buffers(), strict=True):
            mine.copy_(theirs)
    return weighed([*((1 / INTERVALS[phase], counts) for phase, counts in found.items()), (1, traffic.counts)])


def built(networks: ModuleType, resolution: int, batch: int) -> tuple[Any, Any]:
    """G and D without contents, as `--cfg=auto` makes them for one GPU."""
    channels = {"channel_base": 32768 if resolution >= 512 else 16384, "channel_max": 512}
    lowered = channels | {"num_fp16_res": 4, "conv_clamp": 256}
    about = {"c_dim": 0, "img_resolution": resolution, "img_channels": 3}
    G = networks.Generator(
        z_dim=512, w_dim=512, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=lowered, **about
    )  # fmt: skip
    D = networks.Discriminator(epilogue_kwargs={"mbstd_group_size": min(batch, 4)}, **lowered, **about)
    nets: list[nn.Module] = [net.train().requires_grad_(False).to(META) for net in (G, D)]
    return nets[0], nets[1]


def checkout(path: Path) -> tuple[ModuleType, ModuleType]:
    """The networks and the loss of the checkout, with operations in place of its kernels."""
    sys.path.insert(0, str(path.resolve()))
    try:
        names = ("torch_utils.ops.bias_act", "torch_utils.ops.upfirdn2d", "torch_utils.ops.conv2d_gradfix",
                 "training.networks", "training.loss")  # fmt: skip
        bias_act, upfirdn2d, conv2d, networks, losses = map(importlib.import_module, names)
    except ImportError as error:
        said = f"{path} is no checkout of stylegan2-ada-pytorch that can run here: {error}"
        raise click.ClickException(said) from error
    finally:
        sys.path.pop(0)

    def biased(x: Tensor, b: Tensor | None = None, dim: int = 1, act: str = "linear", alpha: Any = None,
               gain: Any = None, clamp: Any = None, impl: str = "cuda") -> Any:  # fmt: skip
        return bias_act._bias_act_cuda(dim, act, alpha, gain, clamp).apply(x, b)

    def resampled(x: Tensor, f: Tensor | None, up: Any = 1, down: Any = 1, padding: Any = 0,
                  flip_filter: bool = False, gain: float = 1, impl: str = "cuda") -> Any:  # fmt: skip
        return upfirdn2d._upfirdn2d_cuda(up, down, padding, flip_filter, gain).apply(x, f)

    for module, name, replacement in (
        (bias_act, "bias_act", biased), (bias_act, "_plugin", _BiasAct), (upfirdn2d, "upfirdn2d", resampled),
        (upfirdn2d, "_plugin", _Upfirdn2d), (conv2d, "_should_use_custom_op", lambda x: True),
        (torch._C, "_jit_get_operation", _operation),
    ):  # fmt: skip
        setattr(module, name, replacement)
    return networks, losses


# The kernels of the checkout, as operations that are counted

library.define("bias_act(Tensor x, Tensor b, Tensor xref, Tensor yref, Tensor dy) -> Tensor")
library.define("upfirdn2d(Tensor x, Tensor f, int[] size) -> Tensor")
torch.library.register_fake("peer::bias_act", lambda x, *rest: torch.empty_like(x), lib=library)


@torch.library.register_fake("peer::upfirdn2d", lib=library)
def _resampled(x: Tensor, f: Tensor, size: Sequence[int]) -> Tensor:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty([*x.shape[:2], *size], dtype=x.dtype, device=x.device, memory_format=layout)


class _BiasAct:
    @staticmethod
    def bias_act(x: Tensor, b: Tensor, xref: Tensor, yref: Tensor, dy: Tensor, *rest: Any) -> Any:
        return torch.ops.peer.bias_act(x, b, xref, yref, dy)


class _Upfirdn2d:
    @staticmethod
    def upfirdn2d(x: Tensor, f: Tensor, *rest: Any) -> Any:
        up_x, up_y, down_x, down_y, left, right, top, bottom, *_ = rest
        height = (x.shape[2] * up_y + top + bottom - f.shape[0]) // down_y + 1
        width = (x.shape[3] * up_x + left + right - f.shape[1]) // down_x + 1
        return torch.ops.peer.upfirdn2d(x, f, [height, width])


def _weight_gradient(transposed: bool) -> Any:
    """Stands for an operation that PyTorch has no more. Takes its arguments; of the flags nothing is needed."""

    def gradient(shape: Sequence[int], dy: Tensor, x: Tensor, padding: Any, stride: Any, dilation: Any, groups: int,
                 *flags: bool) -> Any:  # fmt: skip
        return torch.ops.aten.convolution_backward(
            dy, x, x.new_empty(shape), None, stride, padding, dilation, transposed, [0, 0], groups, [False, True, False]
        )[1]

    return gradient


_known = torch._C._jit_get_operation
_gone = {
    "aten::cudnn_convolution_backward_weight": _weight_gradient(False),
    "aten::cudnn_convolution_transpose_backward_weight": _weight_gradient(True),
}


def _operation(name: str) -> Any:
    return _gone[name] if name in _gone else _known(name)


if __name__ == "__main__":
    main()
