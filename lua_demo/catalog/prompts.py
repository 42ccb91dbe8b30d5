"""What the embedded generator and the renderer understand of a free-text prompt."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lua_demo.schema import UserError

# All words that it knows, by what they say.
VOCABULARY = {
    "place": ("mountains", "dunes", "canyon", "sea", "forest", "lake"),
    "ground": ("snowy", "green", "rocky", "sandy"),
    "sky": ("clear", "clouds", "fog"),
    "time": ("dawn", "noon", "sunset", "night"),
    "light": ("sun", "moon", "no", "ahead", "behind", "left", "right"),
    "colours": ("natural", "golden", "rose", "blue"),
}
WORDS = tuple(word for words in VOCABULARY.values() for word in words)

# Said like this -> meant like that; one word may stand for several.
SYNONYMS = {
    said: meant
    for meant, words in {
        "mountains": "mountain peak peaks alps alpine hill hills summit ridge",
        "dunes": "dune sahara",
        "canyon": "canyons gorge mesa ravine",
        "sea": "ocean coast island islands seascape waves bay",
        "forest": "forests wood woods trees woodland pines",
        "lake": "lakes pond reflection reflections",
        "snowy": "snow snowcapped snow-covered winter icy frozen",
        "green": "grass grassy meadow meadows lush summer",
        "rocky": "rock rocks stone stony",
        "sandy": "sand beach desert",
        "clear": "cloudless sunny",
        "clouds": "cloud cloudy overcast",
        "fog": "foggy mist misty haze hazy",
        "dawn": "sunrise morning daybreak",
        "noon": "midday day daylight",
        "sunset": "dusk evening",
        "night": "nighttime midnight stars starry",
        "night moon": "moonlight moonlit",
        "night no moon": "moonless",
        "golden": "gold warm",
        "rose": "pink rosy pastel",
        "blue": "azure cold cool",
    }.items()
    for said in words.split()
}
# Begin a phrase: "a lake", "among mountains", "at noon".
LINKS = (
    *("of", "in", "at", "on", "under", "with", "and", "by", "over", "near", "to", "from", "among", "above"),
    "early",
)
# Carry no meaning here, and nobody misses them.
FILLERS = frozenset(
    word
    for words in (
        " ".join(LINKS),
        "a an the it its is are very some",
        "land light sky skies colours colors beautiful",
        "landscape photograph photo picture image view scene shot painting",
    )
    for word in words.split()
)


EXAMPLES = (
    "a lake among snowy mountains at noon, clouds, natural colours",
    "the sea at sunset, clouds, sun ahead, golden light",
    "a green forest at noon, clear sky, natural colours",
    "sandy dunes at sunset, clear sky, sun ahead, golden light",
    "a lake among snowy mountains at night, clear sky, moon ahead",
    "a rocky canyon at sunset, clouds, golden light",
    "green mountains at noon, clouds, natural colours",
    "the sea at dawn, clear sky, sun ahead, rose light",
)
SHORTEST_EXAMPLE = "the sea at sunset"


@dataclass(frozen=True)
class Prompt:
    """A prompt as the embedded generator and the renderer see it.

    Attributes:
        words: words of WORDS, in order.
        ignored: what it does not know, as the user wrote it, without fillers.
    """

    words: tuple[str, ...]
    ignored: tuple[str, ...]


def meaning(text: str) -> Prompt:
    """As `understand`; UserError where there is no known word."""
    prompt = understand(text)
    if not prompt.words:
        raise UserError(f"no known word in {text[:24]!r}; try {SHORTEST_EXAMPLE!r}")
    return prompt


def understand(text: str) -> Prompt:
    """Split free text into known words, through SYNONYMS, and the rest."""
    words: list[str] = []
    ignored: list[str] = []
    for word in re.findall(r"[\w'-]+", text.lower()):
        if word in WORDS:
            words.append(word)
        elif word in SYNONYMS:
            words += SYNONYMS[word].split()
        elif word not in FILLERS:
            ignored.append(word)
    return Prompt(tuple(words), tuple(dict.fromkeys(ignored)))
