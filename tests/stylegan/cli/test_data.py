"""The script: its two commands, its default, its exit codes; and a download from a server that drops connections."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from stylegan.cli.data import main
from training.data.archive import Archive
from training.data.importers.catalogue import CATALOGUE


def call(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for index in range(3):
        Image.new("RGB", (20, 16), (index * 90, 0, 0)).save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / "photos" / "broken.jpg").write_text("words")
    return tmp_path / "photos"


@pytest.mark.parametrize("command", [[], ["convert"]])
def test_converting_is_the_default_command(photos: Path, command: list[str]) -> None:
    dest = photos.parent / "new" / "out.zip"
    result = call(*command, "--source", photos, "--dest", dest, "--resolution", "12x8", "--workers", 2)
    assert result.exit_code == 0, result.output
    archive = Archive.open(dest)
    assert (len(archive), archive.width, archive.height) == (3, 12, 8)
    assert "20x16 (3)" in result.output and "not an image: broken.jpg" in result.output


def test_a_dry_run_prints_the_table_only(photos: Path) -> None:
    result = call("--source", photos, "--dest", photos.parent / "out.zip", "--resolution", 8, "-n")
    assert result.exit_code == 0 and "Archive" in result.output
    assert not (photos.parent / "out.zip").exists()


def test_upscale_reaches_the_rules(photos: Path) -> None:
    options = ["--source", photos, "--dest", photos.parent / "out.zip", "--resolution", 32]
    assert call(*options).exit_code == 2
    assert call(*options, "--upscale").exit_code == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--source", "nowhere"],
        ["--source", "photos"],
        ["--source", "photos", "--resolution", "100"],
        ["--source", "photos", "--resolution", "16", "--labels", "folders"],
        ["--source", "photos", "--resolution", "16", "--channels", "2"],
        ["--source", "photos", "--resolution", "big"],
        ["--source", "photos", "--resolution", "16", "--workers", "100000"],
        ["--dest"],
    ],
)
def test_bad_input_is_exit_code_two_and_no_file(
    photos: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(photos.parent)
    (photos / "odd.png").write_bytes((photos / "0.png").read_bytes())
    Image.new("L", (9, 9)).save(photos / "odd.png")
    result = call("--dest", "out.zip", *options)
    assert result.exit_code == 2
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "Traceback" not in result.output
    assert not Path("out.zip").exists()


def test_help_names_both_commands() -> None:
    result = call("--help")
    assert result.exit_code == 0 and "convert" in result.output and "download" in result.output


class Flaky(BaseHTTPRequestHandler):
    """Sends half of what is asked for, every other time."""

    files: dict[str, bytes]
    requests = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        type(self).requests += 1
        content = self.files[self.path]
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        self.wfile.write(rest[: len(rest) // 2] if type(self).requests % 2 else rest)
        self.close_connection = True


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`mnist` in the catalogue becomes six digits on a local server that drops connections."""
    digits = np.random.RandomState(0).randint(0, 256, (6, 28, 28), np.uint8)
    images = gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 6, 28, 28) + digits.tobytes())
    labels = gzip.compress(struct.pack(">HBBI", 0, 8, 1, 6) + bytes([3, 1, 4, 1, 5, 9]))
    names = [name for name, _ in CATALOGUE["mnist"].files]
    contents = dict(zip(names, (images, labels), strict=True))
    handler = type("Handler", (Flaky,), {"files": {f"/{name}": content for name, content in contents.items()}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    dataset = replace(
        CATALOGUE["mnist"],
        mirrors=("http://127.0.0.1:9/", f"http://127.0.0.1:{server.server_port}/"),
        files=tuple((name, hashlib.sha256(content).hexdigest()) for name, content in contents.items()),
    )
    monkeypatch.setitem(CATALOGUE, "mnist", dataset)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    yield
    server.shutdown()
    server.server_close()


def test_download_makes_an_archive(tiny_mnist: None, tmp_path: Path) -> None:
    result = call("download", "mnist", "--dest", tmp_path / "m.zip", "--cache", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    archive = Archive.open(tmp_path / "m.zip")
    assert archive.labels is not None and archive.labels.tolist() == [1, 0, 2, 0, 3, 4]
    assert archive.class_names == list("13459")  # the other digits have no image here
    assert (archive.height, archive.width, archive.channels) == (32, 32, 1)
    assert archive.meta["licence"] == CATALOGUE["mnist"].licence and "MNIST" in archive.meta["source"]
    assert not list((tmp_path / "cache").rglob("*.part*"))


def test_a_wrong_file_on_the_server_is_refused(
    tiny_mnist: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tuple((name, "0" * 64) for name, _ in CATALOGUE["mnist"].files)
    monkeypatch.setitem(CATALOGUE, "mnist", replace(CATALOGUE["mnist"], files=files))
    result = call("download", "mnist", "--dest", tmp_path / "m.zip", "--cache", tmp_path / "cache")
    assert result.exit_code == 2 and "wrong sha256" in result.output
    assert not (tmp_path / "m.zip").exists()


def test_the_catalogue_is_complete() -> None:
    for dataset in CATALOGUE.values():
        assert len(dataset.mirrors) >= 2 and all(mirror.endswith("/") for mirror in dataset.mirrors)
        assert all(len(bytes.fromhex(sha256)) == 32 for _, sha256 in dataset.files)
        assert dataset.licence
