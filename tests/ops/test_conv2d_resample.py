"""Convolutions with resampling: published results, and equal to the separate steps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ops.conv2d_resample import conv2d_resample
from ops.resample import down_padding, up_padding
from ops.upfirdn2d import upfirdn2d


def test_the_published_results(impl_within, published):
    for case in published("conv2d_resample"):
        x, w, gy = (case.inputs[name].requires_grad_() for name in ("x", "w", "gy"))
        ours = {"y": conv2d_resample(x, w, case.inputs.get("f"), **case.args)}
        ours["dx"], ours["dw"] = dx, dw = torch.autograd.grad(ours["y"], [x, w], gy, create_graph=True)
        if "ddx2_gy" in case.outputs:
            second = torch.autograd.grad(dx.square().sum(), [gy, w], retain_graph=True)
            ours["ddx2_gy"], ours["ddx2_w"] = second
            ours["ddw2_gy"], ours["ddw2_x"] = torch.autograd.grad(dw.square().sum(), [gy, x])
        case.agrees(ours)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5)])
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("padding", [0, [1, 2, 0, 1], [-1, 0, 2, -2]])
def test_it_equals_its_steps(impl_within, kernel, up, down, padding):
    x, w = torch.randn(2, 4, 8, 7, dtype=torch.float64), torch.randn(6, 2, *kernel, dtype=torch.float64)
    f = torch.tensor([1.0, 3, 3, 2]) / 9
    pads = [padding] * 4 if isinstance(padding, int) else padding
    pads = up_padding(pads, f, [up, up]) if up > 1 else pads
    pads = down_padding(pads, f, [down, down]) if down > 1 else pads
    y = upfirdn2d(x, f if up > 1 else None, up, padding=pads, gain=up**2)
    y = F.conv2d(y, w, groups=2)
    y = upfirdn2d(y, f, down=down) if down > 1 else y
    torch.testing.assert_close(conv2d_resample(x, w, f, up, down, padding, groups=2), y)
    torch.testing.assert_close(conv2d_resample(x, w.flip((2, 3)), f, up, down, padding, 2, flip_weight=False), y)


def test_errors_name_the_argument():
    x, w = torch.zeros(1, 4, 8, 8), torch.zeros(2, 4, 3, 3)
    wrong = [("x must", (x[0], w), {}), ("weight must", (x, w[0]), {}), ("weight must", (x, w), {"groups": 2}),
             ("up and down must", (x, w), {"up": 0}), ("padding must", (x, w), {"padding": [1] * 3})]  # fmt: skip
    for message, args, options in wrong:
        with pytest.raises(ValueError, match=message):
            conv2d_resample(*args, **options)
