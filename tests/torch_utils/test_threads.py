"""How many threads."""

import os
from pathlib import Path

from torch_utils.threads import cpu_threads, usable_cores


def test_as_many_as_asked_or_as_the_variable_says_or_as_there_are_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert cpu_threads(3) == 3 and cpu_threads() == 5
    for nothing_said in ("", "2,1"):
        monkeypatch.setenv("OMP_NUM_THREADS", nothing_said)
        assert cpu_threads() == usable_cores()


def test_a_container_may_use_fewer_cores_than_it_sees(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for limit, cores in {"150000 100000": 2, "max 100000": 8, "5000 100000": 1, "": 8}.items():
        monkeypatch.setattr(Path, "read_text", lambda path, limit=limit: limit)
        assert usable_cores() == cores
