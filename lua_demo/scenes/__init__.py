"""Procedural landscapes at any resolution, with captions."""

from lua_demo.scenes.cli import main
from lua_demo.scenes.render import render
from lua_demo.scenes.scene import Scene, captions, sample_scene

__all__ = ["Scene", "captions", "main", "render", "sample_scene"]
