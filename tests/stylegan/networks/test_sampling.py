"""Operations on latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan.networks.sampling import mix, mix_layers, noise_for_seeds, truncate, z_for_seeds

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
