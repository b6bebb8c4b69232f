"""Memory for decoding, shared by threads: a file of a few kilobytes can hold an image of gigabytes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from torch_utils.images.deep import depth_of
from torch_utils.images.ranges import BYTES
from torch_utils.untrusted import limits

BYTES_PER_PIXEL, DEEP_BYTES_PER_PIXEL = 12, 24  # of an image with its copies while it is converted


def decoded_bytes(image: Image.Image) -> int:
    """What decoding and converting an opened image takes at most."""
    per_pixel = BYTES_PER_PIXEL if depth_of(image) == BYTES else DEEP_BYTES_PER_PIXEL
    return image.width * image.height * per_pixel


class Room:
    """A number of bytes that threads reserve parts of. Who asks for too much waits for the others, and then has it
    alone, so that nothing ever waits for ever.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._changed = threading.Condition()
        self._reserved = self._running = 0

    @contextmanager
    def reserve(self, size: int, more: bool = False) -> Iterator[None]:
        """Wait until there is room for `size` bytes, and hold it. more: this thread holds some already."""
        with self._changed:
            self._running -= more  # it waits too, so the others need not wait for it
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._reserved + size <= self.size or not self._running)
            self._reserved += size
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= size
                self._running -= not more
                self._changed.notify_all()


def room_for_decoding() -> Room:
    """As much as the limit decoding_gib allows, but at most half of the machine's memory."""
    size = limits().decoding_gib << 30
    if hasattr(os, "sysconf"):
        size = min(size, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return Room(size)
