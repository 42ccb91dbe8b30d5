"""Fair timing: all variants in turn, each of them twice per round, so that a busy machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

import torch

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
    variants: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, warm_up: int = 1
) -> dict[str, Timing]:
    """Time `variants` in turn: per round A, B, ..., A, B, ...; on CUDA by its events."""
    result = {name: Timing() for name in variants}
    for run in variants.values():
        for _ in range(warm_up):
            run()
    for _ in range(2 * rounds):
        for name, run in variants.items():
            with measure(device) as measured:
                seconds = _by_events(run) if device.type == "cuda" else _by_clock(run)
            result[name].samples.append(seconds)
            result[name].peak_bytes = max(result[name].peak_bytes, measured.peak_bytes)
    return result


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
