"""The options that several commands share: which network, how its images are rendered, what to start from, the kernels.

Nothing here loads PyTorch: `--help` should not wait for it, so functions import what they need.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops import MODES, VARIABLE
from stylegan.latents.notation import Point, is_photograph, parse_points, parse_psi
from stylegan.networks.config import NoiseMode
from torch_utils.cli import Option, settings_options, under
from torch_utils.errors import UserError
from torch_utils.output import FILES
from torch_utils.settings import Flag, setting
from torch_utils.text import counted, parse_classes

if TYPE_CHECKING:
    from stylegan.latents.render import View

WHAT, HOW = "Images", "Rendering"
MODES_OF_IMAGES = {1: "grey", 3: "RGB", 4: "RGBA"}

STEPS = Flag("--num-steps", "Steps to project photographs into W in; project.py has more to choose from.", WHAT)
FORCE = Flag("--force", "Take files that belong to another network.", WHAT)
BATCH = Flag("--batch", "Images in work at once. Does not change them.")


@dataclass(frozen=True)
class NetworkOptions:
    """A network, for commands that do not render."""

    network: str = setting("", Flag(
        "--network", "Snapshot (.safetensors), published network (.pkl), folder of a run, URL, or name.", WHAT,
        metavar="MODEL"))  # fmt: skip
    device: str = setting("auto", Flag("--device", "auto, cpu, cuda or cuda:1."))


@dataclass(frozen=True)
class RenderingOptions(NetworkOptions):
    """A network, and how its images are rendered. None: as the network itself says."""

    trunc: float | None = setting(None, Flag(
        "--trunc", "Truncation psi: 1 for all variety, less for better images.  [0.7; networks without w: 1]", HOW,
        parse=parse_psi, metavar="PSI"))  # fmt: skip
    trunc_cutoff: int | None = setting(None, Flag("--trunc-cutoff", "Truncate only the first N layers.", HOW))
    noise_mode: NoiseMode = setting(
        "const", Flag("--noise-mode", "Fine detail: the network's own, drawn from the seed, or none.", HOW)
    )
    resolution: int | None = setting(None, Flag("--resolution", "Render at a lower resolution of the network.", HOW))
    alpha: float | None = setting(None, Flag("--alpha", "Weight of the newest resolution, 0 to 1.", HOW))
    delta: str = setting("", Flag(
        "--delta", "Weights tuned to a photo, NAME.delta.safetensors of project.py --pti.", HOW,
        metavar="FILE"))  # fmt: skip


@dataclass(frozen=True)
class SourceOptions:
    """What to start from. classes: of the images of seeds and photographs; latents bring their own."""

    seeds: Sequence[Point] = setting((), Flag(
        "--seeds", "Which images: seeds as in 0-35,40, latent files, which are rendered as they are, and photographs.",
        WHAT, parse=parse_points))  # fmt: skip
    classes: Sequence[int] = setting((), Flag(
        "--class", "Class, for conditional networks. Of a list as in 0-9, seed S gets number S, counted round.", WHAT,
        parse=parse_classes, metavar="CLASS"))  # fmt: skip
    num_steps: int = setting(500, STEPS)
    force: bool = setting(False, FORCE)


def ops_option(heading: str = Flag.group) -> Option:
    """--ops, which belongs to the machine and not to a run. It sets the environment variable for this process and those
    it starts, and needs no parameter."""
    text = (
        "Fused kernels: auto compiles them at first use and falls back if it cannot, ref does without, strict insists."
    )
    option = Option(
        ["--ops"], type=click.Choice(MODES), default="auto", show_default=True, envvar=VARIABLE, expose_value=False,
        callback=_export, help=text,
    )  # fmt: skip
    return under(heading, option)


def _export(ctx: click.Context, param: click.Parameter, value: str) -> None:
    os.environ[VARIABLE] = value


def tool_options(config: type) -> list[click.Option]:
    """The settings of `config`, --ops, and --dry-run, which reaches the command as `dry_run`."""
    dry_run = Option(["-n", "--dry-run"], is_flag=True, help="Print what would be generated and stop.")
    return [*settings_options(config), ops_option(), under(FILES, dry_run)]


def opened(options: NetworkOptions, force: bool = False) -> View:
    """The network, and how its images are rendered. Raises UserError for a network that cannot be opened, and for what
    it cannot do. force: take tuned weights (--delta) of another network."""
    from stylegan.latents.render import View, open_for_tools
    from stylegan.projection.pivotal_tuning import apply_delta

    snapshot = open_for_tools(options.network, options.device)
    if not isinstance(options, RenderingOptions):
        return View.of(snapshot)
    if options.delta:
        snapshot = apply_delta(snapshot, Path(options.delta), force)
    return View.of(
        snapshot, psi=options.trunc, cutoff=options.trunc_cutoff, noise_mode=options.noise_mode,
        resolution=options.resolution, alpha=options.alpha,
    )  # fmt: skip


def about_network(network: str, view: View, count: int) -> list[str]:
    """The lines of a plan for `count` images that tell of the network."""
    (height, width), alpha, snapshot = view.renderer.size, view.stage.alpha, view.snapshot
    fading = f", of which the last step at {alpha:.2f}" if alpha < 1 else ""
    cutoff = "" if view.cutoff is None else f" in {counted(view.cutoff, 'layer')}"
    return [
        f"Network:    {network}: {view.config.family}, {snapshot.kimg:g} kimg of {snapshot.data}",
        f"Images:     {count} of {width}x{height}, {MODES_OF_IMAGES[view.config.channels]}{fading}",
        f"Truncation: {view.psi:g}{cutoff}",
    ]


def about_photographs(points: Sequence[Point], view: View, num_steps: int) -> list[str]:
    """The line of a plan that tells of the photographs among `points`; none where there are none."""
    from stylegan.projection.distance import pick_distance

    photos = list(dict.fromkeys(point.name for point in points if isinstance(point, Path) and is_photograph(point)))
    if not photos:
        return []
    some = ", ".join(photos[:8]) + (", ..." if len(photos) > 8 else "")
    return [f"Photos:     {some}: each projected into W in {num_steps} steps, distance "
            f"{pick_distance('', view.snapshot).name}"]  # fmt: skip


def check_steps(num_steps: int) -> None:
    """Raises UserError for a number of steps that projects nothing."""
    if num_steps < 2:
        raise UserError(f"--num-steps must be at least 2, got {num_steps}")
