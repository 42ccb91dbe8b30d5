"""Plants drawn stroke by stroke: conifers and tufts of grass."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

_VARIANTS = 6


@lru_cache(maxsize=16)
def sprites(draw: Callable[[np.random.Generator, int], Image.Image], height: int) -> list[list[Image.Image]]:
    """Several plants, each as premultiplied RGBA images, halving from `height` pixels down, in a transparent border.

    Red is brightness, green the sideways tilt of the surface (128 faces the viewer), blue how far snow would lie, alpha
    the coverage.
    """
    found = []
    for variant in range(_VARIANTS):
        image = draw(np.random.Generator(np.random.PCG64(variant)), max(2 * height, 1024)).convert("RGBa")
        levels = []
        while image.height > 2 * height:
            image = image.reduce(2)
        while image.height > 8:
            image = image.reduce(2)
            levels.append(image)
        found.append(levels)
    return found


def conifer(rng: np.random.Generator, height: int) -> Image.Image:
    width = int(height * 0.6)
    image = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(image)
    trunk = 0.011 * height
    draw.polygon(
        [(width / 2 - trunk, height), (width / 2 + trunk, height), (width / 2, height * 0.03)], fill=(60, 128, 0, 255)
    )
    spread, bend, bare = rng.uniform(0.20, 0.28), rng.uniform(0.75, 1.0), rng.uniform(0.03, 0.10)
    strokes = []
    level = bare
    while level < 0.985:
        taper = (1 - level) ** bend
        for turn in rng.uniform(0, 2 * np.pi, rng.integers(5, 9)):
            length = spread * taper * rng.uniform(0.5, 1.15) + 0.001
            side, depth = np.cos(turn), np.sin(turn)
            droop = rng.uniform(0.15, 0.5) * length
            k = np.sort(rng.uniform(0.05, 1, int(8 + 170 * length)))
            angle = rng.normal(0, 0.9, k.size)
            leaf = (
                (0.004 + 0.006 * min(1.0, 5 * taper) + 0.05 * length) * (1.15 - 0.6 * k) * rng.uniform(0.6, 1.3, k.size)
            )
            x, y = side * length * k, level - droop * k**1.4 + depth * 0.06 * length
            dx, dy = leaf * (side * 0.6 + np.sin(angle) * 0.7), -leaf * (0.3 + 0.5 * np.abs(np.cos(angle)))
            order = depth + 0.3 * k + rng.normal(0, 0.1, k.size)
            shade = 62 + 50 * depth + 85 * k + rng.normal(0, 24, k.size)
            snow = 255 * (0.35 + 0.5 * k + 0.25 * order)
            strokes.append(np.stack([order, x, y, x + dx, y + dy, shade, 128 + 110 * side * (0.4 + 0.6 * k), snow], 1))
        level += rng.uniform(0.010, 0.022) * (1.3 - level)
    table = np.concatenate(strokes)
    _lines(draw, table[np.argsort(table[:, 0], kind="stable")][:, 1:], width, height, height // 400)
    return image


def tuft(rng: np.random.Generator, height: int) -> Image.Image:
    width = int(height * 1.4)
    image = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(image)
    rows = []
    for _ in range(46):
        root, lean, tall = rng.normal(0, 0.16), rng.normal(0, 0.26), rng.uniform(0.35, 0.95)
        shade = rng.uniform(90, 190)
        t = np.linspace(0, 1, 6)
        x, y = root + lean * t * t, tall * (t - 0.25 * t * t * abs(lean))
        for part in range(5):
            tip = t[part + 1]
            ends = [x[part], y[part], x[part + 1], y[part + 1]]
            rows.append([*ends, shade * (0.45 + 0.75 * tip), 128 + 300 * lean, 90 * tip])
    _lines(draw, np.array(rows), width, height, height // 90)
    return image


def _lines(draw: ImageDraw.ImageDraw, rows: np.ndarray, width: int, height: int, thick: int) -> None:
    points = np.stack(
        [
            width / 2 + rows[:, 0] * height,
            (1 - rows[:, 1]) * height,
            width / 2 + rows[:, 2] * height,
            (1 - rows[:, 3]) * height,
        ],
        1,
    )
    colours = np.clip(rows[:, 4:7], 4, 255).astype(int)
    for line, (red, green, blue) in zip(points.tolist(), colours.tolist(), strict=True):
        draw.line(line, fill=(red, green, blue, 255), width=thick)
