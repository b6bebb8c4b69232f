"""The command that converts published network files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from stylegan.checkpoints.snapshot import load_snapshot
from stylegan.checkpoints.tensorflow import load_published
from stylegan.cli.convert import main

SOURCE = Path(__file__).parents[2] / "data" / "progan_r32.pkl"


@pytest.mark.parametrize("with_d", [False, True])
def test_it_writes_a_snapshot_and_says_what_it_is(with_d: bool, tmp_path: Path) -> None:
    dest = tmp_path / "converted.safetensors"
    result = CliRunner().invoke(main, ["--source", str(SOURCE), "--dest", str(dest), *["--with-d"][:with_d]])
    assert result.exit_code == 0, result.output
    assert "progan, grown to 32 of 32" in result.output
    assert (load_snapshot(dest).D is not None) == with_d


def test_another_file_is_one_line_of_error_and_leaves_nothing(tmp_path: Path) -> None:
    other = tmp_path / "other.pkl"
    other.write_bytes(b"cos\nsystem\n(Vtrue\ntR.")
    result = CliRunner().invoke(main, ["--source", str(other), "--dest", str(tmp_path / "x.safetensors")])
    assert result.exit_code == 2
    assert "os.system" in result.output
    assert result.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ([], "give either --source MODEL or --blend A B"),
        (["--source", "a", "--blend", "a", "b"], "give either"),
        (["--blend", "a", "b"], "--from-layer"),
        (["--blend", "a", "b", "--from-layer", "2", "--with-d"], "leave out --with-d"),
        (["--source", "a", "--from-layer", "2"], "--from-layer goes with --blend"),
    ],
)
def test_what_contradicts_itself_is_refused(arguments: list[str], cure: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [*arguments, "--dest", str(tmp_path / "x.safetensors")])
    assert result.exit_code == 2 and cure in result.output


def test_it_blends(tmp_path: Path) -> None:
    dest = tmp_path / "blend.safetensors"
    result = CliRunner().invoke(main, ["--blend", str(SOURCE), str(SOURCE), "--from-layer", "4", "--dest", str(dest)])
    assert result.exit_code == 0, result.output
    assert torch.equal(load_snapshot(dest).renderer.render([0]), load_published(SOURCE).renderer.render([0]))
