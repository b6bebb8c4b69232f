"""Command lines: parameter types, errors without tracebacks, grouped help, and options derived from dataclasses."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Union, get_args, get_origin

import click
from click.core import ParameterSource

from torch_utils.errors import UserError, explained
from torch_utils.interrupt import signals_end
from torch_utils.settings import Declared, Flag, declared
from torch_utils.text import printable, say, shortened

LONGEST_MESSAGE = 4000  # characters: a message may quote text from a file, which can be of any length
_TRUE, _FALSE = {"1", "true", "yes", "on", "y", "t"}, {"0", "false", "no", "off", "n", "f"}


class Parsed(click.ParamType):
    """A value that a function reads from text; its UserError or ValueError becomes a usage error for the option."""

    def __init__(self, name: str, parse: Callable[[str], Any]):
        self.name, self.parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except (UserError, ValueError) as error:
            self.fail(str(error), param, ctx)


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise UserError(f"Invalid value '{text}': expected 1, true or yes, or 0, false or no")
    return word in _TRUE


Bool = Parsed("bool", _parse_bool)


class Option(click.Option):
    """An option that --help lists under a heading, and that may set one setting of a configuration."""

    heading = "Options"
    setting = ""


class Command(click.Command):
    """A command that ends without tracebacks (see `_without_traceback`) and lists its options under headings.

    It gets the options of `settings_options` as one argument `typed`: {dotted name: value} of those the user typed.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _without_traceback():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        settings = {p.name: p.setting for p in self.params if isinstance(p, Option) and p.setting}
        if settings:
            typed = {settings[k]: value for k, value in ctx.params.items() if k in settings and was_typed(ctx, k)}
            ctx.params = {k: value for k, value in ctx.params.items() if k not in settings} | {"typed": typed}
        with _without_traceback():
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record:
                headings.setdefault(getattr(param, "heading", Option.heading), []).append(record)
        for heading in sorted(headings, key=(Option.heading, Flag.group).__contains__):  # the default headings last
            with formatter.section(heading):
                formatter.write_dl(headings[heading])


class Group(click.Group):
    """A group of `Command`s."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _without_traceback():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _without_traceback():
            return super().invoke(ctx)


class _Failure(click.ClickException):
    exit_code = 2


@contextmanager
def _without_traceback() -> Iterator[None]:
    """Turn what users can put right into one line and exit code 2, and Ctrl-C into one line and exit code 130.

    That is every UserError, and every error of the operating system, such as a full disk or a file that may not be
    read. SIGTERM and SIGHUP end the command after it has cleaned up. This covers only what a command does, so commands
    do their slow imports inside.
    """
    try:
        with signals_end():
            yield
    except UserError as error:
        raise _Failure(printable(shortened(str(error), LONGEST_MESSAGE))) from error
    except click.ClickException as error:  # it quotes what was typed, which may be the names of files
        error.message = printable(shortened(error.message, LONGEST_MESSAGE))  # type: ignore[misc]  # Final since 8.2
        raise
    except ConnectionError:  # a closed pipe, or the other processes of a group; neither is a file
        raise
    except OSError as error:
        raise _Failure(printable(shortened(explained(error), LONGEST_MESSAGE))) from error
    except KeyboardInterrupt:
        say("Stopped", err=True)
        raise click.exceptions.Exit(130) from None


def under(heading: str, option: Option) -> Option:
    """Returns `option`, which --help now lists under `heading`."""
    option.heading = heading
    return option


def settings_options(
    config: type, borrowed: Mapping[str, Flag] | None = None, varying: Collection[str] = ()
) -> list[click.Option]:
    """Returns one option for each setting of the dataclass `config` that has a flag, for `@click.command(params=...)`.

    borrowed: flags, by dotted name, for settings that declare none
    varying: settings whose default depends on the preset; the help shows the declared default of all others
    """
    return [_option(found, found.name in varying) for found in declared(config, borrowed or {})]


def was_typed(ctx: click.Context, parameter: str) -> bool:
    """Whether the user gave this parameter, on the command line or through the environment."""
    return ctx.get_parameter_source(parameter) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def _option(found: Declared, varies: bool) -> Option:
    flag, kind = found.flag, _param_type(found.flag, found.kind)
    meant = True if kind is Bool else flag.bare  # --mirror without a value means yes
    bare: dict[str, Any] = {} if meant is None else {"is_flag": False, "flag_value": meant}
    shown = "by --cfg" if varies else f"default: {flag.typed}" if flag.typed else ""
    option = Option(
        [found.name.replace(".", "_"), *flag.spellings],
        help=f"{flag.help}  [{shown}]" if shown else flag.help,
        type=kind,
        default=found.default,
        show_default=not shown and found.default not in (None, "", ()),
        metavar=flag.metavar,
        **bare,
    )
    option.setting = found.name
    return under(flag.group, option)


def require(example: str, **values: object) -> None:
    """Raises UserError for a required flag without a value. values: network="..." for --network."""
    for flag, value in values.items():
        if not value:
            raise UserError(f"--{flag} is missing; for example: {example}")


def require_batch(batch: int) -> None:
    """Raises UserError for a --batch below 1."""
    if batch < 1:
        raise UserError(f"--batch must be at least 1, got {batch}")


def _param_type(flag: Flag, kind: Any) -> click.ParamType:
    """Returns the click type that reads a setting of type `kind`."""
    if flag.parse:
        return Parsed("value", flag.parse)
    if get_origin(kind) in (Union, types.UnionType):  # optional settings: None cannot be typed
        kind = next(a for a in get_args(kind) if a is not type(None))
    if flag.choices or get_origin(kind) is Literal:
        return click.Choice(flag.choices or get_args(kind))
    if kind is bool:
        return Bool
    return click.types.convert_type(kind)
