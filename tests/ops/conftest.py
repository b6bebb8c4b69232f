"""A stand-in for the kernels, which is compiled in a blink, for the tests of the build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops import build, toolchain

SOURCE = '#include "answer.h"\nextern "C" __attribute__((visibility("default"))) int answer() { return ANSWER; }\n'


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two lines of source in `build.CSRC`, without any header of PyTorch. Returns the cache folder, not made yet."""
    csrc = tmp_path / "csrc"
    (csrc / "cpu").mkdir(parents=True)
    (csrc / "answer.h").write_text("#define ANSWER 42\n")
    (csrc / "cpu" / "answer.cpp").write_text(SOURCE)
    monkeypatch.setattr(build, "CSRC", csrc)
    # The header lies one folder up, and nothing here needs the flags for speed.
    monkeypatch.setattr(toolchain, "cpu_flags", lambda: ["-O0", f"-I{csrc}"])
    monkeypatch.setenv("CPATH", str(csrc))  # for processes of their own
    monkeypatch.setenv("STYLEGAN_OPS_CACHE", str(tmp_path / "cache"))
    for variable in ("STYLEGAN_OPS", "CXX", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    _forget()
    yield tmp_path / "cache"
    _forget()


@pytest.fixture
def forget() -> Callable[[], None]:
    """Makes this process forget what it has loaded and said."""
    return _forget


def _forget() -> None:
    for function in (build._settled, build.why_not, build._announce):
        function.cache_clear()
