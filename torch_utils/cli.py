"""Command lines: parameter types, errors without tracebacks, grouped help, and options derived from dataclasses."""

from __future__ import annotations

import atexit
import signal
import types
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import click
from click.core import ParameterSource

from torch_utils.errors import UserError, explained
from torch_utils.interrupt import ctrl_c_raises, signals_end, was_interrupted
from torch_utils.progress import lasting_streams, lost_output
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
    """An option that --help lists under a heading, and that may set one setting of a configuration.

    is_list: its text is a list, parts at commas; given several times, the lists are joined
    """

    heading = "Options"
    setting = ""
    is_list = False

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        if self.is_list:
            parser.add_option(obj=self, opts=self.opts, dest=self.name, action="append", nargs=1)
        else:
            super().add_to_parser(parser, ctx)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        return super().type_cast_value(ctx, ",".join(value) if isinstance(value, list) else value)


class _Tool(click.Command):
    """A program that is not ended by streams that are closed, nor with a traceback by a signal after its work."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        lasting_streams()
        ctx.call_on_close(_finish)
        return super().parse_args(ctx, args)


def _finish() -> None:
    """What comes last, once all libraries have been loaded: their clearing away must not meet a signal either."""
    _end_quietly()
    lost = lost_output()
    if lost:
        raise _Failure(f"standard output could not be written ({lost}); all else is done")


@cache
def _end_quietly() -> None:
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


class Command(_Tool):
    """A command that ends without tracebacks (see `_without_traceback`) and lists its options under headings.

    It gets the options of `settings_options` as one argument `typed`: {dotted name: value} of those the user typed.
    An option that is given twice is an error unless it is a list, because one of the two would be lost.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _without_traceback():
            if not ctx.resilient_parsing:
                _, _, given = self.make_parser(ctx).parse_args(args=list(args))
                for param, times in Counter(given).items():
                    if times > 1 and _holds_one(param):
                        ctx.fail(f"{max(param.opts, key=len)} is given {times} times; give it once")
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


def _holds_one(param: click.Parameter) -> bool:
    """Whether a parameter is an option with a single value, which a second one would replace."""
    if not isinstance(param, click.Option) or param.is_eager:
        return False
    return not (param.multiple or param.count or getattr(param, "is_list", False))


class Group(_Tool, click.Group):
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
        with ctrl_c_raises(), signals_end():
            yield
    except click.exceptions.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if was_interrupted(error):
            say("Stopped", err=True)
            raise click.exceptions.Exit(130) from None
        if isinstance(error, click.ClickException):  # it quotes what was typed, which may be the names of files
            error.message = printable(shortened(error.message, LONGEST_MESSAGE))  # type: ignore[misc]  # Final
            raise
        text = _told(error)
        if text is None:
            raise
        raise _Failure(printable(shortened(text, LONGEST_MESSAGE))) from error


def _told(error: BaseException) -> str | None:
    """The line for an error that users can put right; None for any other.

    A closed pipe, and the other processes of a group, are neither files nor folders.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return explained(error)
    return None


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
    option.is_list = flag.is_list or (meant is None and _is_list(found.kind))
    return under(flag.group, option)


def _is_list(kind: Any) -> bool:
    """Whether a setting of type `kind` holds any number of items."""
    if get_origin(kind) in (Union, types.UnionType):
        return any(map(_is_list, get_args(kind)))
    return get_origin(kind) in (list, Sequence) or (get_origin(kind) is tuple and Ellipsis in get_args(kind))


def require(example: str, **values: object) -> None:
    """Raises UserError for a required flag without a value. values: network="..." for --network."""
    for flag, value in values.items():
        if not value:
            raise UserError(f"--{flag} is missing; for example: {example}")


def require_batch(batch: int | None) -> None:
    """Raises UserError for a --batch below 1."""
    if batch is not None and batch < 1:
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
