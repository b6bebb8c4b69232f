"""`--ops`, the same in every script: whether the compiled kernels are used. It belongs to the machine, not to a run.

And what every tool that makes something of a network takes besides its own settings.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from ops import MODES, VARIABLE
from torch_utils.cli import Option, settings_options, under
from torch_utils.errors import UserError
from torch_utils.output import FILES
from torch_utils.settings import Flag

if TYPE_CHECKING:
    import torch


def ops_option(heading: str = Flag.group) -> Option:
    """The option; it sets the environment variable for this process and those it starts, and needs no parameter."""
    text = (
        "Fused kernels: auto compiles them at first use and falls back if it cannot, ref does without, strict insists."
    )
    option = Option(
        ["--ops"], type=click.Choice(MODES), default="auto", show_default=True, envvar=VARIABLE, expose_value=False,
        callback=_export, help=text,
    )  # fmt: skip
    return under(heading, option)


def tool_options(config: type) -> list[click.Option]:
    """The settings of `config`, --ops, and --dry-run, which reaches the command as `dry_run`."""
    dry_run = Option(["-n", "--dry-run"], is_flag=True, help="Print what would be made and stop.")
    return [*settings_options(config), ops_option(), under(FILES, dry_run)]


def _export(ctx: click.Context, param: click.Parameter, value: str) -> None:
    os.environ[VARIABLE] = value


def with_kernels(device: torch.device) -> torch.device:
    """The same device; with `--ops strict`, its kernels have been built. Raises UserError if they cannot be."""
    # Here and not above: torch takes seconds to load, and --help should not wait for it.
    from ops import BuildError, build

    try:
        if os.environ.get(VARIABLE) == "strict":
            build.available(device.type)
    except BuildError as error:
        raise UserError(f"--ops strict: {error}; or do without, with --ops auto") from error
    return device
