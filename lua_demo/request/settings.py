"""The settings of a request as flat, plain values: one codec for the form, API, CLI, links, stored runs and PNGs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, NotRequired, TypedDict

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.methods import METHODS
from lua_demo.request.validate import validated_settings
from lua_demo.schema import Request

SOURCES = ("image", "latent")
"""Fields of `Request` that name a file of one machine: they are no settings, and travel as bytes."""


class Settings(TypedDict):
    """The fields of `Request` but the files, as JSON holds them.

    Missing are those that mean nothing for the request. Older runs lack more.
    """

    scale: int
    size: NotRequired[int]
    methods: list[str]
    base: NotRequired[str]
    seed: NotRequired[int]
    prompt: NotRequired[str]
    steps: NotRequired[int]
    guidance: NotRequired[float]
    aspect: NotRequired[str]
    decoder: NotRequired[str]
    force_native: NotRequired[bool]
    refine: NotRequired[float]


OfPrompts = Literal["prompt", "steps", "guidance", "aspect", "force_native", "refine"]

OF_PROMPTS: tuple[OfPrompts, ...] = ("prompt", "steps", "guidance", "aspect", "force_native", "refine")
"""Fields that mean nothing where the base does not come from a prompt."""

OF_SAMPLING: tuple[OfPrompts, ...] = ("steps", "guidance", "force_native", "refine")
"""Fields that mean nothing where a prompt is rendered."""

FIELDS = {"prompt": "prompt", "photo": "image", "latent": "latent"}
"""What a base can come from, and the field of `Request` that names it."""

ADVISED = ("steps", "guidance")
"""Fields of which the makers of a base advise a value."""

DEFAULTS = {field.name: field.default for field in fields(Request) if field.name not in SOURCES}


def to_settings(request: Request) -> Settings:
    """Name -> value that JSON can hold, for every field that matters but the files."""
    idle = OF_SAMPLING if BASES[request.base].renders else ()
    idle = idle if request.prompt else OF_PROMPTS
    idle = idle if any(METHODS[key].refines for key in request.methods) else (*idle, "refine")
    settings: Settings = {
        "scale": request.scale,
        "size": request.size,
        "methods": list(request.methods),
        "base": request.base,
        "seed": request.seed,
        "prompt": request.prompt,
        "steps": request.steps,
        "guidance": request.guidance,
        "aspect": request.aspect,
        "decoder": request.decoder,
        "force_native": request.force_native,
        "refine": request.refine,
    }
    for name in idle:
        settings.pop(name, None)
    return settings


def from_settings(settings: Mapping[str, object], image: str = "", latent: str = "") -> Request:
    """As `unchecked`, of settings that a file or a link carries.

    Raises:
        UserError: a value that cannot be run.
    """
    return validated_settings(unchecked(settings, image, latent))


def unchecked(settings: Mapping[str, object], image: str = "", latent: str = "") -> Request:
    """The request with these settings, for `job.resolve` to check; names that are no setting are ignored.

    What is missing keeps its default. Steps and guidance that are missing or None are, for a prompt, what the makers of
    the base advise.
    """
    given = {name: settings[name] for name in DEFAULTS if name in settings}
    known: dict[str, Any] = {name: value for name, value in given.items() if value is not None or name not in ADVISED}
    base = known.get("base", Request.base)
    row = BASES.get(base) if isinstance(base, str) and known.get("prompt") else None
    advised = {name: getattr(row, name) for name in ADVISED} if row else {}
    return Request(image, latent=latent, **{**advised, **known})


def of_kind(kind: str, values: Mapping[str, object]) -> dict[str, object]:
    """The entries of `values` that apply to a base of this kind ("prompt", "photo", "latent"), without its source.

    A form holds the settings of all kinds at once.
    """
    left_out = {*FIELDS.values(), *(() if kind == "prompt" else (*OF_PROMPTS, "seed"))}
    return {name: value for name, value in values.items() if name in DEFAULTS and name not in left_out}


def from_query(query: Mapping[str, str]) -> dict[str, object]:
    """The settings that a page's address carries, unchecked; lists are separated by commas. Empty where it has none."""
    return {name: _parsed(query[name], DEFAULTS[name]) for name in DEFAULTS if name in query}


def _parsed(text: str, default: object) -> object:
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(default, bool):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if isinstance(default, (int, float)):
        try:
            return type(default)(text)
        except ValueError:
            return text  # refused by name, where all values are checked
    return text
