"""A packed weight convolves as the weight does, but for rounding."""

from __future__ import annotations

import pytest
import torch

from ops.conv2d import conv2d, conv_transpose2d, packed
from ops.resample import packed_for_upsampling, upsample_conv2d, upsampling_kernel


def features(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs", "size"), [(32, 16, (8, 8)), (5, 3, (4, 7)), (64, 64, (16, 16))])
def test_the_same_but_for_rounding(inputs, outputs, size, batch, dtype):
    x, weight = features(batch, inputs, *size, dtype=dtype), features(outputs, inputs, 3, 3, dtype=dtype)
    kernel = upsampling_kernel(weight.float()).to(dtype, memory_format=torch.channels_last)
    with torch.no_grad():
        y = conv2d(x, packed(weight, batch, size, padding=1), padding=1)
        up = upsample_conv2d(x, packed_for_upsampling(kernel, batch, size))
        for ours, plain in ((y, conv2d(x, weight, padding=1)), (up, upsample_conv2d(x, kernel))):
            rounding = 1e-5 if dtype == torch.float32 else 2**-7
            assert (ours - plain).abs().max() <= rounding * plain.abs().max()
    assert y.is_contiguous(memory_format=torch.channels_last) and up.is_contiguous(memory_format=torch.channels_last)


def test_a_weight_packed_for_another_size_is_good_as_well():
    weight = features(16, 16, 3, 3)
    kept = packed(weight, 1, (8, 8), padding=1)
    for shape in [(4, 16, 8, 8), (1, 16, 32, 32), (2, 16, 3, 5)]:
        x = features(*shape)
        with torch.no_grad():
            torch.testing.assert_close(conv2d(x, kept, padding=1), conv2d(x, weight, padding=1), rtol=1e-5, atol=1e-4)


def test_what_cannot_be_packed_stays_as_it_is(monkeypatch):
    double = torch.randn(4, 4, 3, 3, dtype=torch.float64)
    assert packed(double, 1, (8, 8), padding=1) is double
    meta = torch.randn(4, 4, 3, 3, device="meta")
    assert packed(meta, 1, (8, 8), padding=1) is meta
    single = torch.randn(4, 4, 3, 3)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert packed(single, 1, (8, 8), padding=1) is single


@pytest.mark.parametrize("convolve", [conv2d, conv_transpose2d])
def test_there_is_no_derivative_and_no_silence_about_it(convolve):
    x, weight = features(1, 8, 8, 8).requires_grad_(), features(8, 8, 3, 3)
    kept = packed(weight, 1, (8, 8), padding=1, transposed=convolve is conv_transpose2d)
    with pytest.raises(RuntimeError, match="no derivative"):
        convolve(x, kept, padding=1)


def test_pictures_do_not_depend_on_the_threads_that_packed():
    x, weight, threads = features(1, 64, 16, 16), features(64, 64, 3, 3), torch.get_num_threads()
    kept = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            kept.append(packed(weight, 1, (16, 16), padding=1))
        torch.set_num_threads(1)
        assert torch.equal(conv2d(x, kept[0], padding=1), conv2d(x, kept[1], padding=1))
    finally:
        torch.set_num_threads(threads)
