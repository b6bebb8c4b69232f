"""Laws of the two halves of a step."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from training import losses
from training.augment import augment
from training.config import AUGMENTATIONS, LossConfig
from training.inputs import Inputs, draw
from training.schedule import PerResolution, Stage
from training.step import Game, discriminator_terms, generator_loss, look, make_fakes

MODEL = StyleGAN1Config(resolution=32, z_dim=8, w_dim=8, mapping_dim=8, mapping_layers=2, fmap_base=128, fmap_max=8)
ALL_LOSSES = ("logistic", "relativistic", "hinge", "wgan-gp")


def setting(name: str = "logistic", resolution: int = 8, alpha: float = 0.3, r1_gamma: float = 10.0):
    torch.manual_seed(0)
    G, D = build_generator(MODEL), build_discriminator(MODEL)
    game = Game(
        LossConfig(name, PerResolution(r1_gamma)),
        Stage(1, resolution, alpha, 4, 0.001),
        MODEL.resolution,
        torch.float32,
    )
    inputs = draw(MODEL, 0, "d", range(4), resolution, None, torch.device("cpu"))
    return G, D, game, inputs, torch.randn(4, 3, resolution, resolution)


def discriminator_loss(D, reals, c, fakes, inputs, game, penalty: float):
    """All terms at once: (loss, stats)."""
    sight = look(reals, fakes, inputs, game)
    terms, stats = zip(*discriminator_terms(D, sight, c, inputs, game, penalty), strict=True)
    return sum(terms), {name: sum(part[name] for part in stats if name in part) for part in stats for name in part}


@pytest.mark.parametrize("resolution", [4, 8, 16, 32])
def test_penalties_are_as_if_taken_at_the_final_size(resolution: int) -> None:
    """The published networks see pictures enlarged to the final size, and shrink them before their first layer."""
    alpha = 0.3 if resolution > 4 else 1.0
    _, D, game, _, small = setting(resolution=resolution, alpha=alpha)
    factor = MODEL.resolution // resolution
    large = F.interpolate(small, scale_factor=factor, mode="nearest").requires_grad_()
    published = losses.squared_gradient(D(F.avg_pool2d(large, factor), alpha=alpha), large)
    small.requires_grad_()
    ours = losses.squared_gradient(D(small, alpha=alpha), small) * game.gradient_scale
    torch.testing.assert_close(ours, published)


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_each_half_teaches_its_own_network(name: str) -> None:
    G, D, game, inputs, reals = setting(name, r1_gamma=0.0 if name == "wgan-gp" else 1.0)
    fakes, _ = make_fakes(G, inputs, game)
    loss, _ = discriminator_loss(D, reals, None, fakes, inputs, game, penalty=1.0)
    loss.backward()
    assert all(p.grad is None for p in G.parameters())
    assert D.head.conv.weight.grad.abs().sum() > 0
    D.zero_grad()
    D.requires_grad_(False)
    loss, _ = generator_loss(D, look(reals, fakes, inputs, game), None, inputs, game)
    loss.backward()
    assert all(p.grad is None for p in D.parameters())
    assert G.mapping.layers[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_going_downhill_improves_the_own_game(name: str) -> None:
    """A small step against the gradient lowers the loss by what the gradient promises."""
    G, D, game, inputs, reals = setting(name, r1_gamma=0.0 if name == "wgan-gp" else 1.0)
    fakes = make_fakes(G, inputs, game)[0].detach()

    def evaluate() -> torch.Tensor:
        return discriminator_loss(D, reals, None, fakes, inputs, game, penalty=1.0)[0]

    before = evaluate()
    before.backward()
    slope = sum(p.grad.square().sum() for p in D.parameters() if p.grad is not None)
    step = 1e-3 * before.abs() / slope
    with torch.no_grad():
        for p in D.parameters():
            if p.grad is not None:
                p -= step * p.grad
    promised = (step * slope).item()
    assert before.item() - evaluate().item() == pytest.approx(promised, rel=0.05)


def test_a_lazy_penalty_counts_as_often_as_it_was_left_out() -> None:
    _, D, game, inputs, reals = setting(r1_gamma=4.0)
    fakes = torch.randn_like(reals)
    values = [discriminator_loss(D, reals, None, fakes, inputs, game, penalty=p) for p in (0.0, 1.0, 5.0)]
    without, once, five = (loss.item() for loss, _ in values)
    assert five - without == pytest.approx(5 * (once - without), rel=1e-4)
    assert "r1" not in values[0][1] and "r1" in values[1][1]


def test_styles_are_mixed_from_the_crossover_on() -> None:
    G, _, game, inputs, _ = setting()
    first = dataclasses.replace(inputs, crossover=torch.full((4,), 99))
    second = dataclasses.replace(inputs, z=inputs.z_mix, crossover=torch.full((4,), 99))
    never = dataclasses.replace(inputs, crossover=torch.zeros(4, dtype=torch.int64))
    pictures = [make_fakes(G, fed, game)[0] for fed in (first, second, never)]
    assert not torch.allclose(pictures[0], pictures[1])
    assert torch.equal(pictures[1], pictures[2])


def test_pictures_are_noisy_once_the_noise_has_a_strength() -> None:
    G, _, game, inputs, _ = setting()
    other = dataclasses.replace(inputs, noise=[m.flip(0) for m in inputs.noise])
    assert torch.equal(make_fakes(G, inputs, game)[0], make_fakes(G, other, game)[0])
    with torch.no_grad():
        G.synthesis.blocks["8"][1].noise_strength.fill_(1.0)
    assert not torch.allclose(make_fakes(G, inputs, game)[0], make_fakes(G, other, game)[0])


def test_classes_reach_both_halves() -> None:
    model = dataclasses.replace(MODEL, num_classes=3)
    torch.manual_seed(0)
    G, D = build_generator(model), build_discriminator(model)
    game = Game(LossConfig(), Stage(0, 8, 1.0, 4, 0.001), 32, torch.float32)
    c = torch.tensor([0, 1, 2, 0])
    inputs: Inputs = draw(model, 0, "d", range(4), 8, c.numpy(), torch.device("cpu"))
    reals, fakes = torch.randn(4, 3, 8, 8), make_fakes(G, inputs, game)[0].detach()
    swapped = dataclasses.replace(inputs, c=(inputs.c + 1) % 3)
    d = [discriminator_loss(D, reals, c_, fakes, inputs, game, 1.0)[0] for c_ in (c, (c + 1) % 3)]
    g = [generator_loss(D, look(reals, fakes, fed, game), c, fed, game)[0] for fed in (inputs, swapped)]
    assert d[0] != d[1] and g[0] != g[1]
    assert not torch.allclose(fakes, make_fakes(G, swapped, game)[0])


@pytest.mark.parametrize("name", ALL_LOSSES)
def test_the_discriminator_sees_augmented_pictures_and_the_generator_learns_through_them(name: str) -> None:
    G, D, game, _, reals = setting(name, r1_gamma=0.0 if name == "wgan-gp" else 1.0)
    game = dataclasses.replace(game, loss=dataclasses.replace(game.loss, diffaugment=AUGMENTATIONS))
    inputs = draw(MODEL, 0, "d", range(4), 8, None, torch.device("cpu"), augmented=True)
    assert inputs.views is not None
    fakes = make_fakes(G, inputs, game)[0]
    views = [augment(pictures, inputs.views[:, i], AUGMENTATIONS) for i, pictures in enumerate((reals, fakes))]
    assert not torch.allclose(reals, views[0]) and not torch.allclose(fakes, views[1])
    blind = dataclasses.replace(inputs, views=None)
    d = discriminator_loss(D, reals, None, fakes, inputs, game, penalty=1.0)[0]
    torch.testing.assert_close(d, discriminator_loss(D, views[0], None, views[1], blind, game, penalty=1.0)[0])
    g = generator_loss(D, look(reals, fakes, inputs, game), None, inputs, game)[0]
    torch.testing.assert_close(g, generator_loss(D, look(views[0], views[1], blind, game), None, blind, game)[0])
    g.backward()
    assert G.mapping.layers[0].weight.grad.abs().sum() > 0
