"""The renderer: one scene is one picture at every size, on every machine."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from lua_demo.commands.scenes import main
from lua_demo.scenes import Scene, captions, render, sample_scene
from lua_demo.scenes.corpus import EXAMPLES, scenes
from lua_demo.scenes.noise import Noise
from lua_demo.scenes.scene import GROUNDS, KINDS, PALETTES, SKIES, TIMES
from lua_demo.scenes.terrain import Terrain
from lua_demo.scenes.view import View
from lua_demo.schema import UserError

ONE_PER_KIND = [
    Scene("mountains", "grass", "clouds", "noon", 75, 36, seed=4003),
    Scene("dunes", "sand", "clear", "sunset", -70, 11, seed=2004),
    Scene("canyon", "rock", "clear", "noon", -80, 40, seed=7003),
    Scene("sea", "grass", "clouds", "dawn", -75, 12, seed=6000),
    Scene("forest", "snow", "fog", "dawn", -62, 11, seed=3005),
    Scene("lake", "snow", "clear", "night", 60, 20, moon=False, seed=5005),
]


def halved(picture: np.ndarray) -> np.ndarray:
    """Box-filtered to half the size, in linear light, as a sensor would."""
    light = (picture.astype(np.float64) / 255) ** 2.2
    height, width, _ = light.shape
    return light.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)) ** (1 / 2.2) * 255


@pytest.mark.parametrize("scene", ONE_PER_KIND, ids=lambda s: s.kind)
def test_the_same_scene_at_twice_the_size_is_the_same_picture_with_more_detail(scene):
    small, large = render(scene, 128), render(scene, 256)
    assert small.shape == (128, 128, 3) and small.dtype == np.uint8
    error = np.sqrt(np.mean((halved(large) - small) ** 2))
    other = Scene(**{**scene.to_dict(), "seed": scene.seed + 1})
    assert error < 20
    assert error < 0.5 * np.sqrt(np.mean((halved(render(other, 256)) - small) ** 2.0))
    # Real detail: the large picture is not an enlargement of the small one.
    enlarged = np.asarray(Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC), np.float64)
    gradient = [np.abs(np.diff(p.astype(np.float64), axis=1)).mean() for p in (large, enlarged)]
    assert gradient[0] > 1.1 * gradient[1]


def test_every_combination_renders_a_picture_with_contrast():
    rng = np.random.Generator(np.random.PCG64(0))
    for kind in KINDS:
        for ground in GROUNDS:
            scene = Scene(kind, ground, str(rng.choice(SKIES)), str(rng.choice(TIMES)), moon=False, seed=3)
            picture = render(scene, (48, 32))
            assert picture.shape == (32, 48, 3)
            assert picture.std() > 4, scene


def test_mountains_too_steep_for_any_tree():
    scene = Scene("mountains", "snow", "clouds", "dawn", -84.3, 13.3, palette="azure", seed=1316998406)
    assert render(scene, 64).std() > 5


def test_deterministic_and_seeded():
    scene = ONE_PER_KIND[0]
    first = render(scene, 64)
    assert np.array_equal(first, render(scene, 64))
    assert not np.array_equal(first, render(Scene(**{**scene.to_dict(), "seed": 1}), 64))


def test_attributes_show():
    def mean(**changes):
        return render(Scene(**{"kind": "mountains", "ground": "grass", "seed": 5, **changes}), 64).mean((0, 1))

    assert mean(time="night").mean() < 0.6 * mean(time="noon").mean()
    land = {ground: render(Scene("mountains", ground, seed=5), 64)[40:].mean((0, 1)) for ground in ("snow", "grass")}
    assert land["snow"].mean() > land["grass"].mean()
    assert land["grass"][1] > land["grass"][2] + 20


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("ground", ["snow", "grass"])
def test_the_colour_of_the_light_is_plain_to_see(time, ground):
    """At every time of day, whose own colour it has to win against, and as bright as without it."""
    means = {
        palette: render(Scene("mountains", ground, "clear", time, palette=palette, seed=5), 64).mean((0, 1))
        for palette in PALETTES
    }
    warmth = {palette: np.log(rgb[0] / rgb[2]) for palette, rgb in means.items()}
    green = {palette: np.log(rgb[1] ** 2 / (rgb[0] * rgb[2])) for palette, rgb in means.items()}
    assert warmth["golden"] > warmth["natural"] + 0.2 and warmth["golden"] > warmth["rose"] + 0.2
    assert warmth["azure"] < warmth["natural"] - 0.1
    assert green["rose"] < min(green["natural"], green["golden"], green["azure"]) - 0.05
    for rgb in means.values():
        assert rgb.mean() == pytest.approx(means["natural"].mean(), rel=0.15)


def test_shadow_side_follows_the_sun():
    """A dune lit from the left and from the right has its dark sides swapped: the two pictures correlate little."""
    left, right = (render(Scene("dunes", "sand", "clear", "sunset", a, 10, seed=2004), 96)[60:] for a in (-80, 80))
    a, b = (p.mean(2).ravel() - p.mean() for p in (left, right))
    assert a @ b / np.sqrt((a @ a) * (b @ b)) < 0.6


def test_rays_meet_the_land():
    terrain = Terrain(ONE_PER_KIND[0])
    view = View(terrain, 24, 24, -0.6, 0.6, 0.05, 400, mirrored=False)
    (depth,) = view.hits()
    column, slope = np.tile(view.columns[1:-1], 24), np.repeat(view.rows(), 24).astype(np.float32)
    land = np.isfinite(depth)
    assert 0.2 < land.mean() < 0.95
    x, z = column[land] * depth[land], depth[land]
    ground = terrain.height(x, z, z * np.float32(0.05))
    # A step of the march is 1.5 % of the depth, and the land is interpolated over it.
    assert np.median(np.abs(terrain.eye + slope[land] * z - ground) / z) < 0.01


def test_noise_derivatives_and_filter():
    n = Noise(3)
    rng = np.random.Generator(np.random.PCG64(1))
    x, y = rng.uniform(-40, 40, (2, 500)).astype(np.float32)
    _, dx, dy = n.slopes(x, y)
    e = np.float32(1 / 64)
    assert np.abs((n.value(x + e, y) - n.value(x - e, y)) / (2 * e) - dx).max() < 0.02
    assert np.abs((n.value(x, y + e) - n.value(x, y - e)) / (2 * e) - dy).max() < 0.02
    gx, _ = n.gradient(x, y, 3.0, 3)
    assert np.abs((n.fbm(x + e, y, 3.0, 3) - n.fbm(x - e, y, 3.0, 3)) / (2 * e) - gx).max() < 0.02
    fine, coarse = n.fbm(x, y, 1.0, 8), n.fbm(x, y, 1.0, 8, 0.3)
    assert 0 < np.abs(fine - coarse).max() < 0.6
    # Cells of 1/8 and less are finer than 0.7 footprints.
    assert np.array_equal(coarse, n.fbm(x, y, 1.0, 3, 0.3))


def test_sampled_scenes_cover_the_choices_and_their_captions_differ():
    found = list(scenes(300, 0))
    assert found[:10] == list(scenes(10, 0))
    assert {s.kind for s in found} == set(KINDS) and {s.time for s in found} == set(TIMES)
    assert {s.ground for s in found} == set(GROUNDS) and {s.sky for s in found} == set(SKIES)
    for scene in found[:50]:
        said = captions(scene)
        assert len(set(said)) == len(said) >= 5
    by_caption: dict[str, set] = {}
    for s in found:
        attributes = (s.kind, s.ground, s.sky, s.time, s.palette)
        by_caption.setdefault(captions(s)[0], set()).add(attributes)
    assert all(len(attributes) == 1 for attributes in by_caption.values())
    assert isinstance(sample_scene(np.random.Generator(np.random.PCG64(1))), Scene)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"kind": "city"}, "city"), ({"sun_elevation": 95}, "95"), ({"seed": -1}, "-1"), ({"palette": ""}, "''")],
)
def test_a_scene_that_does_not_exist_is_refused(change, named):
    with pytest.raises(UserError, match=named) as error:
        Scene(**change)
    assert "\n" not in str(error.value)


def test_command_line(tmp_path):
    assert main(["--out", str(tmp_path), "--count", "3", "--size", "32", "--seed", "4"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["000000.png", "000001.png", "000002.png"]
    scene = Scene(**lines[2]["scene"])
    assert lines[2]["captions"] == captions(scene)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "000002.png")), render(scene, 32))


@pytest.mark.parametrize(
    "argv",
    [[], ["--out", "x", "--count", "0"], ["--out", "x", "--size", "4"], ["--out", "x", "--seed", "-1"], ["--bogus"]],
)
def test_command_line_refuses(argv):
    with pytest.raises(UserError):
        main(argv)


def test_shipped_examples_are_the_renders():
    """The photos in assets come from `scenes --examples`, and are finer than a 1024 pixel picture could be."""
    from lua_demo.paths import WEIGHTS_DIR

    folder = WEIGHTS_DIR.parent / "examples"
    name, (scene, (width, height)) = next(iter(EXAMPLES.items()))
    assert {path.stem for path in folder.glob("*.jpg")} >= set(EXAMPLES)
    with Image.open(folder / f"{name}.jpg") as photo:
        assert photo.size == (width, height)
        small = np.asarray(photo.convert("RGB").reduce(16), np.float64)
    fresh = np.asarray(Image.fromarray(render(scene, (width // 8, height // 8))).reduce(2), np.float64)
    assert np.sqrt(np.mean((small - fresh) ** 2)) < 14
