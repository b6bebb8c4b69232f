"""Which kind of source a path is."""

from __future__ import annotations

import zipfile
from pathlib import Path

from torch_utils.errors import UserError
from training.data.importers.archives import TAR_SUFFIXES, open_tar, open_zip
from training.data.importers.cifar import is_cifar, open_cifar
from training.data.importers.folder import open_folder
from training.data.importers.idx import IMAGES, find_idx, open_idx
from training.data.importers.lmdb import open_lmdb
from training.data.importers.source import Source, is_picture

CELEBA = "img_align_celeba"


def open_source(path: Path) -> Source:
    """Open a folder, zip, tar, LMDB, IDX file, CIFAR-10 or CelebA. Close the result with `contextlib.closing`.

    Raises UserError if there is nothing there, or nothing this tool reads.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise UserError(f"no such file or folder: {path}")
    name = path.name.lower()
    if IMAGES in name:
        return open_idx(path)
    if is_cifar(path):
        return open_cifar(path)
    if name.endswith(TAR_SUFFIXES):
        return open_tar(path)
    if path.suffix.lower() in (".mdb", ".lmdb"):
        return open_lmdb(path)
    if zipfile.is_zipfile(path) or name.endswith(".zip"):
        return open_zip(path)
    if is_picture(name):
        raise UserError(f"{path} is a single picture: give the folder it is in")
    raise UserError(f"cannot tell what {path} is: give a folder, .zip, .tar(.gz), LMDB, IDX file or CIFAR-10 archive")


def _open_folder(path: Path) -> Source:
    if (path / "data.mdb").is_file():
        return open_lmdb(path)
    idx = find_idx(path)
    if idx:
        return open_idx(idx)
    if is_cifar(path):
        return open_cifar(path)
    if (path / CELEBA).is_dir():  # beside it lie lists, and perhaps the same faces uncropped
        return open_folder(path / CELEBA)
    if (path / f"{CELEBA}.zip").is_file():
        return open_zip(path / f"{CELEBA}.zip")
    return open_folder(path)
