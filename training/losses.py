"""Losses as free functions. Scores are [N]; every loss returns one value per sample [N], in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def d_logistic_real(real: Tensor) -> Tensor:
    """softplus(-D(real)) (Goodfellow et al. 2014)."""
    return F.softplus(-real)


def d_logistic_fake(fake: Tensor) -> Tensor:
    """softplus(D(fake)) (Goodfellow et al. 2014)."""
    return F.softplus(fake)


def g_logistic(fake: Tensor) -> Tensor:
    """Non-saturating: softplus(-D(fake)) (Goodfellow et al. 2014)."""
    return F.softplus(-fake)


def g_logistic_saturating(fake: Tensor) -> Tensor:
    """log(1 - sigmoid(D(fake))), the game's other form."""
    return -F.softplus(fake)


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


Loss = Callable[[Tensor], Tensor]


def by_name(name: str, drift: float = 0.001) -> tuple[Loss, Loss, Loss]:
    """The discriminator's loss of real scores and of generated ones, and the generator's, of "logistic", "hinge" or
    "wgan-gp" (drift: see `d_wasserstein_real`). A relativistic loss compares the two kinds of scores in pairs instead.
    """
    if name == "logistic":
        return d_logistic_real, d_logistic_fake, g_logistic
    if name == "hinge":
        return d_hinge_real, d_hinge_fake, g_wasserstein
    return partial(d_wasserstein_real, drift=drift), d_wasserstein_fake, g_wasserstein


def squared_gradient(scores: Tensor, images: Tensor) -> Tensor:
    """|d score / d picture|^2 summed over pixels and channels, [N]; differentiable in D's weights.

    R1 and R2 are gamma / 2 times this, at reals and at fakes (Mescheder et al. 2018).
    `scores` must have been computed from `images`, which require gradients.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3))


def one_lipschitz(squared: Tensor, target: float = 1.0) -> Tensor:
    """WGAN-GP, from `squared_gradient` at mixed pictures: ((norm - target) / target)^2 (Gulrajani et al. 2017)."""
    return (squared.sqrt() - target).square() / target**2


def class_penalty(logits: Tensor, c: Tensor) -> Tensor:
    """AC-GAN's cross-entropy of the classifier in the discriminator. logits: [N,K]  c: [N]."""
    return F.cross_entropy(logits, c, reduction="none")
