"""A convolution with filtered upsampling before it, or filtered downsampling after it (StyleGAN2).

Filters and convolutions commute, so each combination is computed in the cheapest order: a transposed convolution with a
stride instead of a convolution over inserted zeros, a convolution with a stride instead of discarding most results, and
1x1 convolutions at the lower resolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ops.resample import down_padding, up_padding
from ops.upfirdn2d import Factor, pad_or_crop, parse_padding, upfirdn2d


def conv2d_resample(
    x: Tensor,
    weight: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Factor = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """Upsample x by up, convolve, downsample by down. x: [N,I,H,W]  weight: [O,I/groups,kh,kw] -> [N,O,H',W'].

    f: the low-pass filter of both, as for `upfirdn2d`. padding: of the upsampled x, as there; the padding with which
    the filter keeps the image in place is added. flip_weight: correlate, as PyTorch does; otherwise convolve.
    Raises ValueError, which names the argument, for shapes or factors that do not match.
    """
    _check(x, weight, up, down, groups)
    height, width = weight.shape[2:]
    pads = parse_padding(padding)
    pads = up_padding(pads, f, [up, up]) if up > 1 else pads
    pads = down_padding(pads, f, [down, down]) if down > 1 else pads
    weight = weight if flip_weight else weight.flip((2, 3))
    if up > 1:
        if height == width == 1:
            x = upfirdn2d(F.conv2d(x, weight, groups=groups), f, up, 1, pads, flip_filter, up**2)
        else:
            x = _upsampling_conv(x, weight, f, up, pads, groups, flip_filter)
        return upfirdn2d(x, f, 1, down, 0, flip_filter) if down > 1 else x
    if down > 1:
        if height == width == 1:
            return F.conv2d(upfirdn2d(x, f, 1, down, pads, flip_filter), weight, groups=groups)
        return F.conv2d(upfirdn2d(x, f, 1, 1, pads, flip_filter), weight, stride=down, groups=groups)
    left, right, top, bottom = pads
    if left == right >= 0 and top == bottom >= 0:
        return F.conv2d(x, weight, padding=(top, left), groups=groups)
    return F.conv2d(pad_or_crop(x, pads), weight, groups=groups)


def _upsampling_conv(
    x: Tensor, weight: Tensor, f: Tensor | None, up: int, pads: list[int], groups: int, flip_filter: bool
) -> Tensor:  # fmt: skip
    """A transposed convolution pads by k - 1 on all sides, minus the zeros after the last sample."""
    height, width = weight.shape[2:]
    pads = [pads[0] - width + 1, pads[1] - width + up, pads[2] - height + 1, pads[3] - height + up]
    cut = max(0, -max(pads))  # pixels that would be cropped on every side are not computed
    kernel = weight.flip((2, 3)).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # [I,O/groups,kh,kw]
    x = F.conv_transpose2d(x, kernel, stride=up, padding=cut, groups=groups)
    return upfirdn2d(x, f, 1, 1, [p + cut for p in pads], flip_filter, up**2)


def _check(x: Tensor, weight: Tensor, up: int, down: int, groups: int) -> None:
    if x.ndim != 4:
        raise ValueError(f"x must be [N,I,H,W], got {list(x.shape)}")
    if weight.ndim != 4 or weight.shape[1] * groups != x.shape[1] or weight.shape[0] % groups:
        raise ValueError(
            f"weight must be [O,{x.shape[1]}/{groups},kh,kw] for groups={groups}, got {list(weight.shape)}"
        )
    if min(up, down) < 1:
        raise ValueError(f"up and down must be at least 1, got up={up} and down={down}")
