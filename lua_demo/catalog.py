"""Everything that the demo can run, as tables. The place to add things. No logic.

Base models are rows of `bases.BASES`, latent spaces of `spaces.SPACES`, which need no torch; methods are here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from lua_demo import methods
from lua_demo.bases import BASES as BASES
from lua_demo.generators import load_generator
from lua_demo.sources import Found, find_lua, load_official_swinir
from lua_demo.spaces import AUTOENCODER, GENERATOR, LUA, SWINIR, SWINIR_OFFICIAL
from lua_demo.spaces import SPACES as SPACES
from lua_demo.upscalers import Upscaler, bicubic
from lua_demo.vaes import VAE
from lua_demo.weights import load_autoencoder, load_lua, load_swinir


@dataclass(frozen=True)
class Method:
    """One column of the comparison.

    Attributes:
        label, description: for people; the description is one sentence.
        steps: its composition, of `methods`.
        upscaler: key of `LOADERS`, `PUBLISHED` or `WEIGHTLESS`, or None.
        needs_truth: made from the photo at the target size, so left out where the photo is smaller.
        is_truth: the photo at the target size itself: what the others are measured against.
        default: selected when the user chooses nothing.
    """

    label: str
    description: str
    steps: tuple[methods.Step, ...]
    upscaler: str | None = None
    needs_truth: bool = False
    is_truth: bool = False
    default: bool = True


# How the shipped weights of a role become a network; for other roles, (space, folder of all weights) -> what can be
# had, a UserError where nothing can; and the upscalers without weights.
LOADERS: dict[str, Callable[[Path], nn.Module]] = {
    AUTOENCODER: lambda source: VAE(load_autoencoder(source)),
    GENERATOR: load_generator,
    LUA: load_lua,
    SWINIR: load_swinir,
}
PUBLISHED: dict[str, Callable[[str, Path], Found]] = {
    LUA: find_lua,
    SWINIR_OFFICIAL: lambda space, weights: Found(load_official_swinir()),
}
WEIGHTLESS: dict[str, Upscaler] = {"bicubic": bicubic}

METHODS: dict[str, Method] = {
    "base": Method("Base, as decoded", "The base latent, decoded without upscaling.", methods.BASE),
    "lua": Method("LUA (latent)", "LUA upscales the latent, then one decode.", methods.LATENT_UPSCALE, LUA),
    "swinir": Method("SwinIR (pixels)", "One decode, then SwinIR upscales pixels.", methods.PIXEL_UPSCALE, SWINIR),
    "swinir-official": Method(
        "SwinIR (official)", "One decode, then the SwinIR that its authors released upscales pixels.",
        methods.PIXEL_UPSCALE, SWINIR_OFFICIAL, default=False,
    ),
    "bicubic": Method(
        "Bicubic latent", "Bicubic interpolation of the latent, then one decode.", methods.LATENT_UPSCALE, "bicubic"
    ),
    "native": Method(
        "Native (original)", "The photo itself at the target size.", methods.ORIGINAL, needs_truth=True, is_truth=True
    ),
    "roundtrip": Method(
        "Round trip", "The photo at the target size, encoded and decoded: the autoencoder's ceiling.",
        methods.LARGE, needs_truth=True, default=False,
    ),
}  # fmt: skip

# What a prompt can be compared by: there is no original, but the same prompt sampled at the target size.
PROMPT_METHODS: dict[str, Method] = {
    **{
        key: replace(method, steps=methods.from_prompt(method.steps))
        for key, method in METHODS.items()
        if not method.needs_truth
    },
    "native": Method(
        "Native (sampled large)", "The same prompt and seed, sampled at the target size.",
        methods.from_prompt(methods.LARGE),
    ),
}  # fmt: skip
METHODS_BY_KIND = {"photo": METHODS, "latent": METHODS, "prompt": PROMPT_METHODS}

# Width / height of what is sampled.
ASPECTS = {"1:1": 1.0, "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9, "3:4": 3 / 4, "2:3": 2 / 3, "9:16": 9 / 16}

MIN_SIZE, MAX_SIZE = 16, 2048
MAX_STEPS, MAX_GUIDANCE, MAX_PROMPT = 100, 20.0, 500
