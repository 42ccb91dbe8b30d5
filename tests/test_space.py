"""What a Hugging Face Space needs of this repository: README's front matter, requirements, app.py, old Pythons."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from huggingface_hub import SpaceCard, SpaceHardware
from huggingface_hub.utils import validate_repo_id
from packaging.requirements import Requirement
from packaging.version import Version

from lua_demo.catalog.bases import BASES, REAL
from lua_demo.catalog.methods import METHODS, SWINIR_OFFICIAL
from lua_demo.catalog.spaces import SPACES
from lua_demo.engine import Engine
from lua_demo.models.weights import PUBLISHED_FILES
from lua_demo.runs.store import Store
from lua_demo.schema import Request, UserError
from lua_demo.ui.models import states
from lua_demo.ui.offer import Offer
from lua_demo.ui.page import build_demo, launch_options
from lua_demo.ui.public import PublicEngine
from lua_demo.ui.zero_gpu import PLACED, ZeroGpuEngine

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
# hub-docs, "Spaces Configuration Reference".
KEYS = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "short_description",
    "license", "suggested_hardware", "models", "datasets", "tags", "thumbnail", "pinned", "preload_from_hub",
    "fullWidth", "header", "startup_duration_timeout",
}  # fmt: skip
ZERO_GPU_PYTHONS = {"3.12"}
SOURCES = [ROOT / "app.py", *sorted((ROOT / "lua_demo").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]


@pytest.fixture(scope="module")
def card() -> dict:
    """The front matter, as the hub's client reads it."""
    return SpaceCard((ROOT / "README.md").read_text(encoding="utf-8")).data.to_dict()


def test_the_front_matter_is_what_the_hub_knows(card):
    assert card.keys() <= KEYS
    assert card["sdk"] == "gradio" and card["license"] == "apache-2.0"
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert card["python_version"] in ZERO_GPU_PYTHONS, "a string, not a number"
    assert 0 < len(card["short_description"]) <= 60
    assert card["suggested_hardware"] in {hardware.value for hardware in SpaceHardware}
    assert (ROOT / card["app_file"]).is_file()
    assert re.fullmatch(r"\W{1,2}", card["emoji"])


def test_the_front_matter_agrees_with_the_requirements(card):
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    needed = {requirement.name: requirement for requirement in map(Requirement, lines)}
    assert needed["gradio"].specifier.contains(card["sdk_version"])
    assert all(needed["torch"].specifier.contains(Version(v)) for v in ("2.8.0", "2.11.0", "2.13.0"))
    assert not needed["torch"].specifier.contains(Version("2.14.0")), "what ZeroGPU does not list (2026-11)"
    assert {"spaces", "diffusers", "transformers", "accelerate"} <= needed.keys()


def test_what_is_preloaded_is_what_is_placed(card):
    preloaded = {name: files for name, _, files in (entry.partition(" ") for entry in card["preload_from_hub"])}
    for repository in [*card["models"], *preloaded]:
        validate_repo_id(repository)
    assert preloaded.keys() <= set(card["models"])
    for repository, file in PUBLISHED_FILES.items():
        assert preloaded[repository] == file
    assert preloaded[f"madebyollin/{SPACES['flux1'].tiny}"] == "config.json,diffusion_pytorch_model.safetensors"
    real = BASES[REAL]
    assert preloaded[real.hub_id] == "" and not real.gated, "all of its files"
    assert {request.base for request in PLACED} == {Request().base, "embedded", REAL}


def test_binary_files_are_named_and_small_enough():
    """The hub stores what `hf upload` sends; git itself must leave these files alone."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the git checkout")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    paths = [ROOT / name.decode() for name in files if name]
    binary = {path.suffix for path in paths if b"\0" in path.read_bytes()[:8000]}
    lines = (ROOT / ".gitattributes").read_text().splitlines()
    assert binary <= {line.split()[0].removeprefix("*") for line in lines if line.endswith(" binary")}
    assert sum(path.stat().st_size for path in paths) < 1e9, "what a Space may hold"


def test_the_commands_that_make_a_space_are_told():
    """In both texts, the same; every option is one of the hub's own command line; a push, and how to keep the store."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "lua_demo/ui/README.md")]
    told = [re.findall(r"^hf .*$", text, re.MULTILINE) for text in texts]
    assert told[0] == told[1] and [line.split()[1] for line in told[0]] == ["repos", "upload", "spaces"]
    for line in told[0]:
        words = shlex.split(line, comments=True)
        command = words[1:2] if words[1] == "upload" else words[1:3]
        asked = [Path(sys.executable).with_name("hf"), *command, "--help"]
        helped = subprocess.run(asked, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "300"})
        assert all(word in helped.stdout for word in words if word.startswith("--")), line
    assert "--flavor zero-a10g" in told[0][0] and SpaceHardware("zero-a10g")
    assert all("`git push` is refused" in text for text in texts)
    bucket = "-v hf://buckets/USER/NAME:/data\n-e LUA_DEMO_STORE=/data/runs"
    assert bucket in texts[1]


def test_spaces_is_imported_before_torch():
    names = []
    for node in ast.parse((ROOT / "app.py").read_text()).body:
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
    assert names[0] == "spaces"


def test_what_is_there_is_placed_and_what_is_not_is_said(toy_weights, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(toy_weights / "nothing"))
    engine = ZeroGpuEngine(lambda duration: lambda work: work, "cpu", weights=toy_weights)
    engine.place(PLACED)
    assert sorted(kind for kind, _ in engine.models.networks) == ["autoencoder", "bicubic", "cnn", "lua", "swinir"]
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if not line.startswith("not placed: ")] == []
    assert any("generator" in line for line in told) and any("LUA-FLUX" in line for line in told)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_is_python_3_11(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 11))


