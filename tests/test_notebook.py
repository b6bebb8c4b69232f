"""The notebook runs from top to bottom, on the model that comes with the engine."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parent.parent


def run(source: str, names: dict[str, Any]) -> Any:
    """Execute a cell. Its value is that of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def test_every_cell_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown: list[object] = []
    names: dict[str, Any] = {"display": shown.append}
    cells = json.loads((ROOT / "notebooks" / "explore.ipynb").read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []  # as they would be committed again at every run
            shown.append(run("".join(cell["source"]), names))
    pictures = [picture for picture in shown if isinstance(picture, Image.Image)]
    assert len(pictures) >= 8 and all(len(picture.getcolors(1 << 20)) > 20 for picture in pictures)
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "target.png", "from-2-to-7.webp", "eight.latent.safetensors",
    }  # fmt: skip
