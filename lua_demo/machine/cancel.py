"""Stop a computation from another thread: between any two submodules of a network, or without waiting for its end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

from torch.nn.modules.module import register_module_forward_pre_hook

from lua_demo.schema import Stopped

T = TypeVar("T")
POLL_SECONDS = 0.05


def raise_if_set(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise Stopped("stopped on request")


_heeded = threading.local()
"""What this thread heeds: `events`, those of `stops_on`, the innermost block last; and `left`, as there."""


@contextlib.contextmanager
def stops_on(*stops: threading.Event | None, left: Callable[[Future], object] = lambda _: None) -> Iterator[None]:
    """Within the block every call of a module on this thread raises Stopped once one of `stops` is set, and so do
    `check_stopped` and `leave_if_stopped`, which calls `left` with what goes on.

    The hook sees all modules, those of foreign pipelines too, so nothing that is run needs to know of it. Other threads
    are not affected. Without an event there is no hook and no cost.
    """
    events = [stop for stop in stops if stop is not None]
    for event in events:
        raise_if_set(event)
    if not events:
        yield
        return
    before = getattr(_heeded, "events", []), getattr(_heeded, "left", None)
    _heeded.events, _heeded.left = [*before[0], *events], left
    handle = register_module_forward_pre_hook(lambda module, args: check_stopped())
    try:
        yield
    finally:
        handle.remove()
        _heeded.events, _heeded.left = before


def check_stopped() -> None:
    """Raise Stopped where `stops_on` of this thread would: between operations that are no modules and take long."""
    for event in getattr(_heeded, "events", []):
        raise_if_set(event)


def unless_stopped(
    work: Callable[[], T], stop: threading.Event | _Any | None, left: Callable[[Future], object] = lambda _: None
) -> T:
    """What `work` gives, or raises; Stopped as soon as `stop` is set.

    For calls of libraries that nothing interrupts, such as the decoding of a picture. It runs on a thread of its own,
    which ends by itself: its result is dropped. `left` is called with what it will be where nobody waits for it.
    """
    if stop is None:
        return work()
    future: Future[T] = Future()

    def run(future: Future[T]) -> None:
        try:
            made = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(made)
        finally:
            del future  # here and below: else the traceback of an error keeps itself alive, and what its frames hold

    # A daemon: a program that ends does not wait either.
    threading.Thread(target=run, args=(future,), daemon=True, name="unless_stopped").start()
    try:
        while not wait([future], POLL_SECONDS).done:
            if stop.is_set():
                left(future)
                raise Stopped("stopped on request")
        return future.result()
    finally:
        del future


def leave_if_stopped(work: Callable[[], T]) -> T:
    """As `unless_stopped`, by the events of `stops_on` of this thread; `work` itself where there are none."""
    events = getattr(_heeded, "events", [])
    if not events:
        return work()
    return unless_stopped(work, _Any(tuple(events)), _heeded.left)


@dataclass(frozen=True)
class _Any:
    """Set once one of several events is."""

    events: tuple[threading.Event, ...]

    def is_set(self) -> bool:
        return any(event.is_set() for event in self.events)


class Turns:
    """Calls as of `unless_stopped`, one at a time: whoever is stopped leaves, and the next waits for the call's end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, work: Callable[[], T], stop: threading.Event | None) -> T:
        while not self._lock.acquire(timeout=POLL_SECONDS):
            raise_if_set(stop)
        left: list[Future] = []
        try:
            return unless_stopped(work, stop, left.append)
        finally:
            if left:
                left[0].add_done_callback(lambda _: self._lock.release())
            else:
                self._lock.release()
