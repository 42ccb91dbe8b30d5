"""The rows G1 to G16: on CUDA, where ours runs in bf16, compiled block by block and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from lua_demo.bench import networks, paths, reference
from lua_demo.bench.ceilings import Ceiling
from lua_demo.bench.clock import Timing, failure, interleaved
from lua_demo.bench.counts import count, work
from lua_demo.bench.cpu import Measured
from lua_demo.bench.goals import GPU, Row
from lua_demo.networks.fast import Graph, accelerate
from lua_demo.networks.kl import SCORES, attend

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

ROUNDS = 15
NARROW = torch.bfloat16
STEPS = 28


@dataclass
class Sheet:
    """What has been measured so far. `tell` gets every row as soon as it is there; `ceiling` is that of bf16."""

    device: torch.device
    ceiling: Ceiling
    tell: Callable[[Row], None]
    rows: dict[str, Row] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    work: dict[str, tuple[int, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def note(self, key: str, value: float | None, text: str = "") -> None:
        self.rows[key] = Row(key, GPU[key], value, text)
        self.tell(self.rows[key])

    def time(self, rounds: int, prefix: str, **variants: Callable[[], object]) -> None:
        """Time `variants` as "<prefix> <name>"; one that fails is left out, and the rows that need it say why."""
        named = {f"{prefix} {name}": run for name, run in variants.items()}
        self.timings.update(interleaved(named, rounds, self.device, 3, self.failed))

    def ratio(self, key: str, above: str, below: str, text: str = "") -> None:
        """Row `key`: seconds of the timing `above` over those of `below`; without one of them, why there is none."""
        if missing := self.missing(above, below):
            self.note(key, None, missing)
        else:
            self.note(key, self.timings[above].seconds / self.timings[below].seconds, text)

    def missing(self, *names: str) -> str:
        """Why timings are not there; empty where all are."""
        why = {name: self.failed.get(name, "not timed") for name in names if name not in self.timings}
        return "; ".join(f"{name}: {reason}" for name, reason in why.items())

    def section(self, keys: Iterable[str], run: Callable[[], object]) -> None:
        """`run` notes the rows `keys`; where it fails, those that it did not note say why."""
        why = failure(run, self.device)
        for key in keys:
            if key not in self.rows:
                self.note(key, None, why or "not measured")


@torch.no_grad()
def measure(device: torch.device, ceiling: Ceiling, tell: Callable[[Row], None] = lambda row: None) -> Measured:
    """All G rows. A row that fails stays one row, which says why; `tell` gets each as soon as it is there."""
    sheet = Sheet(device, ceiling, tell)
    sheet.section(("G1", "G2", "G3", "G3b", "G4", "G4b", "G5", "G5b", "G5c", "G6"), lambda: _lua(sheet))
    for side, suffix in ((128, ""), (256, "b"), (512, "c")):
        sheet.section((f"G7{suffix}", f"G8{suffix}"), partial(_decode, sheet, side, suffix))
    ours = sheet.timings.get("KL decode 4096 ours")
    sheet.note("G10", ours.peak_bytes / 1e9 if ours else None, "" if ours else sheet.missing("KL decode 4096 ours"))
    sheet.section(("G9",), lambda: _attention(sheet))
    for (base, scale), suffix in (((512, 2), ""), ((1024, 2), "b"), ((1024, 4), "c")):
        keys = f"G12{suffix}", f"G13{suffix}"
        sheet.section(keys, partial(_path, sheet, base, scale, *keys))
    sheet.section(("G11", "G14"), lambda: _official(sheet))
    sheet.section(("G15", "G15b", "G16"), lambda: _base(sheet, networks.flux(device, NARROW)))
    return Measured([sheet.rows[key] for key in GPU], sheet.timings, sheet.work)


def _lua(sheet: Sheet) -> None:
    device, lua = sheet.device, networks.lua("full").to(sheet.device)
    half = networks.lua("full").to(device, NARROW)
    fast = accelerate(lua, NARROW)
    graph = Graph(fast)
    official, kept, kept16 = reference.Reference(lua), reference.Reference(lua, True), reference.Reference(half, True)
    for side, suffix, floor_key in ((64, "", "G5"), (128, "b", "G5b"), (256, None, "G5c")):
        x = torch.randn(1, 16, side, side, device=device)
        x16, name = x.to(NARROW), f"LUA x2 {side}"
        sheet.work[name] = work(lua, lambda net, y: net(y, 2), (1, 16, side, side), sheet.ceiling, 2)
        sheet.time(ROUNDS, name, graph=partial(graph, x16, 2), eager=partial(fast, x16, 2))
        runs = [f"{name} {way}" for way in ("graph", "eager") if f"{name} {way}" in sheet.timings]
        if not runs:
            sheet.note(floor_key, None, sheet.missing(f"{name} graph", f"{name} eager"))
            continue
        ours = min(runs, key=lambda run: sheet.timings[run].seconds)
        milliseconds = sheet.timings[ours].seconds * 1e3
        sheet.note(floor_key, sheet.work[name][1] * 1e3 / milliseconds, f"{milliseconds:.2f} ms")
        if suffix is None:
            continue
        sheet.time(3, name, B0=partial(official, x, 2), B1=partial(kept, x, 2), B2=partial(kept16, x16, 2))
        for key, baseline in (("G1" if not suffix else "G2", "B1"), (f"G3{suffix}", "B0"), (f"G4{suffix}", "B2")):
            theirs = sheet.timings.get(f"{name} {baseline}")
            both = f"{theirs.seconds * 1e3:.1f} / {milliseconds:.2f} ms" if theirs else ""
            sheet.ratio(key, f"{name} {baseline}", ours, both)
    sheet.note("G6", *_kernels(fast, torch.randn(1, 16, 64, 64, device=device, dtype=NARROW)))


def _kernels(fast, x: Tensor) -> tuple[float, str]:
    seen = count(lambda: accelerate(fast, compiled=False)(x, 2))
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        fast(x, 2)
        torch.cuda.synchronize(x.device)
    events = [event for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = sum("Memcpy HtoD" in event.name for event in events)
    return float(len(events)), f"{copies} copies from the host; attention: {', '.join(seen.attention)}"


def _decode(sheet: Sheet, side: int, suffix: str) -> None:
    plain = networks.decoder("KL", fast=False).to(sheet.device, NARROW)
    ours = networks.decoder("KL").to(sheet.device, NARROW)
    latent, name = torch.randn(1, 16, side, side, device=sheet.device, dtype=NARROW), f"KL decode {side * 8}"
    rounds = 2 if side == 512 else 5
    sheet.time(rounds, name, D0=lambda: plain.decode(latent), ours=lambda: ours.decode(latent))
    shape = (1, 16, side, side)
    counted = work(networks.decoder("KL", fast=False), lambda net, y: net.decode(y), shape, sheet.ceiling, 2)
    sheet.work[name] = counted
    if missing := sheet.missing(f"{name} ours"):
        sheet.note(f"G8{suffix}", None, missing)
    else:
        seconds = sheet.timings[f"{name} ours"].seconds
        sheet.note(f"G8{suffix}", counted[1] / seconds, f"{seconds * 1e3:.1f} ms")
    sheet.ratio(f"G7{suffix}", f"{name} D0", f"{name} ours")


def _attention(sheet: Sheet) -> None:
    q, k, v = (torch.randn(65536, 512, device=sheet.device, dtype=NARROW) for _ in range(3))
    sheet.time(
        3, "attention", sdpa=lambda: F.scaled_dot_product_attention(q[None, None], k[None, None], v[None, None]),
        ours=lambda: attend(q * 512**-0.5, k, v.T.contiguous(), SCORES["cuda"]),
    )  # fmt: skip
    ours = sheet.timings.get("attention ours")
    flops = f"{4 * 65536**2 * 512 / ours.seconds / 1e12:.0f} TFLOP/s" if ours else ""
    sheet.ratio("G9", "attention sdpa", "attention ours", flops)


def _path(sheet: Sheet, base: int, scale: int, *keys: str) -> None:
    found, stages = paths.measure(
        sheet.device, NARROW, base, scale, ("tiny", "KL"), "published", 3, failed=sheet.failed
    )
    sheet.timings.update(stages)
    by_decoder = {path.decoder: path for path in found}
    for key, decoder in zip(keys, ("tiny", "KL"), strict=True):
        if path := by_decoder.get(decoder):
            sheet.note(key, path.ratio, f"LUA {path.lua * 1e3:.1f} ms, pixels {path.pixels * 1e3:.1f} ms")
        else:
            wanted = paths.stages_of(decoder, base, scale, "published")
            sheet.note(key, None, sheet.missing(*wanted))


def _official(sheet: Sheet) -> None:
    device = sheet.device
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
        named = {f"official {base} {name}": run for name, run in stages.items()}
        sheet.timings.update(interleaved(named, 1, device, failed=sheet.failed))
    theirs = _sum(sheet, "G11", *(f"official 512 {name}" for name in ("B0", "D0f")))
    pixels = _sum(sheet, "G11", *(f"official 512 {name}" for name in ("D0f small", "S0")))
    if theirs and pixels:
        sheet.note("G11", pixels / theirs, f"LUA path {theirs:.2f} s")
    theirs = _sum(sheet, "G14", *(f"official 1024 {name}" for name in ("B0", "D0f")))
    ours = _sum(sheet, "G14", *(f"1024->2048 published {name}" for name in ("LUA", "KL 2048")))
    if theirs and ours:
        sheet.note("G14", theirs / ours, f"{ours * 1e3:.0f} ms")


def _sum(sheet: Sheet, key: str, *names: str) -> float | None:
    """Seconds of several timings together; None, and the row `key` says why, where one is missing."""
    if missing := sheet.missing(*names):
        sheet.note(key, None, missing)
        return None
    return sum(sheet.timings[name].seconds for name in names)


def _base(sheet: Sheet, flux: FluxTransformer2DModel) -> None:
    """What the way from a latent to a large picture adds to sampling it: a step of `flux`, times `STEPS`."""
    steps = {f"FLUX.1-dev step {side}": networks.flux_step(flux, side) for side in (1024, 2048)}
    sheet.timings.update(interleaved(steps, 2, flux.device, failed=sheet.failed))
    for key, side in (("G15", 2048), ("G15b", 4096)):
        small = _sum(sheet, key, "FLUX.1-dev step 1024")
        added = _sum(sheet, key, f"1024->{side} published LUA", f"1024->{side} published KL {side}")
        if small and added:
            sheet.note(key, 100 * added / (STEPS * small + added), f"{added:.2f} s after {STEPS * small:.1f} s")
    small, large = (_sum(sheet, "G16", f"FLUX.1-dev step {side}") for side in (1024, 2048))
    decode = _sum(sheet, "G16", "1024->2048 published KL 2048")
    lua = _sum(sheet, "G16", "1024->2048 published LUA")
    if small and large and decode and lua:
        direct, ours = STEPS * large + decode, STEPS * small + lua + decode
        sheet.note("G16", direct / ours, f"{direct:.1f} / {ours:.1f} s")
