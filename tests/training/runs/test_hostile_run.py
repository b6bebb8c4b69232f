"""A run directory may be a stranger's: resuming it runs no code from it, opens only what it may name, and takes no more
than the machine has.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from stylegan.cli import train as command
from torch_utils.checkpoint import damage
from torch_utils.errors import UserError
from torch_utils.settings import leaves
from training.config import RunConfig
from training.runs.live_metrics import keep_best, noted
from training.runs.memory import require_fits
from training.runs.resume import resumed
from training.runs.run_dir import LOCK, OPTIONS, PREVIOUS, STATE, read_options, write_options

opened: list[str] = []


def note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        opened.append(str(arguments[0]))


sys.addaudithook(note_opened)


@pytest.fixture
def run_dir(straight: Path, tiny: Callable[..., RunConfig], tmp_path: Path) -> Path:
    """A finished run."""
    shutil.copytree(straight, tmp_path / "run")
    write_options(tmp_path / "run", tiny())
    return tmp_path / "run"


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that the module `marking` makes when it is imported."""
    (tmp_path / "marking.py").write_text(
        "from pathlib import Path\nimport torch\nPath(__file__).with_name('marker').touch()\n"
        "def embed(images):\n    return torch.ones(len(images), 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "marker"
    sys.modules.pop("marking", None)


def change(run_dir: Path, **settings: Any) -> None:
    """Set stored settings by their dotted names, where __ stands for a dot."""
    stored = json.loads((run_dir / OPTIONS).read_text())
    for name, value in settings.items():
        *groups, last = name.split("__")
        group = stored
        for part in groups:
            group = group[part]
        group[last] = value
    (run_dir / OPTIONS).write_text(json.dumps(stored))


def resume(run_dir: Path, *more: str) -> Result:
    return CliRunner().invoke(command.main, ["--resume", str(run_dir), *more])


def refusal(result: Result) -> str:
    """The one line with which it was refused."""
    assert result.exit_code == 2, result.output
    assert result.stderr.isascii() and len(result.stderr.splitlines()) == 1
    return result.stderr


# What can run code comes from the command line of this call


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # files of it will be there for long
@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--val", ""]], ids=["run", "dry", "other"])
@pytest.mark.parametrize("features", ["marking:embed", "marking", "net.pt"])
def test_a_program_that_only_a_file_asks_for_is_not_run(
    features: str, more: list[str], run_dir: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_dir)
    torch.jit.script(torch.nn.Identity()).save(run_dir / "net.pt")
    change(run_dir, features=features, metrics="kid20")
    opened.clear()
    assert f"--features {features}, which is a program" in refusal(resume(run_dir, *more))
    assert not marker.exists() and not [name for name in opened if name.endswith(("net.pt", "marking.py"))]


def test_a_program_that_the_command_names_is_run(run_dir: Path, marker: Path) -> None:
    change(run_dir, features="marking:embed", metrics="kid20")
    for more in (["--features", "efficientnet-lite0"], ["--metrics", "none"]):
        assert resume(run_dir, "--dry-run", *more).exit_code == 0 and not marker.exists()
    assert resume(run_dir, "--dry-run", "--features", "marking:embed").exit_code == 0 and marker.exists()


TEXTS = sorted(name for name, value in leaves(RunConfig()) if isinstance(value, str))


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in ("data.path", "val", "data.content_hash")])
def test_no_other_setting_opens_a_file(name: str, run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "trap").write_text("{}")
    for metrics in ("none", "swd20"):
        change(run_dir, metrics=metrics)
        change(run_dir, **{name.replace(".", "__"): str(tmp_path / "trap")})
        opened.clear()
        resume(run_dir, "--dry-run")
        assert opened and str(tmp_path / "trap") not in opened


