"""What the machine can do, measured in the same run: the fastest matrix product, convolution and copy there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from lua_demo.bench.clock import interleaved
from lua_demo.networks.kl import product


@dataclass(frozen=True)
class Ceiling:
    """FLOP/s of a matrix product and of a 3x3 convolution of 64 channels (multiply and add: two), bytes/s of a copy
    (read and written), in one dtype; `gemm_by` names the way that was the fastest."""

    gemm: float
    conv: float
    copy: float
    gemm_by: str


@dataclass(frozen=True)
class Probe:
    """`run` does `amount` of work: FLOP, or bytes of a copy."""

    amount: float
    run: Callable[[], object]


def probes(device: torch.device, dtype: torch.dtype) -> dict[str, Probe]:
    """The work by which ceilings are found, by name: "conv", "copy" and one or two ways to a matrix product."""
    side, pixels, numbers = (8192, 1024, 2**28) if device.type == "cuda" else (1024, 256, 2**24)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    image = torch.randn(1, 64, pixels, pixels, device=device, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    conv = nn.Conv2d(64, 64, 3, padding=1, device=device, dtype=dtype)
    conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
    source = torch.randn(numbers, device=device).to(dtype)
    target = torch.empty_like(source)
    result = {
        "torch.mm": Probe(2 * side**3, lambda: a @ b.T),
        "conv": Probe(2 * 9 * 64 * 64 * pixels**2, lambda: conv(image)),
        "copy": Probe(2 * numbers * source.element_size(), lambda: target.copy_(source)),
    }
    if device.type == "cpu":
        result["oneDNN"] = Probe(2 * side**3, lambda: product(a, b))
    return result


@torch.no_grad()
def ceilings(device: torch.device, dtype: torch.dtype) -> Ceiling:
    """The fastest of a few runs: other programs on the machine can only slow a run down."""
    asked = probes(device, dtype)
    found = interleaved({name: probe.run for name, probe in asked.items()}, 15, device)
    best = {name: probe.amount / min(found[name].samples) for name, probe in asked.items()}
    gemm = max((name for name in ("torch.mm", "oneDNN") if name in best), key=best.__getitem__)
    return Ceiling(best[gemm], best["conv"], best["copy"], gemm)
