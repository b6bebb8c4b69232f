"""The same steps as PyTorch's Adam, to the bit, without its compiler; and the averaged weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from torch_utils.adam import Adam, share_of, track

ROOT = Path(__file__).parents[2]


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last))


def learn(net: nn.Module, round_: int) -> None:
    """Gradients that differ from round to round; in the second, one parameter has none."""
    generator = torch.Generator().manual_seed(round_)
    for i, p in enumerate(net.parameters()):
        p.grad = None if (round_, i) == (1, 2) else torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("betas", [(0.0, 0.99), (0.9, 0.999)])
def test_the_steps_are_those_of_pytorch(betas: tuple[float, float]) -> None:
    ours, theirs = layers(), layers()
    mine, other = Adam(ours.parameters(), betas, 1e-8), torch.optim.Adam(theirs.parameters(), 1, betas, fused=True)
    for round_, lr in enumerate([0.01, 0.02, 0.005, 0.01]):
        learn(ours, round_), learn(theirs, round_)
        mine.step(lr)
        other.param_groups[0]["lr"] = lr
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))


def test_a_step_that_is_skipped_is_none_whatever_its_gradients_are() -> None:
    ours, theirs = layers(), layers()
    mine, other = (Adam(net.parameters(), (0.5, 0.99), 1e-8) for net in (ours, theirs))
    for round_, good in enumerate([False, True, True, False, True]):
        learn(ours, round_), learn(theirs, round_)
        if good:
            other.step(0.01)
        else:
            ours[0].weight.grad.fill_(float("nan"))
        mine.step(0.01, skip=torch.tensor(0.0 if good else 1.0))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))
    for p, q in zip(ours.parameters(), theirs.parameters()):
        assert all(torch.equal(value, other.state[q][name]) for name, value in mine.state[p].items())


@pytest.mark.parametrize("rounds", [0, 2])
def test_what_was_saved_goes_on_as_if_nothing_had_been(rounds: int) -> None:
    net, again = layers(), layers()
    one, other = (Adam(n.parameters(), (0.5, 0.99), 1e-8) for n in (net, again))
    for round_ in range(rounds):
        learn(net, round_)
        one.step(0.01)
    again.load_state_dict(net.state_dict())
    other.load_state_dict(one.state_dict())
    for n, optimizer in ((net, one), (again, other)):
        learn(n, 7)
        optimizer.step(0.01)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters()))


def test_a_loaded_state_is_a_copy() -> None:
    net = layers()
    one, other = (Adam(net.parameters(), (0.0, 0.99), 1e-8) for _ in range(2))
    learn(net, 0)
    one.step(0.01)
    other.load_state_dict(one.state_dict())
    before = [entry["exp_avg_sq"].clone() for entry in other.state.values()]
    one.step(0.01)
    assert all(torch.equal(a, entry["exp_avg_sq"]) for a, entry in zip(before, other.state.values()))
    assert [int(entry["step"]) for entry in other.state.values()] == [1] * 4


def test_forgetting() -> None:
    net = layers()
    optimizer = Adam(net.parameters(), (0.0, 0.99), 1e-8)
    optimizer.step(0.01)  # nothing has a gradient: nothing happens
    learn(net, 0)
    optimizer.step(0.01)
    assert len(optimizer.state) == 4
    optimizer.forget()
    assert optimizer.state_dict() == {"state": {}}
    optimizer.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_a_state_of_other_parameters_is_refused() -> None:
    net = layers()
    optimizer = Adam(net.parameters(), (0.0, 0.99), 1e-8)
    learn(net, 0)
    optimizer.step(0.01)
    with pytest.raises(ValueError, match="no parameter 3"):
        Adam(list(net.parameters())[:3], (0.0, 0.99), 1e-8).load_state_dict(optimizer.state_dict())
    with pytest.raises(RuntimeError):
        Adam(reversed(list(net.parameters())), (0.0, 0.99), 1e-8).load_state_dict(optimizer.state_dict())


def test_the_compiler_stays_out() -> None:
    code = (
        "import sys, torch; from torch_utils.adam import Adam; p = torch.nn.Parameter(torch.ones(3)); p.grad = p * 1;"
        "a = Adam([p], (0.0, 0.99), 1e-8); a.step(0.1); a.zero_grad(); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# The averaged weights follow with the stated half-life


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
        track(average, model, share_of(batch, halflife_kimg=1.0))
    torch.testing.assert_close(average.weight.data, torch.full((3,), 0.5))
    for _ in range(1000 // batch):
        track(average, model, share_of(batch, halflife_kimg=1.0))
    torch.testing.assert_close(average.weight.data, torch.full((3,), 0.75))


def test_no_half_life_copies():
    average, model = pair()
    track(average, model, share_of(8, halflife_kimg=0))
    assert torch.equal(average.weight, model.weight)


def test_buffers_are_copied_and_the_model_is_left_alone():
    average, model = pair()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    track(average, model, share_of(8, halflife_kimg=10))
    assert torch.equal(average.running_mean, model.running_mean)
    assert average.num_batches_tracked == 7
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert average.weight.data_ptr() != model.weight.data_ptr()
