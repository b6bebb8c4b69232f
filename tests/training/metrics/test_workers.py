"""Several processes make what one makes."""

from __future__ import annotations

import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from torch_utils.errors import UserError
from torch_utils.files import cache_folder
from training.data.archive import Archive, ArchiveWriter
from training.metrics.context import Context
from training.metrics.feature_store import Compute, Question, _work, store_of
from training.metrics.features import pick_features
from training.metrics.images import Stored

CREW = Compute(torch.device("cpu"), quiet=True)


def forget() -> None:
    for path in cache_folder("metrics").iterdir():
        path.unlink()


def test_two_processes_make_what_one_makes(snapshot, corners):
    alone = Context(snapshot, features=corners, compute=CREW)
    wanted = alone.of_fakes(150)[0:150]
    forget()
    shared = Context(snapshot, features=corners, compute=replace(CREW, processes=2, batch=3))
    assert torch.equal(shared.of_fakes(150)[0:150], wanted)


@pytest.mark.parametrize(("ending", "message"), [
    ("os.kill(os.getpid(), signal.SIGKILL)", r"a process ended .*SIGKILL.* fewer --gpus; the same command goes on"),
    ("return images.flatten(1)[:, :2] * float('nan')", "is not finite on image"),
])  # fmt: skip
def test_the_end_of_one_process_is_the_end_of_all_in_a_line(ending, message, snapshot, tmp_path, monkeypatch):
    (tmp_path / "ends.py").write_text(
        "import multiprocessing, os, pathlib, signal, time\n"
        "def embed(images):\n"
        "    if multiprocessing.parent_process() is None or len(images) == 2:\n"
        "        return images.flatten(1)[:, :2]\n"
        f"    first = pathlib.Path({str(tmp_path / 'first')!r})\n"
        "    try:\n"
        "        first.symlink_to(str(os.getpid()))\n"
        "    except FileExistsError:\n"
        "        time.sleep(1e6 * (os.readlink(first) != str(os.getpid())))\n"
        f"    {ending}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ends", raising=False)
    with pytest.raises(UserError, match=message):
        Context(snapshot, features="ends:embed", compute=replace(CREW, processes=2)).of_fakes(150)


class Told:
    """Stands for the queue between processes."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.put = self.words.append


def test_trouble_in_a_process_is_told(corners, tmp_path):
    with ArchiveWriter(tmp_path / "black.zip") as writer:
        writer.add(np.zeros((16, 16, 3), np.uint8))
    reals = pickle.loads(pickle.dumps(Stored(Archive.open(tmp_path / "black.zip"), (16, 16))))
    question = Question("features", (3, 16, 16), "corners:broken")
    told = Told()
    store_of(question, reals, lambda: pick_features("corners:broken", CREW.device)).begin()
    _work(0, reals, question, [[range(1)]], CREW, told)
    assert len(told.words) == 1 and "not finite on image 0" in told.words[0]
