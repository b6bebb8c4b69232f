"""Sources: stacks of images in one array, in .npy, .npz and HDF5 files, as the first ProGAN and BigGAN wrote them."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from torch_utils.errors import UserError
from torch_utils.images import CHANNELS
from torch_utils.text import printable
from torch_utils.untrusted import ZIP_ERRORS, excess, read_member, read_plain
from training.data.importers.source import Source
from training.data.labels import numbered

NUMPY, HDF5 = (".npy", ".npz"), (".h5", ".hdf5", ".hdf")
ARRAY_ERRORS = (*ZIP_ERRORS, KeyError, TypeError, SyntaxError, MemoryError)
# What an array of labels is called beside one of images.
RENAMED = (("images", "labels"), ("image", "label"), ("imgs", "labels"), ("img", "label"), ("x", "y"), ("X", "y"))
LABELS = ("labels", "label", "y", "arr_1", "targets")
MAX_ARRAYS = 1000


@dataclass(frozen=True)
class Array:
    """One array of a file that has not been read yet. read: all of it"""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Any]


def open_stack(path: Path) -> Source:
    """The images of the largest array of bytes, [N,H,W], [N,H,W,C] or [N,C,H,W], and labels from the file or beside it.

    Raises UserError if the file is damaged or has no such array, or without the package h5py that reads HDF5.
    """
    kind = "HDF5" if path.suffix.lower() in HDF5 else "NumPy"
    try:
        arrays, close = _hdf5(path) if kind == "HDF5" else _numpy(path)
        name, stack = _images(arrays)
        pixels = stack.read()
        labels = _labels(name, stack.shape[0], arrays, path)
        numbers, fault = None, ""
        if labels is not None:
            try:
                numbers = [int(number) for number in numbered(labels)[0] if number is not None]
            except ValueError as error:
                fault = str(error)
    except ARRAY_ERRORS as error:
        raise UserError(f"Cannot read {path} as a stack of images ({printable(str(error))})") from error
    to_image = layout(stack.shape)
    names = [f"{printable(path.stem)}/{index:06d}" for index in range(stack.shape[0])]
    return Source(
        kind, path, names, lambda i: to_image(np.asarray(pixels[i])), close, labels=numbers, label_fault=fault
    )


def layout(shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """How an image of a stack of this shape becomes [H,W] or [H,W,C]."""
    if len(shape) == 3:
        return lambda image: image
    first = channels_first(shape[1:])
    grey = shape[1 if first else 3] == 1

    def to_image(image: np.ndarray) -> np.ndarray:
        image = image.transpose(1, 2, 0) if first else image
        return np.ascontiguousarray(image[:, :, 0] if grey else image)

    return to_image


def channels_first(shape: Sequence[int]) -> bool:
    """Whether an image of this shape is [C,H,W] and not [H,W,C]. A square tells where both would have channels."""
    channels = CHANNELS.values()
    return shape[0] in channels and (shape[2] not in channels or shape[1] == shape[2])


def _images(arrays: Mapping[str, Array]) -> tuple[str, Array]:
    """The largest array that holds images. Raises ValueError if there is none."""
    channels = set(CHANNELS.values())
    fitting = {
        name: array
        for name, array in arrays.items()
        if (len(array.shape) == 3 and array.shape[2] not in channels)
        or (len(array.shape) == 4 and channels & {array.shape[1], array.shape[3]})
    }
    usable: dict[str, int] = {
        name: math.prod(array.shape) for name, array in fitting.items() if array.dtype == np.uint8
    }
    if any(usable.values()):
        name = max(usable, key=lambda name: usable[name])
        return name, arrays[name]
    found = ", ".join(f"{printable(name)} {list(a.shape)} {a.dtype}" for name, a in list(arrays.items())[:8]) or "none"
    cure = "save the images as uint8 from 0 to 255" if fitting else "expected [N,H,W], [N,H,W,C] or [N,C,H,W]"
    raise ValueError(f"no images in its arrays: {found}; {cure}")


def _labels(images: str, count: int, arrays: Mapping[str, Array], path: Path) -> list[Any] | None:
    """Labels of the images in the array called `images`: from another array, or from a .npy file beside `path`."""
    names = [images.replace(old, new) for old, new in RENAMED if old in images] + list(LABELS)
    for name in names:
        array = arrays.get(name)
        if array is not None and name != images and array.shape[:1] == (count,) and len(array.shape) <= 2:
            return _as_list(np.asarray(array.read()))
    stems = [path.stem.replace(old, new) for old, new in RENAMED[:4] if old in path.stem]
    for stem in [*stems, f"{path.stem}-labels", f"{path.stem}_labels"]:
        beside = path.with_name(f"{stem}.npy")
        if beside != path and beside.is_file():
            return load_labels(beside, count)
    return None


def load_labels(path: Path, count: int) -> list[Any]:
    """The labels in a .npy file, whatever its name. Raises one of ARRAY_ERRORS unless they are for `count` images."""
    content = read_plain(path, "table_mib")
    shape, _, _ = _header(content)
    if shape[:1] != (count,) or len(shape) > 2:
        raise ValueError(f"{path.name} has labels {list(shape)} for {count} images")
    return _as_list(_array(content))


def _as_list(labels: np.ndarray) -> list[Any]:
    """[N] or [N,classes] as `labels.numbered` takes them."""
    if labels.dtype.kind not in "biufSU":
        raise ValueError(f"its labels are {labels.dtype}")
    return (labels.astype(np.int64) if labels.dtype.kind == "b" else labels).tolist()


# NumPy's files, whose headers can claim any size


def _numpy(path: Path) -> tuple[dict[str, Array], Callable[[], None]]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            shape, dtype, offset = _header(file.read(1 << 16), path.stat().st_size)
        order: Literal["F", "C"] = "F" if _is_fortran(path) else "C"
        stack: np.ndarray = np.memmap(path, dtype, "r", offset, shape, order)
        return {"": Array(shape, dtype, lambda: stack)}, lambda: None
    archive = zipfile.ZipFile(path)
    arrays = {}
    for member in archive.infolist()[:MAX_ARRAYS]:
        if member.filename.endswith(".npy"):
            with archive.open(member) as file:
                shape, dtype, _ = _header(file.read(1 << 16), member.file_size)
            read = lambda name=member.filename: _array(read_member(archive, name, "memory_gib"))  # noqa: E731
            arrays[member.filename.removesuffix(".npy")] = Array(shape, dtype, read)
    return arrays, archive.close


def _header(content: bytes, size: int | None = None) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and offset of the values of a .npy file. Raises ValueError unless it has `size` bytes."""
    shape, _, dtype, offset = _parsed(content)
    size = len(content) if size is None else size
    if dtype.hasobject or math.prod(shape) * dtype.itemsize + offset != size:
        raise ValueError("it holds Python objects" if dtype.hasobject else "it is truncated or damaged")
    return shape, dtype, offset


