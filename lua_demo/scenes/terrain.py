"""The shape of the land: one height function per kind of scene, over scene coordinates.

The viewer stands at x = 0, z = 0 and looks along +z; x points right, y up; y = 0 is the water where there is some.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lua_demo.scenes.noise import Noise, lerp, smoothstep
from lua_demo.scenes.scene import Scene

NEAR, FAR = 1.0, 420.0
TANGENT = 0.62  # of half the vertical field of view


class Terrain:
    """Heights of one scene.

    Attributes:
        eye: height of the viewer.
        horizon: where the horizon is, as the tangent of its angle above the centre of the frame.
        water: whether y < 0 is under water.
        tree_height: of the scene's trees; 0 without trees.
        reach: height of the highest thing above the water, roughly.
        check: called every few tenths of a second of work on the scene, by all that is built on its land; may raise.
    """

    def __init__(self, scene: Scene, check: Callable[[], None] = lambda: None):
        self.scene, self.check = scene, check
        self.noise = Noise(scene.seed)
        rng = np.random.Generator(np.random.PCG64([scene.seed, 1]))
        self.rng = rng
        self.water = scene.kind in ("sea", "lake")
        self.amplitude = 1.0
        self.side = float(rng.choice((-1, 1)))
        self.shift = float(rng.uniform(-1, 1))
        self.tree_height = 0.0
        self._relief = getattr(self, f"_{scene.kind}")
        self.horizon, target = {
            "mountains": (-0.06, rng.uniform(0.30, 0.42)),
            "lake": (-0.02, rng.uniform(0.26, 0.38)),
            "canyon": (0.04, rng.uniform(0.16, 0.26)),
            "dunes": (0.18, rng.uniform(0.05, 0.14)),
            "sea": (-0.10, rng.uniform(0.07, 0.16)),
            "forest": (0.02, rng.uniform(0.12, 0.24)),
        }[scene.kind]
        if scene.kind in ("mountains", "lake", "forest") and scene.ground in ("grass", "snow"):
            self.tree_height = {"mountains": 1.5, "lake": 1.6, "forest": 3.4}[scene.kind] * float(
                rng.uniform(0.85, 1.15)
            )
        if scene.kind == "sea":
            count = int(rng.integers(2, 5))
            self.islands = [
                (rng.uniform(-0.5, 0.5), z, rng.uniform(0.10, 0.26) * z, rng.uniform(0.5, 1.0))
                for z in np.sort(rng.uniform(26, 150, count))
            ]
        if scene.kind == "canyon":
            self.mesa = float(rng.uniform(24, 34))
        self._frame(target)

    def _frame(self, target: float) -> None:
        """Scale the land so that its skyline, seen from the eye, rises to `target` (a tangent above the horizon)."""
        z = np.geomspace(NEAR, FAR, 120, dtype=np.float32)[:, None]
        x = z * np.linspace(-TANGENT, TANGENT, 64, dtype=np.float32)
        stand = {"sea": 3.2, "lake": 1.7, "dunes": 6.5, "canyon": 4.2, "forest": 4.5, "mountains": 2.4}[self.scene.kind]
        for _ in range(3):
            height = self.height(x, z, z * 0.01)
            near = 0.0 if self.water else float(height[z[:, 0] < 9].max())
            self.eye = near + stand
            skyline = float(np.percentile(((height - self.eye) / z).max(0), 90))
            if self.scene.kind in ("dunes", "forest"):
                break
            self.amplitude = float(np.clip(self.amplitude * (target + 0.02) / max(skyline + 0.02, 1e-3), 0.35, 2.2))
        self.reach = float(self.height(x, z, z * 0.01).max())

    def height(self, x: np.ndarray, z: np.ndarray, footprint: np.ndarray | np.float32) -> np.ndarray:
        """Height of the ground (under water: negative) where a pixel covers `footprint` on it."""
        self.check()
        return self._relief(x, z, footprint)

    def _mountains(self, x, z, fp):
        n = self.noise
        rough = {"grass": 0.6, "snow": 0.45, "rock": 1.0, "sand": 0.4}[self.scene.ground]
        rise = smoothstep(6, 95, z + 0.25 * np.abs(x))
        peaks = n.eroded(x + 130 * self.shift, z, 62, 15, fp, 0.49)
        peaks = peaks * (0.65 + 0.35 * np.clip(n.value(x / 110 + 5, z / 110 + self.shift), -1, 1))
        near = 0.8 * n.fbm(x, z, 11, 3, fp, 0.4, 3) + 0.10 * rough * n.fbm(x, z, 1.1, 9, fp, 0.52, 4)
        if self.scene.ground != "sand":
            near = near + self.stones(x, z, fp) + self._turf(x, z, fp)
        return self.amplitude * 46 * rise * peaks + near * (1 - 0.7 * rise)

    def _lake(self, x, z, fp):
        n = self.noise
        radius = np.sqrt((x - 6 * self.shift) ** 2 / 1.3**2 + (z - 16) ** 2 / 1.1**2)
        shore = 28 + 9 * n.fbm(x, z, 19, 3, 0.0, 0.5, 7)
        out = radius - shore
        rise = smoothstep(-4, 75, out)
        peaks = n.eroded(x - 90 * self.shift, z + 50, 58, 15, fp, 0.49)
        peaks = peaks * (0.7 + 0.3 * n.value(x / 90 + 3, z / 90))
        near = np.clip(out * 0.16, -3, 1.2) + 0.22 * n.fbm(x, z, 2.3, 8, fp, 0.52, 4) + self._turf(x, z, fp)
        return self.amplitude * 42 * rise * peaks + near

    def _sea(self, x, z, fp):
        n = self.noise
        rock = n.eroded(x, z, 9, 12, fp, 0.5)
        wobble = 0.5 * n.fbm(x, z, 12, 5, fp, 0.5, 5)
        best = np.full(np.broadcast(x, z).shape, -4, np.float32)
        for offset, depth, size, tall in self.islands:
            r = np.sqrt((x - offset * depth) ** 2 + ((z - depth) * 0.9) ** 2) / size
            profile = np.clip(1 - r + wobble * 0.7, -0.6, 1.2)
            hill = np.where(profile > 0, np.abs(profile) ** 0.9 * (0.15 + 0.95 * rock), profile * 0.8)
            best = np.maximum(best, self.amplitude * tall * size * 0.75 * hill)
        return best

    def _dunes(self, x, z, fp):
        n = self.noise
        turn = self.side * (0.95 + 0.25 * self.shift)
        bend_x = x + 9 * n.fbm(x, z, 36, 2, fp, 0.45, 2)
        bend_z = z + 9 * n.fbm(x, z, 42, 2, fp, 0.45, 3)
        total = np.zeros(np.broadcast(x, z).shape, np.float32)
        for size, tall, more, salt in ((34, 7.5, 0.0, 0), (13, 1.7, 0.45, 4)):
            c, s = np.float32(np.cos(turn + more) / size), np.float32(np.sin(turn + more) / size)
            u = bend_z * c + bend_x * s + np.float32(0.9 * self.shift) + 0.5 * n.fbm(x, z, size * 1.7, 2, fp, 0.5, salt)
            phase = u - np.floor(u)
            # A long windward slope and a short slip face, both with a rounded foot and a sharp crest.
            back, front = phase * np.float32(1 / 0.70), (1 - phase) * np.float32(1 / 0.30)
            round_ = np.clip(0.5 + (front - back) * 12, 0, 1)
            ramp = lerp(front, back, round_) - round_ * (1 - round_) / 24
            total += (
                tall
                * ramp
                * ramp
                * (1.75 - 0.75 * ramp)
                * (0.62 + 0.5 * n.value(bend_x / (size * 1.9) + salt, bend_z / (size * 1.9)))
            )
        return total * (0.25 + 0.75 * smoothstep(3, 30, z)) + self._ripples(x, z, fp)

    def _ripples(self, x, z, fp):
        """Wind ripples, which end where a pixel no longer resolves them."""
        warp = self.noise.fbm(x, z, 1.7, 5, fp, 0.5, 8)
        phase = (x * 0.35 * self.side + z) * 15 + 5 * warp
        wave = np.sin(phase + 0.5 * np.sin(phase))
        return 0.0075 * wave * (0.7 + 0.6 * warp) * np.clip(1.4 - fp * 9, 0, 1) + 0.015 * warp

    def _canyon(self, x, z, fp):
        n = self.noise
        f = n.fbm(x + 60 * self.shift, z + 20, self.mesa, 3, fp, 0.45, 1)
        f = f + 0.15 * n.ridged(x, z, 10, 8, fp, 0.42, 2)
        gap = 1 - smoothstep(4, 26, np.abs(x + 8 * self.shift + 6 * n.value(z / 30, z * 0 + 3)))
        f = f - 0.55 * gap * smoothstep(0, 10, z) - 0.9 * (1 - smoothstep(7, 32, z))
        talus = smoothstep(-0.36, 0.03, f)
        cliff = smoothstep(0.0, 0.05, f)
        upper = smoothstep(0.17, 0.21, f)
        top = smoothstep(0.32, 0.36, f)
        land = 4.6 * talus * talus + 6.0 * cliff + 4.5 * upper + 3.2 * top + 1.2 * np.clip(f, -0.5, 0.6)
        rubble = 0.035 + 0.05 * smoothstep(0.2, 0.8, talus)
        return (
            self.amplitude * land
            + 0.5 * n.fbm(x, z, 6, 3, fp, 0.5, 5)
            + rubble * n.ridged(x, z, 0.9, 8, fp, 0.5, 6)
            + self.stones(x, z, fp)
        )

    def stones(self, x, z, fp):
        """Boulders: the tops of a smooth noise, roughened."""
        n = self.noise
        lump = (
            n.value(x * 1.15 + 11, z * 1.15)
            + 0.5 * n.value(x / 9, z / 9 + 4)
            + 0.16 * n.fbm(x, z, 0.45, 7, fp, 0.55, 12)
        )
        t = np.clip((lump - 0.74) * 2.2, 0, 1)
        return (0.42 * (1 - smoothstep(25, 55, z))) * t * (2 - t)

    def _turf(self, x, z, fp):
        """Clumps of grass, or drifts of snow."""
        if self.scene.ground == "grass":
            return 0.035 * self.noise.ridged(x, z, 0.6, 7, fp, 0.47, 13)
        if self.scene.ground == "snow":
            return 0.05 * self.noise.ridged(x * 0.5, z, 1.6, 5, fp, 0.5, 14)
        return 0

    def _forest(self, x, z, fp):
        n = self.noise
        hills = n.fbm(x + 80 * self.shift, z + 11, 52, 4, fp, 0.42, 1)
        ridge = n.eroded(x, z, 90, 8, fp, 0.45, 2)
        rise = smoothstep(4, 150, z)
        near = 0.09 * n.fbm(x, z, 1.2, 4, fp, 0.5, 4) + self._turf(x, z, fp)
        valley = smoothstep(3, 45, np.abs(x + 14 * self.shift + 0.2 * self.side * z))
        return (
            7 * hills * (0.25 + 0.75 * smoothstep(2, 40, z))
            + 46 * ridge * rise * rise
            + 5.5 * valley * smoothstep(6, 30, z)
            + near
        )

    def shadow_caster(self, x, z, footprint):
        """The height that throws shadows: the ground and, close to the viewer, the trees."""
        height = self.height(x, z, footprint)
        if self.tree_height and float(np.max(footprint)) < 0.4:
            height = height + self.canopy(x, z)
        return height

    # Trees stand one to a cell of a square lattice, jittered, so that any code can compute where they are.
    @property
    def tree_cell(self) -> float:
        return self.tree_height * (0.52 if self.scene.kind == "forest" else 0.62)

    def trees(self, i: np.ndarray, j: np.ndarray):
        """Trees of the lattice cells (i, j): x, z, height (0 where none grows), a random number in [0, 1]."""
        n, cell = self.noise, self.tree_cell
        x = (i + 0.12 + 0.76 * n.hash(i, j, 1)).astype(np.float32) * np.float32(cell)
        z = (j + 0.12 + 0.76 * n.hash(i, j, 2)).astype(np.float32) * np.float32(cell)
        fp = np.float32(0.5)
        ground = self.height(x, z, fp)
        slope = np.abs(self.height(x + 0.6, z, fp) - ground) + np.abs(self.height(x, z + 0.6, fp) - ground)
        clump = n.fbm(x, z, 22 if self.scene.kind == "forest" else 15, 3, fp, 0.6, 9)
        bias = 0.55 if self.scene.kind == "forest" else -0.12
        likely = clump + bias - smoothstep(0.5, 1.3, slope)
        if self.scene.kind != "forest":
            likely = likely - 1.2 * smoothstep(0.10, 0.32, ground / max(self.reach, 1.0))
        if self.water:
            likely = np.where(ground > 0.12, likely + 0.25, -1)
        room = smoothstep(5.0, 9.0, z) if self.scene.kind == "forest" else smoothstep(7.0, 13.0, z)
        pick = n.hash(i, j, 3)
        grown = (likely * 1.5 > pick) & (room > n.hash(i, j, 5))
        height = self.tree_height * lerp(0.55, 1.2, n.hash(i, j, 4) ** 1.3) * lerp(0.75, 1.0, np.clip(likely, 0, 1))
        return x, z, np.where(grown, height, 0), pick

    def canopy(self, x, z):
        """Height of the trees above the ground, as cones."""
        cell = np.float32(self.tree_cell)
        i0, j0 = np.floor(x / cell).astype(np.int32), np.floor(z / cell).astype(np.int32)
        low_i, low_j = int(i0.min()) - 1, int(j0.min()) - 1
        i, j = np.meshgrid(np.arange(low_i, int(i0.max()) + 2), np.arange(low_j, int(j0.max()) + 2))
        tx, tz, th, _ = self.trees(i, j)
        best = np.zeros(x.shape, np.float32)
        for dj in (-1, 0, 1):
            for di in (-1, 0, 1):
                at = (j0 + (dj - low_j), i0 + (di - low_i))
                far = np.sqrt((x - tx[at]) ** 2 + (z - tz[at]) ** 2)
                best = np.maximum(best, th[at] - far * np.float32(4.2))
        return best
