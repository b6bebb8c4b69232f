"""The one exception of the ops' build."""

from __future__ import annotations

import os


class BuildError(RuntimeError):
    """The kernels cannot be had. The message is one line: why, and what to do."""


# Whether the compiled kernels are used, as the environment variable STYLEGAN_OPS says. Needs nothing of PyTorch


VARIABLE = "STYLEGAN_OPS"
MODES = ("auto", "ref", "strict")


def mode() -> str:
    """One of MODES. Raises BuildError for any other word."""
    chosen = os.environ.get(VARIABLE) or "auto"
    if chosen not in MODES:
        raise BuildError(f"{VARIABLE}={chosen} is none of {', '.join(MODES)}")
    return chosen
