"""Command lines: booleans, errors, options derived from dataclasses."""

import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from torch_utils.cli import Bool, Command, Group, Option, Parsed, settings_options, under
from torch_utils.errors import UserError
from torch_utils.settings import Flag, setting
from torch_utils.text import parse_seeds


@dataclass(frozen=True)
class Part:
    rate: float = setting(0.5, Flag("--rate", "How fast."))
    inner: int = 3


@dataclass(frozen=True)
class Config:
    name: Literal["a", "b"] = setting("a", Flag("--name/-m", "Which.", "First"))
    part: Part = Part()
    limit: int | None = setting(None, Flag("--limit", "How many."))
    mirror: bool = setting(False, Flag("--mirror", "Both ways.", "First"))
    sizes: tuple[int, ...] = setting((1,), Flag("--sizes", "Sizes.", parse=lambda t: tuple(map(int, t.split("+")))))
    grid: int | str | None = setting(None, Flag("--grid", "Grid.", parse=lambda t: t if t == "auto" else int(t),
                                                bare="auto"))  # fmt: skip
    points: Sequence[int] = setting((), Flag("--points", "P.", parse=lambda t: tuple(map(int, t.split(",")))))
    words: str = setting("", Flag("--words", "W.", is_list=True))


BORROWED = {"part.inner": Flag("--inner", "Borrowed.")}
OPTIONS = [
    *settings_options(Config, BORROWED, varying={"part.rate"}),
    under("First", Option(["--seeds"], type=Parsed("seeds", parse_seeds))),
]


@click.command(cls=Command, params=OPTIONS)
def tool(typed: dict[str, Any], seeds: list[int] | None) -> None:
    """A tool."""
    if typed.get("limit") == 12:
        raise KeyboardInterrupt
    if typed.get("limit") == 13:
        raise UserError("13 is too many; take 12")
    click.echo(repr((typed, seeds)))


def run(*arguments: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(tool, arguments, env=env)


def test_only_what_was_typed_arrives_with_its_type():
    assert run().output == "({}, None)\n"
    line = "--rate 2 -m b --mirror=yes --sizes 3+4 --inner=9 --limit 5 --seeds 1-2"
    result = run(*line.split())
    expected = {"name": "b", "part.rate": 2.0, "part.inner": 9, "limit": 5, "mirror": True, "sizes": (3, 4)}
    assert eval(result.output) == (expected, [1, 2])


@pytest.mark.parametrize("line", ["--mirror", "--mirror --limit 5", "--limit 5 --mirror", "--mirror yes"])
def test_a_switch_may_stand_alone(line):
    assert eval(run(*line.split()).output)[0]["mirror"] is True


@pytest.mark.parametrize("line, grid", [("--grid", "auto"), ("--grid --limit 5", "auto"), ("--grid 6", 6)])
def test_a_flag_may_say_something_when_it_stands_alone(line, grid):
    assert eval(run(*line.split()).output)[0]["grid"] == grid


@pytest.mark.parametrize("line", [
    "--limit 5 --limit 6", "--limit 5 --limit 5", "--rate 1 --rate=2", "--name a -m b", "--mirror --mirror no",
    "--grid --grid 3", "--seeds 1 --seeds 2",
])  # fmt: skip
def test_an_option_given_twice_is_an_error_because_one_would_be_lost(line):
    result = run(*line.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(f"Error: {line.split()[0]} is given 2 times; give it once\n")


def test_lists_given_twice_add_up():
    result = run("--points", "1,2", "--limit", "5", "--points=3", "--words", "a", "--words", "b,c")
    assert eval(result.output)[0] == {"points": (1, 2, 3), "words": "a,b,c", "limit": 5}
    assert "--points" in run("--points", "1", "--points", "x").stderr


def test_help_may_be_asked_for_twice():
    assert run("--help", "--help").exit_code == 0


def test_a_default_that_is_typed_counts_as_typed():
    assert eval(run("--rate", "0.5").output)[0] == {"part.rate": 0.5}


def test_a_user_error_is_one_line_on_stderr_and_exit_code_2():
    result = run("--limit", "13")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "Error: 13 is too many; take 12\n")


def test_ctrl_c_is_one_line_on_stderr_and_exit_code_130():
    result = run("--limit", "12")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Stopped\n")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--rat", "1"], "--rate"),
        (["--rate", "fast"], "--rate"),
        (["--name", "c"], "'a', 'b'"),
        (["--mirror", "maybe"], "'maybe'"),
        (["--sizes", "x"], "--sizes"),
        (["--seeds", "9-1"], "1-9"),
    ],
)
def test_a_mistyped_option_is_a_usage_error_that_helps(arguments, says):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr


def test_help_shows_headings_and_defaults():
    text = run("--help").output
    assert text.index("First:") < text.index("--seeds") < text.index("Advanced:") < text.index("--help")
    assert "[by --cfg]" in text and "0.5" not in text, "a default that varies is not shown"
    assert "[default: 3]" in text


@pytest.mark.parametrize("word, value", [("1", True), ("TRUE", True), ("yes", True), ("0", False), ("No", False)])
def test_booleans(word, value):
    assert Bool.convert(word, None, None) is value


def test_a_group_ends_alike():
    @click.group(cls=Group)
    def tools() -> None:
        pass

    tools.add_command(tool)
    result = CliRunner().invoke(tools, ["tool", "--limit", "13"])
    assert (result.exit_code, result.stderr) == (2, "Error: 13 is too many; take 12\n")
    result = CliRunner().invoke(tools, ["tool", "--limit", "12"])
    assert (result.exit_code, result.stderr) == (130, "Stopped\n")


def command_that(work: Any) -> click.Command:
    @click.command(cls=Command)
    def main() -> None:
        work()

    return main


def test_errors_of_the_operating_system_are_one_line_and_exit_code_2(tmp_path):
    for work in (lambda: (tmp_path / "missing").read_bytes(), lambda: (tmp_path / ("x" * 300)).touch()):
        result = CliRunner().invoke(command_that(work))
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"Error: {tmp_path}/") and result.stderr.count("\n") == 1


def test_a_lost_connection_is_no_error_of_a_file():
    def broken() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert CliRunner().invoke(command_that(broken)).exit_code == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_after_it_has_cleaned_up(number):
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 1)  # where Python gets to see the signal
        finally:
            cleaned.append(True)

    assert CliRunner().invoke(command_that(work)).exit_code == 128 + number and cleaned


@pytest.mark.parametrize("words", [["--\x1b[31mx"], ["\x1b[31mx"], ["--seeds", "\x1b[31m1"], ["--name", "\x1b[31m"]])
def test_what_was_typed_cannot_control_the_terminal(words):
    for main in (tool, click.Group("all", commands={"tool": tool})):
        result = CliRunner().invoke(main, ["tool", *words] if main is not tool else words)
        assert result.exit_code == 2 and "x1b[31m" in result.output and "\x1b" not in result.output
