"""The rows G1 to G16: on CUDA, where ours runs in bf16, compiled block by block and as a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from lua_demo.bench import networks, paths, reference
from lua_demo.bench.ceilings import Ceiling
from lua_demo.bench.clock import Timing, interleaved
from lua_demo.bench.counts import count, work
from lua_demo.bench.cpu import Measured
from lua_demo.bench.goals import GPU, Row
from lua_demo.networks.fast import Graph, accelerate
from lua_demo.networks.kl import SCORES, attend

ROUNDS = 15
NARROW = torch.bfloat16
STEPS = 28


@torch.no_grad()
def measure(device: torch.device, ceiling: Ceiling) -> Measured:
    """All G rows; `ceiling` is that of bf16."""
    values: dict[str, tuple[float | None, str]] = {}
    timings: dict[str, Timing] = {}
    counted: dict[str, tuple[int, float]] = {}

    def time(rounds: int, prefix: str, **variants) -> dict[str, float]:
        found = interleaved(variants, rounds, device, warm_up=3)
        timings.update({f"{prefix} {name}": timing for name, timing in found.items()})
        return {name: timing.seconds for name, timing in found.items()}

    lua = networks.lua("full").to(device)
    half = networks.lua("full").to(device, NARROW)
    fast = accelerate(lua, NARROW)
    graph = Graph(fast)
    official, kept, kept16 = reference.Reference(lua), reference.Reference(lua, True), reference.Reference(half, True)
    for side, suffix, floor_key in ((64, "", "G5"), (128, "b", "G5b"), (256, None, "G5c")):
        x = torch.randn(1, 16, side, side, device=device)
        x16, name = x.to(NARROW), f"LUA x2 {side}"
        counted[name] = work(lua, lambda net, y: net(y, 2), (1, 16, side, side), ceiling, 2)
        seconds = time(ROUNDS, name, graph=lambda x=x16: graph(x, 2), eager=lambda x=x16: fast(x, 2))
        ours = min(seconds.values())
        values[floor_key] = counted[name][1] / ours, f"{ours * 1e3:.2f} ms"
        if suffix is None:
            continue
        theirs = time(3, name, B0=lambda x=x: official(x, 2), B1=lambda x=x: kept(x, 2), B2=lambda x=x16: kept16(x, 2))
        for key, baseline in (("G1" if not suffix else "G2", "B1"), (f"G3{suffix}", "B0"), (f"G4{suffix}", "B2")):
            values[key] = theirs[baseline] / ours, f"{theirs[baseline] * 1e3:.1f} / {ours * 1e3:.2f} ms"
    values["G6"] = _kernels(fast, torch.randn(1, 16, 64, 64, device=device, dtype=NARROW))
    _decodes(values, time, counted, device, ceiling, timings)
    _attention(values, time, device)
    _paths(values, timings, device)
    try:
        _base(values, timings, networks.flux(device, NARROW))
    except torch.OutOfMemoryError:
        values |= {key: (None, "FLUX.1-dev did not fit into the memory") for key in ("G15", "G15b", "G16")}
    rows = [Row(key, goal, *values.get(key, (None, ""))) for key, goal in GPU.items()]
    return Measured(rows, timings, counted)


def _kernels(fast, x: Tensor) -> tuple[float, str]:
    seen = count(lambda: accelerate(fast, compiled=False)(x, 2))
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        fast(x, 2)
        torch.cuda.synchronize(x.device)
    events = [event for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = sum("Memcpy HtoD" in event.name for event in events)
    return float(len(events)), f"{copies} copies from the host; attention: {', '.join(seen.attention)}"


def _decodes(values, time, counted, device: torch.device, ceiling: Ceiling, timings) -> None:
    plain = networks.decoder("KL", fast=False).to(device, NARROW)
    ours = networks.decoder("KL").to(device, NARROW)
    for side, suffix in ((128, ""), (256, "b"), (512, "c")):
        latent, name = torch.randn(1, 16, side, side, device=device, dtype=NARROW), f"KL decode {side * 8}"
        seconds = time(
            2 if side == 512 else 5, name, D0=lambda x=latent: plain.decode(x), ours=lambda x=latent: ours.decode(x)
        )
        shape = (1, 16, side, side)
        counted[name] = work(networks.decoder("KL", fast=False), lambda net, y: net.decode(y), shape, ceiling, 2)
        values[f"G7{suffix}"] = seconds["D0"] / seconds["ours"], f"{seconds['ours'] * 1e3:.1f} ms"
        values[f"G8{suffix}"] = counted[name][1] / seconds["ours"], ""
    values["G10"] = timings["KL decode 4096 ours"].peak_bytes / 1e9, ""


def _attention(values, time, device: torch.device) -> None:
    q, k, v = (torch.randn(65536, 512, device=device, dtype=NARROW) for _ in range(3))
    seconds = time(
        3, "attention", sdpa=lambda: F.scaled_dot_product_attention(q[None, None], k[None, None], v[None, None]),
        ours=lambda: attend(q * 512**-0.5, k, v.T.contiguous(), SCORES["cuda"]),
    )  # fmt: skip
    values["G9"] = seconds["sdpa"] / seconds["ours"], f"{4 * 65536**2 * 512 / seconds['ours'] / 1e12:.0f} TFLOP/s"


def _paths(values, timings, device: torch.device) -> None:
    for (base, scale), suffix in (((512, 2), ""), ((1024, 2), "b"), ((1024, 4), "c")):
        found, stages = paths.measure(device, NARROW, base, scale, ("tiny", "KL"), "published", 3)
        timings.update(stages)
        for key, path in (("G12", found[0]), ("G13", found[1])):
            values[key + suffix] = path.ratio, f"LUA {path.lua * 1e3:.1f} ms, pixels {path.pixels * 1e3:.1f} ms"
    official = {}
    decoder = networks.decoder("KL", fast=False).to(device)
    lua, swinir = (reference.Reference(net.to(device)) for net in (networks.lua("full"), networks.swinir("M")))
    for base in (512, 1024):
        latent, photo = (
            torch.randn(1, 16, base // 8, base // 8, device=device),
            torch.rand(1, 3, base, base, device=device),
        )
        large = torch.randn(1, 16, base // 4, base // 4, device=device)
        stages = {"B0": lambda x=latent: lua(x, 2), "D0f": lambda x=large: decoder.decode(x)}
        if base == 512:
            stages |= {"D0f small": lambda x=latent: decoder.decode(x), "S0": lambda x=photo: swinir(x, 2)}
        official[base] = {name: t.seconds for name, t in interleaved(stages, 1, device).items()}
    path = official[512]["B0"] + official[512]["D0f"]
    values["G11"] = (official[512]["D0f small"] + official[512]["S0"]) / path, f"LUA path {path:.2f} s"
    ours = timings["1024->2048 published LUA"].seconds + timings["1024->2048 published KL 2048"].seconds
    values["G14"] = (official[1024]["B0"] + official[1024]["D0f"]) / ours, f"{ours * 1e3:.0f} ms"


def _base(values, timings, flux) -> None:
    """What the way from a latent to a large picture adds to sampling it: a step of `flux`, times `STEPS`."""
    steps = {f"FLUX.1-dev step {side}": networks.flux_step(flux, side) for side in (1024, 2048)}
    timings.update(interleaved(steps, 2, flux.device))
    small, large = (STEPS * timings[name].seconds for name in steps)
    seconds = {name: timing.seconds for name, timing in timings.items()}
    for key, side in (("G15", 2048), ("G15b", 4096)):
        added = seconds[f"1024->{side} published LUA"] + seconds[f"1024->{side} published KL {side}"]
        values[key] = 100 * added / (small + added), f"{added:.2f} s after {small:.1f} s"
        if side == 2048:
            direct = large + seconds["1024->2048 published KL 2048"]
            values["G16"] = direct / (small + added), f"{direct:.1f} / {small + added:.1f} s"
