import json

import numpy as np
import pytest
import torch
from conftest import CHANNELS

from lua_demo.commands.judge import (
    ATTRIBUTES,
    Classifier,
    attributes,
    distances,
    fineness,
    frechet,
    layout,
    shares,
    statistics,
    train_classifier,
    varied,
)
from lua_demo.commands.main import main
from lua_demo.models.embedded import new_pipeline
from lua_demo.models.weights import load_autoencoder, load_lua
from lua_demo.scenes import Scene
from lua_demo.scenes.corpus import scenes, write_corpus


def test_attributes_of_a_scene_and_of_its_mirror_image():
    scene = Scene("lake", "snow", "fog", "dawn", sun_azimuth=90, palette="rose")
    names = [choices[i] for i, choices in zip(attributes(scene), ATTRIBUTES.values(), strict=True)]
    assert names == ["lake", "snow", "fog", "dawn", "rose", "right"]
    assert attributes(scene.mirrored())[-1] == ATTRIBUTES["light"].index("left")
    assert attributes(Scene(time="night", moon=False))[-1] == ATTRIBUTES["light"].index("moon")
    for scene in scenes(50, 3):
        assert all(0 <= i < len(choices) for i, choices in zip(attributes(scene), ATTRIBUTES.values(), strict=True))


def test_a_classifier_learns_what_can_be_seen_and_not_what_cannot():
    rng = np.random.default_rng(0)
    latents = rng.normal(0, 0.2, (1024, 16, 16, 16)).astype(np.float32)
    wanted = np.stack([rng.integers(len(choices), size=1024) for choices in ATTRIBUTES.values()], 1)
    latents[:, 1:] = 0
    latents[:, 0] += wanted[:, 0, None, None]  # the kind is written into the first channel
    model = train_classifier(latents[:768], wanted[:768], epochs=8)
    right = shares(model.read(latents[768:]), wanted[768:])
    assert right["kind"] > 0.9
    assert right["palette"] < 0.6


def test_varied_latents_are_moved_as_a_whole_and_noisy():
    latents = torch.arange(32.0).expand(2, 3, 32, 32)
    shifts = set()
    for seed in range(20):
        difference = (varied(latents, np.random.default_rng(seed)) - latents)[..., 8:-8]
        assert 0.04 < difference.std() < 0.06
        shifts.add(round(difference.mean().item()))
        assert abs(difference.mean() - round(difference.mean().item())) < 0.05
    assert len(shifts) > 4 and max(shifts) <= 4 and min(shifts) >= -4


def test_frechet_distance_of_normal_distributions_by_hand():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(20_000, 2)) * [1, 2]
    other = rng.normal(size=(20_000, 2)) * [3, 2] + [4, 0]
    assert frechet(one, other) == pytest.approx(4**2 + (3 - 1) ** 2, rel=0.05)
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)


def test_features_have_the_documented_meaning():
    latents = np.zeros((1, 16, 16, 16), np.float32)
    latents[0, 3, :8, 8:] = 5  # channel 3, upper right quarter
    features = statistics(latents).reshape(2, 16, 4)
    assert features[0, 3].tolist() == [0, 5, 0, 0]
    assert np.count_nonzero(features) == 1
    assert layout(latents).reshape(16, 8, 8)[3, :4, 4:].tolist() == [[5] * 4] * 4


def test_distances_between_rows():
    np.testing.assert_allclose(distances(np.array([[0.0, 0], [3, 4]]), np.array([[0.0, 0]])), [[0], [5]])


def test_the_command_judges_a_model_by_a_corpus(tmp_path, toy_weights, capsys):
    torch.manual_seed(0)
    detail = dict(detail_channels=CHANNELS - 16, noise=4, width=16, depth=1)
    new_pipeline(detail, width=32, depth=1, heads=2, fine=8).save_pretrained(tmp_path / "generator")
    write_corpus(tmp_path / "corpus", 8, 512, seed=0, workers=2)
    options = ["--prompts", "2", "--steps", "1", "--json", str(tmp_path / "verdict.json")]
    folders = ["--corpus", tmp_path / "corpus", "--generator", tmp_path / "generator"]
    vae = ["--vae", toy_weights / "embedded" / "autoencoder", "--lua", toy_weights / "embedded" / "lua"]
    assert main(["judge", *map(str, folders + vae), *options]) == 0
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["prompts"] == 2
    assert 0 <= verdict["mean_right"] <= 1 and verdict["nearest"] > 1  # noise is far from every render
    assert f"{verdict['mean_right']:.1%}" in capsys.readouterr().out
    assert main(["judge", *map(str, folders + vae), "--prompts", "3"]) != 0
    assert "render 12" in capsys.readouterr().err


def test_a_flat_latent_has_no_detail_and_noise_has_steps_between_its_cells(toy_weights):
    """A latent of one value decodes to a flat picture; noise in the latent has detail and steps between its cells."""
    autoencoder, lua = (
        load_autoencoder(toy_weights / "embedded" / "autoencoder"),
        load_lua(toy_weights / "embedded" / "lua"),
    )
    rng = np.random.default_rng(0)
    flat = fineness(np.zeros((1, CHANNELS, 16, 16), np.float32), autoencoder, lua)
    noisy = fineness(rng.normal(size=(2, CHANNELS, 16, 16)).astype(np.float32), autoencoder, lua)
    assert noisy.energy > 100 * flat.energy and noisy.grid > 1


def test_the_classifier_takes_latents_of_512_pixels():
    assert [y.shape[1] for y in Classifier(16)(torch.zeros(2, 16, 64, 64))] == [len(c) for c in ATTRIBUTES.values()]
