"""A folder gives the same images in the same order however it is packed; paths that are not sources are refused."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from torch_utils.errors import UserError
from training.data.importers.inspect import open_source

NAMES = ["b/2.PNG", "a/1.png", "10.jpg", "a/c/3.webp"]


def write_folder(root: Path) -> Path:
    for index, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index * 60, 0, 0)).save(path)
    for name in ("notes.txt", ".hidden.png", "__MACOSX/a/1.png", "a/._1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def pack_zip(root: Path) -> Path:
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for path in root.rglob("*"):
            archive.write(path, path.relative_to(root).as_posix())
    return root.with_suffix(".zip")


def pack_tar(root: Path, suffix: str, mode: str) -> Path:
    with tarfile.open(root.with_suffix(suffix), mode) as archive:  # type: ignore[call-overload]
        for path in sorted(root.rglob("*"), reverse=True):
            archive.add(path, path.relative_to(root).as_posix(), recursive=False)
    return root.with_suffix(suffix)


@pytest.mark.parametrize(
    "pack",
    [
        lambda root: root,
        pack_zip,
        lambda root: pack_tar(root, ".tar", "w"),
        lambda root: pack_tar(root, ".tar.gz", "w:gz"),
        lambda root: pack_tar(root, ".tar.xz", "w:xz"),
    ],
    ids=["folder", "zip", "tar", "tar.gz", "tar.xz"],
)
def test_a_tree_of_images_is_the_same_however_packed(tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    root = write_folder(tmp_path / "tree")
    source = open_source(pack(root))
    assert list(source.names) == sorted(NAMES)
    assert source.others.startswith("4 other files")
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(source.read, [0, 1, 2, 3] * 20))
    assert contents == [(root / name).read_bytes() for name in sorted(NAMES)] * 20
    source.close()


def test_a_link_that_leads_back_up_ends(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "tree")
    os.symlink(root, root / "a" / "loop")
    assert list(open_source(root).names) == sorted(NAMES)


def test_lmdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "x_lmdb"), map_size=1 << 20) as database, database.begin(write=True) as transaction:
        for key in (b"k2", b"k1", b"\xff"):
            transaction.put(key, b"value of " + key)
    source = open_source(tmp_path / "x_lmdb")
    assert list(source.names) == ["k1", "k2", "ff"]
    assert [source.read(index) for index in range(3)] == [b"value of k1", b"value of k2", b"value of \xff"]
    source.close()
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(UserError, match="pip install lmdb"):
        open_source(tmp_path / "x_lmdb")


def test_celeba_takes_the_aligned_faces_only(tmp_path: Path) -> None:
    for folder in ("img_celeba", "img_align_celeba"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (178, 218)).save(tmp_path / folder / "000001.jpg")
    source = open_source(tmp_path)
    assert list(source.names) == ["000001.jpg"] and source.path.name == "img_align_celeba"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.zip", b"no zip", "as a zip file"),
        ("x.tar.gz", b"no tar", "as a tar file"),
        ("x.tar", gzip.compress(b"a" * 9999, mtime=0)[:20], "as a tar file"),
        ("x.png", b"", "single image"),
        ("x.docx", b"", "Cannot tell what"),
        ("x.mdb", b"", "LMDB"),
        ("only/readme.txt", b"", "There are no images in"),
    ],
)
def test_what_is_not_a_source_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        open_source(path.parent if path.parent != tmp_path else path)
    assert "\n" not in str(error.value)


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no such file or folder"):
        open_source(tmp_path / "nowhere")
