"""Features are worked out once, whatever happened in between, and are the same as if nothing had."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_utils.errors import UserError
from torch_utils.files import cache_folder
from training.metrics.feature_store import BLOCK, Features, Store, described, tidy, work_off

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Numbers:
    """Images of one pixel: image i is i."""

    limit: int | None = None

    @property
    def key(self) -> dict[str, str | int | float]:
        return {"numbers": str(self.limit)}

    def read(self, start: int, stop: int, batch: int) -> Tensor:
        return torch.arange(start, stop)[:, None, None, None]


class Asked:
    """Three features of each image, and a record of which ones were asked for."""

    def __init__(self, stop_at: int = -1) -> None:
        self.seen: list[int] = []
        self.stop_at = stop_at

    def __call__(self, images: Tensor, first: int) -> Tensor:
        numbers = images.flatten()
        assert int(numbers[0]) == first
        if self.stop_at in numbers:
            raise KeyboardInterrupt
        self.seen += numbers.tolist()
        return torch.stack([numbers, numbers**2, -numbers], dim=1).float()


def kept(what: str, limit: int | None = None) -> Store:
    """A store of three features of each number."""
    return Store(Numbers(limit), what, Asked(), 3)


def fill(store: Store, count: int, ask: Callable[[Tensor, int], Tensor]) -> Features:
    store = replace(store, describe=ask)
    store.begin()
    work_off(store, store.missing(count), 8, CPU, lambda done: None)
    return Features(store, count)


def expected(count: int) -> Tensor:
    x = torch.arange(count).float()
    return torch.stack([x, x**2, -x], dim=1)


def test_rows_come_back_and_nothing_is_asked_twice():
    store, ask = kept("test"), Asked()
    found = fill(store, 100, ask)
    assert (
        len(found) == 100 and torch.equal(found[0:100], expected(100)) and torch.equal(found[70:90][3], found[73:74][0])
    )
    assert torch.equal(found[np.array([99, 5])], expected(100)[[99, 5]])
    assert sorted(ask.seen) == list(range(2 * BLOCK))  # whole blocks
    more = Asked()
    assert torch.equal(fill(store, 300, more)[0:300], expected(300)) and min(more.seen) == 2 * BLOCK
    assert fill(store, 128, again := Asked())[127:128][0, 1] == 127**2 and again.seen == []


def test_the_end_of_the_data_is_the_end():
    store = kept("test", limit=70)
    assert [len(block) for block in store.blocks(1000)] == [BLOCK, 70 - BLOCK]
    assert torch.equal(fill(store, 70, Asked())[0:70], expected(70))
    assert store.missing(70) == []


def test_what_was_stopped_goes_on():
    store = kept("test")
    with pytest.raises(KeyboardInterrupt):
        fill(store, 5 * BLOCK, Asked(stop_at=3 * BLOCK + 9))
    assert [block.start for block in store.missing(5 * BLOCK)] == [3 * BLOCK, 4 * BLOCK]
    rest = Asked()
    assert torch.equal(fill(store, 5 * BLOCK, rest)[0:320], expected(320)) and min(rest.seen) == 3 * BLOCK


def test_a_half_written_block_is_done_again():
    store = kept("test")
    fill(store, 2 * BLOCK, Asked())
    store.path.write_bytes(store.path.read_bytes()[: -5 * 12])  # cut short
    assert [block.start for block in store.missing(2 * BLOCK)] == [BLOCK]
    store.marks.write_bytes(b"\0\1")
    ask = Asked()
    assert torch.equal(fill(store, 2 * BLOCK, ask)[0:128], expected(128)) and len(ask.seen) == 128


def test_threads_and_chunks_do_not_change_a_image():
    net = torch.nn.Conv2d(3, 8, 3).requires_grad_(False)
    images = torch.randint(0, 256, (50, 3, 20, 20)).to(torch.uint8)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(described(lambda x, first: net(x.float()).mean(dim=(2, 3)), images, 0, CPU))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and found[0].shape == (50, 8)


def test_what_is_no_number_is_refused_and_not_kept():
    store = kept("net x")
    spoilt = lambda images, first: torch.where(images.flatten()[:, None] == 77, torch.nan, torch.ones(1, 3))  # noqa: E731
    with pytest.raises(UserError, match="net x is not finite on image 77"):
        fill(store, 200, spoilt)
    assert store.missing(BLOCK) == [] and len(store.missing(2 * BLOCK)) == 1
    with pytest.raises(UserError, match=r"made \[64, 2\] of 64 images, not 3 features each"):
        fill(kept("y"), 64, lambda images, first: torch.ones(len(images), 2))


def test_an_unwritable_cache_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write to .*STYLEGAN_CACHE"):
        fill(kept("test"), 1, Asked())


def test_old_features_make_room(tmp_path, monkeypatch):
    stores = [kept(f"net {i}") for i in range(3)]
    for age, store in zip((3, 2, 1), stores):
        fill(store, 64, Asked())
        os.utime(store.path, (store.path.stat().st_atime, store.path.stat().st_mtime - age * 2 * 24 * 3600))
    taken = stores[0].path.stat().st_blocks * 512
    tidy(cache_folder("metrics"), keep=stores[0].path.stem, largest=2 * taken)
    assert [store.path.exists() for store in stores] == [True, False, True]
    assert len(stores[1].missing(64)) == 1


def test_a_file_that_was_cut_short_since_is_an_error():
    store = kept("test")
    features = fill(store, 2 * BLOCK, Asked())
    store.path.write_bytes(b"short")
    with pytest.raises(UserError, match="cut short or removed; repeat the command"):
        features[0:1]
