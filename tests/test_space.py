"""What a Hugging Face Space needs of this repository: README's front matter, requirements, app.py, old Pythons."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard, SpaceHardware
from huggingface_hub.utils import validate_repo_id
from packaging.requirements import Requirement
from packaging.version import Version

from lua_demo.spaces import SPACES
from lua_demo.ui.zero_gpu import PLACED, ZeroGpuEngine
from lua_demo.weights import PUBLISHED_FILES

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
# hub-docs, "Spaces Configuration Reference".
KEYS = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "short_description",
    "license", "suggested_hardware", "models", "datasets", "tags", "thumbnail", "pinned", "preload_from_hub",
    "fullWidth", "header", "startup_duration_timeout",
}  # fmt: skip
ZERO_GPU_PYTHONS = {"3.10", "3.12"}
SOURCES = [ROOT / "app.py", *sorted((ROOT / "lua_demo").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]


@pytest.fixture(scope="module")
def card() -> dict:
    """The front matter, as the hub's client reads it."""
    return SpaceCard((ROOT / "README.md").read_text(encoding="utf-8")).data.to_dict()


def test_the_front_matter_is_what_the_hub_knows(card):
    assert card.keys() <= KEYS
    assert card["sdk"] == "gradio" and card["license"] == "apache-2.0"
    assert {card["colorFrom"], card["colorTo"]} <= COLOURS
    assert card["python_version"] in ZERO_GPU_PYTHONS, "a string: 3.10 as a number is 3.1"
    assert 0 < len(card["short_description"]) <= 60
    assert card["suggested_hardware"] in {hardware.value for hardware in SpaceHardware}
    assert (ROOT / card["app_file"]).is_file()
    assert re.fullmatch(r"\W{1,2}", card["emoji"])


def test_the_front_matter_agrees_with_the_requirements(card):
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    needed = {requirement.name: requirement for requirement in map(Requirement, lines)}
    assert needed["gradio"].specifier.contains(card["sdk_version"])
    assert all(needed["torch"].specifier.contains(Version(v)) for v in ("2.8.0", "2.11.0", "2.13.0"))
    assert {"spaces", "diffusers", "transformers", "accelerate"} <= needed.keys()


def test_what_is_preloaded_is_what_is_placed(card):
    preloaded = dict(entry.split(" ") for entry in card["preload_from_hub"])
    for repository in [*card["models"], *preloaded]:
        validate_repo_id(repository)
    assert preloaded.keys() <= set(card["models"])
    for repository, file in PUBLISHED_FILES.items():
        assert preloaded[repository] == file
    assert preloaded[f"madebyollin/{SPACES['flux1'].tiny}"] == "config.json,diffusion_pytorch_model.safetensors"


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
    assert engine.models.networks.keys() == {("embedded", role) for role in ("autoencoder", "lua", "swinir")} | {
        ("flux1", "swinir")
    }
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if not line.startswith("not placed: ")] == []
    assert any("generator" in line for line in told) and any("LUA-FLUX" in line for line in told)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_is_python_3_10(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))
