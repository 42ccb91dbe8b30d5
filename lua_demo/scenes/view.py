"""Where the rays of a picture meet the land: one march per column of pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lua_demo.scenes.terrain import FAR, NEAR, Terrain

_STRIDE = 8.0  # between columns in the flattened search; slopes stay within +-3
_BLOCK = 1 << 20  # samples of the land, or rays, searched at a time


class View:
    """A picture's rays and the land that they meet.

    A ray is (sx, slope, 1): sx right, slope up, per unit of depth z. Row r and column c of the picture look along
    slope = top - (r + 1/2) pixel and sx = left + (c + 1/2) pixel.

    Args:
        terrain: the land.
        width, height, left, top, pixel: the picture, the last three as tangents.
        steps: samples in depth per column.
        mirrored: look from under the water, as a mirror on it would; then only the land above the water is seen.
    """

    def __init__(
        self,
        terrain: Terrain,
        width: int,
        height: int,
        left: float,
        top: float,
        pixel: float,
        steps: int,
        mirrored: bool,
    ):
        self.terrain, self.width, self.height, self.left, self.top, self.pixel = (
            terrain,
            width,
            height,
            left,
            top,
            pixel,
        )
        self.mirrored = mirrored
        self.eye = -terrain.eye if mirrored else terrain.eye
        self.z = np.geomspace(NEAR, FAR, steps).astype(np.float32)
        # One more column on either side, for rays between the centres of the outermost pixels and the frame.
        self.columns = (left + (np.arange(-1, width + 1) + 0.5) * pixel).astype(np.float32)
        self.land = np.empty((steps, width + 2), np.float32)
        block = max(1, 32768 // (width + 2))
        for start in range(0, steps, block):
            z = self.z[start : start + block, None]
            x = z * self.columns
            self.land[start : start + block] = terrain.height(x, np.broadcast_to(z, x.shape), z * np.float32(pixel))

    def rows(self, offset: float = 0.0) -> np.ndarray:
        """Slope of every row, shifted down by `offset` pixels."""
        return self.top - (np.arange(self.height) + 0.5 + offset) * self.pixel

    def _profile(self, offset_x: float, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The land under the columns from `first` to before `end`, shifted by `offset_x` pixels (steps x columns), and
        up to which slope it hides what is behind (columns * steps, column after column)."""
        land = self.land[:, 1 + first : 1 + end]
        if offset_x != 0:
            side = 1 if offset_x > 0 else -1
            t = np.float32(abs(offset_x))
            land = land * (1 - t) + self.land[:, 1 + side + first : 1 + side + end] * t
        if self.terrain.water:
            land = np.where(land > 0, land, np.float32(-99) if self.mirrored else np.float32(0))
        tops = np.maximum.accumulate((land - np.float32(self.eye)) / self.z[:, None], 0)
        keys = np.clip(tops.T, -3, 3).astype(np.float64) + np.arange(first, end)[:, None] * _STRIDE
        return land, keys.ravel()

    def hits(
        self, offset_x: float = 0.0, offsets_y: tuple[float, ...] = (0.0,), at: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Depth z of the land that rays meet, inf in the sky; one array for each of `offsets_y`.

        Args:
            offset_x, offsets_y: shift of the rays in pixels, within +-1/2.
            at: flat indices of the pixels; None: all of them, row by row.
        """
        count = self.width * self.height if at is None else at.size
        depths = [np.empty(count, np.float32) for _ in offsets_y]
        for first, end, mine in self._blocks(at):
            land, keys = self._profile(offset_x, first, end)
            rays = mine if at is None else at[mine]
            for depth, offset in zip(depths, offsets_y, strict=True):
                self.terrain.check()
                depth[mine] = self._search(land, keys, rays, offset, first)
        return depths

    def _blocks(self, at: np.ndarray | None) -> Iterator[tuple[int, int, np.ndarray]]:
        """Columns from the first number to before the second, and which of the pixels `at` lie in them, column by
        column: the search then walks through memory."""
        columns = np.empty(0) if at is None else at % self.width
        order = np.argsort(columns, kind="stable")
        ordered = columns[order]
        block = max(1, _BLOCK // max(self.z.size, self.height))
        for first in range(0, self.width, block):
            end = min(first + block, self.width)
            if at is None:
                yield first, end, (np.arange(self.height) * self.width + np.arange(first, end)[:, None]).ravel()
            else:
                yield first, end, order[slice(*np.searchsorted(ordered, (first, end)))]

    def _search(self, land, keys, at, offset_y, first) -> np.ndarray:
        row, column = np.divmod(at, self.width)
        steps = self.z.size
        slope = self.rows(offset_y)[row]
        index = np.searchsorted(keys, slope + column * _STRIDE) - (column - first) * steps
        column -= first
        after = np.clip(index, 1, steps - 1)
        slope = slope.astype(np.float32)
        h0, h1 = land[after - 1, column] - np.float32(self.eye), land[after, column] - np.float32(self.eye)
        z0, z1 = self.z[after - 1], self.z[after]
        rise = (h1 - h0) - slope * (z1 - z0)
        t = np.clip((slope * z0 - h0) / np.where(np.abs(rise) < 1e-9, np.float32(1e-9), rise), 0, 1)
        depth = z0 + t * (z1 - z0)
        depth[index >= steps] = np.inf
        if self.terrain.water and not self.mirrored:
            # The water itself goes on to the horizon, and is exactly flat.
            plane = np.where(slope < -1e-6, -self.eye / np.minimum(slope, np.float32(-1e-6)), np.float32(np.inf))
            wet = np.isinf(depth) | (np.abs(self.eye + slope * depth) < 0.1 * depth * self.pixel)
            depth = np.where(wet, plane, depth)
        return depth.astype(np.float32)

    def grid(self, offset_x: float = 0.0, offset_y: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """sx and slope of every pixel, height x width."""
        sx = self.columns[1:-1] + np.float32(offset_x * self.pixel)
        slope = self.rows(offset_y).astype(np.float32)
        return np.broadcast_to(sx, (self.height, self.width)), np.broadcast_to(
            slope[:, None], (self.height, self.width)
        )
