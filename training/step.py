"""One half of a training step each: what the discriminator minimises, and what the generator does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan.networks.generator import Generator
from stylegan.networks.sampling import mix
from stylegan.networks.stylegan1 import Discriminator
from training import losses
from training.augment import augment
from training.config import AID_SMALLEST, LossConfig
from training.inputs import Inputs
from training.schedule import Stage
from training.vision_aid import Aid, aid_d_loss, aid_g_loss

Stats = dict[str, Tensor]


@dataclass(frozen=True)
class Game:
    """What both halves need: the rules, the stage, the final resolution, the dtype of the feature maps, and D's aid."""

    loss: LossConfig
    stage: Stage
    final: int
    dtype: torch.dtype
    aid: Aid | None = None

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


@dataclass(frozen=True)
class Sight:
    """What the discriminator gets to see of reals and fakes, [N,C,H,W] each; R1 and R2 are taken there, too.

    real_maps, fake_maps: what the eyes of its aid make of it (`Aid.features`), nothing without one
    """

    reals: Tensor
    fakes: Tensor
    real_maps: list[Tensor]
    fake_maps: list[Tensor]


def look(reals: Tensor, fakes: Tensor, inputs: Inputs, game: Game) -> Sight:
    """At reals and fakes [N,C,H,W], through the augmentation, if there is one."""
    if inputs.views is not None:
        kinds = game.loss.diffaugment
        reals, fakes = augment(reals, inputs.views[:, 0], kinds), augment(fakes, inputs.views[:, 1], kinds)
    if aid := _aid_for(reals, game):
        return Sight(reals, fakes, aid.features(reals, game.dtype), aid.features(fakes, game.dtype))
    return Sight(reals, fakes, [], [])


def discriminator_terms(
    D: Discriminator, sight: Sight, c: Tensor | None, inputs: Inputs, game: Game, penalty: float
) -> Iterator[tuple[Tensor, Stats]]:
    """The mean loss in terms that add up to it, each with its part of what to report, which adds up as well.

    A term is computed when it is asked for: back-propagated one after the other, only one graph is in memory at a time.

    c: classes of the reals [N]
    penalty: weight of the gradient penalties in this step: 1, or with lazy regularisation 0 and the interval in turn.
    """
    loss, resolution, reals, fakes = game.loss, game.stage.resolution, sight.reals, sight.fakes

    def fake_side() -> tuple[Tensor, Tensor, Stats]:
        return _side(D, fakes, inputs.c, game, penalty * loss.r2_gamma.at(resolution), ("fake", "r2"))

    def real_side() -> tuple[Tensor, Tensor, Stats]:
        return _side(D, reals, c, game, penalty * loss.r1_gamma.at(resolution), ("real", "r1"))

    if aid := _aid_for(reals, game):
        total, squared = aid_d_loss(aid, sight.real_maps, sight.fake_maps, loss.aid_gamma)
        yield loss.aid_weight * total, {"aid_d": total.detach(), "aid_r": squared.detach()}
    if loss.name == "relativistic":  # the only loss that compares the two
        (fake, on_fake, stats), (real, on_real, more) = fake_side(), real_side()
        yield _term(losses.d_relativistic(real, fake) + on_fake + on_real, stats | more)
        return
    fake, penalties, stats = fake_side()
    yield _term(_fake_loss(loss, fake) + penalties, stats)
    real, penalties, stats = real_side()
    yield _term(_real_loss(loss, real) + penalties, stats)
    if loss.name == "wgan-gp":
        blend = torch.lerp(reals.detach(), fakes.detach(), inputs.blend[:, None, None, None]).requires_grad_()
        mixed, _ = _judge(D, blend, inputs.c, game)
        gp = losses.one_lipschitz(losses.squared_gradient(mixed, blend) * game.gradient_scale, loss.wgan_target)
        yield _term(loss.wgan_lambda * gp, {"gp": gp.detach().mean()})


def _side(
    D: Discriminator, images: Tensor, c: Tensor | None, game: Game, gamma: float, names: tuple[str, str]
) -> tuple[Tensor, Tensor, Stats]:
    """D's scores [N] of one kind of pictures, what its loss gets besides [N], and what to report."""
    side, penalty = names
    images = images.detach().requires_grad_(gamma > 0)
    scores, logits = _judge(D, images, c, game)
    stats = {side: scores.detach().mean(), f"sign_{side}": scores.detach().sign().mean()}
    extra = torch.zeros_like(scores)
    if gamma > 0:
        squared = losses.squared_gradient(scores, images) * game.gradient_scale
        extra = extra + gamma / 2 * squared
        stats[penalty] = squared.detach().mean()
    if logits.shape[1]:
        assert c is not None
        extra = extra + game.loss.acgan_weight * losses.class_penalty(logits, c)
    return scores, extra, stats


def _term(total: Tensor, stats: Stats) -> tuple[Tensor, Stats]:
    return total.mean(), stats | {"d": total.detach().mean()}


def generator_loss(
    D: Discriminator, sight: Sight, c: Tensor | None, inputs: Inputs, game: Game
) -> tuple[Tensor, Stats]:  # fmt: skip
    """The mean loss, and what to report. c: classes of the reals [N], which only a relativistic loss looks at."""
    fake, fake_logits = _judge(D, sight.fakes, inputs.c, game)
    if game.loss.name == "logistic":
        total = losses.g_logistic(fake)
    elif game.loss.name == "relativistic":
        with torch.no_grad():
            real, _ = _judge(D, sight.reals, c, game)
        total = losses.g_relativistic(real, fake)
    else:
        total = losses.g_wasserstein(fake)
    if fake_logits.shape[1]:
        assert inputs.c is not None
        total = total + game.loss.acgan_weight * losses.class_penalty(fake_logits, inputs.c)
    whole, stats = total.mean(), {"g": total.detach().mean()}
    if aid := _aid_for(sight.fakes, game):
        of_aid = aid_g_loss(aid, sight.real_maps, sight.fake_maps)
        return whole + game.loss.aid_weight * of_aid, stats | {"aid_g": of_aid.detach()}
    return whole, stats


def _aid_for(images: Tensor, game: Game) -> Aid | None:
    """The aid, if there is one and it can see pictures of this size."""
    return game.aid if game.aid and min(images.shape[2:]) >= AID_SMALLEST else None


def _real_loss(loss: LossConfig, real: Tensor) -> Tensor:
    if loss.name == "logistic":
        return losses.d_logistic_real(real)
    if loss.name == "hinge":
        return losses.d_hinge_real(real)
    return losses.d_wasserstein_real(real, loss.wgan_drift)


def _fake_loss(loss: LossConfig, fake: Tensor) -> Tensor:
    if loss.name == "logistic":
        return losses.d_logistic_fake(fake)
    if loss.name == "hinge":
        return losses.d_hinge_fake(fake)
    return losses.d_wasserstein_fake(fake)


def _judge(D: Discriminator, images: Tensor, c: Tensor | None, game: Game) -> tuple[Tensor, Tensor]:
    return D.judge(images, c, game.stage.alpha, game.dtype)
