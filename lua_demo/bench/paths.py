"""Whole paths: LUA, pixels and native, with the embedded, the tiny and the KL decoder, optimised alike.

A path is the sum of its stages, each timed once for all paths that contain it:
LUA = LUA + decode at the target size; pixels = decode at the base size + SwinIR; native = decode at the target size, of
a latent that a base model would have to sample at that size, which is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from lua_demo.bench import networks
from lua_demo.bench.clock import Timing, interleaved
from lua_demo.models.upscalers import Fast

DECODERS = ("embedded", "tiny", "KL")


@dataclass(frozen=True)
class Path:
    """Seconds of the three paths; `pair`: which LUA and SwinIR, `base` and `target` in pixels."""

    decoder: str
    pair: str
    base: int
    target: int
    lua: float
    pixels: float
    native: float

    @property
    def ratio(self) -> float:
        """Above 1: the LUA path is faster."""
        return self.pixels / self.lua

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "ratio": self.ratio}


def plan(device: torch.device, full: bool) -> list[tuple[tuple[str, ...], int, int]]:
    """(decoders, base, scale). On a CPU the KL decoder gets half the size, but for `full`."""
    if device.type == "cuda":
        return [(DECODERS, 512, 2), (DECODERS, 1024, 2), (DECODERS, 1024, 4)]
    quick = [(("embedded", "tiny"), 512, 2), (("KL",), 256, 2)]
    return [*quick, (("KL",), 512, 2), (DECODERS, 1024, 2), (("embedded", "tiny"), 1024, 4)] if full else quick


@torch.no_grad()
def measure(
    device: torch.device,
    dtype: torch.dtype,
    base: int,
    scale: int,
    decoders: tuple[str, ...],
    pair: str,
    rounds: int,
    failed: dict[str, str] | None = None,
) -> tuple[list[Path], dict[str, Timing]]:
    """The paths of `decoders`, and the timings of all stages by the names of `stages_of`.

    Args:
        pair: "shipped", or "published": LUA and SwinIR-M.
        failed: as in `interleaved`; a path with a stage that failed is left out.
    """
    target = base * scale
    upscaler = networks.lua("shipped" if pair == "shipped" else "full").to(device)
    lua = Fast(upscaler, dtype, None)
    swinir = Fast(networks.swinir("shipped" if pair == "shipped" else "M", scale).to(device), dtype, None)

    def drawn(channels: int, size: int) -> Tensor:
        return torch.randn(1, channels, size // 8, size // 8, device=device, dtype=dtype)

    latent = drawn(upscaler.in_chans, base)
    photo = torch.rand(1, 3, base, base, device=device, dtype=dtype)
    stages: dict[str, Callable[[], object]] = {
        "LUA": lambda: lua(latent, scale),
        "SwinIR": lambda: swinir(photo, scale),
    }
    for name in decoders:
        network = networks.decoder(name).to(device, dtype)
        for size in (base, target):
            x = drawn(network.latent_channels, size)
            stages[f"{name} {size}"] = partial(network.decode, x)
    named = {_named(name, base, scale, pair): run for name, run in stages.items()}
    found = interleaved(named, rounds, device, failed=failed)
    result = []
    for name in decoders:
        wanted = stages_of(name, base, scale, pair)
        if all(stage in found for stage in wanted):
            upscale, large, small, pixels = (found[stage].seconds for stage in wanted)
            result.append(Path(name, pair, base, target, lua=upscale + large, pixels=small + pixels, native=large))
    return result, found


def stages_of(decoder: str, base: int, scale: int, pair: str) -> list[str]:
    """The names of what is timed for a path: LUA, decode at the target size, decode at the base size, SwinIR."""
    stages = "LUA", f"{decoder} {base * scale}", f"{decoder} {base}", "SwinIR"
    return [_named(stage, base, scale, pair) for stage in stages]


def _named(stage: str, base: int, scale: int, pair: str) -> str:
    return f"{base}->{base * scale} {pair} {stage}"
