"""Our losses compute what the published ones do: same networks, same inputs, same values and same gradients.

The data come from the published TensorFlow code (networks of tests/stylegan/test_parity_official.py). It adds penalties
of shape [N] to scores of shape [N,1], which gives [N,N] with the samples' own values on the diagonal.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan.checkpoints.tensorflow import (
    STYLEGAN,
    PublishedFile,
    Variables,
    discriminator_state,
    mapping_state,
    read_published,
    stage_of,
    synthesis_state,
)
from stylegan.networks.registry import build_discriminator, build_generator
from training import losses
from training.config import LossConfig
from training.inputs import Inputs
from training.losses import GANLoss
from training.schedule import PerResolution, TrainingStage

DATA = Path(__file__).parents[1] / "data"
LODS = ("lod0", "lod0.6")
R1, R1_R2 = LossConfig(), LossConfig(r1_gamma=PerResolution(5.0), r2_gamma=PerResolution(3.0))
WGAN_GP = LossConfig("wgan-gp", PerResolution(0.0))
PENALISED = {
    "D_logistic_simplegp": R1, "D_logistic_simplegp_r1_gamma5_r2_gamma3": R1_R2, "D_wgan_gp": WGAN_GP,
}  # fmt: skip
VALUE_TOLERANCE = 5e-6  # of the values, which are about 1 to 10
GRADIENT_TOLERANCE = 2e-5  # of the largest value, and of the norms


@lru_cache(maxsize=1)
def published() -> dict[str, np.ndarray]:
    with np.load(DATA / "official_losses.npz") as file:
        return {name: file[name] for name in file.files}


@lru_cache(maxsize=2)
def networks(family: str) -> PublishedFile:
    return read_published(DATA / f"{family}_r32.pkl")


class Table:
    """One comparison: fresh networks of the file, the published inputs, and the stage that a lod means."""

    def __init__(self, family: str, lod: str):
        file = networks(family)
        self.G, self.D = build_generator(file.G.config), build_discriminator(file.D.config)
        self.G.load_state_dict(file.G.state)
        self.D.load_state_dict(file.D.state)
        self.stage = stage_of(32, float(lod.removeprefix("lod")))
        self.prefix = f"{family}/{lod}"
        self.reals = torch.from_numpy(published()[f"{family}/in/reals"])
        blend = torch.from_numpy(published()[f"{family}/in/mixing_factors"]).flatten()
        with np.load(DATA / f"{family}_r32.npz") as file:
            z = torch.from_numpy(file["in/z"])
        self.inputs = Inputs(z, z, torch.full((4,), 99), None, self.G.own_noise(), blend, reals=self.reals)

    def gan_loss(self, loss: LossConfig) -> GANLoss:
        stage = TrainingStage(self.stage.resolution, self.stage.alpha, phase=0, batch=4, lr=0.001)
        weights = {"r1": loss.r1_gamma.base, "r2": loss.r2_gamma.base}
        return GANLoss(loss, self.G, self.D, None, stage, 32, torch.float32, weights, share=4)

    def d_loss(self, loss: LossConfig) -> torch.Tensor:
        terms, _ = self.gan_loss(loss).d_loss(self.inputs)
        return torch.stack([term for term, _ in terms]).sum()

    def g_loss(self, loss: LossConfig) -> torch.Tensor:
        (term,), _ = self.gan_loss(loss).g_loss(self.inputs)
        return term[0]

    def fakes(self) -> torch.Tensor:
        return self.G(self.inputs.z, stage=self.stage)

    def scores(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.D(self.reals, stage=self.stage), self.D(self.fakes(), stage=self.stage)

    def value(self, name: str) -> torch.Tensor:
        """The published loss of each sample, [N]."""
        value = torch.from_numpy(published()[f"{self.prefix}/loss/{name}"])
        return value.diagonal() if value.shape[1] > 1 else value[:, 0]


class Gradients(Variables):
    """Published gradients in the place of the variables: the translation brings them to our names and layouts."""

    def take(self, name: str, ndim: int = 1) -> torch.Tensor:
        known = self.arrays.get(name, np.float64(math.nan))
        return torch.from_numpy(np.asarray(known)).reshape(known.shape or (1,) * ndim)


def in_our_names(gradients: dict[str, np.ndarray], kind: str) -> dict[str, torch.Tensor]:
    source = Gradients(gradients)
    if kind == "D":
        return discriminator_state(source, networks("stylegan").D.config, lambda resolution: False, STYLEGAN)
    config = networks("stylegan").G.config
    return mapping_state(source, config) | synthesis_state(source, config, lambda resolution: False, STYLEGAN)


def check_gradients(net: torch.nn.Module, prefix: str, function: str) -> None:
    """Norms of all gradients, and every element of those that the data hold in full."""
    kind, data = function[0], published()
    # What is not used at this level of detail has no gradient here, and one of zeros there.
    ours = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in net.named_parameters()}
    norms = dict(zip(data[f"{prefix}/gradnames/{function}"], data[f"{prefix}/gradnorm/{function}"]))
    expected = in_our_names({str(name): np.asarray(norm) for name, norm in norms.items()}, kind)
    compared = [name for name, norm in expected.items() if not norm.isnan().all()]
    assert sorted(compared) == sorted(ours)
    largest = max(norms.values())
    for name in compared:
        error = (ours[name].double().norm() - expected[name].flatten()[0]).abs()
        assert error <= GRADIENT_TOLERANCE * expected[name].max() + 1e-7 * largest, name
    start = f"{prefix}/grad/{function}/"
    full = {name.removeprefix(start): value for name, value in data.items() if name.startswith(start)}
    expected = {n: g for n, g in in_our_names(full, kind).items() if not g.isnan().all()}
    assert len(expected) == len(full)
    for name, gradient in expected.items():
        error = (ours[name] - gradient).abs().max()
        assert error <= GRADIENT_TOLERANCE * gradient.abs().max() + 1e-7 * largest, name


@torch.no_grad()
@pytest.mark.parametrize("lod", LODS)
def test_losses_of_scores_are_the_published(lod: str) -> None:
    table = Table("stylegan", lod)
    real, fake = table.scores()
    ours = {
        "G_wgan": losses.g_wasserstein(fake),
        "G_logistic_nonsaturating": losses.g_logistic(fake),
        "D_wgan": losses.d_wasserstein_real(real) + losses.d_wasserstein_fake(fake),
        "D_hinge": losses.d_hinge_real(real) + losses.d_hinge_fake(fake),
        "D_logistic": losses.d_logistic_real(real) + losses.d_logistic_fake(fake),
    }
    for name, value in ours.items():
        torch.testing.assert_close(value, table.value(name), rtol=VALUE_TOLERANCE, atol=VALUE_TOLERANCE, msg=name)


@pytest.mark.parametrize("lod", LODS)
def test_penalties_are_the_published_sample_by_sample(lod: str) -> None:
    table = Table("stylegan", lod)
    fakes, reals = table.fakes().detach().requires_grad_(), table.reals.requires_grad_()
    mixed = torch.lerp(reals, fakes, table.inputs.blend[:, None, None, None])
    mixed = mixed.detach().requires_grad_()
    r1, r2, gp = (losses.squared_gradient(table.D(x, stage=table.stage), x) for x in (reals, fakes, mixed))
    gp = 10 * losses.one_lipschitz(gp)
    ours = {
        "D_wgan_gp": table.value("D_wgan") + gp,
        "D_hinge_gp": table.value("D_hinge") + gp,
        "D_logistic_simplegp": table.value("D_logistic") + 5 * r1,
        "D_logistic_simplegp_r1_gamma5_r2_gamma3": table.value("D_logistic") + 2.5 * r1 + 1.5 * r2,
    }
    for name, value in ours.items():
        torch.testing.assert_close(value, table.value(name), rtol=VALUE_TOLERANCE, atol=VALUE_TOLERANCE, msg=name)


@pytest.mark.parametrize("function", PENALISED)
@pytest.mark.parametrize("lod", LODS)
def test_a_discriminator_learns_what_the_published_one_does(lod: str, function: str) -> None:
    table = Table("stylegan", lod)
    loss = table.d_loss(PENALISED[function])
    torch.testing.assert_close(loss, table.value(function).mean(), rtol=VALUE_TOLERANCE, atol=VALUE_TOLERANCE)
    loss.backward()
    check_gradients(table.D, table.prefix, function)


@pytest.mark.parametrize("lod", LODS)
def test_a_generator_learns_what_the_published_one_does(lod: str) -> None:
    table, function = Table("stylegan", lod), "G_logistic_nonsaturating"
    loss = table.g_loss(R1)
    torch.testing.assert_close(loss, table.value(function).mean(), rtol=VALUE_TOLERANCE, atol=VALUE_TOLERANCE)
    loss.backward()
    check_gradients(table.G, table.prefix, function)


@pytest.mark.parametrize("lod", LODS)
def test_progan_learns_from_the_published_losses(lod: str) -> None:
    table = Table("progan", lod)
    for ours, name in ((table.d_loss(WGAN_GP), "D_wgangp_acgan"), (table.g_loss(WGAN_GP), "G_wgan_acgan")):
        torch.testing.assert_close(ours, table.value(name).mean(), rtol=VALUE_TOLERANCE, atol=VALUE_TOLERANCE)


def test_relativistic_scores_only_count_by_their_difference() -> None:
    real, fake, shift = torch.randn(5), torch.randn(5), 3.0
    torch.testing.assert_close(losses.d_relativistic(real + shift, fake + shift), losses.d_relativistic(real, fake))
    torch.testing.assert_close(losses.g_relativistic(real, fake), losses.d_relativistic(fake, real))


def test_the_class_penalty_is_the_surprise_at_the_class() -> None:
    logits, c = torch.randn(3, 4), torch.tensor([0, 3, 1])
    expected = -logits.softmax(dim=1)[torch.arange(3), c].log()
    torch.testing.assert_close(losses.class_penalty(logits, c), expected)
