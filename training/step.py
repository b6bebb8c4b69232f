"""One half of a training step each: what the discriminator minimises, and what the generator does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.latents import mix
from training import losses
from training.config import LossConfig
from training.inputs import Inputs
from training.schedule import Stage

Stats = dict[str, Tensor]


@dataclass(frozen=True)
class Game:
    """What both halves need: the rules, the stage, the final resolution, and the dtype of the feature maps."""

    loss: LossConfig
    stage: Stage
    final: int
    dtype: torch.dtype

    @property
    def gradient_scale(self) -> float:
        """Of |d score / d picture|^2. The published penalties are taken at pictures enlarged to the final size, whose
        pixels each carry a smaller share of the gradient; with k = final / resolution the square is 1 / k^2 of ours.
        """
        return (self.stage.resolution / self.final) ** 2


def make_fakes(G: Generator, inputs: Inputs, game: Game) -> tuple[Tensor, Tensor | None]:
    """Pictures [N,C,H,W] with mixed styles, and their w [N,w_dim] (None for ProGAN)."""
    stage = game.stage
    if G.cfg.family == "progan":
        images = G(inputs.z, inputs.c, resolution=stage.resolution, alpha=stage.alpha, dtype=game.dtype)
        return images, None
    w = G.mapping(inputs.z, inputs.c)
    ws = G.broadcast(w)
    if G.cfg.styles and G.cfg.style_mixing > 0:
        ws = mix(ws, G.broadcast(G.mapping(inputs.z_mix, inputs.c)), inputs.crossover)
    noise = inputs.noise or "none"
    return G.synthesis(ws, stage.resolution, stage.alpha, noise, game.dtype), w


def discriminator_loss(
    D: Discriminator, reals: Tensor, c: Tensor | None, fakes: Tensor, inputs: Inputs, game: Game, penalty: float
) -> tuple[Tensor, Stats]:
    """The mean loss, and what to report. reals, fakes: [N,C,H,W]  c: classes of the reals [N].

    penalty: weight of the gradient penalties in this step: 1, or with lazy regularisation 0 and the interval in turn.
    """
    loss = game.loss
    use_r1, use_r2 = penalty > 0 and loss.r1_gamma > 0, penalty > 0 and loss.r2_gamma > 0
    reals, fakes = reals.detach().requires_grad_(use_r1), fakes.detach().requires_grad_(use_r2)
    real, real_logits = _judge(D, reals, c, game)
    fake, fake_logits = _judge(D, fakes, inputs.c, game)
    total = _d_loss(loss, real, fake)
    stats = {"real": real.detach().mean(), "fake": fake.detach().mean(),
             "sign_real": real.detach().sign().mean(), "sign_fake": fake.detach().sign().mean()}  # fmt: skip
    if use_r1:
        r1 = losses.squared_gradient(real, reals) * game.gradient_scale
        total = total + loss.r1_gamma / 2 * penalty * r1
        stats["r1"] = r1.detach().mean()
    if use_r2:
        r2 = losses.squared_gradient(fake, fakes) * game.gradient_scale
        total = total + loss.r2_gamma / 2 * penalty * r2
        stats["r2"] = r2.detach().mean()
    if loss.name == "wgan-gp":
        blend = torch.lerp(reals.detach(), fakes.detach(), inputs.blend[:, None, None, None]).requires_grad_()
        mixed, _ = _judge(D, blend, inputs.c, game)
        gp = losses.one_lipschitz(losses.squared_gradient(mixed, blend) * game.gradient_scale, loss.wgan_target)
        total = total + loss.wgan_lambda * gp
        stats["gp"] = gp.detach().mean()
    if real_logits.shape[1]:
        assert c is not None and inputs.c is not None
        classes = losses.class_penalty(real_logits, c) + losses.class_penalty(fake_logits, inputs.c)
        total = total + loss.acgan_weight * classes
    stats["d"] = total.detach().mean()
    return total.mean(), stats


def generator_loss(
    D: Discriminator, fakes: Tensor, inputs: Inputs, reals: Tensor, c: Tensor | None, game: Game
) -> tuple[Tensor, Stats]:
    """The mean loss, and what to report. reals: only looked at by the relativistic loss."""
    fake, fake_logits = _judge(D, fakes, inputs.c, game)
    if game.loss.name == "logistic":
        total = losses.g_logistic(fake)
    elif game.loss.name == "relativistic":
        with torch.no_grad():
            real, _ = _judge(D, reals, c, game)
        total = losses.g_relativistic(real, fake)
    else:
        total = losses.g_wasserstein(fake)
    if fake_logits.shape[1]:
        assert inputs.c is not None
        total = total + game.loss.acgan_weight * losses.class_penalty(fake_logits, inputs.c)
    return total.mean(), {"g": total.detach().mean()}


def _d_loss(loss: LossConfig, real: Tensor, fake: Tensor) -> Tensor:
    if loss.name == "logistic":
        return losses.d_logistic(real, fake)
    if loss.name == "relativistic":
        return losses.d_relativistic(real, fake)
    if loss.name == "hinge":
        return losses.d_hinge(real, fake)
    return losses.d_wasserstein(real, fake, loss.wgan_drift)


def _judge(D: Discriminator, images: Tensor, c: Tensor | None, game: Game) -> tuple[Tensor, Tensor]:
    return D.judge(images, c, game.stage.alpha, game.dtype)
