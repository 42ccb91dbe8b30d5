"""Sampling on a thread of its own, so that every step of the sampler can be reported while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from lua_demo.machine.cancel import raise_if_set

T = TypeVar("T")
Report = Callable[[int], None]
"""Called after every step with the number of steps that are done."""


def steps_of(work: Callable[[Report, threading.Event], T]) -> Generator[int, None, T]:
    """Run `work` on a thread; yield each step that it reports, return what it returns, raise what it raises.

    `work` gets an event that is set when the generator is closed: it must end soon then, at the latest where it
    reports its next step. Closing waits for that.
    """
    steps: SimpleQueue[int | None] = SimpleQueue()
    closed = threading.Event()

    def report(step: int) -> None:
        raise_if_set(closed)
        steps.put(step)

    with ThreadPoolExecutor(1, thread_name_prefix="sampler") as pool:
        future = pool.submit(work, report, closed)
        future.add_done_callback(lambda _: steps.put(None))
        try:
            while (step := steps.get()) is not None:
                yield step
        finally:
            closed.set()
    return future.result()


class Pace:
    """Seconds per step, from the times at which steps were reported.

    `synchronise`: waits for the device, on which a step may only have been queued when it is reported.
    """

    def __init__(self, report: Report, synchronise: Callable[[], None] = lambda: None):
        self._report, self._synchronise = report, synchronise
        self._times: list[float] = []

    def __call__(self, step: int) -> None:
        self._report(step)
        self._synchronise()
        self._times.append(time.perf_counter())

    def seconds_per_step(self, total: float) -> float:
        """Between the first and the last report, or all `total` seconds of sampling where there is only one."""
        steps = len(self._times) - 1
        return (self._times[-1] - self._times[0]) / steps if steps > 0 else total
