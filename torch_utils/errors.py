"""Errors: the one for everything that the user can fix, and those of the operating system in plain words."""

from __future__ import annotations

import errno
import os


class UserError(Exception):
    """A mistake in the user's input or environment. The message is one line: the cause, then the cure.

    Commands print it without a traceback and exit with code 2.
    """


class BadImage(Exception):
    """An image that cannot be used. The message is the reason, in a few words."""


_REASONS = {
    errno.EACCES: "permission is denied; change its permissions, or use another place",
    errno.EPERM: "permission is denied; change its permissions, or use another place",
    errno.EROFS: "the disk is read-only; use another place",
    errno.ENOSPC: "the disk is full; make room, or use another disk",
    errno.EDQUOT: "your share of the disk is full; make room, or use another disk",
    errno.EFBIG: "the file would be larger than this disk or `ulimit -f` allows; use another disk",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EILSEQ: "this disk does not allow the characters of the name; choose another one",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.ENOTDIR: "a file is where a folder is expected; check the path",
    errno.EISDIR: "a folder is where a file is expected; check the path",
    errno.EEXIST: "something of that name exists already; choose another one",
    errno.ENOTEMPTY: "the folder contains something already; choose another one",
    errno.ELOOP: "links lead round in a circle; check the path",
    errno.EIO: "the disk cannot be read or written; check it",
    errno.EMFILE: "too many files are open; raise the limit with `ulimit -n`",
    errno.ENFILE: "too many files are open on this machine; close some programs",
    errno.EBUSY: "another program uses it; close that program",
    errno.ETXTBSY: "another program uses it; close that program",
    errno.ESTALE: "the network disk has lost it; check the connection",
    errno.ENXIO: "it is a pipe or a device, where a file is expected; check the path",
    errno.ESPIPE: "it is a pipe or a device, where a file is expected; check the path",
}


def in_words(error: OSError) -> str:
    """What the operating system complains about, and the cure, without the name of the file."""
    if error.errno is None:
        return str(error)
    return _REASONS.get(error.errno, error.strerror or str(error))


def explained(error: OSError) -> str:
    """The same after the names of the files that the error is about, as far as it tells them."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return ": ".join([*[" -> ".join(names)] * bool(names), in_words(error)])
