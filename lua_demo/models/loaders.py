"""How the network of a role is loaded: shipped weights, published ones, and upscalers without weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from lua_demo.catalog.spaces import AUTOENCODER, GENERATOR, LUA, SWINIR, SWINIR_OFFICIAL
from lua_demo.models.generators import load_generator
from lua_demo.models.lua import Found, find_lua
from lua_demo.models.pixel_upscalers import load_official_swinir
from lua_demo.models.upscalers import Upscaler, bicubic
from lua_demo.models.vaes import VAE
from lua_demo.models.weights import load_autoencoder, load_lua, load_swinir

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
