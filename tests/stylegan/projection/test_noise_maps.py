"""White noise passes for noise, and a pattern does not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stylegan.projection.projector import autocorrelation, normalize

SIZES = [(4, 4), (16, 16), (10, 20)]


def test_normalized_maps_have_mean_0_and_variance_1():
    maps = [torch.randn(2, 1, h, w) * torch.tensor([1.0, 5.0]).reshape(2, 1, 1, 1) + 3 for h, w in SIZES]
    normalize([*maps, torch.zeros(1, 1, 4, 4)])
    for m in maps:
        torch.testing.assert_close(m.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(m.var(dim=(1, 2, 3), unbiased=False), torch.ones(2))


def test_patterns_of_every_scale_are_told_from_noise():
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    normalize([noise])
    plain = autocorrelation([noise])
    for block in (2, 4, 8):
        pattern = noise[:, :, ::block, ::block].repeat_interleave(block, 2).repeat_interleave(block, 3)
        normalize([pattern])
        assert autocorrelation([pattern]) > 20 * plain


def test_each_picture_has_its_own_sum():
    maps = [torch.randn(3, 1, 16, 16), torch.randn(3, 1, 4, 4)]
    torch.testing.assert_close(autocorrelation(maps)[1:2], autocorrelation([m[1:2] for m in maps]))


def written_out(maps: list[torch.Tensor]) -> torch.Tensor:
    """Appendix D of the paper, map by map and scale by scale."""
    total = torch.zeros(len(maps[0]))
    for m in maps:
        while True:
            for dim in (2, 3):
                total = total + (m * m.roll(1, dim)).mean(dim=(1, 2, 3)).square()
            if min(m.shape[2:]) <= 8 or m.shape[2] % 2 or m.shape[3] % 2:
                break
            m = F.avg_pool2d(m, 2) * 2
    return total


@pytest.mark.parametrize("sizes", [
    [(4, 4), (4, 4), (8, 8), (8, 8), (16, 16), (16, 16), (32, 32), (32, 32)], [(10, 20), (5, 10), (20, 40), (5, 10)],
    [(18, 24), (9, 12)], [(5, 16), (16, 5)],
])  # fmt: skip
def test_sizes_together_are_the_sum_of_the_maps(sizes):
    maps = [torch.randn(3, 1, h, w, requires_grad=True) for h, w in sizes]
    torch.testing.assert_close(autocorrelation(maps), written_out(maps))
    ours, theirs = (torch.autograd.grad(f(maps).sum(), maps) for f in (autocorrelation, written_out))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
