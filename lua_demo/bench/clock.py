"""Fair timing: all variants in turn, each of them twice per round, so that a busy machine slows all of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import torch

from lua_demo.machine.memory import give_back, is_out_of_memory
from lua_demo.machine.timing import measure


@dataclass
class Timing:
    """Seconds of one variant.

    Attributes:
        samples: all of them, the two runs of each round one after the other.
        peak_bytes: as `timing.measure` has it.
    """

    samples: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def seconds(self) -> float:
        """The median."""
        return median(self.samples)

    @property
    def spread(self) -> float:
        """How far the medians of the first and the second runs are apart, as a part of the median."""
        first, second = self.samples[::2], self.samples[1::2]
        return abs(median(first) - median(second)) / self.seconds if second else 0.0

    def to_json(self) -> dict[str, object]:
        return {
            "seconds": self.seconds, "spread": self.spread, "samples": self.samples, "peak_bytes": self.peak_bytes,
        }  # fmt: skip


def interleaved(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    warm_up: int = 1,
    failed: dict[str, str] | None = None,
) -> dict[str, Timing]:
    """Time `variants` in turn: per round A, B, ..., A, B, ...; on CUDA by its events.

    Args:
        failed: gets the reason of every variant that raised, which is then left out; None: the error is raised.
    """
    result = {name: Timing() for name in variants}
    running = dict(variants)

    def go(name: str, work: Callable[[], object]) -> None:
        if failed is None:
            work()
        elif why := failure(work, device):
            failed[name] = why
            del running[name], result[name]

    on_device = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with on_device:  # its events and streams are those of the current device
        for _ in range(warm_up):
            for name, run in list(running.items()):
                go(name, run)
        for _ in range(2 * rounds):
            for name, run in list(running.items()):
                go(name, partial(_sample, result[name], run, device))
    return result


def failure(work: Callable[[], object], device: torch.device) -> str:
    """Run `work`; why it failed, in a line, with its memory given back; empty where it did not fail."""
    try:
        work()
        return ""
    except Exception as error:  # whatever the error is, the other rows are still measured
        if is_out_of_memory(error):
            why = "out of memory"
        else:
            why = f"failed: {type(error).__name__}: {next(iter(str(error).splitlines()), '')[:120]}"
    give_back(device)  # once the error, whose traceback holds tensors, is gone
    return why


def _sample(timing: Timing, run: Callable[[], object], device: torch.device) -> None:
    with measure(device) as measured:
        seconds = _by_events(run) if device.type == "cuda" else _by_clock(run)
    timing.samples.append(seconds)
    timing.peak_bytes = max(timing.peak_bytes, measured.peak_bytes)


def _by_clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _by_events(run: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000
