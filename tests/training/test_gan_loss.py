"""Laws of what the two networks minimise, and of the penalties that come with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stylegan.networks.config import Stage
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from training import losses
from training.augment import augment
from training.config import AUGMENTATIONS, LossConfig
from training.inputs import Inputs, draw
from training.losses import GANLoss, Regulariser, Views, regularisers
from training.schedule import PerResolution, TrainingStage

CPU = torch.device("cpu")
MODEL = StyleGAN1Config(resolution=32, z_dim=8, w_dim=8, mapping_dim=8, mapping_layers=2, fmap_base=128, fmap_max=8)
ALL_LOSSES = ("logistic", "relativistic", "hinge", "wgan-gp")


def setting(
    name: str = "logistic", resolution: int = 8, alpha: float = 0.3, r1: float = 10.0, model: StyleGAN1Config = MODEL,
    **loss: Any,
) -> tuple[GANLoss, Inputs]:  # fmt: skip
    """The losses of fresh networks, with weight `r1` of R1, and what they are fed with: 4 images."""
    torch.manual_seed(0)
    G, D = build_generator(model), build_discriminator(model)
    weights = {} if name == "wgan-gp" else {"r1": r1}
    stage = TrainingStage(resolution, alpha, phase=1, batch=4, lr=0.001)
    config = LossConfig(name, **loss)  # type: ignore[arg-type]
    gan_loss = GANLoss(config, G, D, None, stage, model.resolution, torch.float32, weights, share=4)
    inputs = draw(model, 0, "d", range(4), resolution, None, CPU)
    return gan_loss, replace(inputs, reals=torch.randn(4, 3, resolution, resolution))


def total(terms: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """All terms at once: loss and stats."""
    values, stats = zip(*terms, strict=True)
    return sum(values), {name: sum(part[name] for part in stats if name in part) for part in stats for name in part}


def d_loss(loss: GANLoss, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
    return total(loss.d_loss(inputs)[0])


def g_loss(loss: GANLoss, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
    return total(loss.g_loss(inputs)[0])


@pytest.mark.parametrize("resolution", [4, 8, 16, 32])
def test_penalties_are_as_if_taken_at_the_final_size(resolution: int) -> None:
    """The published networks see images enlarged to the final size, and shrink them before their first layer."""
    loss, inputs = setting(resolution=resolution, alpha=0.3 if resolution > 4 else 1.0)
    small, D, stage = inputs.reals, loss.D, loss.stage
    factor = MODEL.resolution // resolution
    large = F.interpolate(small, scale_factor=factor, mode="nearest").requires_grad_()
    published = losses.squared_gradient(D(F.avg_pool2d(large, factor), stage=stage), large)
    small.requires_grad_()
    ours = losses.squared_gradient(D(small, stage=stage), small) * loss.gradient_scale
    torch.testing.assert_close(ours, published)


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_each_phase_teaches_its_own_network(name: str) -> None:
    loss, inputs = setting(name, r1=1.0)
    d_loss(loss, inputs)[0].backward()
    assert all(p.grad is None for p in loss.G.parameters())
    assert loss.D.head.conv.weight.grad.abs().sum() > 0
    loss.D.zero_grad()
    loss.D.requires_grad_(False)
    g_loss(loss, inputs)[0].backward()
    assert all(p.grad is None for p in loss.D.parameters())
    assert loss.G.mapping.layers[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_going_downhill_lowers_the_own_loss(name: str) -> None:
    """By what the gradient promises, if the step is small."""
    loss, inputs = setting(name, r1=1.0)
    before, _ = d_loss(loss, inputs)
    before.backward()
    slope = sum(p.grad.square().sum() for p in loss.D.parameters() if p.grad is not None)
    step = 1e-4 * before.abs() / slope
    with torch.no_grad():
        for p in loss.D.parameters():
            if p.grad is not None:
                p -= step * p.grad
    after, _ = d_loss(loss, inputs)
    assert before.item() - after.item() == pytest.approx((step * slope).item(), rel=0.05)


@pytest.mark.parametrize("penalty, other", [("r1", "r2"), ("r2", "r1")])
@pytest.mark.parametrize("name", ["logistic", "relativistic", "hinge"])
def test_a_regulariser_adds_as_much_as_its_weight_says(name: str, penalty: str, other: str) -> None:
    """And half of that for each unit of the squared gradient, at its own kind of images alone."""
    loss, inputs = setting(name)
    values = [d_loss(replace(loss, weights={penalty: weight}), inputs) for weight in (0.0, 1.0, 5.0)]
    without, once, five = (value.item() for value, _ in values)
    assert five - without == pytest.approx(5 * (once - without), rel=1e-4)
    assert penalty not in values[0][1] and penalty in values[1][1] and other not in values[1][1]
    assert once - without == pytest.approx(values[1][1][penalty].item() / 2, rel=1e-3)
    images = (inputs.reals if penalty == "r1" else loss.fakes(inputs)[0].detach()).requires_grad_()
    squared = losses.squared_gradient(loss.D(images, stage=loss.stage), images).mean() * loss.gradient_scale
    assert values[1][1][penalty].item() == pytest.approx(squared.item(), rel=1e-4)


def test_a_lazy_regulariser_counts_as_often_as_it_was_left_out() -> None:
    """At every third step, three times as strongly, by the number of images alone: 0, 3, 6, ... of batches of 8."""
    gamma = PerResolution(2.0, {16: 0.5})
    lazy, always = (Regulariser("r1", "D", interval, gamma) for interval in (3, 1))
    for resolution in (8, 16):
        stage = TrainingStage(resolution, phase=0, batch=8, lr=0.1)
        weights = [lazy.weight_at(nimg, stage) for nimg in range(0, 6 * 8, 8)]
        assert weights == [3 * gamma.at(resolution), 0.0, 0.0] * 2
        assert [always.weight_at(nimg, stage) for nimg in range(0, 6 * 8, 8)] == [gamma.at(resolution)] * 6
    assert Regulariser("r1", "D", 3, PerResolution(0.0)).weight_at(0, stage) == 0


@given(st.integers(1, 9), st.integers(1, 64), st.integers(0, 10**6), st.floats(0, 100))
def test_over_a_period_a_lazy_regulariser_weighs_what_one_at_every_step_does(
    interval: int, batch: int, begin: int, gamma: float
) -> None:
    stage = TrainingStage(8, phase=0, batch=batch, lr=0.1)
    regulariser = Regulariser("r1", "D", interval, PerResolution(gamma))
    weights = [regulariser.weight_at(begin + step * batch, stage) for step in range(interval)]
    assert sum(weight > 0 for weight in weights) == (gamma > 0)
    assert sum(weights) == pytest.approx(interval * gamma)


def test_regularisers_are_what_the_config_asks_for() -> None:
    r1, r2 = regularisers(LossConfig(r1_gamma=PerResolution(3.0), r2_gamma=PerResolution(2.0), r1_interval=4))
    assert r1 == Regulariser("r1", "D", 4, PerResolution(3.0))
    assert r2 == Regulariser("r2", "D", 4, PerResolution(2.0))


def test_styles_are_mixed_from_the_crossover_on() -> None:
    loss, inputs = setting()
    first = replace(inputs, crossover=torch.full((4,), 99))
    second = replace(inputs, z=inputs.z_mix, crossover=torch.full((4,), 99))
    never = replace(inputs, crossover=torch.zeros(4, dtype=torch.int64))
    images = [loss.fakes(fed)[0] for fed in (first, second, never)]
    assert not torch.allclose(images[0], images[1])
    assert torch.equal(images[1], images[2])


def test_nothing_is_mixed_where_all_layers_share_a_style() -> None:
    loss, inputs = setting(model=replace(MODEL, styles=False))
    other = replace(inputs, z_mix=inputs.z_mix + 1, crossover=torch.zeros(4, dtype=torch.int64))
    assert loss.G.config.num_ws == 1
    assert torch.equal(loss.fakes(inputs)[0], loss.fakes(other)[0])


def test_images_are_noisy_once_the_noise_has_a_strength() -> None:
    loss, inputs = setting()
    other = replace(inputs, places=inputs.places.flip(0))
    assert torch.equal(loss.fakes(inputs)[0], loss.fakes(other)[0])
    with torch.no_grad():
        loss.G.synthesis.blocks["8"][1].noise_strength.fill_(1.0)
    assert not torch.allclose(loss.fakes(inputs)[0], loss.fakes(other)[0])


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_both_networks_are_evaluated_at_the_stage(name: str) -> None:
    """At another alpha both losses are others, though weights, images and inputs are the same."""
    loss, inputs = setting(name, r1=1.0)
    other = replace(loss, stage=replace(loss.stage, alpha=0.9))
    assert torch.equal(other.fakes(inputs)[0], loss.G.synthesis(
        _mixed(loss, inputs), Stage(8, 0.9), inputs.places))  # fmt: skip
    views = loss.views(inputs, loss.fakes(inputs)[0])
    assert total(loss.d_terms(views, inputs))[0] != total(other.d_terms(views, inputs))[0]
    assert loss.g_term(views, inputs)[0] != other.g_term(views, inputs)[0]


def _mixed(loss: GANLoss, inputs: Inputs) -> Tensor:
    """ws with the styles of z before the crossover and of z_mix after it."""
    ws, other = (loss.G.broadcast(loss.G.mapping(z)) for z in (inputs.z, inputs.z_mix))
    rows = [torch.cat([a[:cut], b[cut:]]) for a, b, cut in zip(ws, other, inputs.crossover.tolist(), strict=True)]
    return torch.stack(rows)


def test_classes_reach_both_phases() -> None:
    loss, _ = setting(alpha=1.0, model=replace(MODEL, num_classes=3))
    c = torch.tensor([0, 1, 2, 0])
    inputs = draw(loss.G.config, 0, "d", range(4), 8, c, CPU)
    reals = torch.randn(4, 3, 8, 8)
    swapped = replace(inputs, c=(inputs.c + 1) % 3)
    fakes = loss.fakes(inputs)[0].detach()
    assert not torch.allclose(fakes, loss.fakes(swapped)[0])
    views = Views(reals, fakes, [], [])
    d = [total(loss.d_terms(views, replace(inputs, real_c=c_)))[0] for c_ in (c, (c + 1) % 3)]
    g = [loss.g_term(views, fed)[0] for fed in (inputs, swapped)]
    assert d[0] != d[1] and g[0] != g[1]


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_the_discriminator_sees_augmented_images_and_the_generator_learns_through_them(name: str) -> None:
    loss, plain = setting(name, r1=1.0, diffaugment=AUGMENTATIONS)
    inputs = replace(draw(MODEL, 0, "d", range(4), 8, None, CPU, augmented=True), reals=plain.reals)
    fakes = loss.fakes(inputs)[0]
    seen = [augment(images, inputs.views[:, i], AUGMENTATIONS) for i, images in enumerate((inputs.reals, fakes))]
    assert not torch.allclose(inputs.reals, seen[0]) and not torch.allclose(fakes, seen[1])
    expected = Views(*seen, [], [])
    torch.testing.assert_close(d_loss(loss, inputs)[0], total(loss.d_terms(expected, inputs))[0])
    g, _ = g_loss(loss, inputs)
    torch.testing.assert_close(g, loss.g_term(expected, inputs)[0])
    g.backward()
    assert loss.G.mapping.layers[0].weight.grad.abs().sum() > 0
