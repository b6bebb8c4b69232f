"""What each metric is refused for, as far as it is known before anything is measured: so that its name says no more
than what was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.networks.base import require_w
from stylegan.networks.config import NetworkConfig, Precision
from stylegan.networks.registry import build_empty, build_generator
from torch_utils.errors import UserError
from torch_utils.text import counted
from training.metrics.context import Context, Request
from training.metrics.discriminator import require_discriminator, require_groups
from training.metrics.features import DEFAULT, DIMS, WITH_CLASSES, short_name
from training.metrics.image_stats import levels, require_size
from training.metrics.images import require_channels
from training.metrics.path_length import DISCRIMINATOR, IN_Z
from training.metrics.quality import require_enough

NEIGHBOURS = 5  # of each fake, on the sheet of those nearest to training images


@dataclass(frozen=True)
class Subject:
    """What a metric is measured of.

    config: of the network; None for images in files   size: height and width of the images
    discriminator: does the network have one?   fakes: how many there are; None for as many as are asked for
    reals: how many images the data has; None without data   mirror: reals also mirrored
    data: where it is, for messages   precision: in which its images are generated
    """

    config: NetworkConfig | None
    size: tuple[int, int]
    discriminator: bool = True
    fakes: int | None = None
    reals: int | None = None
    mirror: bool = False
    data: str = ""
    precision: Precision = "fp32"


def subject_of(context: Context) -> Subject:
    """Raises UserError for data that do not fit what is measured."""
    source, data, there = context.source, context.data, None
    if data is not None:
        require_channels(data, context.channels)
        there = len(data) if context.c is None or data.labels is None else int((data.labels == context.c).sum())
    about = (context.mirror, "" if data is None else str(data.path))
    if isinstance(source, Snapshot):
        return Subject(source.config, context.size, source.D is not None, None, there, *about,
                       precision=source.execution.precision)  # fmt: skip
    return Subject(None, context.size, False, context.fakes.limit, there, *about)


Check = Callable[[Request, Subject], object]
"""Raises UserError for what a metric cannot be measured of."""


def anything_goes(request: Request, subject: Subject) -> None:
    """For metrics that only need what `Kind` says."""


def check_fid(request: Request, subject: Subject) -> None:
    """Raises UserError if there are fewer images than features, of those networks whose features are known."""
    if request.features in DIMS:
        reals = subject.reals if request.whole and subject.reals is not None else request.count
        for count, whose in ((request.count, "fakes"), (reals, "reals")):
            require_enough(count, DIMS[request.features], whose, request.name)


def check_inception_score(request: Request, subject: Subject) -> None:
    """Raises UserError for a feature network without classes."""
    if request.features not in WITH_CLASSES:
        raise UserError(f"{short_name(request.features)} tells no classes, so there is no inception score; use "
                        f"--features {DEFAULT}")  # fmt: skip


def check_patches(request: Request, subject: Subject) -> None:
    """Raises UserError for small images."""
    levels(*subject.size)


def check_pairs(request: Request, subject: Subject) -> None:
    """Raises UserError for small images."""
    require_size(*subject.size)


def check_w(request: Request, subject: Subject) -> None:
    """Raises UserError for a network without w."""
    if subject.config is not None:
        require_w(build_empty(build_generator, subject.config))


def check_paths(request: Request, subject: Subject) -> None:
    """Raises UserError for paths in w of a network without, a distance by a discriminator that is not there, and images
    that are not exact."""
    if subject.precision != "fp32":
        raise UserError(f"it compares images that differ in the fifth digit, which {subject.precision} rounds away; "
                        "leave --precision out")  # fmt: skip
    if subject.config is not None and request.part.startswith("w"):
        require_w(build_empty(build_generator, subject.config), IN_Z)
    check_distance(request, subject)


def check_distance(request: Request, subject: Subject) -> None:
    """Raises UserError for a distance by a discriminator that is not there."""
    if request.features == DISCRIMINATOR:
        require_discriminator(subject.discriminator)


def check_overfitting(request: Request, subject: Subject) -> None:
    """Raises UserError without a discriminator, and for fewer images than two of its groups."""
    require_discriminator(subject.discriminator)
    if subject.config is not None:
        require_groups(request.count, subject.config)


def check_nearest(request: Request, subject: Subject) -> None:
    """Raises UserError for fewer reals than the sheet shows."""
    if subject.reals is not None and subject.reals <= NEIGHBOURS:
        raise UserError(f"it shows the nearest {NEIGHBOURS} of more than {NEIGHBOURS} real images; {subject.data} has "
                        f"{counted(subject.reals, 'image')}")  # fmt: skip
