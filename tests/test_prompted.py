"""From a prompt through the engine and the command line, with a toy generator of the real class."""

import json
import threading

import numpy as np
import pytest

from lua_demo.commands.main import main
from lua_demo.engine import Engine
from lua_demo.pictures.images import load_photo
from lua_demo.request.inputs import picture_size
from lua_demo.schema import Progress, Request, Result, Stopped, UserError

PROMPT = Request(
    prompt="a lake at night with a dragon", size=64, steps=3, methods=("base", "lua", "native"), base="embedded"
)


@pytest.fixture
def weights(prompted_weights):
    return prompted_weights


@pytest.fixture
def engine(weights):
    return Engine("cpu", weights=weights)


def with_changes(**changes):
    return Request(**{**PROMPT.__dict__, **changes})


def results(engine, request=PROMPT, stop=None):
    return {event.method: event for event in engine.compare(request, stop) if isinstance(event, Result)}


def test_a_prompt_becomes_pictures_of_the_right_size(engine):
    done = results(engine)
    assert {key: result.image.shape[:2] for key, result in done.items()} == {
        "base": (64, 64), "lua": (128, 128), "native": (128, 128),
    }  # fmt: skip
    assert [span.name for span in done["lua"].spans] == ["generate", "upscale", "decode"]
    assert [span.name for span in done["native"].spans] == ["generate", "decode"]
    assert done["lua"].spans[0].shared and not done["native"].spans[0].shared
    assert done["base"].latent.size == (64, 64)
    assert all(result.metrics is None for result in done.values())
    assert done["base"].notes == ("words that the model does not know, ignored: dragon",)


def test_every_step_of_the_sampler_is_told(engine):
    told = [event for event in engine.compare(PROMPT) if isinstance(event, Progress) and event.stage == "generate"]
    assert [(event.method, event.step, event.steps) for event in told] == [
        *(("base", step, 3) for step in range(4)),
        *(("native", step, 3) for step in range(4)),
    ]


def test_lua_then_a_few_steps(engine, weights):
    request = with_changes(methods=("lua", "refine"), steps=4, refine=0.5)
    events = list(engine.compare(request))
    done = {event.method: event for event in events if isinstance(event, Result)}
    refined = done["refine"]
    assert [span.name for span in refined.spans] == ["generate", "upscale", "refine", "decode"]
    assert refined.image.shape == (128, 128, 3) and not np.array_equal(refined.image, done["lua"].image)
    assert any("the last 2 of 4 steps ran again at 128 x 128" in note for note in refined.notes)
    large = results(engine, with_changes(methods=("refine",), size=320, steps=2, refine=0.5))["refine"]
    assert any("at 640 x 640 expect repeated small subjects" in note for note in large.notes)
    told = [(event.step, event.steps) for event in events if isinstance(event, Progress) and event.stage == "refine"]
    assert told == [(0, 2), (1, 2), (2, 2)]
    again = results(Engine("cpu", weights=weights), request)["refine"]
    assert np.array_equal(again.image, refined.image), "the seed decides"


def test_the_same_prompt_and_seed_give_the_same_latent_and_are_sampled_once(engine, weights):
    first = results(engine)["base"]
    again = results(engine, with_changes(scale=4, methods=("base",)))["base"]
    assert again.spans[0].shared
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.image, results(Engine("cpu", weights=weights))["base"].image)
    for change in ({"seed": 1}, {"prompt": "dunes"}, {"steps": 4}, {"guidance": 5.0}, {"aspect": "3:2"}):
        other = results(engine, with_changes(methods=("base",), **change))["base"]
        assert not np.array_equal(first.latent.values, other.latent.values), change
        assert not other.spans[0].shared, change


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [(512, 1, (512, 512)), (512, 3 / 2, (512, 344)), (512, 9 / 16, (288, 512)), (100, 1, (96, 96)), (16, 2, (16, 8))],
)
def test_picture_size(size, ratio, expected):
    assert picture_size(size, ratio, 8) == expected


def test_stop_works_between_two_steps_and_the_next_run_is_whole(engine):
    stop = threading.Event()
    with pytest.raises(Stopped):
        for event in engine.compare(with_changes(steps=50), stop):
            if isinstance(event, Progress) and event.step == 2:
                stop.set()
    assert results(engine)["lua"].image is not None


def test_whoever_leaves_early_leaves_no_thread_behind(engine):
    stream = engine.compare(with_changes(steps=50))
    while next(stream).stage != "generate":
        pass
    next(stream)
    stream.close()
    assert "sampler" not in {thread.name for thread in threading.enumerate()}
    assert results(engine)["base"].image is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "a cat"}, "no known word in"),
        ({"prompt": "lake " * 200}, "at most 500 characters"),
        ({"prompt": 3}, "not a text"),
        ({"image": "photo.png"}, "both image and prompt"),
        ({"prompt": ""}, "nothing to start from"),
        ({"steps": 0}, "steps 0 is out of range"),
        ({"steps": "x"}, "whole number"),
        ({"guidance": float("nan")}, "guidance nan"),
        ({"guidance": 0.5}, "guidance 0.5"),
        ({"aspect": "5:1"}, "aspect '5:1' does not exist"),
        ({"methods": ("roundtrip",)}, "method 'roundtrip' does not exist"),
    ],
)
def test_bad_requests_are_named(engine, changes, words):
    with pytest.raises(UserError, match=words):
        engine.compare(with_changes(**changes))


def test_missing_generator_weights_are_named(toy_weights):
    with pytest.raises(UserError, match="weights of generator are missing"):
        results(Engine("cpu", weights=toy_weights))


def test_the_command_line_writes_and_recreates(weights, tmp_path, capsys):
    arguments = ["--weights", str(weights), "--device", "cpu"]
    prompt = [
        "--prompt",
        PROMPT.prompt,
        "--base",
        "embedded",
        "--size",
        "64",
        "--steps",
        "3",
        "--methods",
        "lua,native",
    ]
    assert main(["compare", *arguments, *prompt, "--out", str(tmp_path)]) == 0
    assert "generate, step 2 of 3" in capsys.readouterr().out
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["settings"]["prompt"] == PROMPT.prompt
    assert document["source"]["kind"] == "prompt"
    assert load_photo(tmp_path / "native.png").size == (128, 128)
    assert main(["recreate", str(tmp_path / "lua.png"), *arguments]) == 0
    assert "same pixels" in capsys.readouterr().out
