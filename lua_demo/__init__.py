"""Upscale a diffusion model's latent (LUA) or its pixels (SwinIR), and compare.

The names below are loaded when they are first used: `import lua_demo` alone imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lua_demo.catalog.families import unpack as unpack
    from lua_demo.models.lua import find_lua as find_lua
    from lua_demo.models.weights import load_lua as load_lua
    from lua_demo.models.weights import load_swinir as load_swinir
    from lua_demo.networks.lua import LUA as LUA
    from lua_demo.networks.swinir import SwinIR as SwinIR
    from lua_demo.pictures.latent_check import outside as outside
    from lua_demo.pictures.latent_check import soft_bound as soft_bound
    from lua_demo.pictures.latents import load_latent as load_latent
    from lua_demo.pictures.latents import save_latent as save_latent
    from lua_demo.runs.votes import Ballots as Ballots
    from lua_demo.runs.votes import tally as tally

__version__ = "0.1.0"

_HOMES = {
    "Ballots": "runs.votes",
    "LUA": "networks.lua",
    "SwinIR": "networks.swinir",
    "find_lua": "models.lua",
    "load_latent": "pictures.latents",
    "load_lua": "models.weights",
    "load_swinir": "models.weights",
    "outside": "pictures.latent_check",
    "save_latent": "pictures.latents",
    "soft_bound": "pictures.latent_check",
    "tally": "runs.votes",
    "unpack": "catalog.families",
}
"""Public name -> the module that defines it."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
