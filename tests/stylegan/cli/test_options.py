"""--ops, in every script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from ops import VARIABLE, build
from stylegan.cli import convert, generate, train
from stylegan.cli.main import VERBS, main
from stylegan.cli.options import ops_option
from stylegan.networks.inference import with_kernels
from torch_utils.cli import Command
from torch_utils.errors import UserError
from training.runs import launch

ROOT = Path(__file__).parents[3]
NETWORK = str(ROOT / "tests/data/progan_r32.pkl")
SCRIPTS = [train.main, generate.main, convert.main]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a command sets is undone, and what this process knows of kernels is forgotten."""
    monkeypatch.setenv(VARIABLE, "")
    for function in (build._settled, build.why_not):
        function.cache_clear()
    yield
    for function in (build._settled, build.why_not):
        function.cache_clear()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("STYLEGAN_OPS_CACHE", str(tmp_path / "empty"))


@click.command(cls=Command, params=[ops_option()])
def show() -> None:
    """Print the variable that child processes get."""
    click.echo(subprocess.run(["printenv", VARIABLE], capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("word", ["auto", "ref", "strict"])
def test_it_is_set_for_this_process_and_its_children(word):
    assert CliRunner().invoke(show, ["--ops", word]).output.strip() == word == os.environ[VARIABLE]


def test_the_environment_variable_is_its_default(monkeypatch):
    assert CliRunner().invoke(show).output.strip() == "auto"
    monkeypatch.setenv(VARIABLE, "ref")
    assert CliRunner().invoke(show).output.strip() == "ref"
    assert CliRunner().invoke(show, ["--ops", "auto"]).output.strip() == "auto"


@pytest.mark.parametrize("command", SCRIPTS, ids=["train", "generate", "convert"])
def test_an_unknown_word_is_one_line(command, monkeypatch):
    result = CliRunner().invoke(command, ["--ops", "fast"])
    assert result.exit_code == 2 and "'fast' is not one of 'auto', 'ref', 'strict'" in result.output
    monkeypatch.setenv(VARIABLE, "quick")
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 2 and "'quick' is not one of" in result.output


def commands(folder: Path) -> list[tuple[click.Command, list[str]]]:
    return [
        (train.main, ["--outdir", str(folder / "runs"), "--data", "mnist", "--device", "cpu"]),
        (generate.main, ["--network", NETWORK, "--seeds", "0", "--outdir", str(folder / "out"), "--device", "cpu"]),
        (convert.main, ["--source", NETWORK, "--dest", str(folder / "x.safetensors")]),
    ]


@pytest.mark.parametrize("index", range(3), ids=["train", "generate", "convert"])
def test_strict_ends_early_in_one_line_and_leaves_nothing(index, no_compiler, tmp_path):
    command, arguments = commands(tmp_path)[index]
    result = CliRunner().invoke(command, [*arguments, "--ops", "strict"])
    assert result.exit_code == 2
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error")]
    assert line.startswith("Error: --ops strict: no C++ compiler found: ") and line.endswith("with --ops auto")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_run_is_resumed_with_whatever_suits_this_machine(monkeypatch, tmp_path):
    """It is not a setting of the run: neither written into it, nor a contradiction to it."""
    asked = []
    monkeypatch.setattr(launch, "train", lambda cfg, run_dir, *rest: asked.append(run_dir))
    runs = ["--outdir", str(tmp_path), "--data", "mnist", "--device", "cpu"]
    assert CliRunner().invoke(train.main, [*runs, "--ops", "ref"]).exit_code == 0
    assert "ops" not in json.loads((asked[0] / "training_options.json").read_text())
    (asked[0] / "training-state.pt").touch()
    result = CliRunner().invoke(train.main, ["--resume", str(asked[0]), "--ops", "auto"])
    assert result.exit_code == 0, result.output
    assert asked[1] == asked[0]


def test_kernels_are_only_built_early_if_strict(no_compiler, monkeypatch):
    device = torch.device("cpu")
    assert with_kernels(device) is device
    monkeypatch.setenv(VARIABLE, "strict")
    with pytest.raises(UserError):
        with_kernels(device)


def test_projection_is_not_loaded_where_nothing_is_projected(models, tmp_path):
    network = f"--network {models / 'faces.safetensors'} --device cpu"
    code = f"""
import sys
from stylegan.cli import film, generate, mix
for command, line in (
    (generate, "{network} --seeds 0-1 --outdir {tmp_path / "a"}"),
    (mix, "{network} --rows 0 --cols 1 --outdir {tmp_path / "b"}"),
    (film, "{network} --seeds 0-1 --frames 2 --out {tmp_path / "c.webp"}"),
):
    command.main([*line.split(), "--dry-run"], standalone_mode=False)
    command.main(line.split(), standalone_mode=False)
assert not [name for name in sys.modules if name.startswith("stylegan.projection")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (
        (tmp_path / "a/seed0001.png").exists() and (tmp_path / "b/grid.png").exists() and (tmp_path / "c.webp").exists()
    )


def test_help_does_not_wait_for_torch():
    code = "import sys, stylegan.cli.options; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Every command of the engine, with its words."""
    for verb in VERBS:
        command = main.get_command(click.Context(main), verb)
        if isinstance(command, click.Group):
            yield from ((f"{verb} {name}", inner) for name, inner in command.commands.items())
        else:
            yield verb, command


LISTS = {
    "--face", "--paste", "--start",
    "--seeds", "--class", "--rows", "--cols", "--row-class", "--col-class", "--styles", "--layers", "--strengths",
    "--attributes", "--without", "--metrics", "--name", "--distance-weights", "--report", "--diffaugment",
}  # fmt: skip
SINGLE = {("train", "--styles"), ("directions conditional", "--name")}
"""A switch, and the one direction that is changed."""


@pytest.mark.parametrize(("words", "command"), list(every_command()), ids=str)
def test_lists_add_up_and_every_other_option_given_twice_is_an_error(words: str, command: click.Command) -> None:
    for option in (param for param in command.params if isinstance(param, click.Option)):
        once = [option.opts[0]] if option.is_flag else [option.opts[0], *["x"] * option.nargs]
        given = CliRunner().invoke(command, once * 2)
        assert given.exit_code == 2, option
        is_list = option.opts[0] in LISTS and (words, option.opts[0]) not in SINGLE
        assert ("is given 2 times; give it once" in given.stderr) == (not is_list), (option.opts, given.stderr)
