"""Seeded lattice noise with analytic derivatives, filtered to the pixel.

Every sum of octaves takes a `footprint`: the size of a pixel on the surface, in the units of x and y. Octaves finer
than it fade out, so a larger render of the same scene gains octaves and nothing else changes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SIDE = 128
# Doubling with a rotation by atan(3/4): the lattice directions of two octaves never line up, so no grid shows.
TURN = (1.6, 1.2)


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def lerp(a, b, t):
    return a + (b - a) * t


@lru_cache(maxsize=4)
def _tables(seed: int) -> tuple[np.ndarray, ...]:
    a = np.random.Generator(np.random.PCG64(seed)).uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)
    b, c = np.roll(a, -1, 1), np.roll(a, -1, 0)
    d = np.roll(b, -1, 0)
    return tuple(np.ascontiguousarray(t).ravel() for t in (a, b - a, c - a, a - b - c + d))


class Noise:
    """Value noise on a seeded 128 x 128 lattice of cells of side 1, quintic interpolation, values in [-1, 1].

    All arguments and results are float32 arrays of one shape.
    """

    def __init__(self, seed: int):
        self.tables = _tables(seed)

    def _cell(self, x: np.ndarray, y: np.ndarray):
        i, j = np.floor(x), np.floor(y)
        index = ((j.astype(np.int32) & (SIDE - 1)) << 7) | (i.astype(np.int32) & (SIDE - 1))
        return index.astype(np.intp), x - i, y - j

    def _corners(self, index: np.ndarray) -> list[np.ndarray]:
        # "clip" skips the bounds check: twice as fast, and no index is out of bounds.
        return [t.take(index, mode="clip") for t in self.tables]

    def hash(self, i: np.ndarray, j: np.ndarray, salt: int = 0) -> np.ndarray:
        """A random number in [0, 1] per integer cell (i, j)."""
        index = (((j + 57 * salt) & (SIDE - 1)) << 7) | ((i + 101 * salt) & (SIDE - 1))
        return self.tables[0][index] * np.float32(0.5) + np.float32(0.5)

    def value(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        index, fx, fy = self._cell(x, y)
        u = fx * fx * fx * (fx * (fx * 6 - 15) + 10)
        v = fy * fy * fy * (fy * (fy * 6 - 15) + 10)
        k0, k1, k2, k3 = self._corners(index)
        return k0 + u * k1 + v * (k2 + u * k3)

    def slopes(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Value and its derivatives by x and y."""
        index, fx, fy = self._cell(x, y)
        u = fx * fx * fx * (fx * (fx * 6 - 15) + 10)
        v = fy * fy * fy * (fy * (fy * 6 - 15) + 10)
        du = fx * fx * 30 * (fx * (fx - 2) + 1)
        dv = fy * fy * 30 * (fy * (fy - 2) + 1)
        k0, k1, k2, k3 = self._corners(index)
        k2 += u * k3
        k1 += v * k3
        return k0 + u * (k1 - v * k3) + v * k2, du * k1, dv * k2

    def octaves(self, x, y, cell: float, count: int, footprint, salt: int = 0):
        """Yield (octave, x, y, weight) of each octave that the footprint lets through.

        x and y are its lattice coordinates, its weight is 1.0 or an array.
        """
        s = np.float32(1 / cell)
        x = x * s + np.float32(17.31 * salt + 0.37)
        y = y * s + np.float32(41.77 * salt + 0.71)
        fp = np.asarray(footprint, np.float32) * s
        low = float(fp.min()) if fp.ndim else float(fp)
        high = float(fp.max()) if fp.ndim else low
        a, b = np.float32(TURN[0]), np.float32(TURN[1])
        for octave in range(count):
            size = 2.0**-octave
            if size < 0.7 * low:
                return
            weight = 1.0 if size > 1.5 * high else np.clip((np.float32(size) - 0.7 * fp) / (0.8 * fp + 1e-9), 0, 1)
            yield octave, x, y, weight
            x, y = a * x - b * y, b * x + a * y

    def fbm(self, x, y, cell: float, count: int, footprint=0.0, gain: float = 0.5, salt: int = 0) -> np.ndarray:
        """Sum of octaves from `cell` down, amplitude 1, gain, gain^2, ...; mean 0."""
        total = np.zeros(np.broadcast(x, y).shape, np.float32)
        for octave, u, v, weight in self.octaves(x, y, cell, count, footprint, salt):
            total += self.value(u, v) * np.float32(gain**octave) * weight
        return total

    def ridged(self, x, y, cell: float, count: int, footprint=0.0, gain: float = 0.5, salt: int = 0) -> np.ndarray:
        """As fbm, of 0.6 - 2 |n|: sharp crests."""
        total = np.zeros(np.broadcast(x, y).shape, np.float32)
        for octave, u, v, weight in self.octaves(x, y, cell, count, footprint, salt):
            total += (0.6 - 2 * np.abs(self.value(u, v))) * np.float32(gain**octave) * weight
        return total

    def eroded(
        self, x, y, cell: float, count: int, footprint=0.0, gain: float = 0.5, salt: int = 0, wear: float = 1.0
    ) -> np.ndarray:
        """fbm whose octaves fade where the slope so far is steep (I. Quilez): ridges and gullies. About 0 to 1.3."""
        total = np.zeros(np.broadcast(x, y).shape, np.float32)
        sx = np.zeros_like(total)
        sy = np.zeros_like(total)
        for octave, u, v, weight in self.octaves(x, y, cell, count, footprint, salt):
            n, dx, dy = self.slopes(u, v)
            # Slopes are accumulated in each octave's own turned frame, as in the original: the look depends on it.
            half = np.float32(0.5) * weight
            sx += dx * half
            sy += dy * half
            total += (n * half + half) * np.float32(gain**octave) / (1 + np.float32(wear) * (sx * sx + sy * sy))
        return total

    def gradient(self, x, y, cell: float, count: int, footprint=0.0, gain: float = 0.5, salt: int = 0):
        """The slopes (d/dx, d/dy) of `fbm`."""
        gx = np.zeros(np.broadcast(x, y).shape, np.float32)
        gy = np.zeros_like(gx)
        cos, sin, scale = 1.0, 0.0, 1 / cell
        for octave, u, v, weight in self.octaves(x, y, cell, count, footprint, salt):
            _, dx, dy = self.slopes(u, v)
            k = np.float32(gain**octave * scale) * weight
            gx += (dx * np.float32(cos) + dy * np.float32(sin)) * k
            gy += (dy * np.float32(cos) - dx * np.float32(sin)) * k
            cos, sin = 0.8 * cos - 0.6 * sin, 0.6 * cos + 0.8 * sin
            scale *= 2
        return gx, gy
