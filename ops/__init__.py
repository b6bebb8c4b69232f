"""Fused operations on feature maps: for each a compiled kernel, and a reference in plain PyTorch.

An operation and its reference share a file; the kernels are in csrc/. `build.py` compiles them when they are first
used, and `selftest.py` compares them with their references.

This file is imported without PyTorch. It has what command lines need: the environment variable STYLEGAN_OPS, which
selects the implementation, and the exception for kernels that are not available.
"""

from __future__ import annotations

import os

VARIABLE = "STYLEGAN_OPS"
MODES = ("auto", "ref", "strict")


class BuildError(RuntimeError):
    """The kernels are not available. The message is one line: the cause, then the cure."""


def mode() -> str:
    """The value of STYLEGAN_OPS, one of MODES; "auto" if it is not set. Raises BuildError for any other value.

    "auto" uses the kernels where they are available, "ref" never, and "strict" raises BuildError where they are not.
    """
    chosen = os.environ.get(VARIABLE) or "auto"
    if chosen not in MODES:
        raise BuildError(f"{VARIABLE} must be one of {', '.join(MODES)}, got {chosen}")
    return chosen
