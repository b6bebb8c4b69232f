"""Sources: MNIST and Fashion-MNIST in the IDX format, plain or gzipped.

IDX: two zero bytes, the type (8: unsigned byte), the number of axes, each axis as a big-endian 32-bit integer, then
the values.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np

from torch_utils.errors import UserError
from torch_utils.untrusted import excess, read_plain
from training.data.importers.source import Source

IDX_IMAGES, IDX_LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"  # in the names of the files
SIDE = 28


def find_idx(folder: Path) -> Path | None:
    """The file with the training images, or else any with images, if the folder has one."""
    found = sorted(folder.glob(f"*{IDX_IMAGES}*"))
    return next((path for path in found if path.name.startswith("train")), found[0] if found else None)


def open_idx(path: Path) -> Source:
    """Images from an IDX file and labels from the one beside it, if there is one. 28x28 is padded with black to 32x32.

    Raises UserError if a file is damaged, or the two do not belong together.
    """
    images = read_idx(path)
    if images.ndim != 3:
        raise UserError(f"{path} does not contain images: give the file called ...{IDX_IMAGES}")
    if images.shape[1:] == (SIDE, SIDE):
        images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    beside = _labels_beside(path)
    labels = read_idx(beside).tolist() if beside else None
    if labels is not None and len(labels) != len(images):
        raise UserError(f"{beside} has {len(labels)} labels for {len(images)} images: download both files again")
    names = [f"{path.name.split('.')[0]}/{index:06d}" for index in range(len(images))]
    return Source(kind="IDX", path=path, names=names, read=images.__getitem__, labels=labels)


def _labels_beside(path: Path) -> Path | None:
    name = path.name.replace(IDX_IMAGES, IDX_LABELS)
    candidates = [name, name.removesuffix(".gz"), name.removesuffix(".gz") + ".gz"]
    return next((path.with_name(c) for c in candidates if c != path.name and path.with_name(c).is_file()), None)


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an IDX file. Raises UserError if it is not one, or not complete."""
    try:
        content = read_plain(path, "memory_gib")
        if content.startswith(b"\x1f\x8b"):
            content = _decompressed(content)
        kind, axes = struct.unpack_from(">HBB", content)[1:]
        shape = struct.unpack_from(f">{axes}I", content, 4)
        if kind != 8:
            raise ValueError("its values are not unsigned bytes")
        if 0 in shape:
            raise ValueError("it is empty")  # and could claim any number of images without pixels
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"Cannot read {path} as an IDX file ({error}): download it again") from error


def _decompressed(content: bytes) -> bytes:
    """Raises ValueError as soon as the result exceeds the limit."""
    unpacked = bytearray()
    with gzip.open(BytesIO(content)) as file:
        while block := file.read(1 << 20):
            unpacked += block
            fault = excess("unpacked, it", len(unpacked), "memory_gib")
            if fault:
                raise ValueError(fault)
    return bytes(unpacked)
