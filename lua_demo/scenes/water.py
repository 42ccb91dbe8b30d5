"""Water: reflection, transmission, and waves that disturb both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lua_demo.scenes.noise import lerp, smoothstep
from lua_demo.scenes.sky import Sky, linear
from lua_demo.scenes.surface import Surface
from lua_demo.scenes.view import View

_PIXELS = 1 << 20  # blurred at a time


class Water:
    """The water of one scene; `picture` is what the mirrored view sees."""

    def __init__(self, surface: Surface, sky: Sky, view: View, picture: np.ndarray):
        self.surface, self.sky, self.view = surface, sky, view
        self.sea = surface.scene.kind == "sea"
        sharp = np.minimum(picture, 6.0)
        self.levels = [sharp]
        for part in (90, 22):
            self.levels.append(_tall_blur(sharp, view.height // part + 1, view.terrain.check))
        self.deep = linear("#0a3446" if self.sea else "#122a2c")

    def _waves(self, x, z, fp_x, fp_z):
        """Slopes (by x, by z) of the waves that a pixel resolves, and the deviation of those that it does not."""
        n = self.surface.noise
        fp = np.sqrt(fp_x * fp_z) * np.float32(1.3)
        ruffled = 0.5 + 0.5 * np.clip(1.6 * n.fbm(x * 0.4, z, 16, 3, fp, 0.5, 30), -1, 1)
        if self.sea:
            gx, gz = n.gradient(x * 0.7, z, 3.2, 11, fp * 0.8, 0.47, 31)
            strength = 0.13 * (0.65 + 0.35 * ruffled)
        else:
            gx, gz = n.gradient(x * 0.5, z, 1.1, 9, fp * 0.8, 0.45, 31)
            strength = 0.0035 + 0.016 * ruffled * ruffled
        lost = strength * np.clip(0.30 + 0.35 * np.log2(1 + fp * (0.8 if self.sea else 2.0)), 0, 1.3)
        return gx * strength, gz * strength, lost

    def _mirror(self, sx, slope, blur):
        v = self.view
        c = np.clip((sx - v.left) / v.pixel - 0.5, 0, v.width - 1.001)
        r = np.clip((v.top - slope) / v.pixel - 0.5, 0, v.height - 1.001)
        i, j = c.astype(np.int32), r.astype(np.int32)
        fx, fy = (c - i)[:, None], (r - j)[:, None]
        at = j * v.width + i
        out = []
        for level in self.levels:
            flat = level.reshape(-1, 3)
            top = flat[at] * (1 - fx) + flat[at + 1] * fx
            out.append(top * (1 - fy) + (flat[at + v.width] * (1 - fx) + flat[at + v.width + 1] * fx) * fy)
        t = np.clip(blur, 0, 2)[:, None]
        return np.where(t < 1, lerp(out[0], out[1], t), lerp(out[1], out[2], t - 1))

    def shade(self, sx, slope, z, pixel):
        """Radiance N x 3 of the water at depth z along (sx, slope, 1)."""
        x, eye = sx * z, np.float32(self.surface.terrain.eye)
        fp = z * np.float32(pixel)
        far = np.minimum(z, 4000)
        gx, gz, lost = self._waves(x, z, fp, fp * np.maximum(far / eye, 1))
        norm = 1 / np.sqrt(sx * sx + slope * slope + 1)
        inverse = 1 / np.sqrt(gx * gx + gz * gz + 1)
        dot = (
            (slope - sx * gx - gz) * norm * inverse
        )  # of the ray with the normal (-gx, 1, -gz); negative: seen from above
        cosine = np.clip(-dot, 0.02, 1)
        rx = sx * norm + 2 * cosine * inverse * -gx
        ry = slope * norm + 2 * cosine * inverse
        rz = 1 * norm + 2 * cosine * inverse * -gz
        rz = np.maximum(rz, 0.15)
        up = np.abs(ry / rz) + 0.9 * lost
        mirrored = self._mirror(rx / rz, up, lost * (14 if self.sea else 10))
        # Rough water seen at a low angle mirrors less than flat water: the facets that face the viewer are steep.
        fresnel = 0.02 + 0.98 * (1 - np.clip(cosine + 0.45 * lost, 0, 1)) ** 5
        height = self.surface.terrain.height(x, z, np.minimum(fp, 4.0))
        depth = np.clip(-height, 0, 6)
        lit, _ = self.surface.light(x, np.zeros_like(x), np.minimum(z, 400))
        light = self.sky.ambient + self.sky.sunlight * (0.35 * lit)[:, None]
        ground = linear("#c9b68a") if self.sea else linear("#5c5540")
        absorb = np.exp(-depth[:, None] * np.array([1.9, 0.62, 0.48], np.float32) * (1.0 if self.sea else 2.2))
        body = (self.deep * (1 - absorb) + ground * 0.8 * absorb) * light
        colour = body * (1 - fresnel)[:, None] + mirrored * fresnel[:, None]
        colour += self._glitter(sx, slope, norm, gx, gz, lost, lit)
        if self.sea:
            colour = self._foam(colour, x, z, gx, gz, fp, height, light)
        edge = smoothstep(-0.02, 0.0, height)
        colour = colour * (1 - 0.35 * edge)[:, None]
        return self.surface.veil(colour, sx, slope, np.minimum(z, 3000), np.zeros_like(z))

    def _glitter(self, sx, slope, norm, gx, gz, lost, lit):
        """The glitter under the sun: light from the facets, resolved or not, that reflect it to the viewer."""
        if self.sky.dark:
            return np.float32(0)
        sun = self.sky.sun
        hx, hy, hz = sun[0] - sx * norm, sun[1] - slope * norm, sun[2] - norm
        hy = np.maximum(hy, 1e-3)
        off = ((-hx / hy) - gx) ** 2 + ((-hz / hy) - gz) ** 2
        spread = 2 * (lost * 0.75 + (0.020 if self.sea else 0.010)) ** 2
        power = np.minimum(np.exp(-off / spread) * 0.022 / spread, 6.0) * lit
        return self.sky.sunlight * power[:, None]

    def _foam(self, colour, x, z, gx, gz, fp, height, light):
        n = self.surface.noise
        torn = n.fbm(x, z, 0.5, 8, fp, 0.62, 33)
        lap = np.exp(-((height + 0.10 + 0.07 * torn) ** 2) / 0.006) + 0.5 * np.exp(
            -((height + 0.45 + 0.2 * torn) ** 2) / 0.02
        )
        crest = smoothstep(0.16, 0.34, -gz + 0.10 * torn - 0.02 + 0.06 * n.value(x / 9, z / 9)) * smoothstep(
            -0.2, 0.5, torn
        )
        foam = np.clip(lap * smoothstep(-0.5, 0.4, torn) + 0.45 * crest, 0, 0.9)
        return lerp(colour, light * 0.72, foam[:, None])


def _tall_blur(picture: np.ndarray, radius: int, check: Callable[[], None]) -> np.ndarray:
    """Box blur over rows, and a third as wide over columns. `check` as in `render`."""
    for axis, r in ((0, radius), (1, max(1, radius // 3))):
        across, blurred = 1 - axis, np.empty_like(picture)
        lines = max(1, _PIXELS // picture.shape[axis])
        for first in range(0, picture.shape[across], lines):
            check()
            block = tuple(slice(first, first + lines) if k == across else slice(None) for k in (0, 1))
            pad = [(r + 1, r) if k == axis else (0, 0) for k in range(3)]
            total = np.cumsum(np.pad(picture[block], pad, mode="edge"), axis)
            n = total.shape[axis]
            high, low = np.take(total, range(2 * r + 1, n), axis), np.take(total, range(0, n - 2 * r - 1), axis)
            blurred[block] = (high - low) / (2 * r + 1)
        picture = blurred
    return picture
