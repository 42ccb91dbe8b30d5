"""Procedural landscapes at any resolution, with captions."""

from lua_demo.scenes.render import render
from lua_demo.scenes.scene import Scene, captions, sample_scene

__all__ = ["Scene", "captions", "render", "sample_scene"]
