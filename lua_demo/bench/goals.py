"""The rows of the benchmark: what is compared, and what must come out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """Attributes:
    what: the measurement, for people.
    must, target: the least that is acceptable and what is aimed at, in `unit`; None: reported only.
    most: a smaller value is better.
    """

    what: str
    must: float | None = None
    target: float | None = None
    unit: str = "x"
    most: bool = False


CPU = {
    "C1": Goal("reference (B0) / ours, LUA-full x2, fp32", 1.6, 2.0),
    "C2": Goal("reference (B0, fp32) / ours in bf16, LUA-full x2", 2.5, 3.3),
    "C3": Goal("window attention alone, without its projections: reference / ours, fp32", 3.0, 4.5),
    "C4": Goal("pixel upscaler / LUA, same trunk, without decoders, 256 -> 512", 40, 55),
    "C5a": Goal("path with the tiny decoder, 256 -> 512: same trunk on pixels / LUA-S", 1.6, 2.0),
    "C5b": Goal("the same, SwinIR-light / LUA-S", 1.1, 1.3),
    "C5c": Goal("the same, SwinIR-M / LUA-S", 8, 11),
    "C6a": Goal("tiny decode to 512 px: diffusers fp32 / ours fp32", 1.1, 1.25),
    "C6b": Goal("tiny decode to 512 px: diffusers fp32 / ours bf16", 1.5, 1.9),
    "C7a": Goal("achieved / measured product ceiling, LUA-S, fp32", 0.4, 0.55, ""),
    "C7b": Goal("achieved / measured convolution ceiling, tiny decode, bf16", 0.6, 0.75, ""),
    "C7c": Goal("achieved / measured convolution ceiling, embedded decode, bf16", 0.6, 0.75, ""),
    "C8": Goal("structure of a second forward: tensors built + copies from the host", 0, 0, "", most=True),
}

GPU = {
    "G1": Goal("B1 / ours, LUA x2 64 -> 128", 6, 10),
    "G2": Goal("B1 / ours, LUA x2 128 -> 256", 6, 10),
    "G3": Goal("B0 / ours, LUA x2 64 -> 128", 30, 100),
    "G3b": Goal("B0 / ours, LUA x2 128 -> 256", 30, 100),
    "G4": Goal("B2 / ours, LUA x2 64 -> 128", 2, 4),
    "G4b": Goal("B2 / ours, LUA x2 128 -> 256", 2, 3),
    "G5": Goal("floor / ours, LUA x2 64 -> 128", 0.25, 0.40, ""),
    "G5b": Goal("floor / ours, LUA x2 128 -> 256", 0.35, 0.45, ""),
    "G5c": Goal("floor / ours, LUA x2 256 -> 512", 0.35, 0.45, ""),
    "G6": Goal("kernels per LUA forward", 320, 270, "", most=True),
    "G7": Goal("D0 / our KL decode to 1024 px", 2.5, 3.3),
    "G7b": Goal("D0 / our KL decode to 2048 px", 2.3, 3.3),
    "G7c": Goal("D0 / our KL decode to 4096 px", 2.0, 3.0),
    "G8": Goal("floor / our KL decode to 1024 px", 0.35, 0.45, ""),
    "G8b": Goal("floor / our KL decode to 2048 px", 0.33, 0.45, ""),
    "G8c": Goal("floor / our KL decode to 4096 px", 0.25, 0.45, ""),
    "G9": Goal("attention of width 512 over 65,536 tokens: SDPA / ours", 2, 3),
    "G10": Goal("peak memory of the KL decode to 4096 px, bf16", 60, 40, " GB", most=True),
    "G11": Goal("path, official style on both sides (B0 + D0f against D0f + S0), 512 -> 1024"),
    "G12": Goal("path, both optimised, tiny decoder, 512 -> 1024: pixels / LUA", 5, 8),
    "G12b": Goal("the same, 1024 -> 2048", 5, 8),
    "G12c": Goal("the same, 1024 -> 4096", 2, 3),
    "G13": Goal("path, both optimised, KL decoder, 512 -> 1024: pixels / LUA", None, 1.0),
    "G13b": Goal("the same, 1024 -> 2048", None, 1.0),
    "G13c": Goal("the same, 1024 -> 4096"),
    "G14": Goal("LUA path 1024 -> 2048: official style (B0 + D0f) / ours", 5, 10),
    "G15": Goal("share of LUA + KL decode in FLUX.1-dev, 28 steps at 1024 px, to 2048 px", 5, 3, " %", most=True),
    "G15b": Goal("the same, to 4096 px", 25, 15, " %", most=True),
    "G16": Goal("FLUX.1-dev sampled at 2048 px / at 1024 px + LUA, both with KL decode", 4.5, 5.2),
}


@dataclass(frozen=True)
class Row:
    """A measured goal; `value` None: not measured, `note` says why or what else there is to know."""

    key: str
    goal: Goal
    value: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        for bound, word in ((self.goal.target, "target met"), (self.goal.must, "must met")):
            if bound is not None and (self.value <= bound if self.goal.most else self.value >= bound):
                return word
        return "reported" if self.goal.must is None else "MISSED"
