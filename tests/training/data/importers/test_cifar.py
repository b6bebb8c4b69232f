"""CIFAR-10 files, made by hand: both versions, packed and unpacked, damaged and hostile."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from torch_utils.errors import UserError
from training.data.importers.cifar import open_cifar
from training.data.importers.inspect import open_source

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
    image = source.read(7)
    assert isinstance(image, np.ndarray)
    np.testing.assert_array_equal(image, PIXELS[7].reshape(3, 32, 32).transpose(1, 2, 0))


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
