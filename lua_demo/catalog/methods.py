"""The compared methods, as one table, and the limits of what can be asked for. No torch.

A pixel upscaler is a row of `METHODS` with the composition `PIXEL_UPSCALE`; nothing else has to know it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.compositions import (
    BASE,
    LARGE,
    LATENT_UPSCALE,
    ORIGINAL,
    PIXEL_UPSCALE,
    REFINED,
    Step,
    from_prompt,
    from_scene,
)
from lua_demo.catalog.families import FAMILIES
from lua_demo.catalog.published import REALESRGAN, REALPLKSR, SESQUI, SPAN, SWINIR_OFFICIAL
from lua_demo.catalog.upscalers import SUFFIXES, Upscaler
from lua_demo.schema import UserError


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
        refines: samples on from an enlarged latent: only for prompts, and bases of a family with a `refiner`.
        of_prompt: the row that stands in for this one where the base comes from a prompt; of_scene: the same where the
            prompt is rendered.
    """

    label: str
    description: str
    steps: tuple[Step, ...]
    upscaler: Upscaler | None = None
    needs_truth: bool = False
    is_truth: bool = False
    default: bool = True
    sampled_large: bool = False
    refines: bool = False
    of_prompt: Method | None = None
    of_scene: Method | None = None


OWN_FOLDER = "LUA_DEMO_UPSCALERS"
"""Environment variable with a folder of the user's own upscalers."""

SWINIR_NOTE = (
    "our own SwinIR starts from the trained CNN, and its own trunk was trained for minutes: what it gains is the CNN's "
    "doing, and it is no verdict on SwinIR"
)

METHODS: dict[str, Method] = {
    "base": Method("Base, as decoded", "The base latent, decoded without upscaling.", BASE),
    "lua": Method(
        "LUA (latent)", "LUA upscales the latent, then one decode.", LATENT_UPSCALE, Upscaler("lua", window=8)
    ),
    "refine": Method(
        "LUA + refine", "LUA upscales the latent, the base model's last steps run again at that size with some noise, "
        "then one decode: it may invent texture, letters and small objects that the base does not have.",
        REFINED, Upscaler("lua", window=8), default=False, refines=True,
    ),
    "swinir": Method(
        "SwinIR (pixels)", "One decode, then SwinIR upscales pixels.",
        PIXEL_UPSCALE, Upscaler("swinir", "embedded/swinir", window=16, note=SWINIR_NOTE),
    ),
    "cnn": Method(
        "CNN (pixels)", "One decode, then a plain residual CNN upscales pixels.",
        PIXEL_UPSCALE, Upscaler("cnn", "embedded/cnn"),
    ),
    "swinir-official": Method(
        "SwinIR (official)", "One decode, then the SwinIR that its authors released upscales pixels.",
        PIXEL_UPSCALE, SWINIR_OFFICIAL, default=False,
    ),
    "realesrgan": Method(
        "Real-ESRGAN (pixels)", "One decode, then Real-ESRGAN, trained to repair and invent detail, upscales pixels.",
        PIXEL_UPSCALE, REALESRGAN, default=False,
    ),
    "realplksr": Method(
        "RealPLKSR (pixels)", "One decode, then a RealPLKSR for web photos (by Philip Hofmann) upscales pixels.",
        PIXEL_UPSCALE, REALPLKSR, default=False,
    ),
    "span": Method(
        "SPAN (pixels)", "One decode, then a small, fast SPAN (by Philip Hofmann) upscales pixels.",
        PIXEL_UPSCALE, SPAN, default=False,
    ),
    "sesqui": Method(
        "SesquiLSR (latent)", "SesquiLSR, a convolutional rival of LUA, upscales the latent, then one decode.",
        LATENT_UPSCALE, SESQUI, default=False,
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
        of_scene=Method(
            "Native (rendered large)", "The scene itself at the target size.",
            from_scene(ORIGINAL), needs_truth=True, is_truth=True,
        ),
    ),
    "roundtrip": Method(
        "Round trip", "The photo at the target size, encoded and decoded: the autoencoder's ceiling.",
        LARGE, needs_truth=True, default=False,
        of_scene=Method(
            "Round trip", "The scene at the target size, encoded and decoded: the autoencoder's ceiling.",
            from_scene(LARGE), needs_truth=True, default=False,
        ),
    ),
}  # fmt: skip


def methods_of(kind: str, base: str = "") -> Mapping[str, Method]:
    """Key -> row of what a base of this kind ("photo", "latent", "prompt") can be compared by.

    For a prompt there is no original, but the same prompt sampled at the target size; where `base`, a key of `BASES`,
    renders it, the rendered picture is the original.
    """
    plain = {key: row for key, row in METHODS.items() if not row.refines}
    if kind != "prompt":
        return plain
    if base in BASES and BASES[base].renders:
        return {key: row.of_scene or replace(row, steps=from_scene(row.steps)) for key, row in plain.items()}
    return {
        key: row.of_prompt or replace(row, steps=from_prompt(row.steps))
        for key, row in (METHODS if can_refine(base) or not base else plain).items()
        if row.of_prompt or not row.needs_truth
    }


def can_refine(base: str) -> bool:
    """Whether the base can sample on from a latent that is given."""
    return base in BASES and FAMILIES[BASES[base].family].refiner is not None


def add_own(files: Sequence[str | Path]) -> list[str]:
    """Add a column per file of an upscaler: its name without the suffix is the label and the key.

    Returns the keys. The files are read when the columns are first run.

    Raises:
        UserError: a file does not exist, or its name is taken.
    """
    keys = []
    for file in map(Path, files):
        key = re.sub(r"[^A-Za-z0-9_]+", "-", file.stem).strip("-")  # also the name of its picture's file
        upscaler = Upscaler("spandrel", own=str(file.expanduser().resolve()), licence="")
        if not file.expanduser().is_file():
            raise UserError(f"{file} does not exist; give the file of an upscaler")
        if not key or (key in METHODS and METHODS[key].upscaler != upscaler):
            raise UserError(f"the column of {file} would be called {key!r}, as another one is; rename the file")
        METHODS[key] = Method(
            file.stem, f"One decode, then {file.name} upscales pixels.", PIXEL_UPSCALE, upscaler, default=False
        )
        keys.append(key)
    return keys


def add_own_folder(environment: Mapping[str, str]) -> list[str]:
    """`add_own` of the upscalers in the folder that LUA_DEMO_UPSCALERS names.

    Raises:
        UserError: there is no such folder, or a name is taken.
    """
    if not (named := environment.get(OWN_FOLDER)):
        return []
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise UserError(f"{OWN_FOLDER} names {folder}, which is no folder")
    return add_own(sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES))


KINDS = ("prompt", "photo", "latent")
"""What a base can come from."""

# Width / height of what is sampled.
ASPECTS = {"1:1": 1.0, "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9, "3:4": 3 / 4, "2:3": 2 / 3, "9:16": 9 / 16}

MIN_SIZE, MAX_SIZE = 16, 2048
MAX_STEPS, MAX_GUIDANCE, MAX_PROMPT = 100, 20.0, 500
