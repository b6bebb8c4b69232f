"""Several processes make what one makes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import torch

from training.archive import Archive, ArchiveWriter
from training.metrics.context import Context
from training.metrics.describe import Question, answerer
from training.metrics.feature_store import folder
from training.metrics.pictures import Reals
from training.metrics.workers import Crew, _work

CREW = Crew(torch.device("cpu"), quiet=True)


def forget() -> None:
    for path in folder().iterdir():
        path.unlink()


def test_two_processes_make_what_one_makes(snapshot, corners):
    alone = Context(snapshot, features=corners, crew=CREW)
    wanted = alone.of_fakes(150)[0:150]
    forget()
    shared = Context(snapshot, features=corners, crew=replace(CREW, processes=2, batch=3))
    assert torch.equal(shared.of_fakes(150)[0:150], wanted)


class Told:
    """Stands for the queue between processes."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.put = self.words.append


def test_trouble_in_a_process_is_told(corners, tmp_path):
    with ArchiveWriter(tmp_path / "black.zip") as writer:
        writer.add(np.zeros((16, 16, 3), np.uint8))
    reals = pickle.loads(pickle.dumps(Reals(Archive.open(tmp_path / "black.zip"), (16, 16))))
    question = Question("features", (3, 16, 16), "corners:broken")
    told = Told()
    reals_store = answerer(question, question.network(CREW.device)).store(reals)
    reals_store.begin()
    _work(0, reals, question, [[range(1)]], CREW, told)
    assert len(told.words) == 1 and "not finite on picture 0" in told.words[0]
