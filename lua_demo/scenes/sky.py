"""Light, air and everything above the horizon."""

from __future__ import annotations

import numpy as np

from lua_demo.scenes.noise import Noise, lerp, smoothstep
from lua_demo.scenes.scene import Scene


def linear(code: str) -> np.ndarray:
    """Linear RGB of a "#rrggbb" sRGB colour."""
    c = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).astype(np.float32)


# zenith, middle, horizon of the sky; sunlight; glow around the sun; strengths of sun, sky light and glow; exposure
TIMES = {
    "dawn": ("#557ab4", "#a6b2d0", "#f6cdaa", "#ffc08c", "#ffc48e", 2.5, 0.70, 0.8, 0.24),
    "noon": ("#2a5ca8", "#74a6da", "#c9dfee", "#fff0d8", "#ffffff", 3.1, 0.80, 0.25, 0.27),
    "sunset": ("#33508c", "#9a8cab", "#ffac68", "#ffa262", "#ff9246", 2.8, 0.58, 1.1, 0.20),
    "night": ("#090e1c", "#111b32", "#243248", "#b4c6ec", "#93a8d4", 0.34, 0.50, 0.20, 0.095),
}
# The colour of each palette's light, at luminance 1.
PALETTES = {
    "natural": None,
    "golden": (1.58, 0.90, 0.32),
    "rose": (1.58, 0.80, 1.20),
    "azure": (0.40, 1.02, 2.3),
}


def tinted(colour: np.ndarray, palette: str, amount: float) -> np.ndarray:
    """Linear RGB `colour` tinted by `amount` in the light of that palette, at the same luminance.

    The tint is half `colour` times the light and half the light alone: a product alone turns a sunset in blue light
    grey.
    """
    if PALETTES[palette] is None:
        return colour
    tint = np.array(PALETTES[palette], np.float32)
    luminance = colour @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    return lerp(colour, 0.5 * colour * tint + 0.5 * luminance * tint, amount)


