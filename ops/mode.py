"""Whether the compiled kernels are used, as the environment variable STYLEGAN_OPS says. Needs nothing of PyTorch."""

from __future__ import annotations

import os

from ops.errors import BuildError

VARIABLE = "STYLEGAN_OPS"
MODES = ("auto", "ref", "strict")


def mode() -> str:
    """One of MODES. Raises BuildError for any other word."""
    chosen = os.environ.get(VARIABLE) or "auto"
    if chosen not in MODES:
        raise BuildError(f"{VARIABLE}={chosen} is none of {', '.join(MODES)}")
    return chosen
