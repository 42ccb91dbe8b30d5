"""Time and peak memory of a piece of work. The only place that synchronises the device."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import torch

SAMPLE_SECONDS = 0.01


@dataclass
class Measurement:
    """Filled in when the `measure` block ends."""

    seconds: float = 0.0
    peak_bytes: int = 0


def synchronise(device: torch.device) -> None:
    """Wait until `device` has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextlib.contextmanager
def measure(device: torch.device) -> Iterator[Measurement]:
    """Measure the block: wall-clock with `device` synchronised on both sides, and the most memory in use meanwhile.

    On CUDA `peak_bytes` is the allocator's peak on that device, weights included. Elsewhere it is sampled every 10 ms:
    the driver's memory on MPS, the resident memory of the whole process on a CPU.
    """
    result = Measurement()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        yield result
        torch.cuda.synchronize(device)
        result.seconds = time.perf_counter() - start
        result.peak_bytes = torch.cuda.max_memory_allocated(device)
        return
    if device.type == "mps":
        read = torch.mps.driver_allocated_memory
    else:
        process = psutil.Process()
        read = lambda: process.memory_info().rss  # noqa: E731
    with _sampling(read) as peak:
        synchronise(device)
        start = time.perf_counter()
        yield result
        synchronise(device)
        result.seconds = time.perf_counter() - start
    result.peak_bytes = peak()


@contextlib.contextmanager
def _sampling(read: Callable[[], int]) -> Iterator[Callable[[], int]]:
    """Call `read` every 10 ms on a thread of its own, and at both ends; gives a function for the highest value."""
    highest = read()
    ended = threading.Event()

    def sample() -> None:
        nonlocal highest
        while not ended.wait(SAMPLE_SECONDS):
            highest = max(highest, read())

    thread = threading.Thread(target=sample, name="memory-sampler", daemon=True)
    thread.start()
    try:
        yield lambda: highest
    finally:
        ended.set()
        thread.join()
        highest = max(highest, read())
