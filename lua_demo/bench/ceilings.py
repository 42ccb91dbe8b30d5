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


@torch.no_grad()
def ceilings(device: torch.device, dtype: torch.dtype) -> Ceiling:
    """The best of a few runs, as a ceiling is what others did not disturb."""
    side, pixels, numbers = (8192, 1024, 2**28) if device.type == "cuda" else (1024, 256, 2**24)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    image = torch.randn(1, 64, pixels, pixels, device=device, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    conv = nn.Conv2d(64, 64, 3, padding=1, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    source = torch.randn(numbers, device=device).to(dtype)
    target = torch.empty_like(source)
    runs: dict[str, Callable[[], object]] = {
        "torch.mm": lambda: a @ b.T, "conv": lambda: conv(image), "copy": lambda: target.copy_(source),
    }  # fmt: skip
    if device.type == "cpu":
        runs["oneDNN"] = lambda: product(a, b)
    best = {name: min(t.samples) for name, t in interleaved(runs, 15, device).items()}
    gemm = min((name for name in ("torch.mm", "oneDNN") if name in best), key=best.get)
    return Ceiling(
        gemm=2 * side**3 / best[gemm],
        conv=2 * 9 * 64 * 64 * pixels**2 / best["conv"],
        copy=2 * numbers * source.element_size() / best["copy"],
        gemm_by=gemm,
    )
