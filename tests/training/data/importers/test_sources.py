"""Every kind of source, made by hand, gives the same pictures in the same order."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torch_utils.errors import UserError
from training.data.importers.cifar import open_cifar
from training.data.importers.detect import open_source

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
def test_a_tree_of_pictures_is_the_same_however_packed(tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    root = write_folder(tmp_path / "tree")
    source = open_source(pack(root))
    assert list(source.names) == sorted(NAMES)
    assert source.other_files == 4
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


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("from_folder", [False, True])
def test_idx_is_padded_and_finds_its_labels(tmp_path: Path, packed: bool, from_folder: bool) -> None:
    digits = np.random.RandomState(0).randint(0, 256, (5, 28, 28), np.uint8)
    wrap, suffix = (gzip.compress, ".gz") if packed else (bytes, "")
    images = tmp_path / f"train-images-idx3-ubyte{suffix}"
    images.write_bytes(wrap(idx(digits)))
    (tmp_path / f"t10k-images-idx3-ubyte{suffix}").write_bytes(b"not asked for")
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(wrap(idx(np.arange(5, dtype=np.uint8))))
    source = open_source(tmp_path if from_folder else images)
    assert source.labels == [0, 1, 2, 3, 4]
    picture = source.read(3)
    assert isinstance(picture, np.ndarray) and picture.shape == (32, 32)
    np.testing.assert_array_equal(picture[2:-2, 2:-2], digits[3])
    assert picture.sum() == digits[3].sum()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-7], lambda b: b[:3], lambda b: b"\0\0\x0d" + b[3:], lambda b: b"\x1f\x8b" + b]
)
def test_damaged_idx_is_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(idx(np.zeros((2, 28, 28), np.uint8))))
    with pytest.raises(UserError, match="IDX"):
        open_source(path)


def test_idx_labels_must_be_as_many(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 28, 28), np.uint8)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(UserError, match="3 labels for 2 pictures"):
        open_source(tmp_path)


PIXELS = np.random.RandomState(0).randint(0, 256, (10, 3072), np.uint8)
WORDS = ["plane", "car"]


def cifar_files(binary: bool) -> dict[str, bytes]:
    halves = [(PIXELS[:5], [0, 1, 0, 1, 0]), (PIXELS[5:], [1, 1, 1, 1, 0])]
    if binary:
        batches = {
            f"data_batch_{i}.bin": np.c_[np.array(labels, np.uint8), pixels].tobytes()
            for i, (pixels, labels) in enumerate(halves, 1)
        }
        return {**batches, "batches.meta.txt": "\n".join(WORDS).encode(), "test_batch.bin": b"unused"}
    batches = {
        f"data_batch_{i}": pickle.dumps({"data": pixels, "labels": labels}, protocol=2)
        for i, (pixels, labels) in enumerate(halves, 1)
    }
    return {**batches, "batches.meta": pickle.dumps({"label_names": WORDS}, protocol=2), "test_batch": b"unused"}


def write_cifar(root: Path, files: dict[str, bytes], name: str = "cifar-10-python.tar.gz") -> Path:
    with tarfile.open(root / name, "w:gz") as archive:
        for member, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches/{member}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return root / name


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_cifar(tmp_path: Path, binary: bool, packed: bool) -> None:
    files = cifar_files(binary)
    if packed:
        source = open_source(write_cifar(tmp_path, files, f"cifar-10-{'binary' if binary else 'python'}.tar.gz"))
    else:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        source = open_source(tmp_path)
    assert source.labels == [0, 1, 0, 1, 0, 1, 1, 1, 1, 0]
    assert source.class_names == ("plane", "car")
    picture = source.read(7)
    assert isinstance(picture, np.ndarray)
    np.testing.assert_array_equal(picture, PIXELS[7].reshape(3, 32, 32).transpose(1, 2, 0))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(Path(os.environ["EVIL_TARGET"])),)


def test_a_pickle_in_cifar_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL_TARGET", str(tmp_path / "ran"))
    path = write_cifar(tmp_path, {"data_batch_1": pickle.dumps(Evil())})
    with pytest.raises(UserError, match="mkdir"):
        open_source(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "batch",
    [
        b"", b"no pickle", pickle.dumps([1]), pickle.dumps({"data": PIXELS}), pickle.dumps({"data": 3, "labels": []}),
        pickle.dumps({"data": PIXELS, "labels": [1]}), pickle.dumps({"data": PIXELS.astype(float), "labels": [1] * 10}),
    ],
)  # fmt: skip
def test_damaged_cifar_is_one_line(tmp_path: Path, batch: bytes) -> None:
    with pytest.raises(UserError, match="CIFAR-10"):
        open_cifar(write_cifar(tmp_path, {"data_batch_1": batch}))


def test_cifar_without_batches(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="CIFAR-10"):
        open_cifar(write_cifar(tmp_path, {"something": b""}))


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
        ("x.png", b"", "single picture"),
        ("x.docx", b"", "cannot tell what"),
        ("x.mdb", b"", "LMDB"),
        ("only/readme.txt", b"", "no pictures in"),
    ],
)
def test_what_is_no_source_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        open_source(path.parent if path.parent != tmp_path else path)
    assert "\n" not in str(error.value)


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        open_source(tmp_path / "nowhere")
