"""Archives and folders made to do harm end in one line, or in an image left out, and nothing else happens."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from torch_utils.errors import BadImage, UserError
from torch_utils.images import open_image
from training.data.archive import Archive
from training.data.importers.convert import Job, run
from training.data.importers.inspect import open_source
from training.data.importers.labels import from_manifest
from training.data.importers.rules import Rules


def png(size: tuple[int, int] = (8, 8)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size).save(content, "PNG")
    return content.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


P = png()
HUGE = (
    b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


def packed(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def converted(source: Path) -> tuple[list[Any], str]:
    said: list[str] = []
    skipped = run(Job(source, source.parent / "out.zip"), Rules(), say=said.append)
    return skipped, "\n".join(said)


def refused(function: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(UserError) as caught:
        function(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    return str(caught.value)


MANIFESTS = {
    "nested lists": b"[" * 100_000,
    "nested dicts": b'{"labels":' * 100_000,
    "not text": b"\xff\xfe\x00\xd8",
    "a class of 4000 digits": b'{"labels":[["a.png",' + b"9" * 4000 + b"]]}",
    "a class of 2^62": b'{"labels":[["a.png",4611686018427387904]]}',
    "a class that is true": b'{"labels":[["a.png",true]]}',
    "class names that are a number": b'{"labels":[["a.png",0]],"class_names":5}',
    "class names in a dict": b'{"labels":[["a.png",0]],"class_names":{"a":1}}',
    "a name that is a list": b'{"labels":[[["a.png"],1]]}',
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_hostile_manifest_is_one_line(name: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", ("a.png", P), ("dataset.json", MANIFESTS[name]))
    refused(Archive.open, path)
    refused(converted, path)
    assert not (tmp_path / "out.zip").exists()


def test_members_larger_than_the_limit_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEGAN_LIMITS", "picture_mib=1,table_mib=1,memory_gib=1")
    path = packed(tmp_path / "x.zip", ("a.png", P), ("b.png", bytes(2 << 20)))
    archive = Archive.open(path)
    with pytest.raises(UserError, match="picture_mib=2"):
        archive.read(1)
    assert [skip.name for skip in converted(path)[0]] == ["b.png"]
    (tmp_path / "out.zip").unlink()
    path = packed(tmp_path / "y.zip", ("a.png", P), ("dataset.json", b" " * (2 << 20) + b"{}"))
    assert "table_mib=3" in refused(Archive.open, path) and "table_mib=3" in refused(converted, path)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damage_within_any_packing_is_an_image_left_out(method: int, tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", ("a.png", P), ("b.png", np.random.RandomState(0).bytes(999)), method=method)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\3\4") + 30 + len("b.png") + 20
    content[at : at + 40] = b"\xff" * 40
    path.write_bytes(content)
    archive = Archive.open(path)
    refused(lambda _: archive.read(1), path)


def test_names_lead_nowhere_and_cannot_drive_the_terminal(tmp_path: Path) -> None:
    names = ["../../evil.png", "/abs.png", "C:\\x.png", "a\x1b[2J\nb.png"]
    before = set(tmp_path.parent.rglob("*"))
    path = packed(tmp_path / "x.zip", *((name, P) for name in names), ("\x1b[3J.png", b"x"))
    skipped, said = converted(path)
    assert len(skipped) == 1 and said.replace("\n", "").isprintable()
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert all(name.startswith("00000/img0000") or name == "dataset.json" for name in archive.namelist())
    assert set(tmp_path.parent.rglob("*")) - before == {path, tmp_path / "out.zip"}


def test_an_image_is_opened_by_decoders_of_images_only(tmp_path: Path) -> None:
    for content in (HUGE, EPS):
        path = packed(tmp_path / "x.zip", ("a.png", content), ("b.png", P))
        refused(Archive.open, path)
        assert [skip.name for skip in converted(path)[0]] == ["a.png"]
        (tmp_path / "out.zip").unlink()
    with pytest.raises(BadImage, match="not an image"):
        open_image(EPS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_pipes_devices_and_links_without_end_do_not_hang(tmp_path: Path) -> None:
    root = tmp_path / "f"
    root.mkdir()
    (root / "b.png").write_bytes(P)
    os.mkfifo(root / "a.png")
    (root / "c.png").symlink_to("/dev/zero")
    (root / "d.png").symlink_to("nowhere")
    assert Archive.open(root).names == ["b.png"]
    assert [skip.name for skip in converted(root)[0]] == ["a.png", "c.png", "d.png"]
    os.mkfifo(root / "dataset.json")
    refused(converted, root)
    for level in range(20):
        (root / f"{level}").mkdir()
    for level in range(19):
        for name in ("x", "y"):
            (root / f"{level}" / name).symlink_to(root / f"{level + 1}")
    assert "links" in refused(open_source, root)


def tar_of(size: bytes) -> bytes:
    """A tar with one image, and a manifest that claims `size`, as a tar header writes numbers."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in ("a.png", "dataset.json"):
            info = tarfile.TarInfo(name)
            info.size = len(P)
            archive.addfile(info, io.BytesIO(P))
    whole = bytearray(content.getvalue())
    at = whole.index(b"dataset.json")
    whole[at + 124 : at + 136] = size
    whole[at + 148 : at + 156] = b" " * 8
    whole[at + 148 : at + 156] = b"%06o\0 " % sum(whole[at : at + 512])
    return bytes(whole)


def test_tar_files_that_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tar"
    for size in (b"\x80" + b"\0" * 3 + b"\x40" + b"\0" * 7, b"\xff" * 12, b"77777777777\0"):
        path.write_bytes(tar_of(size))
        refused(converted, path)
    monkeypatch.setattr(
        "training.data.importers.archives.excess", lambda what, size, name: "too much" if size > 1 << 20 else ""
    )
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(bytes(4 << 20)))
    assert "too much" in refused(open_source, tmp_path / "x.tar.gz")
    (tmp_path / "x.tar.xz").write_bytes(b"\xfd7zXZ\0" + b"x" * 100)
    refused(open_source, tmp_path / "x.tar.xz")


def test_idx_files_that_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    for shape in ((2**32 - 1, 28, 0), (2**32 - 1, 0, 0), (2**32 - 1,) * 3, (0, 2**32 - 1, 2**32 - 1)):
        path.write_bytes(struct.pack(">HBBIII", 0, 8, 3, *shape))
        refused(open_source, path)
    monkeypatch.setattr(
        "training.data.importers.idx.excess", lambda what, size, name: "too much" if size > 1 << 20 else ""
    )
    path.write_bytes(gzip.compress(bytes(4 << 20)))
    assert "too much" in refused(open_source, path)


@pytest.mark.parametrize("labels", [[10**30], [-1], ["x"], None, [1] * 3])
def test_cifar_files_that_lie(labels: Any, tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": labels}, 2))
    refused(open_source, tmp_path)


@given(
    content=st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text("a.png"),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["labels", "class_names", "x"]), inner),
            max_leaves=8,
        ).map(lambda x: json.dumps(x).encode()),
    )
)
@example(content=b'{"labels":[["a.png",0]],"class_names":["\\ud800"]}')
def test_any_manifest_is_labels_or_a_user_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "manifest"
    folder.mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(P)
    (folder / "dataset.json").write_bytes(content)
    for read in (Archive.open, lambda path: from_manifest(open_source(path), "dataset.json", content)):
        try:
            found = read(folder)
        except UserError as error:
            assert str(error)
        else:
            assert all(name.isprintable() for name in (found and found.class_names) or ())
