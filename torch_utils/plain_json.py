"""JSON from elsewhere: whatever is wrong with it is one kind of error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch_utils.limits import excess


def parse_json(content: str | bytes) -> Any:
    """The value. Raises ValueError for what is none, or is nested too deeply to be read."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path) -> Any:
    """The value in a file. Raises OSError, and ValueError for a file that is too large or holds something else."""
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    fault = excess("it", path.stat().st_size, "table_mib")
    if fault:
        raise ValueError(fault)
    return parse_json(path.read_bytes())
