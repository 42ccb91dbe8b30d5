"""The compared methods, as one table, and the limits of what can be asked for. No torch.

A pixel upscaler is a row of `METHODS` with the composition `PIXEL_UPSCALE`; nothing else has to know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lua_demo.catalog.compositions import BASE, LARGE, LATENT_UPSCALE, ORIGINAL, PIXEL_UPSCALE, Step, from_prompt
from lua_demo.catalog.upscalers import File, Upscaler


@dataclass(frozen=True)
class Method:
    """One column of the comparison.

    Attributes:
        label, description: for people; the description is one sentence.
        steps: its composition, of `compositions`.
        upscaler: what enlarges; None where nothing does.
        needs_truth: made from the photo at the target size, so left out where the photo is smaller.
        is_truth: the photo at the target size itself: what the others are measured against.
        default: selected when the user chooses nothing.
        sampled_large: a prompt sampled at the target size: it may be refused for its time or memory.
        of_prompt: the row that stands in for this one where the base comes from a prompt.
    """

    label: str
    description: str
    steps: tuple[Step, ...]
    upscaler: Upscaler | None = None
    needs_truth: bool = False
    is_truth: bool = False
    default: bool = True
    sampled_large: bool = False
    of_prompt: Method | None = None


SWINIR_RELEASE = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0"
SWINIR_OFFICIAL = Upscaler(
    "swinir",
    files={
        scale: File(f"{SWINIR_RELEASE}/001_classicalSR_DF2K_s64w8_SwinIR-M_x{scale}.pth", megabytes=67)
        for scale in (2, 4)
    },
    window=8,
)
"""Classical super-resolution (arXiv 2108.10257), trained on DF2K: the best of the paper's."""

METHODS: dict[str, Method] = {
    "base": Method("Base, as decoded", "The base latent, decoded without upscaling.", BASE),
    "lua": Method(
        "LUA (latent)", "LUA upscales the latent, then one decode.", LATENT_UPSCALE, Upscaler("lua", window=8)
    ),
    "swinir": Method(
        "SwinIR (pixels)", "One decode, then SwinIR upscales pixels.",
        PIXEL_UPSCALE, Upscaler("swinir", "embedded/swinir", window=8),
    ),
    "swinir-official": Method(
        "SwinIR (official)", "One decode, then the SwinIR that its authors released upscales pixels.",
        PIXEL_UPSCALE, SWINIR_OFFICIAL, default=False,
    ),
    "bicubic": Method(
        "Bicubic latent", "Bicubic interpolation of the latent, then one decode.", LATENT_UPSCALE, Upscaler("bicubic")
    ),
    "native": Method(
        "Native (original)", "The photo itself at the target size.", ORIGINAL, needs_truth=True, is_truth=True,
        of_prompt=Method(
            "Native (sampled large)", "The same prompt and seed, sampled at the target size.",
            from_prompt(LARGE), sampled_large=True,
        ),
    ),
    "roundtrip": Method(
        "Round trip", "The photo at the target size, encoded and decoded: the autoencoder's ceiling.",
        LARGE, needs_truth=True, default=False,
    ),
}  # fmt: skip


def methods_of(kind: str) -> Mapping[str, Method]:
    """Key -> row of what a base of this kind ("photo", "latent", "prompt") can be compared by.

    For a prompt there is no original, but the same prompt sampled at the target size.
    """
    if kind != "prompt":
        return METHODS
    return {
        key: row.of_prompt or replace(row, steps=from_prompt(row.steps))
        for key, row in METHODS.items()
        if row.of_prompt or not row.needs_truth
    }


KINDS = ("prompt", "photo", "latent")
"""What a base can come from."""

# Width / height of what is sampled.
ASPECTS = {"1:1": 1.0, "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9, "3:4": 3 / 4, "2:3": 2 / 3, "9:16": 9 / 16}

MIN_SIZE, MAX_SIZE = 16, 2048
MAX_STEPS, MAX_GUIDANCE, MAX_PROMPT = 100, 20.0, 500
