"""The rows C1 to C8: ratios on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lua_demo.bench import networks, reference
from lua_demo.bench.ceilings import Ceiling, probes
from lua_demo.bench.clock import Timing, interleaved
from lua_demo.bench.counts import count, work
from lua_demo.bench.goals import CPU, Row
from lua_demo.networks.fast import accelerate
from lua_demo.networks.kinds import Codec
from lua_demo.networks.swin import ResidualGroup, SwinUpscaler
from lua_demo.networks.windows import WindowAttention, layout

DEVICE = torch.device("cpu")
CPU_SAMPLES = 4
"""Rounds of two for what takes milliseconds; what takes seconds gets one."""


@dataclass(frozen=True)
class Measured:
    """Rows, and by name the timings, with FLOP and floor where they were counted."""

    rows: list[Row]
    timings: dict[str, Timing]
    work: dict[str, tuple[int, float]]


@torch.no_grad()
def measure(ceilings: dict[str, Ceiling], full: bool) -> Measured:
    """All C rows. `ceilings`: of "fp32" and "bf16". `full`: at 64 x 64 instead of 32 x 32, and with SwinIR-M."""
    rows: list[Row] = []
    timings: dict[str, Timing] = {}
    counted: dict[str, tuple[int, float]] = {}

    def note(key: str, value: float | None, text: str = "") -> None:
        if key.startswith("C7") and value is not None and value > 1:
            value, text = None, f"{value:.2f} of a ceiling that other work on the machine held down: run again"
        rows.append(Row(key, CPU[key], value, text))

    def time(rounds: int, **variants: Callable[[], object]) -> dict[str, float]:
        found = interleaved(variants, rounds, DEVICE)
        timings.update(found)
        return {name: timing.seconds for name, timing in found.items()}

    # First, in a process that did nothing else: much of the reference's time goes into allocating its scores.
    _attention(note, time)
    _lua_full(note, time, counted, ceilings["fp32"], 64 if full else 32)
    _small(note, time, counted, ceilings, full)
    _structure(note)
    return Measured(sorted(rows, key=lambda row: row.key), timings, counted)


def _lua_full(note, time, counted, ceiling: Ceiling, side: int) -> None:
    lua, x = networks.lua("full"), torch.randn(1, 16, side, side)
    exact, narrow = accelerate(lua), accelerate(lua, torch.bfloat16)
    b0, b1, x16 = reference.Reference(lua), reference.Reference(lua, cached=True), x.bfloat16()
    expected = b0(x, 2)
    error = _relative(exact(x, 2), expected)
    error16 = _relative(narrow(x16, 2).float(), expected)
    seconds = time(
        2, B0=lambda: b0(x, 2), B1=lambda: b1(x, 2), LUA_fp32=lambda: exact(x, 2), LUA_bf16=lambda: narrow(x16, 2)
    )
    counted["LUA_fp32"] = work(lua, lambda net, y: net(y, 2), (1, 16, side, side), ceiling, 4)
    both = time(2, LUA_x2_x4=lambda: exact.forward_scales(x, (2, 4)), LUA_x4=lambda: exact(x, 4))
    note("C1", seconds["B0"] / seconds["LUA_fp32"], f"{side} x {side}; relative error {error:.1e}; B1 / ours "
         f"{seconds['B1'] / seconds['LUA_fp32']:.2f}; both scales at once {both['LUA_x2_x4']:.2f} s, one by one "
         f"{seconds['LUA_fp32'] + both['LUA_x4']:.2f} s")  # fmt: skip
    note("C2", seconds["B0"] / seconds["LUA_bf16"], f"relative error {error16:.1e}")


def _attention(note, time) -> None:
    lua = networks.lua("full")
    plain, ours = _first_attention(lua), _first_attention(accelerate(lua))
    x = torch.randn(64 * 64, 360)
    windows, groups = x.view(16, 256, 360), layout(1, 64, 64, 16, 8, DEVICE).pieces[0][0].groups
    mask = torch.zeros(16, 256, 256)
    projected, padded = plain.qkv(windows), ours.qkv(x)
    # The residual is part of our projection, so the reference gets its sum too.
    seconds = time(
        CPU_SAMPLES,
        attention_reference=lambda: reference.mix(plain, projected, mask),
        attention_ours=lambda: ours.mix(padded, groups),
        projected_reference=lambda: windows + reference.attention(plain, windows, mask),
        projected_ours=lambda: ours(x, groups, residual=x),
    )
    whole = seconds["projected_reference"] / seconds["projected_ours"]
    note("C3", seconds["attention_reference"] / seconds["attention_ours"],
         f"64 x 64, queries, keys and values given; with both projections {whole:.2f}")  # fmt: skip


def _small(note, time, counted, ceilings: dict[str, Ceiling], full: bool) -> None:
    lua_s, trunk, light = networks.lua("S"), networks.swinir("S"), networks.swinir("light")
    tiny: Codec = networks.seeded(networks.TinyAutoencoder, 4)
    plain = networks.plain_tiny()
    tiny.to(memory_format=torch.channels_last)
    tiny16: Codec = networks.seeded(networks.TinyAutoencoder, 4)
    tiny16 = tiny16.to(torch.bfloat16, memory_format=torch.channels_last)
    embedded16 = networks.decoder("embedded").to(torch.bfloat16)
    small, large, photo = torch.randn(1, 4, 32, 32), torch.randn(1, 4, 64, 64), torch.rand(1, 3, 256, 256)
    fast, fast_trunk, fast_light = (accelerate(net) for net in (lua_s, trunk, light))
    large16, embedded_large = large.bfloat16(), torch.randn(1, embedded16.latent_channels, 64, 64).bfloat16()
    # Timed in turn with the networks, as a machine's speed drifts from one second to the next.
    product = probes(DEVICE, torch.float32)[ceilings["fp32"].gemm_by]
    conv = probes(DEVICE, torch.bfloat16)["conv"]
    quick = time(
        CPU_SAMPLES, product=product.run, conv_bf16=conv.run, LUA_S=lambda: fast(small, 2),
        tiny_256=lambda: tiny.decode(small),
        tiny_512_plain=lambda: plain.decode(large), tiny_512=lambda: tiny.decode(large),
        tiny_512_bf16=lambda: tiny16.decode(large16), embedded_512_bf16=lambda: embedded16.decode(embedded_large),
    )  # fmt: skip
    slow = time(2, SwinIR_S=lambda: fast_trunk(photo, 2), SwinIR_light=lambda: fast_light(photo, 2))
    path = quick["LUA_S"] + quick["tiny_512"]
    note("C4", slow["SwinIR_S"] / quick["LUA_S"])
    note("C5a", (quick["tiny_256"] + slow["SwinIR_S"]) / path)
    note("C5b", (quick["tiny_256"] + slow["SwinIR_light"]) / path, "with the head of SwinIR-M, 16 features")
    if full:
        medium = accelerate(networks.swinir("M"))
        seconds = time(1, SwinIR_M=lambda: medium(photo, 2))["SwinIR_M"]
        note("C5c", (quick["tiny_256"] + seconds) / path)
    else:
        note("C5c", None, "takes --full")
    note("C6a", quick["tiny_512_plain"] / quick["tiny_512"])
    note("C6b", quick["tiny_512_plain"] / quick["tiny_512_bf16"])
    narrow, decode = ceilings["bf16"], lambda net, y: net.decode(y)
    counted["LUA_S"] = work(lua_s, lambda net, y: net(y, 2), (1, 4, 32, 32), ceilings["fp32"], 4)
    counted["tiny_512_bf16"] = work(tiny, decode, (1, 4, 64, 64), narrow, 2)
    counted["embedded_512_bf16"] = work(networks.decoder("embedded"), decode, embedded_large.shape, narrow, 2)
    note("C7a", counted["LUA_S"][0] / quick["LUA_S"] / (product.amount / quick["product"]))
    for key, name in (("C7b", "tiny_512_bf16"), ("C7c", "embedded_512_bf16")):
        note(key, counted[name][0] / quick[name] / (conv.amount / quick["conv_bf16"]))


@torch.no_grad()
def _structure(note, name: str = "full") -> None:
    lua = accelerate(networks.lua(name))
    x, attention = torch.randn(1, lua.in_chans, 32, 32), _first_attention(lua)
    lua(x, 2)
    second = count(lambda: lua(x, 2))
    scores = 32**2 * attention.num_heads * attention.window**2
    text = (
        f"{second.operations} operations, views included; largest tensor {second.largest:,} elements, all scores "
        f"{scores:,}; attention: {', '.join(second.attention)}"
    )
    note("C8", float(second.built + second.host), text)


def _first_attention(network: SwinUpscaler) -> WindowAttention:
    layer = network.layers[0]
    assert isinstance(layer, ResidualGroup)
    return layer.blocks[0].attn


def _relative(x: Tensor, expected: Tensor) -> float:
    return ((x - expected).norm() / expected.norm()).item()
