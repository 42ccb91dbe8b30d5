"""The base that renders: a prompt with an original to measure against, in every latent space."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from lua_demo.catalog.bases import BASES, first_base
from lua_demo.catalog.methods import METHODS, methods_of
from lua_demo.catalog.spaces import SPACES
from lua_demo.commands.doctor import base_states
from lua_demo.commands.main import main
from lua_demo.engine import Engine
from lua_demo.models.loaded import Models
from lua_demo.models.vaes import VAE
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.pictures import metrics
from lua_demo.report import claims, records
from lua_demo.request.settings import from_settings, to_settings
from lua_demo.runs.provenance import read_png
from lua_demo.runs.recreate import recreate
from lua_demo.runs.store import Store
from lua_demo.scenes import render
from lua_demo.scenes.from_prompt import scene_from
from lua_demo.schema import Progress, Request, Result, Stopped, UserError

PROMPT = "a lake and a forest at noon, with a dragon"
ALL = ("base", "lua", "swinir", "bicubic", "native", "roundtrip")


def asked(**changes) -> Request:
    return Request(**{"prompt": PROMPT, "size": 64, "methods": ALL, "base": "scene", "seed": 5, **changes})


def run(engine: Engine, request: Request) -> dict[str, Result]:
    return {event.method: event for event in engine.compare(request) if isinstance(event, Result)}


def test_it_is_the_default():
    assert Request().base == "scene" and next(iter(BASES)) == "scene"


@pytest.mark.parametrize(("scale", "aspect", "size"), [(2, "1:1", (64, 64)), (4, "3:2", (64, 40))])
def test_native_is_the_scene_and_the_others_are_measured_against_it(engine, scale, aspect, size):
    results = run(engine, asked(scale=scale, aspect=aspect))
    width, height = size[0] * scale, size[1] * scale
    truth = render(scene_from(PROMPT, 5).scene, (width, height))
    assert np.array_equal(results["native"].image, truth) and results["native"].metrics is None
    for method in ("lua", "swinir", "bicubic", "roundtrip"):
        result = results[method]
        assert result.image.shape == truth.shape
        assert result.metrics["psnr"] == pytest.approx(metrics.against(result.image, truth)["psnr"])
    assert results["base"].image.shape == (size[1], size[0], 3)


def test_the_base_is_the_scene_shrunk_as_a_photo_is(engine, tmp_path):
    """A PNG of the render gives the same pictures: nothing is compared with what it could not have known."""
    results = run(engine, asked())
    Image.fromarray(results["native"].image).save(tmp_path / "scene.png")
    photo = run(engine, Request(str(tmp_path / "scene.png"), size=64, methods=ALL))
    for method, result in results.items():
        assert np.array_equal(result.image, photo[method].image), method


def test_every_stage_is_timed_and_rendering_weighs_the_same_for_all(engine):
    results = run(engine, asked())
    stages = {method: [span.name for span in result.spans] for method, result in results.items()}
    assert stages["base"] == ["generate", "encode", "decode"] and stages["native"] == ["generate"]
    assert stages["lua"] == ["generate", "encode", "upscale", "decode"]
    assert stages == {key: [step.name for step in row.steps] for key, row in methods_of("prompt", "scene").items()
                      if key in ALL}  # fmt: skip
    assert len({result.spans[0].seconds for result in results.values()}) == 1
    assert all(result.spans[0].shared and result.spans[0].seconds > 0 for result in results.values())
    again = run(engine, asked(methods=("lua",)))["lua"]
    assert again.spans[:2] == results["lua"].spans[:2]  # not rendered or encoded again
    document = records.to_json(asked(), list(results.values()), engine.environment(asked()))
    assert claims.no_metrics(document) == ""
    claim, _ = claims.headline(document)  # native is no path of its own
    assert "SwinIR" in claim and "native" not in claim


def test_notes_say_what_it_is_and_what_it_cannot_show(engine):
    notes = run(engine, asked(methods=("lua",)))["lua"].notes
    assert notes[0] == "a rendered scene, no diffusion model: rendered at 128 x 128, for the base shrunk"
    assert notes[1].endswith("left out: forest") and notes[2].endswith("ignored: dragon")
    assert "generator" not in engine.environment(asked()).weights


def test_the_seed_draws_another_scene(engine):
    one, other = (run(engine, asked(seed=seed, methods=("native",)))["native"].image for seed in (1, 2))
    assert np.abs(one.astype(int) - other).mean() > 5


def test_a_refused_prompt(engine):
    with pytest.raises(UserError, match=r"no known word in 'a cat'"):
        engine.compare(asked(prompt="a cat"))


def test_rendering_is_told_and_can_be_stopped(engine):
    stop, told = threading.Event(), []
    with pytest.raises(Stopped):
        for event in engine.compare(asked(size=512), stop):
            told.append(event)
            if isinstance(event, Progress) and event.stage == "generate":
                threading.Timer(0.2, stop.set).start()
    assert told[-1].stage == "generate"


def test_out_of_memory_names_the_way_out(engine, monkeypatch):
    def full(*args):
        raise MemoryError

    monkeypatch.setattr("lua_demo.engine.render", full)
    with pytest.raises(UserError, match="rendered at 128 x 128; choose a smaller size"):
        run(engine, asked())


@pytest.mark.parametrize("space", [space for space, row in SPACES.items() if row.tiny])
def test_every_space_has_one_whose_latent_is_its_own(space, toy_weights):
    key = f"scene-{space}"
    row = BASES[key]
    assert row.renders and row.space == space and not BASES[first_base(space)].renders
    engine = Engine("cpu", weights=toy_weights)
    engine.provide(space, "tiny", VAE(TinyAutoencoder(SPACES[space].channels, pool=space == "flux2"), "tiny"))
    results = run(engine, asked(base=key, decoder="tiny", methods=("base", "bicubic", "native")))
    latent = results["base"].latent
    assert latent.space == space and latent.values.shape == (SPACES[space].channels, 8, 8)
    assert results["bicubic"].metrics and results["native"].image.shape == (128, 128, 3)


def test_doctor_and_models_know_it(toy_weights):
    states = {state.base: state for state in base_states(Models(*engine_of(toy_weights)))}
    assert states["scene"].runs and states["scene"].weights == "shipped"
    assert states["scene"].how == "rendered on any CPU"
    assert states["scene-sdxl"].runs and "SDXL base 1.0" in states["scene-sdxl"].how


def engine_of(weights):
    engine = Engine("cpu", weights=weights)
    return engine.device, engine.dtype, engine.weights


def test_settings_hold_no_sampler():
    settings = to_settings(asked())
    assert not {"steps", "guidance", "force_native"} & set(settings)
    back = from_settings(settings)
    assert (back.prompt, back.base, back.seed, back.steps) == (PROMPT, "scene", 5, 1)


def test_a_png_is_made_again_to_the_pixel(toy_weights, tmp_path, capsys):
    command = ["compare", "--prompt", PROMPT, "--size", "64", "--methods", "lua,native", "--weights", str(toy_weights)]
    assert main([*command, "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "results.json").read_text())["settings"]["base"] == "scene"
    for method in ("lua", "native"):
        made = read_png(tmp_path / f"{method}.png")
        assert made.request.base == "scene"
        assert recreate(
            tmp_path / f"{method}.png", Engine("cpu", weights=toy_weights), Store(tmp_path, pinned=None)
        ).same


def test_labels_say_what_native_is():
    rows = methods_of("prompt", "scene")
    assert list(rows) == [key for key, row in METHODS.items() if not row.refines]
    assert rows["native"].label == "Native (rendered large)" and rows["native"].is_truth
    assert methods_of("prompt", "embedded")["native"].label == "Native (sampled large)"
    assert methods_of("photo", "scene") == {key: row for key, row in METHODS.items() if not row.refines}


OTHER_CPU = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR AVX2 FMA3"
WRITE = "import sys, numpy as np; from test_scene_base import pictures; np.save(sys.argv[1], pictures())"


def pictures() -> np.ndarray:
    """Three scenes, N x 96 x 96 x 3 in [0, 1]."""
    prompts = ("a lake among snowy mountains at noon, clouds", "the sea at sunset", "a forest at night")
    return np.stack([render(scene_from(prompt, 1).scene, 96) for prompt in prompts]) / 255


def test_another_processor_renders_the_same_to_a_thousandth(tmp_path):
    """NumPy takes other instructions there, which round the last bit of a float32 otherwise."""
    found = np.show_config("dicts")["SIMD Extensions"]
    there = [name for name in OTHER_CPU.split() if name in found.get("found", [])]
    if not there:
        pytest.skip("NumPy has no instructions here that can be turned off")
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(there), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / "other.npy")], env=environment, check=True)
    difference = np.abs(np.load(tmp_path / "other.npy") - pictures())
    assert difference.mean() < 1e-3
