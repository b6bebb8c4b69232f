"""Several processes make what one makes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from torch_utils.errors import UserError
from training.archive import Archive
from training.metrics.context import Context
from training.metrics.feature_store import folder
from training.metrics.workers import Crew

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


def test_trouble_in_a_process_is_one_line(snapshot, corners, pictures):
    broken = Context(snapshot, Archive.open(pictures), features="corners:broken", crew=replace(CREW, processes=2))
    assert len(broken.of_reals()) == 40  # a single block, by this process
    with pytest.raises(UserError, match="not finite on picture"):
        snapshot.G.synthesis.blocks_to_nothing = None
        for parameter in snapshot.G.parameters():
            parameter.fill_(-1e4)
        replace(broken, features="corners:broken").of_fakes(150)
