"""Whole paths: LUA, pixels and native, with the embedded, the tiny and the KL decoder, optimised alike.

A path is the sum of its stages, each timed once for all paths that contain it:
LUA = LUA + decode at the target size; pixels = decode at the base size + SwinIR; native = decode at the target size, of
a latent that a base model would have to sample at that size, which is not part of it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

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
    device: torch.device, dtype: torch.dtype, base: int, scale: int, decoders: tuple[str, ...], pair: str, rounds: int
) -> tuple[list[Path], dict[str, Timing]]:
    """The paths of `decoders`, and the timings of all stages. `pair`: "shipped", or "published": LUA and SwinIR-M."""
    target = base * scale
    upscaler = networks.lua("shipped" if pair == "shipped" else "full").to(device)
    lua = Fast(upscaler, dtype, None)
    swinir = Fast(networks.swinir("shipped" if pair == "shipped" else "M", scale).to(device), dtype, None)

    def drawn(channels: int, size: int) -> Tensor:
        return torch.randn(1, channels, size // 8, size // 8, device=device, dtype=dtype)

    latent = drawn(upscaler.in_chans, base)
    photo = torch.rand(1, 3, base, base, device=device, dtype=dtype)
    stages = {"LUA": lambda: lua(latent, scale), "SwinIR": lambda: swinir(photo, scale)}
    for name in decoders:
        network = networks.decoder(name).to(device, dtype)
        for size in (base, target):
            x = drawn(network.latent_channels, size)
            stages[f"{name} {size}"] = lambda network=network, x=x: network.decode(x)
    found = interleaved(stages, rounds, device)
    seconds = {name: timing.seconds for name, timing in found.items()}
    paths = [
        Path(
            name, pair, base, target,
            lua=seconds["LUA"] + seconds[f"{name} {target}"],
            pixels=seconds[f"{name} {base}"] + seconds["SwinIR"],
            native=seconds[f"{name} {target}"],
        )
        for name in decoders
    ]  # fmt: skip
    return paths, {f"{base}->{target} {pair} {name}": timing for name, timing in found.items()}
