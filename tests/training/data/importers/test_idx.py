"""MNIST files, made by hand: images are padded, labels found, damage is one line."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from torch_utils.errors import UserError
from training.data.importers.inspect import open_source


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("from_folder", [False, True])
def test_idx_is_padded_and_finds_its_labels(tmp_path: Path, packed: bool, from_folder: bool) -> None:
    digits = np.random.RandomState(0).randint(0, 256, (5, 28, 28), np.uint8)
    wrap, suffix = (gzip.compress, ".gz") if packed else (bytes, "")
    images = tmp_path / f"train-images-idx3-ubyte{suffix}"
    images.write_bytes(wrap(idx(digits)))
    (tmp_path / f"t10k-images-idx3-ubyte{suffix}").write_bytes(b"not used")
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(wrap(idx(np.arange(5, dtype=np.uint8))))
    source = open_source(tmp_path if from_folder else images)
    assert source.labels == [0, 1, 2, 3, 4]
    image = source.read(3)
    assert isinstance(image, np.ndarray) and image.shape == (32, 32)
    np.testing.assert_array_equal(image[2:-2, 2:-2], digits[3])
    assert image.sum() == digits[3].sum()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-7], lambda b: b[:3], lambda b: b"\0\0\x0d" + b[3:], lambda b: b"\x1f\x8b" + b]
)
def test_damaged_idx_is_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(idx(np.zeros((2, 28, 28), np.uint8))))
    with pytest.raises(UserError, match="IDX"):
        open_source(path)


def test_there_must_be_as_many_idx_labels_as_images(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((2, 28, 28), np.uint8)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(UserError, match="3 labels for 2 images"):
        open_source(tmp_path)
