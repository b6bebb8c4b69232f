"""Pictures in an LMDB, as LSUN ships them: every value is an encoded image."""

from __future__ import annotations

from pathlib import Path

from torch_utils.errors import UserError
from training.data.importers.source import Source


def open_lmdb(path: Path) -> Source:
    """All values of the database in order of their keys. Raises UserError without the `lmdb` package or on damage."""
    try:
        import lmdb
    except ImportError as error:
        raise UserError(f"{path} is an LMDB: reading it takes one more package, `pip install lmdb`") from error
    try:
        database = lmdb.open(str(path), readonly=True, lock=False, readahead=False, subdir=path.is_dir())
        with database.begin() as transaction:
            keys = list(transaction.cursor().iternext(keys=True, values=False))
    except lmdb.Error as error:
        raise UserError(f"cannot open {path} as an LMDB: {error}") from error

    def read(index: int) -> bytes:
        with database.begin() as transaction:
            return bytes(transaction.get(keys[index]) or b"")

    if not keys:
        raise UserError(f"the LMDB {path} is empty: check --source")
    names = [key.decode() if key.isascii() else key.hex() for key in keys]
    return Source(kind="LMDB", path=path, names=names, read=read, close=database.close)
