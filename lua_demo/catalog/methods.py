"""The compared methods, as one table, and the limits of what can be asked for. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lua_demo.catalog import compositions
from lua_demo.catalog.spaces import LUA, SWINIR, SWINIR_OFFICIAL


@dataclass(frozen=True)
class Method:
    """One column of the comparison.

    Attributes:
        label, description: for people; the description is one sentence.
        steps: its composition, of `compositions`.
        upscaler: the role of its network, a key of a table of `models.loaders`, or None.
        needs_truth: made from the photo at the target size, so left out where the photo is smaller.
        is_truth: the photo at the target size itself: what the others are measured against.
        default: selected when the user chooses nothing.
    """

    label: str
    description: str
    steps: tuple[compositions.Step, ...]
    upscaler: str | None = None
    needs_truth: bool = False
    is_truth: bool = False
    default: bool = True


METHODS: dict[str, Method] = {
    "base": Method("Base, as decoded", "The base latent, decoded without upscaling.", compositions.BASE),
    "lua": Method("LUA (latent)", "LUA upscales the latent, then one decode.", compositions.LATENT_UPSCALE, LUA),
    "swinir": Method("SwinIR (pixels)", "One decode, then SwinIR upscales pixels.", compositions.PIXEL_UPSCALE, SWINIR),
    "swinir-official": Method(
        "SwinIR (official)", "One decode, then the SwinIR that its authors released upscales pixels.",
        compositions.PIXEL_UPSCALE, SWINIR_OFFICIAL, default=False,
    ),
    "bicubic": Method(
        "Bicubic latent", "Bicubic interpolation of the latent, then one decode.",
        compositions.LATENT_UPSCALE, "bicubic",
    ),
    "native": Method(
        "Native (original)", "The photo itself at the target size.",
        compositions.ORIGINAL, needs_truth=True, is_truth=True,
    ),
    "roundtrip": Method(
        "Round trip", "The photo at the target size, encoded and decoded: the autoencoder's ceiling.",
        compositions.LARGE, needs_truth=True, default=False,
    ),
}  # fmt: skip

# What a prompt can be compared by: there is no original, but the same prompt sampled at the target size.
PROMPT_METHODS: dict[str, Method] = {
    **{
        key: replace(method, steps=compositions.from_prompt(method.steps))
        for key, method in METHODS.items()
        if not method.needs_truth
    },
    "native": Method(
        "Native (sampled large)", "The same prompt and seed, sampled at the target size.",
        compositions.from_prompt(compositions.LARGE),
    ),
}  # fmt: skip
METHODS_BY_KIND = {"photo": METHODS, "latent": METHODS, "prompt": PROMPT_METHODS}

# Width / height of what is sampled.
ASPECTS = {"1:1": 1.0, "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9, "3:4": 3 / 4, "2:3": 2 / 3, "9:16": 9 / 16}

MIN_SIZE, MAX_SIZE = 16, 2048
MAX_STEPS, MAX_GUIDANCE, MAX_PROMPT = 100, 20.0, 500
