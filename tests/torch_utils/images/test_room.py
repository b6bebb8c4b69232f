"""Threads share the memory for decoding, and none waits for ever."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from torch_utils.images.room import Room, decoded_bytes, room_for_decoding


@pytest.mark.parametrize("more", [False, True])
def test_large_images_wait_for_each_other_and_small_ones_do_not(more: bool) -> None:
    room, lock, held, most = Room(100), threading.Lock(), [0], [0]

    def work(size: int) -> None:
        with room.reserve(1), room.reserve(size, more=True) if more else room.reserve(0):
            with lock:
                held[0] += size if more else 1
                most[0] = max(most[0], held[0])
            threading.Event().wait(0.002)
            with lock:
                held[0] -= size if more else 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [60, 70, 250, 20, 90, 10, 300, 40] * 3))
    assert most[0] <= (300 if more else 8)
    with room.reserve(100):  # all has been given back
        pass


def test_the_sum_stays_below_the_size() -> None:
    room, lock, held, most = Room(100), threading.Lock(), [0], [0]

    def work(size: int) -> None:
        with room.reserve(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
            threading.Event().wait(0.001)
            with lock:
                held[0] -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [60, 70, 20, 90, 10, 40] * 5))
    assert 0 < most[0] <= 100


def test_what_an_image_takes_is_known_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoded_bytes(Image.new("P", (100, 10))) == 12_000
    assert decoded_bytes(Image.new("I;16", (100, 10))) == 24_000
    monkeypatch.setenv("STYLEGAN_LIMITS", "decoding_gib=1")
    assert 0 < room_for_decoding().size <= 1 << 30
