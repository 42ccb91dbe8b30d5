"""What a scene is, how one is drawn at random, and how it is said in words."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from lua_demo.schema import UserError

KINDS = ("mountains", "dunes", "canyon", "sea", "forest", "lake")
GROUNDS = ("snow", "grass", "rock", "sand")
SKIES = ("clear", "clouds", "fog")
TIMES = ("dawn", "noon", "sunset", "night")
PALETTES = ("natural", "golden", "rose", "azure")

# Combinations that are drawn at random; every other one can be rendered too.
NATURAL_GROUNDS = {
    "mountains": ("snow", "grass", "rock"),
    "dunes": ("sand", "sand", "sand", "snow"),
    "canyon": ("rock", "sand", "snow", "grass"),
    "sea": ("sand", "rock", "grass", "snow"),
    "forest": ("grass", "snow"),
    "lake": ("grass", "snow", "rock"),
}
_CHOICES = {"kind": KINDS, "ground": GROUNDS, "sky": SKIES, "time": TIMES, "palette": PALETTES}


@dataclass(frozen=True)
class Scene:
    """A landscape.

    Attributes:
        kind, ground, sky, time, palette: one of KINDS, GROUNDS, SKIES, TIMES, PALETTES.
        sun_azimuth: degrees clockwise from the view direction (0 ahead, 90 right, 180 behind); at night the moon's.
        sun_elevation: degrees above the horizon, 1 to 80; at night the moon's.
        moon: at night, whether there is a moon; without one starlight has to do.
        seed: everything that is not said above.

    Raises:
        UserError: for a value that is not one of the choices.
    """

    kind: str = "mountains"
    ground: str = "grass"
    sky: str = "clear"
    time: str = "noon"
    sun_azimuth: float = 60.0
    sun_elevation: float = 40.0
    moon: bool = True
    palette: str = "natural"
    seed: int = 0

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise UserError(f"Scene {name} {value!r} does not exist: choose one of {', '.join(choices)}.")
        if not 1 <= self.sun_elevation <= 80:
            raise UserError(f"Scene sun_elevation {self.sun_elevation} is out of range: 1 to 80 degrees.")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"Scene seed {self.seed} is out of range: 0 to 2^63 - 1.")

    def to_dict(self) -> dict:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def mirrored(self) -> Scene:
        """What the mirror image of the picture shows; for its caption, as rendering it gives other land."""
        return replace(self, sun_azimuth=-self.sun_azimuth)


SKY_SHARES, PALETTE_SHARES, MOON_SHARE = (0.35, 0.45, 0.2), (0.4, 0.2, 0.2, 0.2), 0.7
"""How often each of SKIES and PALETTES is drawn, and a moon at night."""


def sample_light(rng: np.random.Generator, kind: str, time: str) -> tuple[float, float]:
    """Azimuth and elevation of the sun or moon, in degrees, from where it flatters that kind at that time."""
    low_sun = time in ("dawn", "sunset")
    if time == "night":
        where = (rng.uniform(-18, 18), rng.choice((-1, 1)) * rng.uniform(50, 120), rng.uniform(150, 210))
        azimuth, elevation = rng.choice(where, p=(0.5, 0.35, 0.15)), rng.uniform(14, 24)
    elif low_sun:
        # Behind high land a low sun is not seen: there it mostly comes from the side.
        ahead = rng.random() < (0.6 if kind in ("dunes", "sea", "canyon") else 0.25)
        azimuth = rng.uniform(-24, 24) if ahead else rng.choice((-1, 1)) * rng.uniform(55, 115)
        elevation = rng.uniform(2.5, 8) if ahead else rng.uniform(8, 15)
    else:
        azimuth, elevation = rng.choice((-1, 1)) * rng.uniform(50, 130), rng.uniform(28, 52)
    return round(float(azimuth), 1), round(float(elevation), 1)


def sample_scene(rng: np.random.Generator) -> Scene:
    """A random scene; every attribute about equally often."""
    kind = str(rng.choice(KINDS))
    time = str(rng.choice(TIMES))
    azimuth, elevation = sample_light(rng, kind, time)
    return Scene(
        kind=kind,
        ground=str(rng.choice(NATURAL_GROUNDS[kind])),
        sky=str(rng.choice(SKIES, p=SKY_SHARES)),
        time=time,
        sun_azimuth=azimuth,
        sun_elevation=elevation,
        moon=bool(rng.random() < MOON_SHARE),
        palette=str(rng.choice(PALETTES, p=PALETTE_SHARES)),
        seed=int(rng.integers(2**31)),
    )


_SUBJECT = {
    "mountains": {"snow": "snowy", "grass": "green", "rock": "rocky", "sand": "desert", "": "{} mountains"},
    "dunes": {"snow": "snow", "grass": "grassy", "rock": "stony", "sand": "sand", "": "{} dunes"},
    "canyon": {"snow": "snowy", "grass": "green", "rock": "rock", "sand": "sandy", "": "a {} canyon"},
    "sea": {"snow": "snowy", "grass": "green", "rock": "rocky", "sand": "sandy", "": "the sea and {} islands"},
    "forest": {"snow": "snowy", "grass": "green", "rock": "rocky", "sand": "sandy", "": "a {} forest"},
    "lake": {"snow": "snowy", "grass": "green", "rock": "rocky", "sand": "desert", "": "a lake among {} mountains"},
}
_TIME = {
    "dawn": ("at dawn", "early in the morning", "dawn"),
    "noon": ("at noon", "at midday", "noon"),
    "sunset": ("at sunset", "in the evening light", "sunset"),
    "night": ("at night", "under the stars", "night"),
}
_SKY = {
    "clear": ("under a clear sky", "with a cloudless sky", "clear sky"),
    "clouds": ("under a cloudy sky", "with clouds in the sky", "clouds"),
    "fog": ("in fog", "with mist over the land", "fog"),
}
_PALETTE = {"natural": "natural colours", "golden": "golden light", "rose": "rose light", "azure": "blue light"}


def light_words(scene: Scene) -> str:
    """Where the light comes from: "the sun ahead", "a moon on the left", "no moon", ..."""
    if scene.time == "night" and not scene.moon:
        return "no moon"
    turn = (scene.sun_azimuth + 180) % 360 - 180
    where = (
        "ahead" if abs(turn) < 30 else "behind" if abs(turn) > 135 else "on the right" if turn > 0 else "on the left"
    )
    return f"the {'moon' if scene.time == 'night' else 'sun'} {where}"


def captions(scene: Scene) -> list[str]:
    """Six phrasings, from everything to the bare words. The first names every attribute."""
    words = _SUBJECT[scene.kind]
    subject = words[""].format(words[scene.ground])
    (time, time2, time3), (sky, sky2, sky3) = _TIME[scene.time], _SKY[scene.sky]
    palette, light = _PALETTE[scene.palette], light_words(scene)
    plain = subject.removeprefix("a ").removeprefix("the ")
    return [
        f"{subject} {time} {sky}, {light}, {palette}",
        f"{time3}, {plain}, {sky3}, {light}, {palette}",
        f"a landscape photograph of {subject} {time2}, {sky2}",
        f"{subject} {time}, {light}",
        f"{palette}, {plain} {sky}",
        f"{plain} {time}",
    ]
