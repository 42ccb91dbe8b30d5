"""How each kind of upscaler is loaded, and where its weights come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lua_demo.catalog.spaces import SPACES
from lua_demo.catalog.upscalers import Upscaler
from lua_demo.models.download import download
from lua_demo.models.lua import find_lua, lua_source
from lua_demo.models.pixel_upscalers import load_pixel_upscaler
from lua_demo.models.sesqui import load_sesqui
from lua_demo.models.upscaler_files import read_upscaler
from lua_demo.models.upscalers import Found, bicubic
from lua_demo.models.weights import load_cnn
from lua_demo.paths import WEIGHTS_DIR

Loader = Callable[[Upscaler, str, Path], Found]
"""(row, key of the latent space, folder of all weights) -> the upscaler; UserError where it cannot be loaded."""


def _lua(row: Upscaler, space: str, weights: Path) -> Found:
    return find_lua(space, weights)


def _pixels(row: Upscaler, space: str, weights: Path) -> Found:
    note = row.note if weights == WEIGHTS_DIR else ""
    return Found(load_pixel_upscaler(row, weights), source_of(row, space, weights), note)


def _cnn(row: Upscaler, space: str, weights: Path) -> Found:
    folder = weights / row.folder
    return Found(load_cnn(folder), folder)


def _bicubic(row: Upscaler, space: str, weights: Path) -> Found:
    return Found(bicubic)


def _spandrel(row: Upscaler, space: str, weights: Path) -> Found:
    files = [Path(row.own)] if row.own else [download(file) for file in row.files.values()]
    return Found(read_upscaler(*files), files[0])


def _sesqui(row: Upscaler, space: str, weights: Path) -> Found:
    file = download(row.by_space[space])
    return Found(load_sesqui(file, space, SPACES[space].channels), file)


LOADERS: dict[str, Loader] = {
    "lua": _lua,
    "swinir": _pixels,
    "cnn": _cnn,
    "bicubic": _bicubic,
    "spandrel": _spandrel,
    "sesqui": _sesqui,
}


def source_of(row: Upscaler, space: str, weights: Path, scale: int | None = None) -> str | Path:
    """Where the weights of `row` come from: a folder, a file (of `scale`, or of any), a hub id; empty without weights.

    Raises:
        UserError: nobody has published or trained them for that space.
    """
    if row.folder:
        return weights / row.folder
    if row.own:
        return Path(row.own)
    if space in row.by_space:
        return row.by_space[space].path
    if row.files:
        return row.files.get(scale or 0, next(iter(row.files.values()))).path
    return lua_source(space, weights) if row.kind == "lua" else ""