@pytest.mark.parametrize("name", [LOCK, "log.txt", "stats.jsonl", "metric-swd20.jsonl"])
def test_nothing_is_written_through_a_link(name: str, run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (run_dir / name).unlink(missing_ok=True)
    (run_dir / name).symlink_to(tmp_path / "precious")
    change(run_dir, metrics="swd20")
    assert "link" in refusal(resume(run_dir))
    assert (tmp_path / "precious").read_text() == "mine"


# Only regular files are opened, and only as much is read as they hold


@pytest.mark.parametrize("name", ["data.path", "val"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_no_archives(name: str, kind: str, run_dir: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "pipe" if kind == "pipe" else Path("/dev/zero")
    change(run_dir, **{name.replace(".", "__"): str(path)})
    assert "neither a regular file nor a folder" in refusal(resume(run_dir, "--dry-run"))


def put(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")


every_kind = pytest.mark.parametrize("kind", ["pipe", "device", "folder"])


@pytest.mark.parametrize("name", [OPTIONS, "metric-swd20.jsonl"])
@every_kind
def test_what_should_be_a_file_is_one(name: str, kind: str, run_dir: Path) -> None:
    change(run_dir, metrics="swd20")
    put(run_dir / name, kind)
    said = refusal(resume(run_dir))
    assert name in said and "not a regular file" in said


@every_kind
def test_the_state_before_takes_over_whatever_is_in_the_place_of_the_newest(kind: str, run_dir: Path) -> None:
    put(run_dir / STATE, kind)
    result = resume(run_dir)
    assert result.exit_code == 0, result.output
    assert f"{STATE} is no good (it is not a regular file): going on" in result.output
    assert damage(run_dir / STATE) == ""


@every_kind
def test_no_state_at_all_is_one_line(kind: str, run_dir: Path) -> None:
    for name in (STATE, PREVIOUS):
        put(run_dir / name, kind)
    assert "no state of" in refusal(resume(run_dir))


# Lines of metrics, and numbers beyond the machine


@pytest.mark.parametrize("spoilt", [b"null", b"3", b"[1]", b"\xff\xfe", b"{", b'{"results": {"swd20": "x"}}', b'"x"'])
def test_lines_that_are_no_results_are_counted_and_left_out(spoilt: bytes, run_dir: Path) -> None:
    change(run_dir, metrics="swd20")
    (run_dir / "metric-swd20.jsonl").write_bytes(spoilt + b"\n")
    result = resume(run_dir)
    assert result.exit_code == 0, result.output
    assert "metric-swd20.jsonl: 1 line without a result left out" in result.output
    written = (run_dir / "metric-swd20.jsonl").read_bytes().splitlines()
    assert written[0] == spoilt and json.loads(written[1])["results"]["swd20"] > 0


@pytest.mark.parametrize(("settings", "says"), [
    ({"model__z_dim": 100_000_000}, "--z-dim 100000000 cannot be"),
    ({"model__z_dim": 1 << 20, "model__mapping_dim": 1 << 20}, "bytes: these are not"),
    ({"model__mapping_dim": 1_000_000}, "or the state is cut short; restore training_options.json"),
    ({"model__w_dim": 1_000_000}, "are not the settings"),
    ({"model__fmap_base": 1 << 16, "model__fmap_max": 4000}, "are not the settings"),
    ({"model__mapping_layers": 10**9}, "--map-depth"),
    ({"growth__batch": {"base": 10**12, "table": {}}}, "--batch 1000000000000 is too large"),
    ({"growth__batch": {"base": 1 << 20, "table": {}}}, "GiB of memory"),
    ({"threads": 10**6}, "--threads 1000000 is too many"),
    ({"gpus": 1 << 12, "growth__batch": {"base": 1 << 12, "table": {}}}, "--gpus 4096 is too many"),
    ({"metrics": "kid1000000000k"}, "too many images"),
    ({"metrics": f"kid{'9' * 3000}"}, "too many images"),
    ({"metrics": "kid20," * 1000}, "--metrics has 6,000 characters"),
    ({"timeout": 1e300}, "--timeout 1e+300 is too large"),
    ({"timeout": 1e-300}, "--timeout 1e-300 is too small; give at least 1\n"),
    ({"tick_kimg": {"base": 1, "table": {"8": 1e-12}}}, "--tick 8:1e-12,1 is too small; give at least 0.001\n"),
    ({"growth__stable_kimg": {"base": 1e-300, "table": {}}}, "--lod-kimg 1e-300 is too small; give at least 0.001, or"),
    ({"growth__fade_kimg": {"base": float("nan"), "table": {}}}, "--fade-kimg nan cannot be: give a number, not nan"),
    ({"snap": 0}, "--snap 0 cannot be: give a number, more than 0"),
    ({"time_limit": -1}, "setting 'time_limit' -1 cannot be: give a number, 0 or more"),
    ({"total_kimg": 10**400}, "--kimg 1000"),
    ({"model__num_classes": 7, "data__cond": True}, "the number of classes is 7 in"),
    ({"model__base": [8, 8]}, "are for other images"),
    ({"desc": "x" * (2 << 20)}, "STYLEGAN_LIMITS=settings_mib=3"),
])  # fmt: skip
def test_numbers_of_a_file_are_bounded(settings: dict[str, Any], says: str, run_dir: Path) -> None:
    change(run_dir, **settings)
    for more in ([], ["--dry-run"]):
        if not more or not ("GiB" in says or "--gpus" in says):  # a plan may be for a larger machine
            assert says in refusal(resume(run_dir, *more))


LINE = {"data_hash": "", "seed": 0, "psi": 1.0, "mirror": False, "precision": "fp32", "network": "a", "resolution": 16,
        "snapshot_pkl": "network-snapshot-000000.safetensors", "results": {"swd20": 2.0}}  # fmt: skip


@given(data=st.data())
def test_damaged_lines_of_metrics_are_results_or_left_out(
    data: st.DataObject, damaged: Any, tiny: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_dir, cfg = tmp_path_factory.getbasetemp(), tiny(metrics="swd20", data__content_hash="")
    whole = (json.dumps(LINE) + "\n").encode()
    (run_dir / "metric-swd20.jsonl").write_bytes(damaged(data, whole) + b"\n" + whole)
    assert noted(cfg, run_dir, "swd20")[-1] == LINE
    keep_best(cfg, run_dir, lambda text: None)


@pytest.mark.parametrize("name", ["..", "/", "x" * 5000, "\0", "/etc/passwd", ".", "\ud800"])
def test_a_line_names_only_snapshots_of_this_run(name: str, run_dir: Path, tiny: Callable[..., RunConfig]) -> None:
    cfg = tiny(metrics="swd20", data__content_hash="")
    (run_dir / "metric-swd20.jsonl").write_text(json.dumps(LINE | {"snapshot_pkl": name}))
    opened.clear()
    keep_best(cfg, run_dir, lambda text: None)
    assert not [path for path in opened if not path.startswith(str(run_dir))]


@given(data=st.data())
def test_damaged_settings_are_a_run_or_refused(
    data: st.DataObject, damaged: Any, straight: Path, tiny: Callable[..., RunConfig]
) -> None:
    path = straight / OPTIONS
    write_options(straight, tiny())
    path.write_bytes(damaged(data, path.read_bytes()))
    try:
        cfg = resumed(read_options(straight), {}, lambda: 0)
        require_fits(cfg, torch.device("cpu"), 1)
    except UserError as error:
        assert str(error)
    finally:
        path.unlink()


def test_every_number_is_bounded_or_harmless(run_dir: Path, tiny: Callable[..., RunConfig]) -> None:
    """Whatever number stands in a file, resuming plans or refuses at once."""
    for name, value in leaves(tiny()):
        if type(value) in (int, float):
            for wrong in (-1, 0, 3, 10**6, 10**30, 1e308, float("nan")):
                write_options(run_dir, tiny())
                change(run_dir, **{name.replace(".", "__"): wrong})
                try:
                    resumed(read_options(run_dir), {}, lambda: 0)
                except UserError as error:
                    assert len(str(error)) < 300
