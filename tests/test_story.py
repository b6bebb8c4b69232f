"""The notebook that tells beginners the story runs from top to bottom, here with tiny settings."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
TINY = {"DIGITS_KIMG": 0.2, "FACES": 24, "FACES_KIMG": 0.2, "GROWING_KIMG": 0.1}


def run(source: str, names: dict[str, Any]) -> Any:
    """Execute a cell. Its value is that of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def test_every_cell_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    cells = json.loads((ROOT / "notebooks" / "story.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in code)
    run("".join(code[0]["source"]), names)
    assert TINY.keys() < names.keys()  # all that makes it long is said in the first cell
    names.update(TINY)
    shown = [run("".join(cell["source"]), names) for cell in code[1:]]
    images = [image for image in shown if isinstance(image, Image.Image)]
    assert len(images) == 9 and all(len(image.getcolors(1 << 24)) > 1 for image in images)
    story = tmp_path / "story"
    assert (story / "between.webp").exists() and len(list(story.glob("*/growth.webp"))) == 3
