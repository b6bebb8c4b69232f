"""What several commands share: options for what to start from and for the kernels, checks, and lines of plans.

Nothing at the top of this file loads PyTorch, because `--help` should not wait for it. Functions import what they need.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops import MODES, VARIABLE
from stylegan.latents.notation import WHAT, Point, RenderingOptions, is_photograph, parse_points
from torch_utils.cli import Command, Option, require_batch, settings_options, under
from torch_utils.errors import UserError
from torch_utils.output import FILES, require_folder
from torch_utils.settings import Flag, replaced, setting
from torch_utils.text import Class, counted, listed_classes, parse_classes, say

if TYPE_CHECKING:
    from stylegan.latents.latents import Latents
    from stylegan.latents.render import Project, Sources, View

WIDE = {"max_content_width": 110}
CHANNEL_NAMES = {1: "grey", 3: "RGB", 4: "RGBA"}

STEPS = Flag("--num-steps", "Steps for projecting each photograph into W; project.py has more options.", WHAT)
FORCE = Flag("--force", "Accept files that belong to another network.", WHAT)
BATCH = Flag(
    "--batch", "Images to compute at a time. On a CPU it does not change them, on a GPU by no more than rounding.  "
    "[8; on a GPU 32 or 64, as fit into its memory]"
)  # fmt: skip


def read_points(text: str) -> tuple[Point, ...]:
    """Read what images start from, see `parse_points`, and say what is left out of folders."""
    return parse_points(text, lambda line: say(line, err=True))


@dataclass(frozen=True)
class SourceOptions:
    """What to start from. classes: of seeds and photographs; latent files contain their own."""

    seeds: Sequence[Point] = setting((), Flag(
        "--seeds", "Which images: seeds as in 0-35,40, latent files, which are used as they are, photographs, and "
        "folders of either.", WHAT, parse=read_points))  # fmt: skip
    classes: Sequence[Class] = setting((), Flag(
        "--class", "Class, for conditional networks: number or name. A list as in 0-9,dog repeats: seed S gets class S "
        "of the list.", WHAT, parse=parse_classes, metavar="CLASS"))  # fmt: skip
    each_class: bool = setting(False, Flag(
        "--each-class", "Each seed and photograph in every class of --class, or of the network.", WHAT))  # fmt: skip
    num_steps: int = setting(500, STEPS)
    force: bool = setting(False, FORCE)


def ops_option(heading: str = Flag.group) -> Option:
    """The option --ops. It is a property of the machine and not of a run, so it sets the environment variable, for this
    process and its children, and passes no parameter to the command."""
    text = (
        "Compiled kernels: auto compiles them at first use, or does without if that fails; ref never uses them; strict "
        "stops if they cannot be compiled."
    )
    option = Option(
        ["--ops"], type=click.Choice(MODES), default="auto", show_default=True, envvar=VARIABLE, expose_value=False,
        callback=_export, help=text,
    )  # fmt: skip
    return under(heading, option)


def _export(ctx: click.Context, param: click.Parameter, value: str) -> None:
    os.environ[VARIABLE] = value


def tool(config: type) -> Callable[[Callable[[Any, bool], None]], Command]:
    """A command that gets its settings as one `config`, with their options, --ops and --dry-run."""
    dry_run = Option(["-n", "--dry-run"], is_flag=True, help="Print what would be generated, and stop.")
    options = [*settings_options(config), ops_option(), under(FILES, dry_run)]

    def command(run: Callable[[Any, bool], None]) -> Command:
        @wraps(run)
        def called(typed: dict[str, Any], dry_run: bool) -> None:
            run(replaced(config(), typed), dry_run)

        return click.command(cls=Command, params=options, context_settings=WIDE)(called)

    return command


def check_tool(batch: int | None, num_steps: int, folder: Path, flag: str = "--outdir") -> None:
    """Raises UserError for values that cannot work with any network. flag: names the folder, where results go"""
    require_batch(batch)
    if num_steps < 2:  # which would not project anything
        raise UserError(f"--num-steps must be at least 2, got {num_steps}")
    require_folder(folder, flag)


# Photographs in place of seeds: what projects them is imported when there is one


def standing_in(paths: Sequence[Path], view: View, classes: Sequence[int]) -> Latents:
    """Latents that take the place of photographs, so that every mistake is reported before any projection."""
    from stylegan.projection import photos

    return photos.standing_in(paths, view, classes)


def projecting(num_steps: int, batch: int | None) -> Project:
    """Finds the latents of photographs, see `photos.projecting`. batch: of photographs, 8 for None"""

    @cache
    def project() -> Project:
        from stylegan.projection import photos

        return photos.projecting(num_steps, batch or 8)

    return lambda paths, view, classes: project()(paths, view, classes)


# What is said beside the result


def say_unused(view: View, options: RenderingOptions, points: Sequence[Point], *starts: Latents | Sources) -> None:
    """Print which options have no effect, and which classes the network has never seen. starts: of the images"""
    if options.trunc is not None and not any(isinstance(point, int) for point in points):
        say(f"--trunc {options.trunc:g} is not applied: it is for seeds, and latents are used as they are")
    snapshot = view.snapshot
    empty = sorted({c for start in starts for c in start.known_classes} & set(snapshot.empty_classes))
    if empty:
        listed = listed_classes(empty, snapshot.class_names)
        say(f"Classes of which {snapshot.data} had no image, so that the network has not learned them: {listed}")


# Plans


def about_network(
    network: str, view: View, count: int, points: Sequence[Point] = (), num_steps: int = 0
) -> list[str]:  # fmt: skip
    """Lines of a plan for `count` images: the network, and the photographs among `points`, if there are any."""
    snapshot, config, stage = view.snapshot, view.snapshot.config, view.snapshot.stage
    height, width = config.size(stage.resolution)
    fading = f", faded in to {stage.alpha:.2f}" if stage.alpha < 1 else ""
    cutoff = "" if view.cutoff is None else f" in {counted(view.cutoff, 'layer')}"
    seeds = not points or any(isinstance(point, int) for point in points)
    truncation = f"{view.psi:g}{cutoff}" if seeds else "none, as there are no seeds: latents are used as they are"
    lines = [
        f"Network:    {network}: {config.family}, {snapshot.kimg:g} kimg of {snapshot.data}",
        f"Images:     {count} of {width}x{height}, {CHANNEL_NAMES[config.channels]}{fading}",
        f"Truncation: {truncation}",
    ]
    photos = list(dict.fromkeys(point.name for point in points if isinstance(point, Path) and is_photograph(point)))
    if photos:
        from stylegan.projection.distance import pick_distance

        some, distance = ", ".join(photos[:8]) + ", ..." * (len(photos) > 8), pick_distance("", snapshot).name
        lines.append(f"Photos:     {some}: each projected into W in {num_steps} steps, distance {distance}")
    return lines
