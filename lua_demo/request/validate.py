"""Requests from outside: the page, the API and the CLI are refused in the same words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from reprlib import repr as brief  # of a value in a message: values from outside may be very long

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.methods import (
    ASPECTS,
    MAX_GUIDANCE,
    MAX_PROMPT,
    MAX_SIZE,
    MAX_STEPS,
    METHODS,
    MIN_SIZE,
    can_refine,
    methods_of,
)
from lua_demo.catalog.prompts import meaning
from lua_demo.catalog.spaces import SPACES
from lua_demo.schema import Request, UserError

MAX_SEED = 2**53 - 1
"""Up to this whole number a browser, whose numbers are doubles, represents each exactly."""

SEEDS = f"choose a whole number from 0 to {MAX_SEED}"


def validated(request: Request) -> Request:
    """`request` with plain ints and a tuple of distinct methods; UserError for the first value that cannot be run."""
    for name, value, what in (("image", request.image, "photo"), ("latent", request.latent, "latent")):
        if not isinstance(value, (str, Path)):
            raise UserError(f"{name} is {brief(value)}; give the path of a {what}")
    given = [name for name in ("image", "latent", "prompt") if str(getattr(request, name))]
    if len(given) != 1:
        found = f"both {given[0]} and {given[1]} are given" if given else "there is nothing to start from"
        raise UserError(f"{found}; give the path of a photo, the path of a latent, or a prompt")
    request = replace(validated_settings(request), image=str(request.image), latent=str(request.latent))
    if request.prompt and not BASES[request.base].hub_id:
        meaning(request.prompt)
    return request


def validated_settings(request: Request) -> Request:
    """As `validated`, for everything but what the base comes from."""
    if not isinstance(request.base, str) or request.base not in BASES:
        raise UserError(f"base {brief(request.base)} does not exist; choose {_choices(BASES)}")
    space = SPACES[BASES[request.base].space]
    if not isinstance(request.decoder, str) or request.decoder not in ("", *space.decoders):
        there = _choices(space.decoders) if space.decoders else "none: the base brings its own"
        raise UserError(f"decoder {brief(request.decoder)} does not exist for the base {request.base}; choose {there}")
    if not isinstance(request.force_native, bool):
        raise UserError(f"force_native is {brief(request.force_native)}; choose true or false")
    scales = space.scales
    scale = _integer("scale", request.scale, f"choose {_choices(scales)}")
    if scale not in scales:
        raise UserError(f"scale {brief(scale)} does not exist in this latent space; choose {_choices(scales)}")
    size_range = f"choose a base size from {MIN_SIZE} to {MAX_SIZE} pixels"
    size = _integer("size", request.size, size_range)
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(f"size {brief(size)} is out of range; {size_range}")
    seed = _integer("seed", request.seed, SEEDS)
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed {brief(seed)} is out of range; {SEEDS}")
    if not isinstance(request.prompt, str) or len(request.prompt) > MAX_PROMPT:
        raise UserError(
            f"the prompt {brief(request.prompt)} is not a text of at most {MAX_PROMPT} characters; shorten it"
        )
    if any("\ud800" <= c <= "\udfff" for c in request.prompt):
        raise UserError(f"the prompt {brief(request.prompt)} holds characters that are not text; type it again")
    steps = _integer("steps", request.steps, f"choose 1 to {MAX_STEPS}")
    if not 1 <= steps <= MAX_STEPS:
        raise UserError(f"steps {brief(steps)} is out of range; choose 1 to {MAX_STEPS}")
    guidance = request.guidance
    number = isinstance(guidance, (int, float)) and not isinstance(guidance, bool)
    if not number or not 1 <= guidance <= MAX_GUIDANCE:
        raise UserError(f"guidance {brief(guidance)} is no number in range; choose 1 (off) to {MAX_GUIDANCE:g}")
    refine = request.refine
    number = isinstance(refine, (int, float)) and not isinstance(refine, bool)
    if not number or not 0 < refine <= 1:
        raise UserError(f"refine is {brief(refine)}; choose a share of the steps, over 0 and up to 1")
    if not isinstance(request.aspect, str) or request.aspect not in ASPECTS:
        raise UserError(f"aspect {brief(request.aspect)} does not exist; choose {_choices(ASPECTS)}")
    methods = _methods(request.methods, methods_of(request.kind, request.base))
    return replace(
        request, scale=scale, size=size, seed=seed, methods=methods, prompt=request.prompt.strip(), steps=steps,
        guidance=float(guidance), refine=float(refine),
    )  # fmt: skip


def _methods(methods: object, known: Mapping[str, object]) -> tuple[str, ...]:
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise UserError(f"methods is {brief(methods)}; give a list of {_choices(known)}")
    result = tuple(dict.fromkeys(str(method) for method in methods))
    for method in result:
        if method in METHODS and METHODS[method].refines and method not in known:
            bases = _choices(key for key in BASES if can_refine(key))
            raise UserError(
                f"method {method} is for prompts and for bases that sample on from a latent: choose {bases}"
            )
        if method not in known:
            raise UserError(f"method {brief(method)} does not exist; choose from {_choices(known)}")
    if not result:
        raise UserError(f"no method is selected; choose from {_choices(known)}")
    return result


def _integer(name: str, value: object, way_out: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise UserError(f"{name} {brief(value)} is not a whole number; {way_out}")
    return int(value)


def _choices(keys: Iterable[object]) -> str:
    return ", ".join(map(str, keys))
