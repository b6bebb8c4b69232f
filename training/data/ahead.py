"""Real images before they are needed: a thread gathers those of the next steps, and they travel to the GPU meanwhile.

A batch is a pure function of its position, so nothing depends on what has been gathered: at a position that was not
expected, as after a return to an earlier state, all of it is thrown away.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType

import torch
from torch import Tensor

STEPS_AHEAD = 2
IN_MEMORY = STEPS_AHEAD + 2  # batches at most: also that of the step under way, and one that a GPU is not done with
END_S = 5.0  # for the thread to end what it is doing, which nobody waits for any more

Images = tuple[Tensor, Tensor | None]
"""uint8 [N,C,H,W], and classes int64 [N] or None."""


@dataclass(frozen=True)
class Copied:
    """Images on a device, or on their way there. there: happens on their arrival; None if they have not travelled"""

    images: Tensor
    c: Tensor | None
    there: torch.cuda.Event | None = None

    def received(self) -> Images:
        """They, to be used on the current stream of the device, which waits for them; this process does not."""
        if self.there is not None:
            stream = torch.cuda.current_stream(self.images.device)
            stream.wait_event(self.there)
            for tensor in (self.images, self.c):
                if tensor is not None:  # the memory belongs to the other stream, which must not use it again too early
                    tensor.record_stream(stream)
        return self.images, self.c


@dataclass(frozen=True)
class Order:
    """What the thread is asked for. done: happens when the GPU has done all that it had been given by then"""

    position: int
    future: Future[Copied]
    done: torch.cuda.Event | None


class Ahead:
    """The batches of a run, one after another, each of them gathered while the steps before it are taken.

    A context manager: the thread ends with it.

    gather: position -> images in the memory of this machine, called in the thread
    following: position of a batch -> that of the next one, None after the last
    device: where they are wanted. A GPU fetches them from pinned memory by itself, on a stream of their own. The batch
    that is so many steps ahead is copied when it has done the step before, so that there is a bound to the memory that
    batches take, however far this process is ahead of it
    """

    def __init__(
        self, gather: Callable[[int], Images], following: Callable[[int], int | None], device: torch.device
    ) -> None:
        self._gather, self._following, self._device = gather, following, device
        self._expected: deque[Order] = deque()
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="reals", daemon=True)

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._forget()
        self._orders.put(None)
        self._thread.join(END_S)  # only building a damaged file again takes longer, and is not worth waiting for

    def take(self, position: int) -> Images:
        """The batch at `position` on the device. Raises what `gather` has raised for it."""
        done = torch.cuda.current_stream(self._device).record_event() if self._device.type == "cuda" else None
        if not self._expected or self._expected[0].position != position:
            self._forget()
            self._ask(position, done)
        while len(self._expected) <= STEPS_AHEAD:
            following = self._following(self._expected[-1].position)
            if following is None:
                break
            self._ask(following, done)
        return self._expected.popleft().future.result().received()

    def _ask(self, position: int, done: torch.cuda.Event | None) -> None:
        order = Order(position, Future(), done)
        self._expected.append(order)
        self._orders.put(order)

    def _forget(self) -> None:
        for order in self._expected:
            order.future.cancel()
        self._expected.clear()

    def _work(self) -> None:
        """What the thread does."""
        copy = _copier(self._device)
        while (order := self._orders.get()) is not None:
            if not order.future.set_running_or_notify_cancel():
                continue
            with ExitStack() as stack:
                stack.push(partial(_raise_later, order.future))
                images, c = self._gather(order.position)
                if order.done is not None:
                    order.done.synchronize()
                order.future.set_result(copy(images, c))


def _raise_later(
    future: Future[Copied], kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
) -> bool:
    """Let an error, of whatever kind, be raised in `take`, if the batch is needed: the thread would take it along."""
    if error is not None:
        future.set_exception(error)
    return error is not None


def _copier(device: torch.device) -> Callable[[Tensor, Tensor | None], Copied]:
    """What brings images to the device. To be called in the thread that will use it."""
    if device.type != "cuda":
        return lambda images, c: Copied(images.to(device), None if c is None else c.to(device))
    torch.cuda.set_device(device)  # of this thread: pinning would otherwise take memory of the first GPU
    stream = torch.cuda.Stream(device)

    def sent(tensor: Tensor) -> Tensor:
        # The allocator of pinned memory does not give it to anybody else before the copy has been made.
        return tensor.pin_memory().to(device, non_blocking=True)

    def copy(images: Tensor, c: Tensor | None) -> Copied:
        with torch.cuda.stream(stream):
            return Copied(sent(images), None if c is None else sent(c), stream.record_event())

    return copy
