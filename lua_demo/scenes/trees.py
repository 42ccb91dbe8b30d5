"""Trees and grass, set out over the land."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lua_demo.scenes.noise import lerp
from lua_demo.scenes.sky import linear
from lua_demo.scenes.sprites import conifer, sprites, tuft
from lua_demo.scenes.surface import Surface
from lua_demo.scenes.view import View

# Distance up to which plants are drawn, in multiples of their height; the size of the picture does not matter.
_TREE_REACH, _GRASS_REACH, _GRASS = 60.0, 50.0, 0.24


def _cells(view: View, cell: float, near: float, far: float) -> tuple[np.ndarray, np.ndarray]:
    """The cells of a square lattice that can be seen between two depths."""
    half = max(abs(view.left), abs(view.left + view.width * view.pixel)) * 1.05
    j = np.arange(int(near / cell), int(far / cell))
    i = np.arange(-int(half * far / cell) - 2, int(half * far / cell) + 3)
    jj, ii = (a.ravel() for a in np.meshgrid(j, i, indexing="ij"))
    inside = np.abs(ii) <= half * (jj + 1) + 2
    return ii[inside], jj[inside]


def draw_trees(picture: np.ndarray, depth: np.ndarray, view: View, surface: Surface) -> None:
    """Draw the trees of the scene into the picture (linear light, height x width x 3), far ones first."""
    terrain, sky = view.terrain, surface.sky
    reach = _TREE_REACH * terrain.tree_height
    x, z, tall, pick = terrain.trees(*_cells(view, terrain.tree_cell, 2, reach))
    keep = np.flatnonzero(tall > 0)
    keep = keep[np.argsort(-z[keep], kind="stable")]
    x, z, tall, pick = x[keep], z[keep], tall[keep], pick[keep]
    if not x.size:
        return
    ground = terrain.height(x, z, z * np.float32(view.pixel))
    lit, _ = surface.light(x, ground + 0.6 * tall, z)
    sx, middle = x / z, (ground + 0.5 * tall - view.eye) / z
    black = surface.veil(np.zeros((x.size, 3), np.float32), sx, middle, z, ground + 0.5 * tall)
    clear = surface.veil(np.ones((x.size, 3), np.float32), sx, middle, z, ground + 0.5 * tall) - black
    warm = (pick * 613 % 1)[:, None].astype(np.float32)
    needles = lerp(linear("#2a4a2a"), linear("#66703a"), warm**2)
    snowy = surface.scene.ground == "snow"
    right, front = sky.sun[0], -sky.sun[2]

    def paint(k):
        def colour(tone, side, top):
            direct = np.clip(0.40 + 0.60 * (side * right + 0.55 * front), 0.04, 1)
            # Needles let light through: against the sun their edges glow.
            direct = direct + max(0.0, -float(front)) * 0.35 * tone
            albedo = needles[k] * (0.15 + 1.6 * tone)
            if snowy:
                lying = np.clip(top * 2.0 - 0.95, 0, 1)
                albedo = albedo * (1 - lying) + (0.3 + 0.6 * tone) * lying
            return (
                albedo * (sky.sunlight * (lit[k] * direct) + sky.ambient * (0.45 + 0.65 * tone)) * clear[k] + black[k]
            )

        return colour

    _plant(
        picture,
        depth,
        view,
        conifer,
        x,
        z,
        ground - 0.03 * tall,
        tall,
        pick,
        np.clip((reach - z) / (0.25 * reach), 0, 1),
        paint,
    )


def draw_grass(picture: np.ndarray, depth: np.ndarray, view: View) -> None:
    """Draw tufts of grass in the foreground, in the colour of the ground that they stand on."""
    terrain, n = view.terrain, view.terrain.noise
    cell, reach = 0.19, _GRASS * _GRASS_REACH
    i, j = _cells(view, cell, 1.5, reach)
    x = ((i + n.hash(i, j, 11)) * cell).astype(np.float32)
    z = ((j + n.hash(i, j, 12)) * cell).astype(np.float32)
    pick, thin = n.hash(i, j, 13), n.hash(i, j, 14)
    fp = z * np.float32(view.pixel)
    ground = terrain.height(x, z, fp)
    steep = np.abs(terrain.height(x + 0.05, z, fp) - ground) + np.abs(terrain.height(x, z + 0.05, fp) - ground)
    density = 0.62 + 0.5 * n.fbm(x, z, 2.2, 3, 0.05, 0.5, 15)
    column, row = (x / z - view.left) / view.pixel, (view.top - (ground - view.eye) / z) / view.pixel
    keep = (
        (density > thin)
        & (steep < 0.06)
        & (column >= 0)
        & (column < view.width)
        & (row >= 0)
        & (row < view.height * 1.1)
        & (ground > 0.05 * terrain.water)
    )
    keep = np.flatnonzero(keep & (terrain.stones(x, z, fp) < 0.01))
    keep = keep[np.argsort(-z[keep], kind="stable")]
    rows = np.clip(row[keep], 0, view.height - 1).astype(int)
    base = picture[rows, column[keep].astype(int)]

    def paint(k):
        return lambda tone, side, top: base[k] * (0.30 + 1.25 * tone)

    x, z, ground, pick = x[keep], z[keep], ground[keep], pick[keep]
    tall = np.float32(_GRASS) * (0.5 + 0.8 * density[keep]) * (0.6 + 0.7 * pick)
    _plant(
        picture, depth, view, tuft, x, z, ground - 0.03, tall, pick, np.clip((reach - z) / (0.35 * reach), 0, 1), paint
    )


def _plant(picture, depth, view, draw, x, z, foot, tall, pick, opacity, paint) -> None:
    column = (x / z - view.left) / view.pixel
    row = (view.top - (foot - view.eye) / z) / view.pixel
    size = tall / z / view.pixel
    if not x.size:
        return
    forms = sprites(draw, int(2 ** np.ceil(np.log2(np.clip(size.max(), 32, 1024)))))
    front = z - 0.4 * tall
    for k in range(x.size):
        view.terrain.check()
        _stamp(
            picture,
            depth,
            forms[int(pick[k] * 977) % len(forms)],
            column[k],
            row[k],
            size[k],
            front[k],
            float(opacity[k]),
            paint(k),
        )


def _stamp(picture, depth, levels, column, row, size, z, opacity, colour) -> None:
    """Paint one plant whose foot stands at (column, row) and that is `size` pixels tall."""
    level = levels[0]
    for smaller in levels[1:]:
        if smaller.height < 1.4 * size:
            break
        level = smaller
    scale = level.height / size
    left, top = column - 0.5 * level.width / scale, row - size
    height, width = depth.shape
    # Whole pixels inside the sprite: its border is empty, so nothing is lost.
    c0, c1 = max(int(np.ceil(left)), 0), min(int(np.floor(column + 0.5 * level.width / scale)), width)
    r0, r1 = max(int(np.ceil(top)), 0), min(int(np.floor(row)), height)
    if c0 >= c1 or r0 >= r1:
        return
    seen = depth[r0:r1, c0:c1] > z
    if not seen.any():
        return
    box = (
        (c0 - left) * scale,
        (r0 - top) * scale,
        min((c1 - left) * scale, level.width),
        min((r1 - top) * scale, level.height),
    )
    patch = level.resize((c1 - c0, r1 - r0), Image.Resampling.BOX if scale > 1 else Image.Resampling.BILINEAR, box=box)
    patch = np.asarray(patch, np.float32) * np.float32(1 / 255)
    alpha = patch[..., 3:]
    tone, side, lying = (patch[..., k : k + 1] / np.maximum(alpha, 1e-3) for k in range(3))
    alpha = alpha * (seen * np.float32(opacity))[..., None]
    target = picture[r0:r1, c0:c1]
    target += alpha * (colour(tone, side * 2 - 1, lying) - target)
