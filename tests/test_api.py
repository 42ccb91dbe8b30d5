"""/models, /upscale and /compare as a program sees them: over HTTP, real engine, toy weights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import served
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from lua_demo.catalog.methods import methods_of
from lua_demo.commands.main import main
from lua_demo.engine import Engine
from lua_demo.request.validate import validated
from lua_demo.runs.provenance import read_png
from lua_demo.runs.store import Store
from lua_demo.schema import Request, Result, UserError

ROOT = Path(__file__).resolve().parent.parent
HEADING = "## Use it from Python over HTTP"


@pytest.fixture(scope="module")
def page_weights(prompted_weights) -> Path:
    return prompted_weights


def upscale(client: Client, path: Path, **changes) -> list[dict]:
    job = client.submit(image=handle_file(path), **{"size": 64, **changes}, api_name="/upscale")
    job.result()
    return job.outputs()


def test_models_names_all_that_can_be_run(client, prompted_weights):
    models = client.predict(api_name="/models")
    assert list(models["methods"]) == list(methods_of("photo"))
    assert "refine" in models["bases"]["sdxl"]["methods"] and "refine" not in models["bases"]["qwen-image"]["methods"]
    assert models["methods"]["lua"]["stages"] == ["encode", "upscale", "decode"]
    assert models["methods"]["native"]["needs_original"] and not models["methods"]["roundtrip"]["default"]
    space = models["latent_spaces"]["embedded"]
    environment = Engine("cpu", weights=prompted_weights).environment()
    assert space["weights"] == environment.weights and space["scales"] == models["methods"]["lua"]["scales"] == [2, 4]
    assert (models["device"], models["dtype"]) == (environment.device, "float32")
    assert models["defaults"]["size"] == 512 and models["limits"]["size"] == [16, 2048]


def test_upscale_tells_every_stage_and_gives_the_engines_pixels(client, photo, prompted_weights):
    path = photo(168, 126)  # no other test's: what was encoded before is taken from there
    *stages, last = upscale(client, path, scale=4)
    assert [stage["stage"] for stage in stages if stage["stage"] != "load"] == ["encode", "upscale", "decode"]
    assert {stage["state"] for stage in stages} == {"busy"} and (last["state"], last["method"]) == ("done", "lua")
    (expected,) = (
        event.image
        for event in Engine("cpu", weights=prompted_weights).compare(Request(str(path), 4, 64, ("lua",)))
        if isinstance(event, Result)
    )
    assert np.array_equal(np.asarray(Image.open(last["file"])), expected)
    assert Path(last["file"]).name == "photo_168x126_x4_lua.png"
    made = read_png(last["file"])
    assert (made.method, made.request.scale, made.file) == ("lua", 4, path.name)
    assert last["results"]["methods"]["lua"]["total_seconds"] > 0


def test_upscale_takes_a_latent(client, photo):
    answer = client.predict(image=handle_file(photo(160, 120)), methods=["base"], size=64, api_name="/compare")
    latent = client.predict(run=answer["run"], name="latent.safetensors", api_name="/export")
    *_, last = client.submit(latent=handle_file(latent), api_name="/upscale")
    assert np.array_equal(Image.open(last["file"]), Image.open(upscale(client, photo(160, 120))[-1]["file"]))


PROMPT = {
    "prompt": "a lake at night",
    "base": "embedded",
    "size": 64,
    "seed": 5,
    "steps": 3,
    "guidance": 2.0,
    "aspect": "3:2",
}


@pytest.mark.parametrize("method", ["lua", "native"])
def test_upscale_takes_a_prompt(client, prompted_weights, method):
    asked = {**PROMPT, "seed": 100 + ["lua", "native"].index(method)}  # nothing of it is kept from another test
    *steps, last = client.submit(**asked, method=method, api_name="/upscale")
    assert [step["step"] for step in steps if step["stage"] == "generate"][-4:] == [0, 1, 2, 3]
    (expected,) = (
        event.image
        for event in Engine("cpu", weights=prompted_weights).compare(Request(**asked, methods=(method,)))
        if isinstance(event, Result)
    )
    assert np.array_equal(np.asarray(Image.open(last["file"])), expected)
    assert Path(last["file"]).name == f"a_lake_at_night_x2_{method}.png"
    assert read_png(last["file"]).request == validated(Request(**asked, methods=(method,)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "a cat"}, "no known word in"),
        ({"steps": 0}, "steps 0 is out of range"),
        ({"guidance": 99}, "guidance 99 is no number in range"),
        ({"aspect": "5:1"}, "aspect '5:1' does not exist"),
        ({"base": "magic"}, "base 'magic' does not exist"),
        ({"method": "roundtrip"}, "method 'roundtrip' does not exist"),
    ],
)
def test_prompts_are_refused_by_upscale_and_compare_alike(client, changes, words):
    changed = {**PROMPT, **changes}
    for endpoint, names in (("/upscale", "method"), ("/compare", "methods")):
        values = {name: value for name, value in changed.items() if name != "method"}
        method = changes.get("method", "lua")
        with pytest.raises(AppError, match=words):
            client.predict(**values, **{names: method if names == "method" else [method]}, api_name=endpoint)


def test_a_prompt_and_a_photo_are_too_much(client, photo):
    with pytest.raises(AppError, match="both image and prompt are given"):
        client.predict(image=handle_file(photo(96, 96)), prompt="a lake", api_name="/upscale")


def test_clients_learn_no_folder_of_the_server(toy_weights, tmp_path, photo):
    """The generator is missing, and LUA is damaged."""
    weights = tmp_path / "weights"
    shutil.copytree(toy_weights, weights)
    (weights / "embedded" / "lua" / "model.safetensors").write_bytes(b"broken")
    (weights / "bases" / "sdxl").mkdir(parents=True)
    (weights / "bases" / "sdxl" / "model_index.json").write_text("{}")
    with served(weights, tmp_path / "cache", Store(tmp_path / "store", pinned=None)) as url:
        client = Client(url, verbose=False, download_files=str(tmp_path / "downloads"))
        models = client.predict(api_name="/models")
        assert models["bases"]["embedded"]["how"].endswith("there is no embedded/generator")
        assert models["bases"]["sdxl"]["weights"] == "bases/sdxl"
        assert str(tmp_path) not in json.dumps(models) + json.dumps(client.view_api(return_format="dict"))
        for endpoint in ("/upscale", "/compare"):
            with pytest.raises(AppError) as caught:
                client.predict(prompt="a lake", base="embedded", api_name=endpoint)
            assert "there is no embedded/generator; train one" in str(caught.value)
            with pytest.raises(AppError) as caught:
                client.predict(image=handle_file(photo(96, 96)), api_name=endpoint)
            assert str(caught.value).startswith("embedded/lua/model.safetensors is not readable as weights")
    for request in (
        Request(prompt="a lake", base="embedded"),
        Request(str(photo(96, 96))),
    ):  # as the command line has it
        with pytest.raises(UserError, match=re.escape(str(weights))):
            list(Engine("cpu", weights=weights).compare(request))


@pytest.mark.parametrize(
    ("endpoint", "changes", "argv"),
    [
        ("/upscale", {"scale": 3}, ["--scale", "3"]),
        ("/upscale", {"method": "magic"}, ["--methods", "magic"]),
        ("/upscale", {"size": 7}, ["--size", "7"]),
        ("/compare", {"scale": 3}, ["--scale", "3"]),
        ("/compare", {"methods": ["lua", "magic"]}, ["--methods", "lua,magic"]),
        ("/compare", {"methods": []}, ["--methods", ","]),
        ("/compare", {"size": 10**9}, ["--size", str(10**9)]),
        ("/compare", {"seed": -1}, ["--seed", "-1"]),
    ],
)
def test_refusals_are_those_of_the_command_line(client, photo, tmp_path, capsys, endpoint, changes, argv):
    path = photo(96, 96)
    assert main(["compare", "--image", str(path), "--out", str(tmp_path / "out"), "--device", "cpu", *argv]) == 2
    told = capsys.readouterr().err.removeprefix("lua_demo: ").strip()
    with pytest.raises(AppError) as caught:
        client.predict(image=handle_file(path), **changes, api_name=endpoint)
    assert str(caught.value) == told


@pytest.mark.parametrize("endpoint", ["/upscale", "/compare"])
def test_a_file_that_is_no_photo_is_refused_alike(client, tmp_path, capsys, endpoint):
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    assert main(["compare", "--image", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    told = capsys.readouterr().err.removeprefix("lua_demo: ").strip()
    with pytest.raises(AppError) as caught:
        client.predict(image=handle_file(path), api_name=endpoint)
    assert str(caught.value) == told


def test_what_cannot_be_upscaled(client, photo):
    with pytest.raises(UserError) as expected:
        validated(Request())
    with pytest.raises(AppError, match=re.escape(str(expected.value))):
        client.predict(api_name="/upscale")
    with pytest.raises(AppError, match=r"Native \(original\): the photo is 70 x 60"):
        upscale(client, photo(70, 60), method="native")
    for value in ("/etc/passwd", {"url": "x"}, {"path": 3}):
        with pytest.raises(AppError, match=r"image is .*; give a file"):
            client.predict(image=value, api_name="/upscale")


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_files_of_the_server_are_out_of_reach(client, photo, meta):
    from test_app import REFUSED, raw_call

    told = raw_call(client, "upscale", image={"path": str(photo(96, 96)), **meta}, method="base")
    assert REFUSED.search(told)


def test_every_parameter_has_a_name_a_default_and_every_endpoint_a_description(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    for name in ("/compare", "/upscale", "/models"):
        assert len(endpoints[name]["description"]) > 60
        assert all(parameter["parameter_has_default"] for parameter in endpoints[name]["parameters"])
    named = {name: [p["parameter_name"] for p in endpoints[name]["parameters"]] for name in endpoints}
    assert named["/upscale"][:5] == ["image", "scale", "method", "size", "latent"] and named["/models"] == []
    assert {*named["/compare"]} - {"methods"} == {*named["/upscale"]} - {"method"}
    assert endpoints["/compare"]["parameters"][3]["python_type"]["type"] == "int"


def test_the_readmes_example_runs(client, monkeypatch, capsys):
    section = (
        (ROOT / "lua_demo" / "ui" / "README.md")
        .read_text(encoding="utf-8")
        .split(f"\n{HEADING}\n", 1)[1]
        .split("\n## ", 1)[0]
    )
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    address = "http://127.0.0.1:7860"
    assert code.count(address) == 1, "the page's own address"
    monkeypatch.chdir(ROOT)
    variables: dict = {}
    exec(compile(code.replace(address, client.src), "README.md", "exec"), variables)
    told = capsys.readouterr().out
    assert "busy upscale\n" in told and "['base', 'lua', 'bicubic']" in told
    assert read_png(variables["png"]).method == "lua" and f"?run={variables['comparison']['run']}" in told
    for name, size in (("answer", (256, 192)), ("sampled", (256, 256))):
        with Image.open(variables[name]["file"]) as picture:
            assert picture.size == size
