"""What the README and the pages of docs say to type works, as it is written, in the order in which it is written."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from ops.cache import folders
from stylegan.config import ModelConfig
from stylegan.networks import build_discriminator, build_generator
from stylegan.snapshot import save_snapshot

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {name: (ROOT / name).read_text() for name in ["README.md", *(f"docs/{page}.md" for page in (
    "training", "faults", "security", "tools", "metrics", "ops", "scaling", "troubleshooting", "glossary", "peers",
    "papers", "performance-log", "quality-log"))]}  # fmt: skip
# All that is changed: trainings end early, and take one thread, as two wait for each other where anything else runs;
# searches are short, and the faces are those of a tiny network.
SHORTER = ["--kimg", "0.1", "--threads", "1"]
FEWER_STEPS = ["--num-steps", "2", "--plus-steps", "2", "--w-samples", "10", "--pti-steps", "2"]
FEWER_SAMPLES = ["--samples", "1000"]
TINY = "tiny.safetensors"
# Runs each command in the same process, as starting Python and PyTorch anew takes longer than most of them.
DRIVER = """
import json, runpy, sys
for command in json.loads(sys.stdin.read()):
    sys.argv = command
    print("$", *command, flush=True)
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{' '.join(command)} ended with {end.code}")
"""


def blocks(language: str) -> list[str]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [block for text in PAGES.values() for block in pattern.findall(text)]


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("python ")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README takes for granted: pictures, and a network file of the published repository."""
    home = tmp_path_factory.mktemp("home")
    pictures = home / "pictures"
    pictures.mkdir()
    for seed in range(6):
        noise = np.random.default_rng(seed).integers(0, 256, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(pictures / f"{seed}.jpg")
    shutil.copy(pictures / "0.jpg", home / "eva.jpg")
    tiny = ModelConfig(resolution=16, z_dim=16, w_dim=16, mapping_layers=2, mapping_dim=16, fmap_base=64, fmap_max=16)
    save_snapshot(home / TINY, build_generator(tiny), build_discriminator(tiny), config=tiny, resolution=16, alpha=1.0,
                  kimg=5.0, data="pictures")  # fmt: skip
    shutil.copy(ROOT / "tests/data/stylegan_r32.pkl", home / "karras2019stylegan-ffhq-1024x1024.pkl")
    return home


def run(home: Path, code: str, standard_input: str = "") -> None:
    kept = {"STYLEGAN_CACHE": str(home / "cache"), "STYLEGAN_OPS_CACHE": str(folders()[0])}  # nothing compiled twice
    environment = os.environ | kept | {"HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=home, env=environment, input=standard_input,
                          capture_output=True, text=True, timeout=1200)  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def changed(command: list[str], home: Path) -> list[str]:
    words = [word.replace("~", str(home)) for word in command]
    if "--network" in words and words[words.index("--network") + 1] == "faces64":
        words[words.index("--network") + 1] = TINY
    training = words[0] == "train.py" and "--outdir" in words
    fewer = SHORTER if training else FEWER_STEPS if words[0] == "project.py" else []
    fewer = FEWER_SAMPLES if words[:2] == ["directions.py", "find"] else fewer
    return [str(ROOT / words[0]), *words[1:], *fewer]


def test_every_command_and_the_python_lines_work(home: Path) -> None:
    assert len(commands()) >= 6
    todo = [changed(command, home) for command in commands()]
    run(home, DRIVER, json.dumps(todo))
    assert (home / "out" / "grid.png").exists() and len(list((home / "out").glob("seed*.png"))) == 36
    assert (home / "ffhq1024.safetensors").exists()
    lines = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "".join(blocks("python"))
    run(home, lines + "\nassert len(pictures) == 8 and images.shape[0] == len(scores) == 4")


def test_make_has_every_target_that_the_readme_names() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)|`make (\w+)", README, re.MULTILINE)) and targets >= {
        name for pair in re.findall(r"^make (\w+)|`make (\w+)", README, re.MULTILINE) for name in pair if name
    }


def test_every_file_that_the_pages_name_is_there() -> None:
    pattern = re.compile(r"`((?:stylegan|training|torch_utils|ops|benchmarks|docs|tests)/[\w./-]+)`")
    named = {name for text in PAGES.values() for name in pattern.findall(text)}
    assert named and [name for name in named if not (ROOT / name).exists()] == []


def anchors(text: str) -> set[str]:
    """Where the links of a page may lead: its headings, as they are spelled there."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def make_figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_figures", ROOT / "docs/make_figures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_the_figures_are_made_by_the_commands_beside_them_and_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    script = make_figures()
    printed = README.splitlines()
    assert [line for figure in script.FIGURES for line in figure.commands if line not in printed] == []
    files = {f"docs/figures/{figure.name}.webp" for figure in script.FIGURES}
    assert files == set(re.findall(r"!\[[^]]+\]\((.*?)\)", README))
    assert files == {file.relative_to(ROOT).as_posix() for file in (ROOT / "docs/figures").iterdir()}
    assert sum((ROOT / file).stat().st_size for file in files) < script.MAX_BYTES
