"""What a run is comes back from its file, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from torch_utils.checkpoint import load_state, save_state
from torch_utils.errors import UserError
from training.state import Checks, TrainState, fresh_state, lazy_factor

CPU = torch.device("cpu")


@pytest.fixture
def saved(tiny, tmp_path) -> tuple[TrainState, Path]:
    """A state in the middle of something, and its file."""
    cfg = tiny()
    state, path = fresh_state(cfg, CPU), tmp_path / "state.pt"
    for net, optimizer in ((state.G, state.opt_g), (state.D, state.opt_d)):
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step(0.001)
    state.nimg, state.phase, state.tick, state.skipped, state.rollbacks = 480, 3, 2, 5, 1
    state.sums, state.log_bytes, state.seconds = {"d": [1.25, 3]}, {"log.txt": 17}, 9.5
    state.save(path, cfg)
    return state, path


def test_everything_comes_back(saved, tiny) -> None:
    state, path = saved
    again = fresh_state(tiny(seed=9), CPU)
    again.restore(path)
    for name in ("nimg", "phase", "tick", "skipped", "rollbacks", "sums", "log_bytes", "seconds"):
        assert getattr(again, name) == getattr(state, name)
    for one, other in ((state.G, again.G), (state.D, again.D), (state.G_ema, again.G_ema)):
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))
    for p, q in zip(state.G.parameters(), again.G.parameters()):
        assert torch.equal(state.opt_g.state[p]["exp_avg_sq"], again.opt_g.state[q]["exp_avg_sq"])


def checks(phase: str, **values: float) -> Checks:
    numbers = torch.tensor([*values.values()])
    return Checks(phase, tuple(values), numbers, numbers.isfinite(), numbers.isfinite().all())


def test_steps_are_added_up_unless_something_is_not_finite_and_the_first_such_thing_is_counted(tiny) -> None:
    state, nan, inf = fresh_state(tiny(), CPU), float("nan"), float("inf")
    state.bad_steps, state.skipped, state.sums = 2, 7, {"d": [1.5, 1]}
    steps = [
        ({"d": nan}, {"g": nan}), ({"d": 2.0}, {"g": 4.0}), ({"d": 3.0, "r1": 9.0}, {"g": inf}),
        ({"d": nan, "r1": inf}, {"g": 1.0}), ({"d": 3.0, "r1": 0.25}, {"g": 1.0}), ({"d": -inf}, {"g": 1.0}),
    ]  # fmt: skip
    for nimg, (d, g) in enumerate(steps, 100):
        of_d, of_g = checks("D", **d), checks("G", **g)
        state.tally.add((of_d, replace(of_g, good=of_d.good & of_g.good)), nimg, state.bad_steps)
    reading = state.read()
    assert reading and (reading.began, reading.most_bad_steps, state.bad_steps, state.skipped) == (100, 3, 1, 11)
    assert state.describe(reading) == {"D's mean of 'd'": 3, "G's mean of 'g'": 1}
    assert state.sums == {"d": [6.5, 3], "g": [5.0, 2], "r1": [0.25, 1]}
    assert state.read() is None


def test_a_gradient_is_named_by_its_parameter(tiny) -> None:
    state = fresh_state(tiny(), CPU)
    named = dict(state.D.named_parameters())
    place = list(named).index("head.conv.bias")
    values = torch.tensor([float("inf"), 1.0])
    bad = Checks("D", (place, "d"), values, values.isfinite(), torch.tensor(False))
    state.tally.add((bad,), 0, 0)
    reading = state.read()
    assert reading and state.describe(reading) == {"D's gradient of head.conv.bias": 1}
    assert named["head.conv.bias"] is state.opt_d.params[place]


@pytest.mark.parametrize("keep", [0, 10, 5000, -1])
def test_a_damaged_file_is_an_error_that_says_what_to_do(saved, tiny, keep: int) -> None:
    _, path = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="is damaged.*--init-from"):
        fresh_state(tiny(), CPU).restore(path)


@pytest.mark.parametrize("name, value", [
    ("nimg", 10**400), ("nimg", -1), ("nimg", True), ("tick", 1.5), ("seconds", float("nan")), ("seconds", "9"),
    ("log_bytes", {"log.txt": -1}), ("log_bytes", {"log.txt": "17"}), ("log_bytes", {3: 17}), ("log_bytes", None),
    ("sums", {"d": "x"}), ("sums", {"d": [1.0]}), ("sums", {"d": [1.0, -1]}), ("sums", {"d": [None, 1]}), ("sums", []),
    ("G", None), ("D", {}), ("opt_g", {"state": 3}), ("opt_d", {"state": {0: {"step": 1}}}),
])  # fmt: skip
def test_a_state_that_holds_something_else_is_an_error(name: str, value: object, saved, tiny) -> None:
    path = saved[1]
    save_state(path, load_state(path) | {name: value})
    with pytest.raises(UserError, match="is damaged"):
        fresh_state(tiny(), CPU).restore(path)


def test_a_file_of_another_network_is_an_error(saved, tiny) -> None:
    with pytest.raises(UserError, match="is damaged, of other networks than"):
        fresh_state(tiny(model__fmap_max=8), CPU).restore(saved[1])


def test_the_seed_decides_the_weights(tiny) -> None:
    a, b, c = (fresh_state(tiny(seed=seed), CPU).G.mapping.layers[0].weight for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_lazy_penalties_shorten_the_memory_of_adam(tiny) -> None:
    """Over an interval of 4 and a penalty, five half-steps worth, as much is forgotten as over four steps before."""
    state = fresh_state(tiny(loss__r1_interval=4), CPU)
    assert state.opt_d.betas[1] ** 5 == pytest.approx(0.99**4)
    assert state.opt_g.betas == (0.0, 0.99)
    assert (lazy_factor(1), lazy_factor(4)) == (1.0, 0.8)


@pytest.mark.parametrize("seed", [0, 1])
def test_latents_from_torchs_generator_are_none_of_the_weights(seed: int, tiny) -> None:
    """As they once were: then w is twice as large as it should be."""
    state = fresh_state(tiny(seed=seed), CPU)
    z = torch.randn(64, 16, generator=torch.Generator().manual_seed(seed))
    other = torch.randn(64, 16, generator=torch.Generator().manual_seed(seed + 100))
    sizes = [state.G.mapping(latents).norm(dim=1).mean().item() for latents in (z, other)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.2)
    drawn = torch.cat([p.detach().flatten() for p in state.G.parameters()])
    assert not torch.isin(torch.round(z.flatten(), decimals=6), torch.round(drawn, decimals=6)).float().mean() > 0.01
