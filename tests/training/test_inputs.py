"""What the generator is fed depends on the seed and the image's position, and on nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stylegan.networks.stylegan1 import StyleGAN1Config
from training.inputs import Inputs, draw

CPU = torch.device("cpu")
MODEL = StyleGAN1Config(resolution=32, base=(4, 6), z_dim=5)
LABELS = torch.tensor([0, 0, 0, 2])


def fields_of(inputs: Inputs) -> list[torch.Tensor]:
    assert inputs.c is not None
    return [inputs.z, inputs.z_mix, inputs.crossover, inputs.c, inputs.blend, inputs.places]


def drawn(positions: range, resolution: int = 16, stream: str = "d", seed: int = 3) -> Inputs:
    return draw(MODEL, seed, stream, positions, resolution, LABELS, CPU)


def test_a_position_gets_the_same_in_any_batch() -> None:
    whole, halves = drawn(range(10, 16)), [drawn(range(10, 13)), drawn(range(13, 16))]
    for together, *apart in zip(fields_of(whole), *map(fields_of, halves)):
        assert torch.equal(together, torch.cat(apart))


@pytest.mark.parametrize("other", [{"stream": "g"}, {"stream": "d/1"}, {"seed": 4}, {"positions": range(8, 16)}])
def test_streams_seeds_and_positions_differ(other) -> None:
    base = {"positions": range(8), "stream": "d", "seed": 3}
    a, b = drawn(**base), drawn(**base | other)
    assert not any((x == y).all(dim=1).any() for x, y in ((a.z, b.z), (a.z_mix, b.z_mix), (a.z, b.z_mix)))


def test_growing_does_not_change_what_there_was() -> None:
    small, large = drawn(range(6), 8), drawn(range(6), 32)
    assert torch.equal(small.z, large.z) and torch.equal(small.c, large.c)
    assert torch.equal(small.places, large.places)


def test_parts_make_up_the_whole_and_keep_groups_together() -> None:
    whole = dataclasses.replace(drawn(range(8)), reals=torch.rand(8, 3, 4, 6), real_c=torch.arange(8))
    parts = list(whole.split(2))
    for together, *apart in zip(fields_of(whole), *map(fields_of, parts)):
        assert torch.equal(together, torch.stack(apart, dim=1).flatten(0, 1))
    for i, part in enumerate(parts):
        assert torch.equal(part.reals, whole.reals[i::2]) and part.real_c.tolist() == [i, i + 2, i + 4, i + 6]
    # Groups of two lie 4 apart in the batch of 8 (0 and 4), and 2 apart in a part of 4 (0 and 2 of 0, 2, 4, 6).
    assert torch.equal(parts[0].z[[0, 2]], whole.z[[0, 4]])


def test_classes_come_as_often_as_in_the_data() -> None:
    c = drawn(range(2000), 4).c
    counts = torch.bincount(c, minlength=3)
    assert counts[1] == 0 and abs(counts[0].item() / 2000 - 0.75) < 0.04


def test_nine_in_ten_are_mixed_from_every_layer_but_the_first() -> None:
    crossover = drawn(range(2000)).crossover  # 16x16 has six layers
    assert set(crossover.tolist()) == {1, 2, 3, 4, 5, 6}
    assert abs((crossover < 6).double().mean() - 0.9) < 0.03


def test_a_network_without_classes_gets_none() -> None:
    inputs = draw(MODEL, 0, "d", range(3), 8, None, CPU)
    assert inputs.c is None
    assert [len(part.z) for part in inputs.split(3)] == [1, 1, 1]


def test_views_are_drawn_beside_all_else() -> None:
    plain, seen = drawn(range(6)), draw(MODEL, 3, "d", range(6), 16, LABELS, CPU, augmented=True)
    assert plain.views is None and seen.views is not None and seen.views.shape == (6, 2, 7)
    for one, other in zip(fields_of(plain), fields_of(seen), strict=True):
        assert torch.equal(one, other)
    later = draw(MODEL, 3, "d", range(3, 6), 32, LABELS, CPU, augmented=True).views
    assert later is not None and torch.equal(later, seen.views[3:])
    for i, part in enumerate(seen.split(2)):
        assert part.views is not None and torch.equal(part.views, seen.views[i::2])
    assert seen.views.min() >= 0 and seen.views.max() < 1 and seen.views.unique().numel() == seen.views.numel()
