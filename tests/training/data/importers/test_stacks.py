"""Stacks of images in one array: every layout, labels beside them, and files that lie."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from torch_utils.errors import UserError
from training.data.archive import Archive
from training.data.importers.convert import Job, run
from training.data.importers.inspect import open_source
from training.data.importers.rules import Rules

RGB = np.random.RandomState(0).randint(0, 256, (6, 16, 8, 3), np.uint8)
CLASSES = np.array([0, 1, 2, 0, 1, 2])

RULES = Rules()


def converted(source: Path, rules: Rules = RULES) -> Archive:
    dest = source.parent / "out.zip"
    assert not run(Job(source, dest, overwrite=True), rules, say=lambda text: None)
    return Archive.open(dest)


def images(archive: Archive) -> np.ndarray:
    return np.array([archive.read(index) for index in range(len(archive))])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "Fortran", "NHW", "NHW1", "N1HW"])
def test_every_layout(tmp_path: Path, layout: str) -> None:
    grey = RGB[:, :, :, :1]
    stack = {
        "NHWC": RGB, "NCHW": RGB.transpose(0, 3, 1, 2), "Fortran": np.asfortranarray(RGB), "NHW": grey[..., 0],
        "NHW1": grey, "N1HW": grey.transpose(0, 3, 1, 2),
    }[layout]  # fmt: skip
    np.save(tmp_path / "x.npy", stack)
    np.savez_compressed(tmp_path / "y.npz", other=np.zeros(9), images=stack)
    for name in ("x.npy", "y.npz"):
        archive = converted(tmp_path / name)
        assert np.array_equal(images(archive), RGB if stack.size == RGB.size else grey) and archive.labels is None


@pytest.mark.parametrize("labels", [CLASSES, CLASSES[:, None], np.eye(3)[CLASSES], CLASSES.astype(np.float32)])
def test_labels_in_the_file_or_beside_it(tmp_path: Path, labels: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", x_train=RGB, y_train=labels, x_test=RGB[:2], y_test=labels[:2])
    np.savez(tmp_path / "b.npz", RGB, labels)
    np.save(tmp_path / "train-images.npy", RGB)
    np.save(tmp_path / "train-labels.npy", labels)
    np.save(tmp_path / "c.npy", RGB)
    np.save(tmp_path / "c-labels.npy", labels)
    for name in ("a.npz", "b.npz", "train-images.npy", "c.npy"):
        archive = converted(tmp_path / name)
        assert archive.labels is not None and archive.labels.tolist() == CLASSES.tolist()


def test_hdf5_of_the_first_progan(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    planes = RGB.transpose(0, 3, 1, 2)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data4x2"], file["data16x8"] = planes[:, :, ::4, ::4], planes
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/data")
        (tmp_path / "other.bin").write_bytes(bytes(6 * 64 * 64 * 3))
        file.create_dataset(
            "outside", (6, 64, 64, 3), np.uint8, external=[(tmp_path / "other.bin", 0, 6 * 64 * 64 * 3)]
        )
    np.save(tmp_path / "x-labels.npy", np.eye(3)[CLASSES])
    archive = converted(tmp_path / "x.h5")
    assert np.array_equal(images(archive), RGB)  # neither from other files nor the smaller ones
    assert archive.labels is not None and archive.labels.tolist() == CLASSES.tolist()
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["imgs"], file["labels"] = planes, CLASSES
    assert converted(tmp_path / "y.h5").num_classes == 3
    (tmp_path / "z.h5").write_bytes((tmp_path / "x.h5").read_bytes()[:600])
    with pytest.raises(UserError, match="as a stack of images"):
        open_source(tmp_path / "z.h5")


def test_hdf5_without_its_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "x.h5").touch()
    with pytest.raises(UserError, match="pip install h5py"):
        open_source(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        (RGB.astype(np.float32), "float32; save the images as uint8"),
        (RGB[0, :, :, 0], r"\[16, 8\] uint8; expected \[N,H,W\]"),
        (RGB[0], r"\[16, 8, 3\] uint8; expected \[N,H,W\]"),
        (RGB[:0], "no images in its arrays"),
        (np.array([{}]), "Python objects"),
    ],
)
def test_what_holds_no_images_says_what_it_holds(tmp_path: Path, stack: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", stack)
    with pytest.raises(UserError, match=message) as error:
        open_source(tmp_path / "x.npy")
    assert "\n" not in str(error.value)


def test_files_that_lie_about_their_size(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", RGB)
    whole = (tmp_path / "x.npy").read_bytes()
    huge = whole.replace(b"(6, 16, 8, 3)", b"(9999999999, 16, 8, 3)").replace(b" " * 9 + b"\n", b"\n")
    for content in (whole[:-1], whole[:40], huge, b"", b"\x93NUMPY\x09\x00" + whole[8:]):
        (tmp_path / "x.npy").write_bytes(content)
        with zipfile.ZipFile(tmp_path / "y.npz", "w") as packed:
            packed.writestr("images.npy", content)
        for name in ("x.npy", "y.npz"):
            with pytest.raises(UserError, match="as a stack of images"):
                open_source(tmp_path / name)
