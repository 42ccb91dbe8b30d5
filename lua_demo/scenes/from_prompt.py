"""From a prompt to a scene: what its words say is set, what they leave open is drawn from the seed.

Each attribute is drawn by a generator of its own, and the land by the seed itself: another word changes what it says
and leaves the rest of the picture as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lua_demo.catalog.prompts import VOCABULARY, meaning
from lua_demo.scenes.scene import (
    GROUNDS,
    KINDS,
    MOON_SHARE,
    NATURAL_GROUNDS,
    PALETTE_SHARES,
    PALETTES,
    SKIES,
    SKY_SHARES,
    TIMES,
    Scene,
    sample_light,
)

DIRECTIONS = ("ahead", "behind", "left", "right")
_VALUES = {
    "kind": dict(zip(KINDS, KINDS, strict=True)),
    "ground": dict(zip(("snowy", "green", "rocky", "sandy"), GROUNDS, strict=True)),
    "sky": dict(zip(SKIES, SKIES, strict=True)),
    "time": dict(zip(TIMES, TIMES, strict=True)),
    "palette": dict(zip(VOCABULARY["colours"], PALETTES, strict=True)),
    "direction": dict(zip(DIRECTIONS, DIRECTIONS, strict=True)),
    "source": {"sun": "sun", "moon": "moon"},
}
ATTRIBUTE_OF = {word: (name, value) for name, values in _VALUES.items() for word, value in values.items()}
"""Word -> (attribute, its value in a `Scene`), for all words but "no"."""


@dataclass(frozen=True)
class Drawn:
    """A scene, and the words of its prompt that it cannot show, as they are in `catalog.prompts.WORDS`."""

    scene: Scene
    left_out: tuple[str, ...]


def scene_from(prompt: str, seed: int) -> Drawn:
    """The scene that `prompt` describes; the same for the same seed on every machine.

    A scene has one value per attribute: the first that is named counts. Only a lake among mountains is named by two.

    Args:
        seed: 0 to 2^63 - 1.

    Raises:
        UserError: no word of the prompt is known.
    """
    said, excluded, left_out = _read(meaning(prompt).words)

    def draw(attribute: int, values: Sequence[str], shares: Sequence[float] | None = None) -> str:
        weights = np.array([0.0 if value in excluded else 1.0 for value in values]) * (shares or 1.0)
        weights = weights if weights.any() else np.ones(len(values))
        return str(_rng(seed, attribute).choice(values, p=weights / weights.sum()))

    source, direction = said.get("source"), said.get("direction")
    by_moon = source == "moon" or "moon" in excluded
    days = [time for time in TIMES if time != "night"]
    time = said.get("time") or ("night" if by_moon else draw(0, days if source == "sun" else TIMES))
    if source == ("sun" if time == "night" else "moon"):
        left_out.append(source)
    moon = "moon" not in excluded and (bool(source or direction) or bool(_rng(seed, 1).random() < MOON_SHARE))
    if direction and time == "night" and not moon:
        left_out.append(direction)
        direction = None
    homes = [kind for kind in KINDS if said.get("ground") in (None, *NATURAL_GROUNDS[kind])]
    kind = said.get("kind") or draw(2, homes)
    azimuth, elevation = _light(_rng(seed, 3), kind, time, direction)
    grounds = [ground for ground in NATURAL_GROUNDS[kind] if ground not in excluded]
    scene = Scene(
        kind=kind,
        ground=said.get("ground") or draw(4, grounds or GROUNDS),
        sky=said.get("sky") or draw(5, SKIES, SKY_SHARES),
        time=time,
        sun_azimuth=azimuth,
        sun_elevation=elevation,
        moon=moon,
        palette=said.get("palette") or draw(6, PALETTES, PALETTE_SHARES),
        seed=seed,
    )
    return Drawn(scene, tuple(dict.fromkeys(left_out)))


def _read(words: Sequence[str]) -> tuple[dict[str, str], set[str], list[str]]:
    """What is said, by attribute; the values that "no" stands before; words that cannot be shown."""
    said: dict[str, str] = {}
    excluded: set[str] = set()
    left_out: list[str] = []
    negated = False
    for word in words:
        if word == "no":
            negated = True
            continue
        name, value = ATTRIBUTE_OF[word]
        if negated and (name == "direction" or word == "sun"):
            left_out.append(f"no {word}")
        elif negated:
            excluded.add(value)
        elif name == "kind" and {said.get(name), value} == {"lake", "mountains"}:
            said[name] = "lake"
        elif said.setdefault(name, value) != value:
            left_out.append(word)
        negated = False
    return said, excluded - set(said.values()), left_out + ["no"] * negated


def _light(rng: np.random.Generator, kind: str, time: str, direction: str | None) -> tuple[float, float]:
    azimuth, elevation = sample_light(rng, kind, time)
    if direction is None:
        return azimuth, elevation
    side = rng.uniform(50, 115)
    azimuth = {"ahead": rng.uniform(-20, 20), "behind": rng.uniform(150, 210), "left": -side, "right": side}[direction]
    # Ahead, the sun stands within the picture.
    low, high = (2.5, 8.0) if direction == "ahead" else (8.0, 15.0)
    if time == "night":
        over_land = direction == "ahead" and kind in ("mountains", "lake")
        low, high = (25.0, 30.0) if over_land else (14.0, 24.0)
    elif time == "noon":
        low, high = (22.0, 28.0) if direction == "ahead" else (28.0, 52.0)
    return round(float(azimuth), 1), round(float(rng.uniform(low, high)), 1)


def _rng(seed: int, attribute: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, 3, attribute]))
