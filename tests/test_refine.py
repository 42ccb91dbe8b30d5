"""LUA, then a few steps of the base model at the target size: real pipelines of toy size."""

from __future__ import annotations

from dataclasses import replace

import accelerate
import numpy as np
import pytest
import torch
from test_bases import PROMPT, SIZE, asked, engine, results, weights  # noqa: F401  fixtures

from lua_demo.catalog import cost
from lua_demo.catalog.bases import BASES
from lua_demo.catalog.families import pack
from lua_demo.catalog.methods import can_refine, methods_of
from lua_demo.catalog.spaces import SPACES
from lua_demo.commands.main import main
from lua_demo.engine import Engine
from lua_demo.machine import memory
from lua_demo.machine.memory import PLANS, RESIDENT, need
from lua_demo.models.base_model import BaseModel
from lua_demo.models.generators import Start
from lua_demo.request.job import resolve
from lua_demo.request.settings import from_query, from_settings, to_settings
from lua_demo.schema import Progress, Request, Result, UserError
from lua_demo.ui.form import method_choices
from lua_demo.ui.zero_gpu import duration

KEYS = ("flux1-dev", "z-image-turbo", "sdxl", "sd35-medium")
STEPS, SEED = 5, 3
REFINED = ("lua", "refine")


def placed(weights, key, plan=RESIDENT, device="cpu"):  # noqa: F811
    model = BaseModel(BASES[key], weights / "bases" / key, torch.device(device), torch.float32)
    model._use(plan)
    return model


def latent_of(key):
    return torch.randn(1, SPACES[BASES[key].space].channels, SIZE[1] // 8, SIZE[0] // 8)


@pytest.mark.parametrize("kept", [1, 2, 4])
@pytest.mark.parametrize("key", KEYS)
def test_the_latent_gets_noise_and_the_last_steps_run(weights, key, kept):  # noqa: F811
    """The denoiser sees first the latent as it is given, neither scaled nor resized, with that step's noise."""
    model, latent, seen, told = placed(weights, key), latent_of(key), [], []
    denoiser = getattr(model._pipeline, model.family.denoiser)
    denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]),
        with_kwargs=True,
    )
    made = model(PROMPT, SIZE, STEPS, 1.0, SEED, told.append, Start(latent, kept))
    assert made.shape == latent.shape and told == list(range(1, kept + 1)) and len(seen) == kept
    sigma = model._pipeline.scheduler.sigmas[STEPS - kept]
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(SEED))
    expected = {
        "flux1-dev": lambda: pack((1 - sigma) * latent + sigma * noise),
        "z-image-turbo": lambda: (1 - sigma) * latent + sigma * noise,
        "sd35-medium": lambda: (1 - sigma) * latent + sigma * noise,
        "sdxl": lambda: (latent + sigma * noise) / (sigma**2 + 1) ** 0.5,
    }[key]()
    first = seen[0][0].movedim(1, 0) if isinstance(seen[0], list) else seen[0]  # Z-Image: a list of C x frames x h x w
    torch.testing.assert_close(first, expected)


@pytest.mark.parametrize("key", KEYS)
def test_all_steps_from_a_latent_are_the_base_models_own(weights, key):  # noqa: F811
    model, latent = placed(weights, key), latent_of(key)
    if key == "sdxl":  # its noise covers what was there, and does not take its place
        latent = torch.zeros_like(latent)
    plain = model(PROMPT, SIZE, STEPS, 3.0, SEED)
    torch.testing.assert_close(model(PROMPT, SIZE, STEPS, 3.0, SEED, lambda step: None, Start(latent, STEPS)), plain)
    torch.testing.assert_close(model(PROMPT, SIZE, STEPS, 3.0, SEED), plain, msg="as before it refined")