class Sky:
    """Radiance of the sky and the light that it sheds.

    Attributes:
        sun: unit vector (x, y, z) towards the sun, or the moon at night.
        sunlight, ambient: linear RGB.
        target: mean luminance that the exposure aims at.
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        self.noise = Noise(scene.seed + 7)
        rng = np.random.Generator(np.random.PCG64([scene.seed, 2]))
        zenith, middle, horizon, source, glow, power, ambient, halo, self.target = TIMES[scene.time]
        self.zenith, self.middle, self.horizon, self.glow, colour = (
            tinted(linear(code), scene.palette, amount)
            for code, amount in ((zenith, 0.6), (middle, 0.8), (horizon, 0.8), (glow, 0.8), (source, 0.85))
        )
        self.halo = halo
        dark = scene.time == "night" and not scene.moon
        azimuth, elevation = np.radians(scene.sun_azimuth), np.radians(scene.sun_elevation)
        self.sun = np.array(
            [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)], np.float32
        )
        self.sunlight = colour * (power if not dark else 0.02)
        if scene.sky == "fog":
            grey = 0.6 * self.horizon + 0.4 * self.middle
            self.zenith, self.middle = lerp(self.zenith, grey, 0.55), lerp(self.middle, self.horizon, 0.6)
            self.sunlight *= 0.5
            ambient *= 1.25
        self.ambient = (0.5 * self.zenith + 0.35 * self.middle + 0.15 * self.horizon) * ambient
        self.ambient = lerp(self.ambient, self.ambient.mean(), 0.35)
        self.dark = dark
        if dark:
            self.zenith, self.middle, self.horizon = self.zenith * 0.6, self.middle * 0.6, self.horizon * 0.7
        self.cover = float(rng.uniform(-0.02, 0.24))
        self.wind = float(rng.uniform(-0.6, 0.6))
        self.spin = rng.uniform(0, np.pi)
        count = 9000
        self.stars = np.stack(
            [
                rng.uniform(-1.6, 1.6, count),
                rng.uniform(0, 1.5, count),
                0.12 * (rng.pareto(1.1, count) + 1),
                rng.random(count),
            ],
            1,
        )
        self.band = (float(rng.uniform(-0.5, 0.5)), float(rng.uniform(0.5, 1.1)) * float(rng.choice((-1, 1))))

    def air(self, sx: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Radiance N x 3 of clear air towards (sx, slope, 1); also the colour of fog and of distance."""
        norm = 1 / np.sqrt(sx * sx + slope * slope + 1)
        up = np.clip(slope * norm, 0, 1)
        cos = (sx * self.sun[0] + slope * self.sun[1] + self.sun[2]) * norm
        # Two exponentials between three colours: no kink, so no band.
        low, mid = np.exp(-up * 9), np.exp(-up * 3.2)
        colour = self.zenith + (self.middle - self.zenith) * mid[:, None] + (self.horizon - self.middle) * low[:, None]
        if not self.dark:
            angle = np.arccos(np.clip(cos, -1, 1))
            near = np.exp(-angle * 3.0) * (0.35 + 0.65 * np.exp(-up * 3)) + 0.5 * np.exp(-angle * 9)
            near += 0.25 * np.exp(-angle * 1.1)  # the whole sky is brighter on that side
            colour += self.glow * (self.halo * near)[:, None]
            if self.scene.time in ("dawn", "sunset"):
                # Away from the sun the horizon is cool and dim.
                away = smoothstep(0.4, 2.6, angle) * low
                colour *= 1 - away[:, None] * np.array([0.30, 0.34, 0.18], np.float32)
        return colour

    def radiance(self, sx: np.ndarray, slope: np.ndarray, pixel: float, stars: np.ndarray | None = None) -> np.ndarray:
        """Radiance N x 3 of the sky towards (sx, slope, 1): air, `stars` (N x 3), sun or moon, clouds.

        `pixel` is the tangent of a pixel.
        """
        colour = self.air(sx, slope)
        norm = 1 / np.sqrt(sx * sx + slope * slope + 1)
        angle = np.arccos(np.clip((sx * self.sun[0] + slope * self.sun[1] + self.sun[2]) * norm, -1, 1))
        if self.scene.time == "night":
            colour += self._milky_way(sx, slope, pixel)
            if stars is not None:
                colour += stars
        if not self.dark:
            colour = (
                self._moon(colour, sx, slope, norm, angle, pixel)
                if self.scene.time == "night"
                else self._disc(colour, angle, pixel)
            )
        if self.scene.sky == "clouds":
            colour = self._clouds(colour, sx, slope, angle, pixel)
        elif self.scene.sky == "clear":
            colour = self._cirrus(colour, sx, slope, angle, pixel)
        return colour

    def _disc(self, colour, angle, pixel):
        edge = np.clip((np.float32(0.022) - angle) / pixel + 0.5, 0, 1)
        strength = 0.5 if self.scene.sky == "fog" else 1.0
        light = (self.sunlight + 0.4) * (5 * strength)
        return colour + light * edge[:, None] + light * (0.10 * np.exp(-angle * 34))[:, None]

    def _moon(self, colour, sx, slope, norm, angle, pixel):
        radius = np.float32(0.034)
        right = np.array([self.sun[2], 0, -self.sun[0]], np.float32)
        right /= np.linalg.norm(right)
        up = np.cross(self.sun, right)
        u = (sx * right[0] + slope * right[1] + right[2]) * norm / radius
        v = (sx * up[0] + slope * up[1] + up[2]) * norm / radius
        edge = np.clip((radius - angle) / pixel + 0.5, 0, 1)
        seas = smoothstep(-0.1, 0.5, self.noise.fbm(u, v, 0.75, 8, pixel / radius, 0.55, 3))
        bulge = np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
        face = (1.0 - 0.5 * seas) * (0.55 + 0.45 * bulge)
        colour = colour + self.glow * (0.10 * np.exp(-angle * 5) + 0.35 * np.exp(-angle * 22))[:, None]
        light = np.array([1.0, 0.97, 0.88], np.float32) * 1.25
        return colour * (1 - edge[:, None]) + (light * face[:, None]) * edge[:, None]

    def _milky_way(self, sx, slope, pixel):
        offset, tilt = self.band
        across = (sx - offset - tilt * (slope - 0.45)) / np.sqrt(1 + tilt * tilt)
        cloud = self.noise.fbm(sx, slope, 0.22, 8, pixel, 0.56, 4)
        dust = smoothstep(
            -0.2, 1.0, self.noise.ridged(sx + 0.1 * cloud, slope, 0.26, 8, pixel, 0.55, 5) + 0.25 - 3 * np.abs(across)
        )
        glow = np.exp(-((across + 0.04 * cloud) ** 2) / 0.020) * (0.6 + 0.6 * cloud) * (1 - 0.75 * dust)
        strength = 0.030 if self.dark else 0.009
        if self.scene.sky == "fog":
            strength *= 0.2
        glow = np.clip(glow, 0, None) * smoothstep(0.0, 0.3, slope) * strength
        return glow[:, None] * np.array([0.80, 0.84, 1.1], np.float32)

    def _lit(self, angle, shade):
        """Colour of cloud: `shade` 1 where the sun reaches it, 0 in its own shadow."""
        low_sun = self.scene.time in ("dawn", "sunset")
        bright = self.sunlight * (0.30 if not low_sun else 0.27) + self.ambient * 0.9
        dim = self.ambient * (0.95 if not low_sun else 0.85) + 0.10 * self.horizon
        near = np.exp(-angle * (2.0 if low_sun else 3.5))[:, None]
        bright = bright * (0.8 + 0.7 * near) + self.glow * (0.25 * self.halo) * near
        return lerp(dim * (1 + 0.3 * near), bright, shade[:, None])

    def _clouds(self, colour, sx, slope, angle, pixel):
        n = self.noise
        low = 1 / (np.clip(slope, 0, None) + np.float32(0.085))
        x, y = sx * low, low * np.float32(1.15)
        fp = pixel * low * np.sqrt(low) * 0.5
        wx = x + 0.25 * n.fbm(x, y, 1.6, 3, fp, 0.5, 1)
        density = n.fbm(wx, y, 2.1, 11, fp, 0.53, 2) + self.cover
        step = 0.22
        ahead = n.fbm(
            wx + step * self.sun[0] / (self.sun[1] + 0.25),
            y + step * self.sun[2] / (self.sun[1] + 0.25),
            2.1,
            6,
            fp,
            0.53,
            2,
        )
        alpha = smoothstep(0.02, 0.36, density)
        thick = smoothstep(0.1, 1.35, density)
        billow = n.ridged(wx, y, 0.42, 8, fp, 0.56, 8)
        shade = np.clip(0.66 + 0.75 * (density - self.cover - ahead) - 0.50 * thick - 0.16 * billow, 0, 1)
        # Thin cloud in front of the sun glows.
        shade = np.clip(shade + alpha * (1 - thick) * np.exp(-angle * 4) * 0.6, 0, 1)
        alpha = alpha * smoothstep(0.0, 0.10, slope) * 0.96
        return lerp(self._cirrus(colour, sx, slope, angle, pixel, 0.5), self._lit(angle, shade), alpha[:, None])

    def _cirrus(self, colour, sx, slope, angle, pixel, amount=1.0):
        n = self.noise
        low = 1 / (np.clip(slope, 0, None) + np.float32(0.16))
        x, y = sx * low, low
        c, s = np.float32(np.cos(self.spin)), np.float32(np.sin(self.spin))
        u, v = c * x + s * y, c * y - s * x
        fp = pixel * low * low * 0.6
        v = v + 0.5 * n.fbm(u, v, 2.2, 3, fp, 0.5, 6)
        wisp = n.fbm(u * 0.32, v * 1.5, 1.3, 9, fp, 0.6, 7) + 0.5 * n.value(u * 0.5, v * 0.5) - 0.25
        alpha = smoothstep(0.0, 1.3, wisp) * smoothstep(0.02, 0.25, slope) * (0.22 * amount)
        return lerp(colour, self._lit(angle, np.full_like(angle, 0.9)), alpha[:, None])

    def star_light(self, width: int, height: int, sx0: float, top: float, pixel: float) -> np.ndarray:
        """Stars alone, height x width x 3, each a small disc of fixed angular size convolved with the pixel."""
        frame = np.zeros((height, width, 3), np.float32)
        veil = {"clear": 1.0, "clouds": 1.0, "fog": 0.25}[self.scene.sky] * (1.0 if self.dark else 0.55)
        if self.scene.time not in ("night",):
            return frame
        order = self.stars
        spread = 0.00032
        for sx, slope, power, hue in order:
            c, r = (sx - sx0) / pixel, (top - slope) / pixel
            power = min(power, 40.0)
            sigma = float(np.hypot(spread * (1 + 0.03 * power) / pixel, 0.42))
            k = int(np.ceil(3.2 * sigma)) + 1
            c0, r0 = int(np.floor(c)), int(np.floor(r))
            if not (k <= c0 < width - k and k <= r0 < height - k):
                continue
            span = np.arange(-k, k + 1)
            gx, gy = (
                np.exp(-((c0 + span + 0.5 - c) ** 2) / (2 * sigma**2)),
                np.exp(-((r0 + span + 0.5 - r) ** 2) / (2 * sigma**2)),
            )
            flux = veil * 3.2e-7 * power / (2 * np.pi * sigma**2 * pixel**2) * min(1.0, slope / 0.12)
            tone = np.array([1.0, 0.9, 0.75]) * (1 - hue) + np.array([0.75, 0.87, 1.15]) * hue
            frame[r0 - k : r0 + k + 1, c0 - k : c0 + k + 1] += (gy[:, None] * gx)[..., None] * (flux * tone)
        return frame
