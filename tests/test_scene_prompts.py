"""What a prompt says is in its scene, for every word of the vocabulary."""

import numpy as np
import pytest

from lua_demo.catalog.prompts import EXAMPLES, SYNONYMS, VOCABULARY, WORDS, understand
from lua_demo.commands.judge import ATTRIBUTES, attributes
from lua_demo.scenes import Scene, captions, sample_scene
from lua_demo.scenes.from_prompt import ATTRIBUTE_OF, scene_from
from lua_demo.schema import UserError

SEEDS = (*range(12), 2**63 - 1)


def said(scene: Scene) -> set[str]:
    """All words of the scene's own full caption."""
    return set(understand(captions(scene)[0]).words)


def test_every_word_has_a_meaning():
    assert {*ATTRIBUTE_OF, "no"} == set(WORDS)


@pytest.mark.parametrize("word", [word for word in WORDS if word != "no"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_word_alone_is_in_the_scene_whatever_the_seed(word, seed):
    drawn = scene_from(word, seed)
    assert word in said(drawn.scene) and not drawn.left_out


@pytest.mark.parametrize("seed", SEEDS)
def test_no_moon(seed):
    scene = scene_from("no moon", seed).scene
    assert (scene.time, scene.moon) == ("night", False) and {"no", "moon"} <= said(scene)


@pytest.mark.parametrize("meant", sorted(set(SYNONYMS.values())))
def test_synonyms_mean_the_same(meant):
    for word in (one for one, other in SYNONYMS.items() if other == meant):
        assert scene_from(word, 5) == scene_from(meant, 5)


def test_a_full_caption_gives_its_attributes_back():
    """Read by the checker of `judge`, for scenes as the corpora hold them."""
    rng = np.random.default_rng(0)
    for seed in range(300):
        scene = sample_scene(rng)
        drawn = scene_from(captions(scene)[0], seed)
        assert attributes(drawn.scene) == attributes(scene) and not drawn.left_out


@pytest.mark.parametrize("prompt", EXAMPLES)
def test_nothing_of_the_examples_is_left_out(prompt):
    for seed in SEEDS:
        drawn = scene_from(prompt, seed)
        assert not drawn.left_out
        assert set(understand(prompt).words) <= said(drawn.scene)


@pytest.mark.parametrize(
    ("prompt", "changes", "left_out"),
    [
        ("dunes and a forest", {"kind": "dunes"}, ("forest",)),
        ("mountains with a lake", {"kind": "lake"}, ()),
        ("a lake among mountains near the sea", {"kind": "lake"}, ("sea",)),
        ("a snowy forest at dawn, sunset, golden, blue", {"kind": "forest", "time": "dawn"}, ("sunset", "blue")),
        ("the sea at noon, moon ahead", {"time": "noon"}, ("moon",)),
        ("the sea at night, sun ahead", {"time": "night", "moon": True}, ("sun",)),
        ("a moonless lake, light from the left", {"time": "night", "moon": False}, ("left",)),
        ("moon on the left, no sun, no", {"time": "night", "moon": True}, ("no sun", "no")),
        ("the sea, no clouds, no fog", {"sky": "clear"}, ()),
        ("the sea, no clouds, no fog, no clear sky", {"kind": "sea"}, ()),
    ],
)
def test_words_that_contradict_each_other(prompt, changes, left_out):
    for seed in SEEDS:
        drawn = scene_from(prompt, seed)
        assert {name: getattr(drawn.scene, name) for name in changes} == changes
        assert drawn.left_out == left_out


def test_what_is_not_said_is_drawn():
    drawn = [scene_from("clouds", seed).scene for seed in range(200)]
    for name in ("kind", "ground", "time", "palette", "light"):
        place = list(ATTRIBUTES).index(name)
        assert {attributes(scene)[place] for scene in drawn} == set(range(len(ATTRIBUTES[name])))
    assert len({scene.seed for scene in drawn}) == 200


def test_another_word_leaves_the_rest_as_it_was():
    for seed in SEEDS:
        day, night = (scene_from(f"mountains at {time}", seed).scene.to_dict() for time in ("noon", "sunset"))
        assert {name for name in day if day[name] != night[name]} == {"time", "sun_azimuth", "sun_elevation"}


@pytest.mark.parametrize("prompt", ["a cat", "", "at the"])
def test_a_prompt_without_a_known_word_is_refused(prompt):
    with pytest.raises(UserError, match=r"no known word in .*; try"):
        scene_from(prompt, 0)


def test_a_known_seed_gives_the_known_scene():
    """Links and files name a prompt and its seed: another draw would be another picture."""
    assert scene_from("a lake at night", 7).scene == Scene("lake", "grass", "clear", "night", 6.9, 21.1, seed=7)


def test_light_from_every_side_at_every_time():
    for time in VOCABULARY["time"]:
        for where in ("ahead", "behind", "left", "right"):
            assert {time, where} <= said(scene_from(f"dunes at {time}, light {where}", 3).scene)
