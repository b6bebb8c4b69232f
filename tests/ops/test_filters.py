"""Low-pass filters: as published, and low-pass."""

from __future__ import annotations

import pytest
import torch

from ops.upfirdn2d import design_lowpass_filter


def test_the_published_filters(published):
    for case in published("design_lowpass_filter"):
        args = {k: case.args[k] for k in ("numtaps", "cutoff", "width", "fs", "radial")}
        f = design_lowpass_filter(**args)
        assert (f is None) == case.args["none"]
        if f is not None:
            case.agrees({"f": f})


@pytest.mark.parametrize("numtaps", [11, 12])
@pytest.mark.parametrize("radial", [False, True])
def test_constants_pass_and_high_frequencies_do_not(numtaps, radial):
    f = design_lowpass_filter(numtaps, cutoff=2, width=4, fs=16, radial=radial)
    assert f is not None and f.dtype == torch.float32 and f.shape == (numtaps,) * (2 if radial else 1)
    torch.testing.assert_close(f, f.flip(list(range(f.ndim))))
    torch.testing.assert_close(f.sum(), torch.tensor(1.0))
    alternating = torch.tensor([1.0, -1]).repeat(numtaps)[:numtaps]
    assert abs(float((f * alternating).sum())) < 0.01


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="numtaps"):
        design_lowpass_filter(0, 1, 1, 4)
