"""The commands in the README and in docs work exactly as they are written, in the order in which they are written."""

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
from stylegan.checkpoints.snapshot import Snapshot, store
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FIRST = ["README.md", "docs/training.md", "docs/security.md", "docs/tools.md", "docs/python.md"]
"""Their commands run in this order, then those of the other pages in the order of their names."""
PAGES = {name: (ROOT / name).read_text() for name in dict.fromkeys(
    [*FIRST, *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))])}  # fmt: skip
# The only changes: training runs end early and use one thread, because two threads wait for each other on a busy
# machine; searches are short; and the faces are those of a tiny network.
SHORTER = ["--kimg", "0.1", "--threads", "1"]
FEWER_STEPS = ["--num-steps", "2", "--plus-steps", "2", "--w-samples", "10", "--pti-steps", "2"]
FEWER_SAMPLES = ["--samples", "1000"]
TINY = "tiny.safetensors"
# Runs each command in the same process, because starting Python and PyTorch again takes longer than most of them.
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
    """A folder with what the README assumes: photos, and a network file of the published repository."""
    home = tmp_path_factory.mktemp("home")
    photos = home / "photos"
    photos.mkdir()
    for seed in range(6):
        noise = np.random.default_rng(seed).integers(0, 256, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(photos / f"{seed}.jpg")
    shutil.copy(photos / "0.jpg", home / "eva.jpg")
    tiny = StyleGAN1Config(
        resolution=16, z_dim=16, w_dim=16, mapping_layers=2, mapping_dim=16, fmap_base=64, fmap_max=16
    )
    store(home / TINY, Snapshot(build_generator(tiny), build_discriminator(tiny), tiny, tiny.full, 5.0, "photos"))
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
    run(home, lines + "\nassert len(images) == 8 and tensors.shape[0] == len(scores) == 4 and len(more) == 3")


def test_make_has_every_target_that_the_readme_names() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)|`make (\w+)", README, re.MULTILINE)) and targets >= {
        name for pair in re.findall(r"^make (\w+)|`make (\w+)", README, re.MULTILINE) for name in pair if name
    }


def test_every_file_that_the_pages_name_is_there() -> None:
    pattern = re.compile(r"`((?:stylegan|training|torch_utils|ops|benchmarks|docs|tests)/[\w./-]+)`")
    named = {name for text in PAGES.values() for name in pattern.findall(text)}
    missing = [name for name in sorted(named) if not (ROOT / name).exists()]
    assert named and missing == []


def test_every_file_on_the_map_of_the_readme_is_there() -> None:
    """The map lists folders at the margin and their contents below them, both to the left of their descriptions."""
    (tree,) = re.findall(r"^## How it is laid out\n\n```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    folder, named = "", []
    for line in tree.splitlines():
        names = [name for name in line[:26].split() if name.endswith(("/", ".py"))]
        if not line.startswith(" "):
            folder = names[0] if len(names) == 1 else ""
            named += names
        else:
            named += [folder + name for name in names]
    missing = [name for name in named if not (ROOT / name).exists()]
    assert len(named) > 20 and missing == []


def anchors(text: str) -> set[str]:
    """Returns the anchors of a page, one for each heading."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_has_a_target(page: str) -> None:
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
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


def test_the_figures_are_made_by_the_commands_beside_them_and_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    script = make_figures()
    printed = README.splitlines()
    assert [line for figure in script.FIGURES for line in figure.commands if line not in printed] == []
    files = {f"docs/figures/{figure.name}.webp" for figure in script.FIGURES}
    shown = set(re.findall(r"!\[[^]]+\]\((.*?)\)", README))
    for page in (ROOT / "docs").glob("*.md"):
        shown |= {f"docs/{name}" for name in re.findall(r"!\[[^]]+\]\((.*?)\)", page.read_text())}
    assert files == shown
    assert files == {file.relative_to(ROOT).as_posix() for file in (ROOT / "docs/figures").iterdir()}
    assert sum((ROOT / file).stat().st_size for file in files) < script.MAX_BYTES


def test_the_films_of_the_pages_have_every_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), (value, value, value)) for value in (40, 40, 41, 200)]
    make_figures().write(tmp_path / "growth.webp", frames)
    with Image.open(tmp_path / "growth.webp") as film:
        assert film.n_frames == 4  # type: ignore[attr-defined]
