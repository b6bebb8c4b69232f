"""Operations on latents."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan.networks.sampling import mix, mix_layers, noise_for_seeds, slerp, truncate, z_for_seeds

WS = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
AVERAGE = torch.linspace(-1, 1, 5)[None]


def test_a_seed_is_the_z_that_the_field_gives_it():
    z = z_for_seeds([5, 17], 512)
    assert z.dtype == torch.float32
    np.testing.assert_array_equal(z[1].numpy(), np.random.RandomState(17).randn(512).astype(np.float32))
    assert z_for_seeds([], 512).shape == (0, 512)


def test_the_noise_of_a_seed_does_not_depend_on_its_company():
    sizes = [(4, 4), (4, 6), (8, 12)]
    together, single = noise_for_seeds([3, 4], sizes), noise_for_seeds([4], sizes)
    assert [tuple(m.shape) for m in together] == [(2, 1, h, w) for h, w in sizes]
    assert all(torch.equal(a[1:], b) for a, b in zip(together, single, strict=True))
    assert not torch.equal(together[0][0], together[0][1])
    shorter = noise_for_seeds([4], sizes[:2])  # nor on how far the network has grown
    assert all(torch.equal(a, b) for a, b in zip(shorter, single, strict=False))


@pytest.mark.parametrize("psi, expected", [(1, WS), (0, AVERAGE[:, None].expand_as(WS)), (0.5, (WS + AVERAGE) / 2)])
def test_truncation_moves_towards_the_average(psi, expected):
    torch.testing.assert_close(truncate(WS, AVERAGE, psi), expected)


def test_each_is_truncated_towards_an_average_of_its_own():
    averages = torch.stack([AVERAGE[0], AVERAGE[0] + 1, AVERAGE[0] * 2])
    cut = truncate(WS, averages, 0.3)
    for i in range(3):
        assert torch.equal(cut[i : i + 1], truncate(WS[i : i + 1], averages[i : i + 1], 0.3))


@pytest.mark.parametrize("cutoff", [0, 2, 6, 9])
def test_truncation_stops_at_the_cutoff(cutoff):
    cut = truncate(WS, AVERAGE, 0.3, cutoff)
    assert torch.equal(cut[:, cutoff:], WS[:, cutoff:])
    torch.testing.assert_close(cut[:, :cutoff], truncate(WS, AVERAGE, 0.3)[:, :cutoff])


@given(st.integers(0, 50), st.floats(0, 1), st.floats(0.1, 10))
def test_slerp_keeps_norms(seed, t, scale):
    a, b = torch.randn(2, 64, generator=torch.Generator().manual_seed(seed))
    unit, other = a / a.norm(), b / b.norm() * scale
    assert float(slerp(unit, unit + 1e-7 * other, t).norm()) == pytest.approx(1, abs=1e-5)
    assert float(slerp(unit, other, t).norm()) == pytest.approx(1 + (scale - 1) * t, rel=1e-5)


def test_slerp_turns_at_even_speed():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    for t in (0.0, 0.25, 0.5, 1.0):
        x, y = slerp(a, b, t).tolist()
        assert math.atan2(y, x) == pytest.approx(t * math.pi / 2)


def test_slerp_turns_each_row_by_itself():
    """Also rows that are equal, opposite or zero, where there is no way to turn."""
    a, b = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)).double()
    a[1], b[2], b[3], a[4], t = b[1], -a[2], 0, 0, torch.linspace(0, 1, 6)[:, None]
    together = slerp(a, b, t)
    assert all(torch.equal(together[i], slerp(a[i], b[i], float(t[i]))) for i in range(6))
    torch.testing.assert_close(together[1:5], torch.lerp(a, b, t.double())[1:5])


def test_mix_takes_the_first_layers_from_a_and_the_rest_from_b():
    other = torch.randn_like(WS)
    assert torch.equal(mix(WS, other, 2), torch.cat([WS[:, :2], other[:, 2:]], dim=1))
    assert torch.equal(mix(WS, other, 0), other)
    assert torch.equal(mix(WS, other, 6), WS)
    each = mix(WS, other, torch.tensor([0, 2, 6]))
    assert all(torch.equal(each[i], mix(WS, other, k)[i]) for i, k in enumerate([0, 2, 6]))


def test_mix_layers_takes_the_chosen_layers_from_b():
    other = torch.randn_like(WS)
    mixed = mix_layers(WS, other, [1, 4])
    assert torch.equal(mixed[:, [1, 4]], other[:, [1, 4]]) and torch.equal(mixed[:, [0, 2, 3, 5]], WS[:, [0, 2, 3, 5]])
    assert torch.equal(mix_layers(WS, other, []), WS) and torch.equal(mix_layers(WS, other, range(6)), other)
    assert torch.equal(mix_layers(WS[:1], other, [0]), mix_layers(WS[:1].expand(3, -1, -1), other, [0]))
