"""Upscale a diffusion model's latent (LUA) or its pixels (SwinIR), and compare."""

from lua_demo.networks.lua import LUA
from lua_demo.networks.swinir import SwinIR
from lua_demo.weights import load_lua, load_swinir

__all__ = ["LUA", "SwinIR", "load_lua", "load_swinir"]
__version__ = "0.1.0"
