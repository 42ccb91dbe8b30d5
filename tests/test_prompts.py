import numpy as np
import pytest

from lua_demo.catalog.prompts import EXAMPLES, FILLERS, SYNONYMS, VOCABULARY, WORDS, understand
from lua_demo.scenes import captions, sample_scene


def test_every_caption_of_the_renderer_is_understood_to_the_last_word():
    rng = np.random.default_rng(0)
    for _ in range(500):
        scene = sample_scene(rng)
        for caption in captions(scene):
            prompt = understand(caption)
            assert not prompt.ignored, caption
            assert scene.kind in prompt.words


def test_a_full_caption_names_every_attribute():
    rng = np.random.default_rng(1)
    for _ in range(100):
        words = understand(captions(sample_scene(rng))[0]).words
        for group in ("place", "ground", "sky", "time", "colours"):
            assert set(words) & set(VOCABULARY[group]), (group, words)


def test_the_tables_do_not_contradict_each_other():
    assert len(WORDS) == len(set(WORDS))
    assert not set(SYNONYMS) & set(WORDS)
    assert not FILLERS & (set(WORDS) | set(SYNONYMS))
    assert {word for meant in SYNONYMS.values() for word in meant.split()} <= set(WORDS)


@pytest.mark.parametrize(
    ("text", "words", "ignored"),
    [
        ("A Snow-Covered PEAK, at dusk!", ("snowy", "mountains", "sunset"), ()),
        ("moonlit ocean", ("night", "moon", "sea"), ()),
        ("a red dragon over a lake", ("lake",), ("red", "dragon")),
        ("cat cat", (), ("cat",)),
        ("", (), ()),
        ("наука 山", (), ("наука", "山")),
    ],
)
def test_free_text(text, words, ignored):
    prompt = understand(text)
    assert (prompt.words, prompt.ignored) == (words, ignored)


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_understood(text):
    assert len(understand(text).words) >= 3
    assert not understand(text).ignored
