"""What the discriminator minimises, and what the generator does: losses of scores, regularisers, and both together.

Scores are [N]; every loss of scores returns one value per sample [N], in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.sampling import mix
from training.augment import augment
from training.config import AID_SMALLEST, LossConfig
from training.inputs import Inputs
from training.schedule import PerResolution, TrainingStage
from training.vision_aid import VisionAid

Stats = dict[str, Tensor]
Terms = tuple[Iterable[tuple[Tensor, Stats]], Tensor | None]
"""The mean loss in terms that add up to it, each with its part of what to report, which adds up as well; and w
[N,w_dim], where there is one that has not been counted.
"""


# Losses of scores


def d_logistic_real(real: Tensor) -> Tensor:
    """softplus(-D(real)) (Goodfellow et al. 2014)."""
    return F.softplus(-real)


def d_logistic_fake(fake: Tensor) -> Tensor:
    """softplus(D(fake)) (Goodfellow et al. 2014)."""
    return F.softplus(fake)


def g_logistic(fake: Tensor) -> Tensor:
    """Non-saturating: softplus(-D(fake)) (Goodfellow et al. 2014)."""
    return F.softplus(-fake)


def d_wasserstein_real(real: Tensor, drift: float = 0.001) -> Tensor:
    """-D(real) + drift * D(real)^2; the last term keeps scores from wandering off (ProGAN, appendix A.1)."""
    return drift * real.square() - real


def d_wasserstein_fake(fake: Tensor) -> Tensor:
    """D(fake)."""
    return fake


def g_wasserstein(fake: Tensor) -> Tensor:
    return -fake


def d_hinge_real(real: Tensor) -> Tensor:
    return F.relu(1 - real)


def d_hinge_fake(fake: Tensor) -> Tensor:
    return F.relu(1 + fake)


def d_relativistic(real: Tensor, fake: Tensor) -> Tensor:
    """softplus(-(D(real) - D(fake))), reals and fakes in pairs (R3GAN, equation 2)."""
    return F.softplus(fake - real)


def g_relativistic(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(real - fake)


ScoreLoss = Callable[[Tensor], Tensor]


def by_name(name: str, drift: float = 0.001) -> tuple[ScoreLoss, ScoreLoss, ScoreLoss]:
    """The discriminator's loss of real scores and of generated ones, and the generator's, of "logistic", "hinge" or
    "wgan-gp" (drift: see `d_wasserstein_real`). A relativistic loss compares the two kinds of scores in pairs instead.
    """
    if name == "logistic":
        return d_logistic_real, d_logistic_fake, g_logistic
    if name == "hinge":
        return d_hinge_real, d_hinge_fake, g_wasserstein
    return partial(d_wasserstein_real, drift=drift), d_wasserstein_fake, g_wasserstein


def squared_gradient(scores: Tensor, images: Tensor) -> Tensor:
    """|d score / d image|^2 summed over pixels and channels, [N]; differentiable in D's weights.

    R1 and R2 are gamma / 2 times this, at reals and at fakes (Mescheder et al. 2018).
    `scores` must have been computed from `images`, which require gradients.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3))


def one_lipschitz(squared: Tensor, target: float = 1.0) -> Tensor:
    """WGAN-GP, from `squared_gradient` at mixed images: ((norm - target) / target)^2 (Gulrajani et al. 2017)."""
    return (squared.sqrt() - target).square() / target**2


def class_penalty(logits: Tensor, c: Tensor) -> Tensor:
    """AC-GAN's cross-entropy of the classifier in the discriminator. logits: [N,K]  c: [N]."""
    return F.cross_entropy(logits, c, reduction="none")


# The losses of a step


@dataclass(frozen=True)
class Regulariser:
    """A penalty that is added to the loss of a phase at every `interval`-th step, `interval` times as strongly
    (lazy regularisation: StyleGAN2, section 3.1).

    name: in the statistics   gamma: it counts gamma / 2 times
    """

    name: str
    phase: Literal["D", "G"]
    interval: int
    gamma: PerResolution[float]

    def weight_at(self, nimg: int, stage: TrainingStage) -> float:
        """The weight in the step after `nimg` images: 0 where the penalty is not due."""
        due = nimg // stage.batch % self.interval == 0
        return float(self.interval) * self.gamma.at(stage.resolution) if due else 0.0


def regularisers(loss: LossConfig) -> tuple[Regulariser, ...]:
    """R1 at real images and R2 at generated ones (Mescheder et al. 2018), as far as `loss` gives them a weight."""
    return (
        Regulariser("r1", "D", loss.r1_interval, loss.r1_gamma),
        Regulariser("r2", "D", loss.r1_interval, loss.r2_gamma),
    )


