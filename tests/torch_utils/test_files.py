"""Files are complete or absent, and every kind of cached file has one place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torch_utils import files
from torch_utils.files import SCRATCH, atomic_write, cache_folder, write_atomically

ROOT = Path(__file__).parents[2]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
        assert scratch.parent == path.parent and list(tmp_path.glob(SCRATCH)) == [scratch]
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_of_files_appears_at_once(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "frames") as scratch:
        (scratch / "sub").mkdir(parents=True)
        (scratch / "sub" / "0.png").write_bytes(b"0")
        assert not (tmp_path / "frames").exists()
    assert (tmp_path / "frames/sub/0.png").read_bytes() == b"0" and not list(tmp_path.glob(SCRATCH))


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("folder", [False, True])
def test_a_failure_leaves_the_old_file_and_no_scratch(tmp_path: Path, error: type[BaseException], folder: bool) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as scratch:
        if folder:
            scratch.mkdir()
            scratch = scratch / "frame"
        scratch.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        pass


def test_two_writers_of_one_file_do_not_share_a_scratch_file(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as one, atomic_write(tmp_path / "a") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"


def test_content_is_on_the_disk_before_the_name_and_the_name_before_we_go_on(tmp_path: Path, monkeypatch) -> None:
    order = []
    monkeypatch.setattr(files, "sync", lambda path: order.append("content"))
    monkeypatch.setattr(files, "sync_folder", lambda folder: order.append("names"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    write_atomically(tmp_path / "a", b"a")
    assert order == ["content", "rename", "names"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STYLEGAN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_one_variable_moves_every_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".cache/stylegan/models").mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    monkeypatch.setenv("STYLEGAN_CACHE", str(home / "chosen"))
    assert cache_folder("models") == home / "chosen/models"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have other cache folders")
def test_the_cache_is_where_linux_keeps_caches(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder("models") == home / ".cache/stylegan/models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_folder("models") == home / "xdg/stylegan/models"


def test_what_earlier_versions_downloaded_is_still_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They did not look at XDG_CACHE_HOME."""
    (home / ".cache/stylegan/models").mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_folder("models") == home / ".cache/stylegan/models"
    assert cache_folder("data") == home / "xdg/stylegan/data"
    (home / "xdg/stylegan/models").mkdir(parents=True)
    assert cache_folder("models") == home / "xdg/stylegan/models"


def test_what_help_needs_does_not_import_numpy_or_torch() -> None:
    light = ["cli", "errors", "files", "interrupt", "output", "settings", "text", "untrusted"]
    code = "import sys\n" + "".join(f"import torch_utils.{name}\n" for name in light)
    code += "print({'numpy', 'torch', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_small_file_is_complete_or_absent_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_atomically(path, b"old", durable=False)
    with pytest.raises(OSError), atomic_write(path, durable=False) as scratch:
        scratch.write_bytes(b"ne")
        raise OSError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x" * 255, "\u3042" * 85])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, b"a")
    assert (tmp_path / name).read_bytes() == b"a"
