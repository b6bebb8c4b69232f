"""The averaged weights follow with the stated half-life."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_utils.adam import track


def pair() -> tuple[nn.BatchNorm1d, nn.BatchNorm1d]:
    """An average at 0, and a model with weights 1 and other buffers."""
    average, model = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.zeros_(average.weight)
    nn.init.ones_(model.weight)
    model.running_mean.fill_(5)
    model.num_batches_tracked.fill_(7)
    return average, model


@pytest.mark.parametrize("batch", [10, 250, 1000])
def test_half_of_the_past_is_forgotten_per_half_life_whatever_the_batch(batch):
    average, model = pair()
    for _ in range(1000 // batch):
        track(average, model, halflife_kimg=1.0, batch=batch)
    torch.testing.assert_close(average.weight.data, torch.full((3,), 0.5))
    for _ in range(1000 // batch):
        track(average, model, halflife_kimg=1.0, batch=batch)
    torch.testing.assert_close(average.weight.data, torch.full((3,), 0.75))


def test_no_half_life_copies():
    average, model = pair()
    track(average, model, halflife_kimg=0, batch=8)
    assert torch.equal(average.weight, model.weight)


def test_buffers_are_copied_and_the_model_is_left_alone():
    average, model = pair()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    track(average, model, halflife_kimg=10, batch=8)
    assert torch.equal(average.running_mean, model.running_mean)
    assert average.num_batches_tracked == 7
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert average.weight.data_ptr() != model.weight.data_ptr()