class Views(NamedTuple):
    """What the discriminator gets to see of real and generated images, [N,C,H,W]; R1 and R2 are taken there, too.

    real_maps, fake_maps: what the vision aid's network makes of them (`VisionAid.features`), empty without one
    """

    reals: Tensor
    fakes: Tensor
    real_maps: list[Tensor]
    fake_maps: list[Tensor]


@dataclass
class GANLoss:
    """The losses of one step.

    final: resolution of the finished network   dtype: of the feature maps   weights: of the regularisers, by name
    share: images of the batch that are this process's. If both phases share the generated images, the views of such a
    whole share are kept from the first to the second, with all that leads back to G; those of micro-batches are made
    again, which takes no more memory than one micro-batch does.
    """

    loss: LossConfig
    G: Generator
    D: Discriminator
    vision_aid: VisionAid | None
    stage: TrainingStage
    final: int
    dtype: torch.dtype
    weights: Mapping[str, float]
    share: int
    _kept: list[Views] = field(default_factory=list, init=False)

    def of(self, phase: str) -> Callable[[Inputs], Terms]:
        """What is minimised in the phase "D" or "G"."""
        return self.d_loss if phase == "D" else self.g_loss

    def num_terms(self, phase: str, inputs: Inputs) -> int:
        """Of how many terms the loss consists, which it does not tell before the last one has been computed."""
        if phase == "G":
            return 1
        of_scores = {"relativistic": 1, "wgan-gp": 3}.get(self.loss.name, 2)
        return of_scores + (1 if self.aid_for(inputs.reals) else 0)

    def d_loss(self, inputs: Inputs) -> Terms:
        """The discriminator's loss. A term is computed when it is asked for: back-propagated one after the other, only
        one graph is in memory at a time.
        """
        self._kept.clear()  # of a try for which memory did not suffice
        keep = self.loss.share_fakes and len(inputs.reals) == self.share
        with torch.set_grad_enabled(keep):
            fakes, w = self.fakes(inputs)
            views = self.views(inputs, fakes)
        if keep:
            self._kept.append(views)
        return self.d_terms(views, inputs), w

    def g_loss(self, inputs: Inputs) -> Terms:
        """The generator's loss. Of the real images only a relativistic loss and the vision aid take notice."""
        if self._kept:
            return [self.g_term(self._kept.pop(), inputs)], None
        fakes, w = self.fakes(inputs)
        w = None if self.loss.share_fakes else w  # it has been counted
        return [self.g_term(self.views(inputs, fakes), inputs)], w

    def fakes(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """Generated images [N,C,H,W] with mixed styles, and their w [N,w_dim] (None for a network without w)."""
        G, stage = self.G, self.stage
        if not G.has_w:
            return G(inputs.z, inputs.c, stage=stage, noise=inputs.places, dtype=self.dtype), None
        if G.config.num_ws == 1 or G.config.mixing_probability == 0:
            w = G.mapping(inputs.z, inputs.c)
            return G.synthesis(G.broadcast(w), stage, inputs.places, self.dtype), w
        both = None if inputs.c is None else inputs.c.repeat(2)
        w, other = G.mapping(torch.cat([inputs.z, inputs.z_mix]), both).chunk(2)
        ws = mix(G.broadcast(w), G.broadcast(other), inputs.crossover)
        return G.synthesis(ws, stage, inputs.places, self.dtype), w

    def views(self, inputs: Inputs, fakes: Tensor) -> Views:
        """Real and generated images, through the augmentation, if there is one."""
        reals = inputs.reals
        if inputs.views is not None:
            kinds = self.loss.diffaugment
            reals, fakes = augment(reals, inputs.views[:, 0], kinds), augment(fakes, inputs.views[:, 1], kinds)
        if aid := self.aid_for(reals):
            return Views(reals, fakes, aid.features(reals, self.dtype), aid.features(fakes, self.dtype))
        return Views(reals, fakes, [], [])

    def d_terms(self, views: Views, inputs: Inputs) -> Iterator[tuple[Tensor, Stats]]:
        loss, reals, fakes = self.loss, views.reals, views.fakes
        if aid := self.aid_for(reals):
            total, squared = aid_d_loss(aid, views.real_maps, views.fake_maps, loss.aid_gamma)
            yield loss.aid_weight * total, {"aid_d": total.detach(), "aid_r": squared.detach()}
        fake, on_fake, stats = self.side("fake", "r2", fakes, inputs.c)
        if loss.name == "relativistic":  # the only loss that compares the two
            real, on_real, more = self.side("real", "r1", reals, inputs.real_c)
            yield _term(d_relativistic(real, fake) + on_fake + on_real, stats | more)
            return
        real_loss, fake_loss, _ = by_name(loss.name, loss.wgan_drift)
        yield _term(fake_loss(fake) + on_fake, stats)
        del fake, on_fake
        real, on_real, stats = self.side("real", "r1", reals, inputs.real_c)
        yield _term(real_loss(real) + on_real, stats)
        if loss.name == "wgan-gp":
            blend = torch.lerp(reals.detach(), fakes.detach(), inputs.blend[:, None, None, None]).requires_grad_()
            mixed, _ = self.D.outputs(blend, inputs.c, self.stage, self.dtype)
            squared = squared_gradient(mixed, blend) * self.gradient_scale
            gp = one_lipschitz(squared, loss.wgan_target)
            yield _term(loss.wgan_lambda * gp, {"gp": gp.detach().mean()})

    def side(self, name: str, penalty: str, images: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor, Stats]:
        """D's scores [N] of real or of generated images, what its loss gets besides [N], and what to report."""
        gamma = self.weights.get(penalty, 0.0)
        images = images.detach().requires_grad_(gamma > 0)
        scores, logits = self.D.outputs(images, c, self.stage, self.dtype)
        stats = {name: scores.detach().mean(), f"sign_{name}": scores.detach().sign().mean()}
        extra = torch.zeros_like(scores)
        if gamma > 0:
            squared = squared_gradient(scores, images) * self.gradient_scale
            extra = extra + gamma / 2 * squared
            stats[penalty] = squared.detach().mean()
        if logits.shape[1]:
            assert c is not None
            extra = extra + self.loss.acgan_weight * class_penalty(logits, c)
        return scores, extra, stats

    def g_term(self, views: Views, inputs: Inputs) -> tuple[Tensor, Stats]:
        """The mean loss, and what to report."""
        fake, fake_logits = self.D.outputs(views.fakes, inputs.c, self.stage, self.dtype)
        if self.loss.name == "relativistic":
            with torch.no_grad():
                real, _ = self.D.outputs(views.reals, inputs.real_c, self.stage, self.dtype)
            total = g_relativistic(real, fake)
        else:
            _, _, g_loss = by_name(self.loss.name, self.loss.wgan_drift)
            total = g_loss(fake)
        if fake_logits.shape[1]:
            assert inputs.c is not None
            total = total + self.loss.acgan_weight * class_penalty(fake_logits, inputs.c)
        whole, stats = total.mean(), {"g": total.detach().mean()}
        if aid := self.aid_for(views.fakes):
            of_aid = aid_g_loss(aid, views.real_maps, views.fake_maps)
            return whole + self.loss.aid_weight * of_aid, stats | {"aid_g": of_aid.detach()}
        return whole, stats

    def aid_for(self, images: Tensor) -> VisionAid | None:
        """The vision aid, if there is one and it can see images of this size."""
        return self.vision_aid if self.vision_aid and min(images.shape[2:]) >= AID_SMALLEST else None

    @property
    def gradient_scale(self) -> float:
        """Of |d score / d image|^2. The published penalties are taken at images enlarged to the final size, whose
        pixels each carry a smaller share of the gradient; with k = final / resolution the square is 1 / k^2 of ours.
        """
        return (self.stage.resolution / self.final) ** 2


def _term(total: Tensor, stats: Stats) -> tuple[Tensor, Stats]:
    return total.mean(), stats | {"d": total.detach().mean()}


# The vision aid's part in them


def aid_d_loss(aid: VisionAid, reals: list[Tensor], fakes: list[Tensor], gamma: float) -> tuple[Tensor, Tensor]:
    """What the heads minimise, relativistic, averaged over patches and heads; and its penalty.

    The penalty, which counts gamma / 2 times, is R1 plus R2 at the features: the squared gradient of the scores'
    sum, per place. reals, fakes: their `features`
    """
    features = [x.detach().requires_grad_(gamma > 0) for x in (*reals, *fakes)]
    reals_at, fakes_at = aid.scores(features[: len(aid.heads)]), aid.scores(features[len(aid.heads) :])
    game = [d_relativistic(real, fake).mean() for real, fake in zip(reals_at, fakes_at, strict=True)]
    loss = torch.stack(game).mean()
    if not gamma:
        return loss, torch.zeros_like(loss)
    squares = [
        squared_gradient(scores, x).mean() / scores[0].numel()
        for scores, x in zip((*reals_at, *fakes_at), features, strict=True)
    ]
    penalty = torch.stack(squares).sum() / len(aid.heads)
    return loss + gamma / 2 * penalty, penalty


def aid_g_loss(aid: VisionAid, reals: list[Tensor], fakes: list[Tensor]) -> Tensor:
    """What the generator minimises, averaged over patches and heads. reals, fakes: their `features`"""
    with torch.no_grad():
        reals_at = aid.scores(reals)
    fakes_at = aid.scores(fakes)
    game = [g_relativistic(real, fake).mean() for real, fake in zip(reals_at, fakes_at, strict=True)]
    return torch.stack(game).mean()
