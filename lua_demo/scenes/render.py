"""From a scene to a picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lua_demo.scenes.scene import Scene
from lua_demo.scenes.sky import Sky
from lua_demo.scenes.surface import Surface
from lua_demo.scenes.terrain import TANGENT, Terrain
from lua_demo.scenes.trees import draw_grass, draw_trees
from lua_demo.scenes.view import View
from lua_demo.scenes.water import Water

_BLOCK = 16384  # points shaded at a time: their arrays stay in the cache
_PIXELS = 1 << 20  # that the tone curve is applied to at a time
_SUB = (-1 / 3, 0.0, 1 / 3)
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


def render(scene: Scene, size: int | tuple[int, int] = 512, check: Callable[[], None] = lambda: None) -> np.ndarray:
    """The picture of a scene, height x width x 3 uint8 sRGB.

    One ray per pixel, so the same scene at half the size is not quite this picture shrunk: 25 to 40 dB from it.

    Args:
        size: side of a square, or (width, height), in pixels. The height sets the scale: a wider picture shows more
            to the sides.
        check: called every few tenths of a second of work; may raise to stop it.
    """
    width, height = (size, size) if isinstance(size, int) else size
    return tone_map(radiance(scene, width, height, check), scene, check)


def radiance(scene: Scene, width: int, height: int, check: Callable[[], None] = lambda: None) -> np.ndarray:
    """Linear light, height x width x 3 float32. `check` as in `render`."""
    terrain, sky = Terrain(scene, check), Sky(scene)
    surface = Surface(scene, terrain, sky, cells=int(np.clip(0.7 * height, 128, 1400)))
    pixel = 2 * TANGENT / height
    # Dunes have the sharpest crests and the cheapest heights.
    steps = int(np.clip((2.4 if scene.kind == "dunes" else 1.15) * height, 160, 5000))
    top, left = TANGENT - terrain.horizon, -TANGENT * width / height
    mirror = None
    if terrain.water:
        margin = width // 8
        rows = int(
            np.ceil((2 * TANGENT - top + 0.22) / pixel)
        )  # up to the reflection at the foot of the picture, and waves beyond it
        back = View(terrain, width + 2 * margin, rows, left - margin * pixel, rows * pixel, pixel, steps, mirrored=True)
        picture, depth = _sample(back, surface, sky, None)
        if terrain.tree_height:
            draw_trees(picture, depth, back, surface)
        mirror = Water(surface, sky, back, picture)
    view = View(terrain, width, height, left, top, pixel, steps, mirrored=False)
    picture, depth = _sample(view, surface, sky, mirror)
    _smooth_edges(picture, depth, view, surface, sky, mirror)
    if terrain.tree_height:
        draw_trees(picture, depth, view, surface)
    if scene.ground == "grass" and scene.kind in ("mountains", "forest", "canyon"):
        draw_grass(picture, depth, view)
    return picture


def _sample(view: View, surface: Surface, sky: Sky, water: Water | None) -> tuple[np.ndarray, np.ndarray]:
    """One ray per pixel: radiance and depth."""
    (depth,) = view.hits()
    sx, slope = (a.ravel() for a in view.grid())
    # No stars in the mirror: broken up by waves they would be sparks.
    stars = (
        None
        if view.mirrored
        else sky.star_light(view.width, view.height, view.left, view.top, view.pixel).reshape(-1, 3)
    )
    surface.terrain.check()
    picture = _shade(sx, slope, depth, stars, view, surface, sky, water)
    shape = view.height, view.width
    return picture.reshape(*shape, 3), depth.reshape(shape)


def _shade(sx, slope, depth, stars, view, surface, sky, water) -> np.ndarray:
    out = np.empty((depth.size, 3), np.float32)
    empty = np.isinf(depth)
    for kind, points in enumerate((np.flatnonzero(~empty), np.flatnonzero(empty))):
        for start in range(0, points.size, _BLOCK):
            surface.terrain.check()
            at = points[start : start + _BLOCK]
            if kind == 1:
                out[at] = sky.radiance(sx[at], slope[at], view.pixel, None if stars is None else stars[at])
            elif view.mirrored:
                out[at] = surface.shade(sx[at], slope[at], depth[at], view.pixel)[0]
            else:
                out[at] = _ground(sx[at], slope[at], depth[at], view, surface, water)
    return out


def _ground(sx, slope, depth, view, surface, water) -> np.ndarray:
    if water is None:
        return surface.shade(sx, slope, depth, view.pixel)[0]
    out = np.empty((depth.size, 3), np.float32)
    level = np.abs(surface.terrain.eye + slope * depth) < 2e-4 * depth + 1e-3
    wet, dry = np.flatnonzero(level), np.flatnonzero(~level)
    if dry.size:
        out[dry] = surface.shade(sx[dry], slope[dry], depth[dry], view.pixel)[0]
    if wet.size:
        out[wet] = water.shade(sx[wet], slope[wet], depth[wet], view.pixel)
    return out


def _smooth_edges(picture, depth, view, surface, sky, water) -> None:
    """Nine rays instead of one where the depth jumps: only there does a pixel hold things that no filter blends."""
    near = np.where(np.isinf(depth), 0, 1 / depth)
    jump = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        bend = np.abs(np.diff(near, 2, axis=axis))
        middle = (slice(1, -1), slice(None)) if axis == 0 else (slice(None), slice(1, -1))
        jump[middle] |= bend > 0.035 * near[middle] + 1e-7 + 0.01 * np.maximum(near[middle], 1e-3)
    grown = jump.copy()
    grown[1:] |= jump[:-1]
    grown[:-1] |= jump[1:]
    grown[:, 1:] |= jump[:, :-1]
    grown[:, :-1] |= jump[:, 1:]
    where = np.flatnonzero(grown)
    if not where.size:
        return
    total = np.zeros((where.size, 3), np.float32)
    for dx in _SUB:
        for dy, hits in zip(_SUB, view.hits(dx, _SUB, where), strict=True):
            sx, slope = (a.ravel()[where] for a in view.grid(dx, dy))
            total += np.minimum(_shade(sx, slope, hits, None, view, surface, sky, water), 4.0)
    picture.reshape(-1, 3)[where] = total / 9


def tone_map(light: np.ndarray, scene: Scene, check: Callable[[], None]) -> np.ndarray:
    """Exposure, a filmic curve, sRGB, and noise of half a step against bands in gradients. `check` as in `render`."""
    height, width = light.shape[:2]
    rows = max(1, _PIXELS // width)
    blocks = [slice(top, top + rows) for top in range(0, height, rows)]
    logs, picture = np.empty((height, width), np.float32), np.empty(light.shape, np.uint8)
    for block in blocks:
        check()
        logs[block] = np.log(light[block] @ _LUMINANCE + 1e-3)
    gain = np.float32((Sky(scene).target / max(float(np.exp(np.mean(logs))), 1e-4)) ** 0.65)
    grain = np.random.Generator(np.random.PCG64(scene.seed)).random((height, width), np.float32)[..., None]
    for block in blocks:
        check()
        x = light[block] * gain
        # Narkowicz's fit of the ACES curve, on a mix of the channels with their luminance: bright colours bleach
        # instead of shifting in hue.
        x = 0.94 * x + 0.06 * (x @ _LUMINANCE)[..., None]
        x = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
        x = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.power(np.maximum(x, 1e-6), 1 / 2.4) - 0.055)
        picture[block] = np.clip(np.floor(x * 255 + grain[block]), 0, 255)
    return picture
