"""Requests from outside: the page, the API and the CLI are refused in the same words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lua_demo.catalog import LATENT_SPACES, MAX_SIZE, METHODS, MIN_SIZE
from lua_demo.schema import Request, UserError


def validated(request: Request) -> Request:
    """`request` with plain ints and a tuple of distinct methods; UserError for the first value that cannot be run."""
    if not isinstance(request.image, (str, Path)) or not str(request.image):
        raise UserError(f"image is {request.image!r}; give the path of a photo")
    if not isinstance(request.space, str) or request.space not in LATENT_SPACES:
        raise UserError(f"latent space {request.space!r} does not exist; choose {_choices(LATENT_SPACES)}")
    scales = LATENT_SPACES[request.space].scales
    scale = _integer("scale", request.scale, f"choose {_choices(scales)}")
    if scale not in scales:
        raise UserError(f"scale {scale} does not exist in this latent space; choose {_choices(scales)}")
    size_range = f"choose a base size from {MIN_SIZE} to {MAX_SIZE} pixels"
    size = _integer("size", request.size, size_range)
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(f"size {size} is out of range; {size_range}")
    seed = _integer("seed", request.seed, "choose a whole number from 0 to 2**63 - 1")
    if not 0 <= seed < 2**63:
        raise UserError(f"seed {seed} is out of range; choose a whole number from 0 to 2**63 - 1")
    methods = _methods(request.methods)
    return replace(request, image=str(request.image), scale=scale, size=size, seed=seed, methods=methods)


def _methods(methods: Any) -> tuple[str, ...]:
    if isinstance(methods, str) or not isinstance(methods, Iterable):
        raise UserError(f"methods is {methods!r}; give a list of {_choices(METHODS)}")
    result = tuple(dict.fromkeys(str(method) for method in methods))
    for method in result:
        if method not in METHODS:
            raise UserError(f"method {method!r} does not exist; choose from {_choices(METHODS)}")
    if not result:
        raise UserError(f"no method is selected; choose from {_choices(METHODS)}")
    return result


def _integer(name: str, value: Any, way_out: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise UserError(f"{name} {value!r} is not a whole number; {way_out}")
    return int(value)


def _choices(keys: Iterable[Any]) -> str:
    return ", ".join(map(str, keys))