@pytest.mark.parametrize(
    ("environment", "public"),
    [
        ({}, False),
        ({"GRADIO_SERVER_NAME": "127.0.0.5"}, False),
        ({"GRADIO_SERVER_NAME": "localhost"}, False),
        ({"GRADIO_SERVER_NAME": "[::1]"}, False),
        ({"GRADIO_SERVER_NAME": "0.0.0.0"}, True),
        ({"GRADIO_SERVER_NAME": "::"}, True),
        ({"GRADIO_SERVER_NAME": "demo.example.org"}, True),
        ({"SPACE_ID": "somebody/demo"}, True),
    ],
)
def test_who_reaches_the_page(environment, public):
    assert Offer(environment).public == public


def test_a_shared_page_is_public():
    offer = Offer({})
    offer.page = gr.Blocks()
    assert not offer.public
    offer.page.share = True
    assert offer.public


@pytest.fixture
def nothing_cached(monkeypatch, tmp_path):
    """A machine with no weights but those of the checkout."""
    for name in ("constants", "utils._cache_manager"):
        monkeypatch.setattr(f"huggingface_hub.{name}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LUA_DEMO_OFFER", raising=False)


def offered(engine: Engine) -> tuple[set[str], set[str]]:
    """Bases and methods that a page over `engine` offers."""
    page = PublicEngine(engine)
    bases = {key for key, state in states(page).items() if "not offered" not in state.how}
    return bases, {key for key in METHODS if not page.offer.refusal_of_method(key)}


def test_a_public_page_offers_what_is_here_and_what_is_named(nothing_cached, toy_weights, monkeypatch, tmp_path):
    engine = Engine("cpu", weights=toy_weights)
    others = {key for key, row in METHODS.items() if not (row.upscaler and row.upscaler.published)}
    assert set(METHODS) - others >= {"swinir-official", "realesrgan", "realplksr", "span", "sesqui"}
    assert offered(engine) == (set(BASES), set(METHODS)), "a page of one's own"
    monkeypatch.setenv("SPACE_ID", "somebody/demo")
    assert offered(engine) == ({"embedded", "scene"}, others)
    monkeypatch.setenv("LUA_DEMO_OFFER", "sdxl, swinir-official")
    assert offered(engine) == ({"embedded", "scene", "sdxl"}, others | {"swinir-official"})
    monkeypatch.setenv("LUA_DEMO_OFFER", "all")
    assert offered(engine) == (set(BASES), set(METHODS))
    monkeypatch.delenv("SPACE_ID")
    monkeypatch.setenv("LUA_DEMO_OFFER", "sdxl")
    assert offered(engine) == ({"embedded", "scene", "sdxl"}, others), "the setting counts here, too"
    monkeypatch.setenv("LUA_DEMO_OFFER", "sdxl,sd9")
    with pytest.raises(UserError, match=r"LUA_DEMO_OFFER names 'sd9'; choose all or from .*sdxl.*swinir-official"):
        PublicEngine(engine)


def test_weights_on_disk_are_offered(nothing_cached, monkeypatch, tmp_path):
    monkeypatch.setenv("SPACE_ID", "somebody/demo")
    (tmp_path / "weights" / "bases" / "sd15").mkdir(parents=True)
    (tmp_path / "weights" / "bases" / "sd15" / "model_index.json").write_text("{}")
    for file in SWINIR_OFFICIAL.files.values():
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.touch()
    bases, methods = offered(Engine("cpu", weights=tmp_path / "weights"))
    assert bases == {"embedded", "scene", "sd15", "scene-sd1"}
    assert "swinir-official" in methods and "realesrgan" not in methods


def test_what_is_not_offered_is_refused_by_name(nothing_cached, toy_weights, photo, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/demo")
    page, path = PublicEngine(Engine("cpu", weights=toy_weights)), str(photo(64, 48))
    for request in (Request(prompt="hills", base="sdxl"), Request(path, base="sdxl")):
        with pytest.raises(UserError, match=r"^SDXL base 1\.0 is not offered on this page, where 6\.5 GiB would.*$"):
            page.compare(request)
    with pytest.raises(UserError, match=r"^SwinIR \(official\) is not offered on this page, where 135 MB would.*$"):
        page.compare(Request(path, methods=("base", "swinir-official")))
    for request in (Request(path), Request(path, base="flux1-dev", decoder="tiny")):
        page.compare(request)  # needs nothing of the base itself


def test_a_page_for_others_says_what_it_does_not_offer(nothing_cached, toy_weights, photo, monkeypatch, tmp_path):
    """Launched for all hosts, without any variable; over HTTP."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "temp"))
    demo = build_demo(Engine("cpu", weights=toy_weights), Store(tmp_path / "store", pinned=None))
    demo.launch(prevent_thread_lock=True, quiet=True, server_name="0.0.0.0", **launch_options())
    try:
        client = Client(f"http://127.0.0.1:{demo.server_port}", verbose=False)
        models, file = client.predict(api_name="/models"), handle_file(str(photo(64, 48)))
        assert "not offered on this page" in models["bases"]["sdxl"]["how"] and not models["bases"]["sdxl"]["runs"]
        assert "135 MB" in models["methods"]["swinir-official"]["not_offered"]
        assert models["methods"]["lua"]["not_offered"] == ""
        with pytest.raises(AppError, match=r"SDXL base 1\.0 is not offered on this page"):
            client.predict(image=file, base="sdxl", api_name="/compare")
        with pytest.raises(AppError, match=r"SwinIR \(official\) is not offered on this page"):
            client.predict(image=file, method="swinir-official", api_name="/upscale")
        assert client.predict(image=file, methods=["base"], size=64, api_name="/compare")["status"]["state"] == "done"
    finally:
        demo.close()