@pytest.mark.parametrize("plan", PLANS[1:], ids=lambda plan: plan.key)
@pytest.mark.parametrize("key", ["flux1-dev", "sdxl"])
def test_every_placement_refines_alike(weights, key, plan, monkeypatch):  # noqa: F811
    stream, cpu = accelerate.cpu_offload, torch.device("cpu")
    monkeypatch.setattr(accelerate, "cpu_offload", lambda part, _, **rest: stream(part, cpu, **rest))
    start = Start(latent_of(key), 2)
    made = []
    for used in (RESIDENT, plan):
        model = placed(weights, key, used)
        with torch.inference_mode():
            made.append(model(PROMPT, SIZE, STEPS, 1.0, SEED, lambda step: None, start))
    torch.testing.assert_close(*made, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("key", KEYS)
def test_a_column_of_its_own(engine, key):  # noqa: F811
    request = asked(key, methods=REFINED, steps=4, refine=0.5)
    events = list(engine.compare(request))
    done = {event.method: event for event in events if isinstance(event, Result)}
    refined = done["refine"]
    assert [span.name for span in refined.spans] == ["generate", "upscale", "refine", "decode"]
    assert refined.spans[0].shared and not refined.spans[2].shared and refined.label == "LUA + refine"
    assert refined.image.shape == done["lua"].image.shape == (128, 192, 3)
    assert not np.array_equal(refined.image, done["lua"].image)
    told = [(event.step, event.steps) for event in events if isinstance(event, Progress) and event.stage == "refine"]
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert any("the last 2 of 4 steps ran again at 192 x 128" in note and "invented" in note for note in refined.notes)
    again = results(Engine("cpu", weights=engine.weights), asked(key, methods=("refine",), steps=4, refine=0.5))
    assert np.array_equal(again["refine"].image, refined.image), "the seed decides"
    more = results(engine, asked(key, methods=("refine",), steps=4, refine=1.0))["refine"]
    assert not np.array_equal(more.image, refined.image)


def test_where_there_is_such_a_column():
    for key in BASES:
        there = can_refine(key)
        assert there == (BASES[key].family in ("embedded", "flux1", "z-image", "sdxl", "sd3")), key
        assert ("refine" in methods_of("prompt", key)) == there
        assert (("LUA + refine", "refine") in method_choices("prompt", key)) == there
        assert "refine" not in methods_of("photo", key) and "refine" not in methods_of("latent", key)


@pytest.mark.parametrize(
    "given",
    [{"prompt": PROMPT, "base": "qwen-image"}, {"prompt": PROMPT}, {"image": "a.png", "base": "flux1-dev"}],
    ids=["no such pipeline", "rendered", "a photo"],
)
def test_elsewhere_it_is_refused_with_a_way_out(given):
    with pytest.raises(UserError, match=r"method refine is for prompts and for bases .*: choose embedded, sdxl"):
        resolve(Request(methods=REFINED, **given))


@pytest.mark.parametrize("value", [0, -0.1, 1.01, float("nan"), "0.5", True])
def test_shares_that_are_none(value):
    with pytest.raises(UserError, match=r"refine is .*; choose a share of the steps, over 0 and up to 1"):
        resolve(asked("sdxl", methods=REFINED, refine=value))


def test_a_share_is_at_least_one_step():
    counts = {(9, 0.25): 2, (4, 0.25): 1, (4, 0.01): 1, (28, 0.25): 7, (28, 1.0): 28}
    for (steps, share), count in counts.items():
        assert resolve(asked("sdxl", methods=REFINED, steps=steps, refine=share)).refine_steps == count


def test_links_and_settings_carry_it():
    request = asked("sdxl", methods=REFINED, refine=0.4)
    assert from_settings(to_settings(request)) == request
    assert from_query({"refine": "0.4"}) == {"refine": 0.4}
    assert "refine" not in to_settings(replace(request, methods=("lua",))), "where nothing is refined"


def test_it_is_left_out_where_it_takes_long_or_does_not_fit(engine, monkeypatch):  # noqa: F811
    request = asked("sd35-medium", methods=REFINED, steps=4, refine=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(cost, "LONGEST_SECONDS", 0.0)
        done = results(engine, request)
        assert done["lua"].image is not None and done["refine"].image is None
        assert "it would take about" in done["refine"].skipped and "2 steps at 192 x 128" in done["refine"].skipped
        assert results(engine, replace(request, force_native=True))["refine"].image is not None
    working = need(BASES["sd35-medium"], 192, 128).working
    monkeypatch.setattr(memory, "free_bytes", lambda device: working)
    assert "needs at least" in results(engine, request)["refine"].skipped


def test_seconds_of_a_lent_gpu_count_it():
    given = {"prompt": "hills", "base": "flux1-dev", "steps": 28}
    asked_for = [duration(Request(**given, methods=methods)) for methods in (("lua",), REFINED, ("lua", "native"))]
    assert asked_for[0] < asked_for[1] < asked_for[2]


def test_on_the_command_line_and_made_again(weights, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LUA_DEMO_STORE", str(tmp_path / "store"))
    machine = ["--device", "cpu", "--weights", str(weights)]
    given = ["--base", "sdxl", "--prompt", PROMPT, "--size", "64", "--steps", "3", "--methods", "lua"]
    out = tmp_path / "out"
    assert main(["compare", *given, "--refine", "0.6", "--out", str(out), *machine]) == 0
    assert "LUA + refine" in capsys.readouterr().out and (out / "refine.png").is_file()
    assert main(["recreate", str(out / "refine.png"), *machine]) == 0
    assert main(["compare", *given[2:], "--refine", "0.6", "--out", str(tmp_path / "no"), *machine]) == 2
    assert "method refine is for prompts and for bases that sample on" in capsys.readouterr().err
