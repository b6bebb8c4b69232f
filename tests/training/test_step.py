"""Laws of a whole step: micro-batches add up, formats agree, nothing that is not finite gets into a network, and where
memory runs out a phase is done again with fewer images at once.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan.networks.config import Stage
from stylegan.networks.dcgan import DCGANConfig
from stylegan.networks.inference import Renderer
from stylegan.networks.layers import minibatch_stddev
from torch_utils.errors import UserError
from torch_utils.images import to_float
from training.config import AUGMENTATIONS, RunConfig
from training.data.archive import Archive
from training.data.dataset import Dataset
from training.loop import labels_on
from training.losses import GANLoss, Stats
from training.schedule import PerResolution
from training.state import TrainState, fresh_state
from training.step import (
    fewer,
    learning_rate,
    micro_batch_sizes,
    move_w_avg,
    out_of_memory,
    train_step,
    w_by_class,
)

CPU = torch.device("cpu")


def after(steps: int, cfg: RunConfig, prepare: Callable[[TrainState], None] = lambda state: None,
          nimg: int = 200) -> tuple[TrainState, list[tuple[Stats, str]]]:  # fmt: skip
    """The state and the reports after some steps, from fresh networks, at the stage of `nimg`."""
    data = Dataset(Archive.open(cfg.data.path), seed=cfg.seed)
    labels = labels_on(data, cfg, CPU)
    state, outcomes = fresh_state(cfg, CPU), []
    state.nimg = nimg
    prepare(state)
    dtype = torch.bfloat16 if cfg.precision == "bf16" else torch.float32
    for _ in range(steps):
        stage = cfg.growth.at(state.nimg)
        images, c = data.batch(state.nimg, stage.batch, *cfg.model.size(stage.resolution))
        reals = to_float(images), c if cfg.data.cond else None
        stats = train_step(state, reals, stage, cfg, labels, dtype)
        reading = state.read()
        assert reading
        outcomes.append((stats, "".join(state.describe(reading))))
        state.nimg += stage.batch
    return state, outcomes


def weights(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def buffers(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([b.flatten() for b in net.buffers()])


@pytest.mark.parametrize("rounds", [2, 4])
@pytest.mark.parametrize("loss", ["logistic", "wgan-gp", "relativistic"])
def test_a_batch_in_rounds_is_the_batch_at_once(rounds: int, loss: str, tiny, uneven) -> None:
    """Also with groups of the minibatch deviation. Adam's eps of 1 makes a step proportional to the gradient."""
    gamma = PerResolution(0.0 if loss == "wgan-gp" else 1.0)
    common = {
        "loss__name": loss, "loss__r1_gamma": gamma, "model__mbstd_group": 2, "optim__eps": 1.0,
        "data__cond": loss == "logistic", "loss__diffaugment": AUGMENTATIONS if loss == "relativistic" else (),
    }  # fmt: skip
    (once, whole), (parts, in_parts) = (after(2, tiny(**common, batch_gpu=n), uneven) for n in (None, 8 // rounds))
    fresh = fresh_state(tiny(**common), CPU)
    uneven(fresh)
    for name in ("G", "D", "G_ema"):
        one, start = (weights(getattr(state, name)) for state in (once, fresh))
        moved = (one - start).abs().max()
        assert moved > 0
        for key, ours in getattr(once, name).named_parameters():
            apart = (ours - getattr(parts, name).get_parameter(key)).abs()
            assert (apart <= 1e-2 * moved + 3e-7 * ours.abs()).all(), key
            assert ours.grad is None, "its memory is for the other phase"
    for stats in ("d", "g", "real", "norm_d", "norm_g"):
        assert whole[-1][0][stats].item() == pytest.approx(in_parts[-1][0][stats].item(), rel=5e-3, abs=1e-5)
    torch.testing.assert_close(once.G.mapping.w_avg, parts.G.mapping.w_avg, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["logistic", "relativistic"])
def test_pictures_that_are_compared_are_of_one_class(loss: str, tiny, monkeypatch) -> None:
    compared: list[bool] = []

    def watched(self, views, inputs):
        compared.append(torch.equal(inputs.real_c, inputs.c))
        return d_terms(self, views, inputs)

    d_terms = GANLoss.d_terms
    monkeypatch.setattr(GANLoss, "d_terms", watched)
    after(3, tiny(loss__name=loss, data__cond=True))
    assert compared == [loss == "relativistic"] * 3


@pytest.mark.parametrize("share_fakes", [False, True])
@pytest.mark.parametrize("loss", ["logistic", "relativistic", "wgan-gp"])
def test_fakes_are_made_for_each_network_or_once_for_both(loss: str, share_fakes: bool, tiny, monkeypatch) -> None:
    """Shared, both see the same, G learns what it would from fakes made anew, and w is counted once."""
    gamma = PerResolution(0.0 if loss == "wgan-gp" else 1.0)
    cfg = tiny(loss__name=loss, loss__r1_gamma=gamma, loss__share_fakes=share_fakes, loss__diffaugment=AUGMENTATIONS)
    made: list[tuple[bool, torch.Tensor]] = []

    def watched(self, inputs):
        images, w = fakes(self, inputs)
        made.append((torch.is_grad_enabled(), images.detach()))
        return images, w

    fakes = GANLoss.fakes
    monkeypatch.setattr(GANLoss, "fakes", watched)
    once, ((stats, _),) = after(1, cfg)
    assert [learning for learning, _ in made] == ([True] if share_fakes else [False, True])
    parts, ((in_parts, _),) = after(1, replace(cfg, batch_gpu=4))
    for_d, for_g = made[-4:-2], made[-2:]
    assert [learning for learning, _ in for_d + for_g] == [False, False, True, True]
    assert [torch.equal(a, b) for (_, a), (_, b) in zip(for_d, for_g, strict=True)] == [share_fakes] * 2
    for name in ("d", "g", "norm_g"):
        torch.testing.assert_close(stats[name], in_parts[name], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(once.G.mapping.w_avg, parts.G.mapping.w_avg)


@pytest.mark.parametrize("share_fakes", [False, True])
@pytest.mark.parametrize("loss", ["logistic", "relativistic"])
@pytest.mark.parametrize("spared", [0, 1])
def test_a_step_short_of_memory_ends_as_if_begun_with_fewer(spared, loss, share_fakes, memory_for, tiny) -> None:
    """To the last bit, also where some gradients had been added up before."""
    r2 = PerResolution(1.0)
    common = {"loss__name": loss, "loss__share_fakes": share_fakes, "model__mbstd_group": 2, "loss__r2_gamma": r2}
    halved, _ = after(2, tiny(**common), lambda state: memory_for(state.D, 5, spared))
    straight, _ = after(2, tiny(**common, batch_gpu=4))
    for name in ("G", "D", "G_ema"):
        assert torch.equal(weights(getattr(halved, name)), weights(getattr(straight, name)))
    assert torch.equal(halved.G.mapping.w_avg, straight.G.mapping.w_avg)
    assert halved.micro_batch == {16: 4}


def test_where_only_the_generator_has_no_memory_the_discriminator_steps_once(memory_for, tiny) -> None:
    calls_of_d_phase = 2
    halved, _ = after(1, tiny(), lambda state: memory_for(state.D, 4, calls_of_d_phase))
    whole, _ = after(1, tiny())
    assert halved.micro_batch == {16: 4}
    assert torch.equal(weights(halved.D), weights(whole.D))
    assert {int(entry["step"]) for entry in (*halved.opt_d.state.values(), *halved.opt_g.state.values())} == {1}
    torch.testing.assert_close(halved.G.mapping.w_avg, whole.G.mapping.w_avg, rtol=1e-4, atol=1e-6)


def test_no_memory_for_the_smallest_part_ends_the_run_with_a_word(memory_for, tiny) -> None:
    with pytest.raises(UserError, match="too small for 4 images of 16x16 .*--mbstd-group.*out of memory"):
        after(1, tiny(), lambda state: memory_for(state.D, 3))


SHORT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you"),
    RuntimeError('torch_call_dispatcher( "aten::empty_like", "", stack.data()) API call failed at ops.h'),
    RuntimeError("could not create a primitive"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    MemoryError(),
]
OTHER_TROUBLE = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
]


def fails_once(error: Exception) -> Callable[[TrainState], None]:
    """Makes the discriminator raise `error` when it is first called."""
    left = [error]

    def before(*_: Any) -> None:
        if left:
            raise left.pop()

    return lambda state: state.D.head.register_forward_pre_hook(before) and None


@pytest.mark.parametrize("error", SHORT_OF_MEMORY, ids=str)
def test_a_lack_of_memory_is_recognised_by_whoever_reports_it(error: RuntimeError | MemoryError, tiny) -> None:
    assert out_of_memory(error)
    state, ((_, bad),) = after(1, tiny(), fails_once(error))
    assert state.micro_batch == {16: 4} and not bad
    with pytest.raises(UserError, match="too small for 4 images of 16x16") as refusal:
        after(1, tiny(batch_gpu=4), fails_once(error))
    assert refusal.value.__cause__ is error


@pytest.mark.parametrize("error", OTHER_TROUBLE, ids=str)
def test_other_trouble_is_no_lack_of_memory(error: RuntimeError, tiny) -> None:
    assert not out_of_memory(error)
    for cfg in (tiny(), tiny(batch_gpu=4)):
        with pytest.raises(RuntimeError) as raised:
            after(1, cfg, fails_once(error))
        assert raised.value is error


def test_a_real_allocation_that_cannot_be_is_recognised() -> None:
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(raised.value)


def test_nothing_of_what_failed_is_held_while_it_is_done_again(tiny) -> None:
    """Neither what had been computed, nor the gradients that had been added up."""
    held: list[weakref.ref[torch.Tensor]] = []
    seen: list[bool] = []

    def prepare(state: TrainState) -> None:
        def before(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            has_gradients = any(p.grad is not None for p in state.D.parameters())
            if len(arguments[0]) <= 4:
                seen.append(has_gradients or any(tensor() is not None for tensor in held))
                return
            held.append(weakref.ref(arguments[0]))
            if has_gradients:
                raise MemoryError

        state.D.head.register_forward_pre_hook(before)

    state, _ = after(1, tiny(), prepare)
    assert state.micro_batch == {16: 4} and len(held) == 2 and seen[0] is False


# Sizes of micro-batches


sizes = st.integers(1, 48)


@given(sizes, st.integers(1, 6), st.none() | sizes)
def test_micro_batches_are_whole_groups_and_halving_ends_at_the_least(share: int, group: int, most: int | None) -> None:
    most = next(n for n in range(min(most, share), 0, -1) if share % n == 0) if most else None
    found = micro_batch_sizes(share, group, most)
    largest = most or share
    assert found == sorted(set(found), reverse=True)
    for size in found:
        assert share % size == 0 and size <= largest and size % min(group, largest) == 0
        smaller = fewer(size, share, group, most)
        assert smaller is None if size == found[-1] else smaller in found and 2 * smaller <= size
    if largest % min(group, largest) == 0:
        assert found[0] == largest


@pytest.mark.parametrize("share, group, parts", [(32, 4, [32, 16, 8, 4]), (24, 4, [24, 12, 8, 4]), (6, 1, [6, 3, 2, 1]),
                                                 (2, 4, [2]), (9, 3, [9, 3]), (5, 0, [5, 1])])  # fmt: skip
def test_micro_batches_by_hand(share: int, group: int, parts: list[int]) -> None:
    assert micro_batch_sizes(share, group) == parts


def test_every_micro_batch_compares_the_images_that_the_whole_batch_compares() -> None:
    x = torch.randn(24, 2, 3, 3)
    whole = minibatch_stddev(x, 4)
    for size in micro_batch_sizes(24, 4):
        rounds = 24 // size
        for start in range(rounds):
            torch.testing.assert_close(minibatch_stddev(x[start::rounds], 4), whole[start::rounds])


# The running average of w


def test_w_avg_moves_a_little_towards_each_mean(tiny) -> None:
    G = fresh_state(tiny(), CPU).G
    w = torch.cat([torch.zeros(4, 16), torch.full((4, 16), 2.0)])
    for _ in range(3):
        move_w_avg(G, w_by_class(w, None, 0))
    torch.testing.assert_close(G.mapping.w_avg, torch.full((16,), 1 - 0.995**3))
    move_w_avg(G, None)
    torch.testing.assert_close(G.mapping.w_avg, torch.full((16,), 1 - 0.995**3))


def test_each_class_has_an_average_of_its_own_that_moves_with_its_share(tiny) -> None:
    G = fresh_state(tiny(data__cond=True, model__num_classes=3), CPU).G
    w = torch.tensor([1.0, 3.0, 5.0, 5.0]).repeat_interleave(2)[:, None].expand(-1, 16)
    c = torch.tensor([0, 0, 0, 0, 2, 2, 2, 2])
    for _ in range(10):
        move_w_avg(G, w_by_class(w, c, 3))
    moved = 1 - 0.995 ** (10 * 3 / 2)  # half of the batch is one and a half times a third
    torch.testing.assert_close(G.mapping.w_avg, torch.tensor([[2.0], [0.0], [5.0]]).expand(3, 16) * moved)


def test_of_many_classes_none_forgets_all_at_once(tiny) -> None:
    G = fresh_state(tiny(model__num_classes=1000), CPU).G
    move_w_avg(G, w_by_class(torch.ones(2, 16), torch.tensor([7, 8]), 1000))
    torch.testing.assert_close(G.mapping.w_avg[[6, 7, 8]], torch.tensor([0, 0.005, 0.005])[:, None].expand(3, 16))


def test_w_avg_does_not_swallow_what_is_not_finite(tiny) -> None:
    G = fresh_state(tiny(), CPU).G
    w = torch.ones(2, 16)
    w[0, 3], w[1, 4] = math.inf, math.nan
    move_w_avg(G, w_by_class(w, None, 0))
    assert G.mapping.w_avg[3] == G.mapping.w_avg[4] == 0 and G.mapping.w_avg[5] > 0


def test_the_average_forgets_half_in_its_half_life(tiny) -> None:
    """Stepping with no learning rate: what the average moves by is a matter of the half-life alone."""
    start: list[torch.Tensor] = []

    def shift(state: TrainState) -> None:
        with torch.no_grad():
            for p in state.G_ema.parameters():
                p.add_(1.0)
        start.append(weights(state.G_ema))

    state, _ = after(3, tiny(ema_kimg=0.024, growth__lr=tiny().growth.lr.__class__(0.0)), shift)
    torch.testing.assert_close(weights(state.G_ema) - weights(state.G), torch.full_like(start[0], 0.5))


def poison_gradient(module: str) -> Callable[[TrainState], None]:
    """Makes the gradient of one layer infinite, by a hook on its weight."""

    def prepare(state: TrainState) -> None:
        net = getattr(state, module[0])
        net.get_parameter(module[2:]).register_hook(lambda grad: grad * math.inf)

    return prepare


@pytest.mark.parametrize("layer", ["D.head.conv.weight", "G.mapping.layers.1.bias", "G.synthesis.to_rgb.16.weight"])
def test_an_infinite_gradient_is_named_and_its_network_left_alone(layer: str, tiny) -> None:
    cfg = tiny()
    state, ((_, bad),) = after(1, cfg, poison_gradient(layer))
    fresh = fresh_state(cfg, CPU)
    assert bad == f"{layer[0]}'s gradient of {layer[2:]}"
    # D's trouble comes first and ends the step; G's leaves what D has learned from the same batch.
    for name, still in (("G", True), ("D", layer[0] == "D")):
        assert torch.equal(weights(getattr(state, name)), weights(getattr(fresh, name))) == still
    moments = (state.opt_g if layer[0] == "G" else state.opt_d).state.values()
    assert moments and not any(moment.any() for entry in moments for moment in entry.values())


def infinite_score(state: TrainState) -> None:
    with torch.no_grad():
        state.D.head.dense1.bias.fill_(math.inf)


def not_a_number_in_w(state: TrainState) -> None:
    with torch.no_grad():
        state.G.mapping.layers[0].bias[0] = math.nan


@pytest.mark.parametrize("loss", ["logistic", "hinge", "wgan-gp", "relativistic"])
@pytest.mark.parametrize("trouble", [infinite_score, not_a_number_in_w])
def test_no_network_moves_when_a_score_or_a_style_is_not_finite(loss: str, trouble: Any, tiny) -> None:
    """Whatever the gradients are: that of a softplus at infinity is 1 or 0, which looks healthy."""
    cfg = tiny(loss__name=loss, loss__r1_gamma=PerResolution(0.0 if loss == "wgan-gp" else 1.0))
    before: list[TrainState] = []

    def prepare(state: TrainState) -> None:
        trouble(state)
        before.append(copy.deepcopy(state))

    state, ((_, bad),) = after(1, cfg, prepare)
    assert bad
    for name in ("G", "D"):
        old, new = (weights(getattr(s, name)).nan_to_num(7, 8) for s in (before[0], state))
        assert torch.equal(old, new)
    assert buffers(state.G).isfinite().all() and buffers(state.G_ema).isfinite().all()


def test_the_averages_of_batch_norm_do_not_swallow_what_is_not_finite(tiny) -> None:
    """Those of a DCGAN move in a forward pass, before it is known that the step is bad."""
    growth = {"growth__initial": 16, "growth__final": 16}
    cfg = replace(tiny(**growth), model=DCGANConfig(resolution=16, z_dim=8, fmap_base=64, fmap_max=8))

    def poison(state: TrainState) -> None:
        with torch.no_grad():
            state.G.synthesis.dense[0, 0] = math.nan

    state, ((_, bad),) = after(1, cfg, poison)
    assert bad
    assert all(buffers(net).isfinite().all() for net in (state.G, state.D, state.G_ema))
    first = state.G.synthesis.norms["4"].mean
    assert first[0] == 0 and (first[1:] != 0).all(), "only the average of the poisoned feature map stays"


def test_what_cannot_be_added_up_is_named(tiny) -> None:
    """Gradients that are finite, but the sum of whose squares is not."""
    state, ((_, bad),) = after(
        1, tiny(), lambda state: state.D.head.conv.bias.register_hook(lambda grad: torch.full_like(grad, 1e30))
    )
    assert bad == "D's gradient of head.conv.bias"
    assert weights(state.D).isfinite().all()


def test_lazy_penalties_come_every_so_many_steps_at_any_count(tiny) -> None:
    _, outcomes = after(7, tiny(loss__r1_interval=3), nimg=160)
    assert ["r1" in stats for stats, _ in outcomes] == [(160 // 8 + i) % 3 == 0 for i in range(7)]


@pytest.mark.parametrize("interval", [1, 2, 8])
def test_a_network_with_a_lazy_penalty_learns_as_much_less_in_a_step(interval: int, tiny) -> None:
    """And Adam remembers as much less: of the discriminator, as only that has penalties (StyleGAN2, appendix B)."""
    cfg = tiny(loss__r1_interval=interval, optim__g_share=0.5, optim__beta1=0.5)
    state, stage = fresh_state(cfg, CPU), cfg.growth.at(200)
    (D, d), (G, g) = (state.learner(phase) for phase in "DG")
    lazy = interval / (interval + 1) if interval > 1 else 1.0
    assert [learning_rate(phase, stage, cfg) for phase in "DG"] == [stage.lr * lazy, stage.lr * 0.5]
    assert d.betas == (0.5**lazy, 0.99**lazy) and g.betas == (0.5, 0.99)
    assert (D, G) == (state.D, state.G)


@pytest.mark.parametrize("steps", [5, 40])
def test_bf16_computes_the_losses_of_fp32(steps: int, tiny) -> None:
    """Within 2% (gradient norms: 10%), early too, when the constant is still near the ones that bfloat16 cannot tell
    from it. Rounding the weights to bfloat16 alone moves the losses by up to 7%, in float32. A score near zero may
    change its sign: one of the eight.
    """
    trained, _ = after(steps, tiny())

    def continued(state: TrainState) -> None:
        for name in ("G", "D", "G_ema"):
            getattr(state, name).load_state_dict(getattr(trained, name).state_dict())

    exact, ours = (after(1, tiny(precision=precision), continued, nimg=2000)[1][0][0] for precision in ("fp32", "bf16"))
    assert "r1" in exact
    for name, value in exact.items():
        relative = 0.1 if name.startswith("norm") else 0.02
        absolute = 0 if name.startswith("norm") else 2 / 8 if "sign" in name else 0.02
        assert ours[name].item() == pytest.approx(value.item(), rel=relative, abs=absolute)


def test_a_run_in_bf16_ends_at_the_quality_of_one_in_fp32(tiny) -> None:
    """Brightness, contrast and variety of what both make after 60 steps (measured: within 0.02)."""

    def made(precision: str) -> torch.Tensor:
        state, _ = after(60, tiny(ema_kimg=0.2, precision=precision))
        images = Renderer.of(state.G_ema, Stage(16)).render(range(16), psi=1.0)
        return torch.stack([images.mean(), images.std(), images.std(dim=0).mean()])

    fp32, bf16 = made("fp32"), made("bf16")
    torch.testing.assert_close(bf16, fp32, rtol=0, atol=0.1)
    assert bf16[2] > 0.3, "images differ from each other"