def _parsed(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    from io import BytesIO

    file = BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype, file.tell()


def _is_fortran(path: Path) -> bool:
    with path.open("rb") as file:
        return _parsed(file.read(1 << 16))[1]


def _array(content: bytes) -> np.ndarray:
    shape, fortran, dtype, offset = _parsed(content)
    return np.frombuffer(content, dtype, offset=offset).reshape(shape, order="F" if fortran else "C")


# HDF5


def _hdf5(path: Path) -> tuple[dict[str, Array], Callable[[], None]]:
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path} is HDF5, and the package that reads it is missing: pip install h5py") from error
    file = h5py.File(path, "r")
    arrays: dict[str, Array] = {}

    def visit(name: str, found: Any) -> bool | None:
        # Other files, which a dataset may name, are not opened.
        if isinstance(found, h5py.Dataset) and not found.is_virtual and not found.external and found.shape:
            arrays[name] = Array(found.shape, found.dtype, lambda: _checked(found))
        return True if len(arrays) >= MAX_ARRAYS else None

    file.visititems(visit)
    return arrays, file.close


def _checked(dataset: Any) -> Any:
    """The dataset, whose images are read one by one. Raises ValueError if one takes too much memory."""
    each = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    block = math.prod(dataset.chunks) * dataset.dtype.itemsize if dataset.chunks else each
    fault = excess("an image", max(each, block), "picture_mib") if len(dataset.shape) > 2 else ""
    fault = fault or (excess("it", each * dataset.shape[0], "table_mib") if len(dataset.shape) <= 2 else "")
    if fault:
        raise ValueError(fault)
    return dataset
