"""The commands, each in the file of its name. `run` starts one, as the scripts at the root of the repository do."""

from __future__ import annotations

import importlib

from torch_utils.interrupt import quiet_until_begun


def run(name: str = "main") -> None:
    """Load the command in the file `name`, and run it with what was typed. Ctrl-C ends it in silence until it begins.

    Without a name it is `stylegan`, which has all the others.
    """
    quiet_until_begun()
    importlib.import_module(f"{__name__}.{name}").main()
