"""What the ground looks like: shadow, material, light and the air in between."""

from __future__ import annotations

import numpy as np

from lua_demo.scenes.noise import lerp, smoothstep
from lua_demo.scenes.scene import Scene
from lua_demo.scenes.sky import Sky, linear
from lua_demo.scenes.terrain import FAR, NEAR, Terrain

_CASCADES = (20.0, 85.0, FAR)  # depth that each shadow map covers
_STRATA = [linear(c) for c in ("#7d5340", "#a86f50", "#c69a72", "#96614b", "#bd8660", "#6f4a3e", "#d6b08a", "#a5755a")]


Map = tuple[float, float, float, np.ndarray]
"""Half of the side, the side of a cell and the reach, in units of the scene; what `Shadows` keeps of each cell."""


class Shadows:
    """Soft shadows and ambient occlusion from height maps whose rows follow the sun.

    In a row, the edge of the shadow falls by tan(elevation) per unit of way: a running maximum finds it for all.
    """

    def __init__(self, terrain: Terrain, sky: Sky, cells: int):
        ux, uz = -sky.sun[0], -sky.sun[2]
        norm = float(np.hypot(ux, uz))
        self.along = (ux / norm, uz / norm)
        self.fall = float(sky.sun[1]) / norm
        self.maps: list[Map] = []
        # The widest first, so that each map knows what outside of it throws shadows into it.
        for reach in reversed(_CASCADES):
            self.maps.insert(0, self._map(terrain, reach, cells))

    def _map(self, terrain: Terrain, reach: float, cells: int) -> Map:
        ax, az = self.along
        half = 0.80 * reach
        step = 2 * half / cells
        k = ((np.arange(cells) + 0.5) * step - half).astype(np.float32)
        u, v = np.broadcast_to(k, (cells, cells)), np.broadcast_to(k[:, None], (cells, cells))
        x, z = u * np.float32(ax) - v * np.float32(az), u * np.float32(az) + v * np.float32(ax) + np.float32(reach / 2)
        z = np.maximum(z, np.float32(NEAR * 0.3)) if terrain.scene.kind != "dunes" else z
        height = np.empty_like(u)
        rows = max(1, 32768 // cells)
        for r in range(0, cells, rows):
            height[r : r + rows] = terrain.shadow_caster(x[r : r + rows], z[r : r + rows], np.float32(step))
        ground = np.maximum(height, 0) if terrain.water else height
        lifted = ground + np.arange(cells, dtype=np.float32) * np.float32(step * self.fall)
        before = np.zeros((cells, 1), np.float32)
        if self.maps:
            outer, way, _ = self.sample(x[:, 0], z[:, 0])
            lifted[:, 0] = np.maximum(lifted[:, 0], outer)
            before = np.where(outer > ground[:, 0], way / np.float32(step), 0)[:, None]
        top = np.maximum.accumulate(lifted, 1)
        caster = np.maximum.accumulate(np.where(lifted >= top, np.arange(cells), 0), 1)
        caster = np.where(caster == 0, -before, caster)
        edge = np.concatenate([np.full((cells, 2), -99, np.float32), top[:, :-2]], 1)
        edge = edge - np.arange(cells, dtype=np.float32) * np.float32(step * self.fall)
        way = (np.arange(cells) - caster).astype(np.float32) * np.float32(step)
        around = _blur(ground, 4) * 0.5 + _blur(ground, 12) * 0.5
        return half, step, reach, np.stack([edge, way + np.float32(12 * step * self.fall), around], -1)

    def sample(self, x, z):
        """Height of the shadow's edge, distance to what throws the shadow, mean height around: arrays like x."""
        out = np.zeros((*x.shape, 3), np.float32)
        ax, az = (np.float32(a) for a in self.along)
        previous = 0.0
        for half, step, reach, table in self.maps:
            # Each map is used in the depths that no finer one covers; the noise of the ground hides the seam.
            chosen = (z >= previous * 0.92) & (z < reach * 0.92) if reach < FAR else z >= previous * 0.92
            previous = reach
            if not chosen.any():
                continue
            px, pz = x[chosen], z[chosen] - np.float32(reach / 2)
            u, v = (px * ax + pz * az + half) / step - 0.5, (pz * ax - px * az + half) / step - 0.5
            n = table.shape[0]
            u, v = np.clip(u, 0, n - 1.001), np.clip(v, 0, n - 1.001)
            i, j = u.astype(np.int32), v.astype(np.int32)
            fu, fv = (u - i)[:, None], (v - j)[:, None]
            flat = table.reshape(-1, 3)
            at = j * n + i
            top = flat[at] * (1 - fu) + flat[at + 1] * fu
            out[chosen] = top * (1 - fv) + (flat[at + n] * (1 - fu) + flat[at + n + 1] * fu) * fv
        return out[..., 0], out[..., 1], out[..., 2]


def _blur(a: np.ndarray, radius: int) -> np.ndarray:
    for axis in (0, 1):
        pad = [(radius + 1, radius) if k == axis else (0, 0) for k in (0, 1)]
        total = np.cumsum(np.pad(a.astype(np.float64), pad, mode="edge"), axis)
        n = total.shape[axis]
        high, low = np.take(total, range(2 * radius + 1, n), axis), np.take(total, range(0, n - 2 * radius - 1), axis)
        a = (high - low) / (2 * radius + 1)
    return a.astype(np.float32)


class Surface:
    """Colours of the land of one scene."""

    def __init__(self, scene: Scene, terrain: Terrain, sky: Sky, cells: int):
        self.scene, self.terrain, self.sky, self.noise = scene, terrain, sky, terrain.noise
        self.shadows = Shadows(terrain, sky, cells)
        thin = {"clear": 0.0016, "clouds": 0.0020, "fog": 0.0034}[scene.sky] * {
            "noon": 0.8,
            "dawn": 1.3,
            "sunset": 1.1,
            "night": 1.0,
        }[scene.time]
        # (density at the ground, height by which it falls to 1/e)
        self.layers = [(thin, 70.0)]
        if scene.sky == "fog":
            self.layers.append((0.011, {"forest": 5.0, "mountains": 6.0, "lake": 3.5}.get(scene.kind, 4.0)))
        elif scene.time == "dawn":
            self.layers.append((0.007, 3.5))

    def light(self, x, y, z):
        """Shares of sunlight (N) and of sky light (N) that reach the points."""
        edge, way, around = self.shadows.sample(x, z)
        soft = 0.02 + 0.035 * way + 0.0015 * z
        return smoothstep(-1, 1, (y - edge) / soft), np.clip(1 - 0.55 * (around - y) / (0.35 + 0.03 * z), 0.35, 1.1)

    def veil(self, colour, sx, slope, z, y):
        """The colour after the air between it and the viewer."""
        eye = np.float32(self.terrain.eye)
        depth = np.zeros_like(z)
        length = z * np.sqrt(1 + sx * sx + slope * slope)
        for density, fall in self.layers:
            low, high = np.minimum(y, eye) / fall, np.maximum(y, eye) / fall
            span = np.maximum(high - low, 1e-3)
            mean = (np.exp(-np.maximum(low, -2)) - np.exp(-np.maximum(low, -2) - span)) / span
            if fall < 10:
                x = sx * z
                mean = mean * (1 + 0.55 * self.noise.fbm(x, z, 30, 4, z * 0.01, 0.5, 11))
            depth += density * length * mean
        clear = np.exp(-depth)[:, None]
        air = self.sky.air(sx, slope * 0.6 + 0.02)
        return colour * clear + air * (0.92 * (1 - clear))

    def shade(self, sx, slope, z, pixel):
        """Radiance N x 3 of the land at depth z along (sx, slope, 1), seen through the air, and its height N."""
        x = sx * z
        y = np.float32(self.terrain.eye) + slope * z
        fp = z * np.float32(pixel)
        height, gx, gz = self._slopes(x, z, fp)
        inverse = 1 / np.sqrt(gx * gx + gz * gz + 1)
        sun = self.sky.sun
        facing = (sun[1] - gx * sun[0] - gz * sun[2]) * inverse
        albedo, soft = self._material(x, height, z, gx, gz, inverse, fp)
        lit, open_sky = self.light(x, height, z)
        direct = np.clip((facing + soft) / (1 + soft), 0, 1) * lit
        up = 0.5 + 0.5 * inverse
        light = self.sky.sunlight * direct[:, None] + self.sky.ambient * (up * open_sky)[:, None]
        light += self.sky.sunlight * (0.09 * (1 - up) * open_sky)[:, None]
        return self.veil(albedo * light, sx, slope, z, y), height

    def _slopes(self, x, z, fp):
        step = fp * np.float32(0.9)
        height = self.terrain.height(x, z, fp)
        gx = (self.terrain.height(x + step, z, fp) - height) / step
        gz = (self.terrain.height(x, z + step, fp) - height) / step
        return height, gx, gz

    def _material(self, x, y, z, gx, gz, flat, fp):
        """Albedo N x 3 and how far light wraps round (snow, sand)."""
        n, kind, ground = self.noise, self.scene.kind, self.scene.ground
        patch = n.fbm(x, z, 7, 6, fp, 0.6, 20)
        grain = n.fbm(x, z, 0.35, 9, fp, 0.62, 21)
        if kind == "canyon":
            rock = self._strata(x, y, z, grain, fp)
        else:
            rock = _mix("#54493f", "#a3978a", 0.5 + 0.35 * patch + 0.30 * grain)
            bands = n.value(y * 1.3 + 0.8 * patch, y * 0 + 5)
            rock = rock * (1 + 0.22 * bands)[:, None]
        tilt = flat + 0.10 * grain + 0.06 * patch
        if ground == "snow":
            cover, soft = _mix("#d9e2ee", "#fbfcff", 0.5 + 0.4 * grain + 0.2 * patch) * np.float32(0.9), 0.10
            bare = 1 - smoothstep(0.62, 0.74, tilt)
        elif ground == "grass":
            dry = 0.5 + 0.45 * patch + 0.35 * grain
            cover, soft = (
                lerp(_mix("#2c4219", "#717d38", dry), linear("#a3935a"), (0.6 * smoothstep(0.45, 1.2, dry))[:, None]),
                0.05,
            )
            bare = 1 - smoothstep(0.68, 0.80, tilt)
        elif ground == "sand":
            cover, soft = _mix("#c08a52", "#ecc48a", 0.55 + 0.22 * patch + 0.14 * grain), 0.06
            bare = 1 - smoothstep(0.60, 0.72, tilt)
        else:
            cover, soft = _mix("#5d5247", "#a89a88", 0.5 + 0.35 * patch + 0.45 * grain), 0.0
            bare = 1 - smoothstep(0.70, 0.82, tilt)
        if kind == "dunes":
            bare = bare * 0
        if ground in ("sand", "snow"):
            # Single grains, as far as a pixel resolves them.
            specks = n.fbm(x, z, 0.035, 5, fp, 0.75, 26)
            cover = cover * (1 + (0.10 if ground == "sand" else 0.04) * specks)[:, None]
        if kind == "sea":
            beach = 1 - smoothstep(0.25, 0.8, y + 0.25 * patch)
            sand = _mix("#a98d62", "#dcc79c", 0.5 + 0.3 * grain) * (0.45 + 0.55 * smoothstep(0.02, 0.2, y))[:, None]
            if ground != "snow":
                cover = lerp(cover, sand, beach[:, None])
            else:
                cover = lerp(cover, rock * 0.6, (1 - smoothstep(0.1, 0.3, y))[:, None])
        if kind in ("mountains", "lake") and ground in ("grass", "rock"):
            line = smoothstep(0.50, 0.72, y / self.terrain.reach + 0.10 * patch)
            snow = smoothstep(0.60, 0.75, tilt) * line
            rocky = smoothstep(0.30, 0.55, y / self.terrain.reach + 0.12 * patch)
            bare = np.maximum(bare, rocky)
            albedo = lerp(cover, rock, bare[:, None])
            return lerp(albedo, np.float32(0.86), snow[:, None]), soft
        if kind == "lake":
            wet = 1 - smoothstep(0.0, 0.25, y)
            cover, rock = lerp(cover, linear("#57503f"), wet[:, None] * 0.8), rock * (1 - 0.4 * wet)[:, None]
        return lerp(cover, rock, bare[:, None]), soft

    def _strata(self, x, y, z, grain, fp):
        warp = 0.35 * self.noise.fbm(x, z, 12, 4, fp, 0.5, 23)
        level = (y + warp) * 1.15 + 40
        below = np.floor(level)
        t = smoothstep(0.30, 0.70, level - below)
        table = np.stack(_STRATA)
        i = below.astype(np.int32)
        pick = (i * 7 + self.scene.seed) % 8
        colour = lerp(table[pick], table[((i + 1) * 7 + self.scene.seed) % 8], t[:, None])
        fine = self.noise.fbm(level * 5.2, x * 0.05, 1.0, 5, fp * 5.2, 0.65, 24)
        streak = self.noise.fbm(x, z, 0.9, 7, fp, 0.6, 25)
        return colour * np.clip(1 + 0.26 * fine + 0.20 * streak + 0.15 * grain, 0.3, 1.8)[:, None]


def _mix(a: str, b: str, t: np.ndarray) -> np.ndarray:
    return lerp(linear(a), linear(b), np.clip(t, 0, 1)[:, None])
