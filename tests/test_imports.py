"""Imports point down, and nothing happens on import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lua_demo"

# Modules (or packages) by height; each may import those below it, and those of its own row.
LAYERS = [
    {"schema"},
    {
        "arguments",
        "bases",
        "families",
        "methods",
        "timing",
        "cancel",
        "devices",
        "images",
        "placement",
        "prompts",
        "spaces",
        "latents",
        "latent_check",
        "store",
        "viewer_files",
        "votes",
    },
    {"cost", "memory"},
    {"networks"},
    {"weights"},
    {"", "scenes"},
    {"pipeline"},
    {"generators", "vaes", "upscalers", "metrics", "sources"},
    {"base_model", "decoding"},
    {"catalog"},
    {"models", "starts"},
    {"validate", "settings", "train"},
    {"engine"},
    {"report"},
    {"claims"},
    {"booth", "outputs", "provenance", "timing_view"},
    {"evaluate", "export", "judge", "recreate", "table"},
    {"batch", "bench", "doctor", "sheets", "upscale"},
    {"cli", "ui"},
    {"__main__"},
]
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(path: Path) -> set[str]:
    """All modules that `path` imports, anywhere in the file, as absolute dotted names."""
    names = set()
    package = ["lua_demo", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{stem}.{alias.name}" for alias in node.names}
    return names


def own_layers(path: Path) -> set[str]:
    """The layers of our package that `path` imports."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "lua_demo":
            found.add(parts[1] if len(parts) > 1 and parts[1] in HEIGHT else "")
    return found


def test_every_module_has_a_layer():
    assert {layer_of(path) for path in modules()} <= HEIGHT.keys()


def test_the_walk_sees_imports():
    assert {"engine", "catalog", "report"} <= own_layers(PACKAGE / "cli.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = layer_of(path)
    # `train` hangs off the command line only by name, and knows no more than the catalog.
    up = {name for name in own_layers(path) if HEIGHT[name] > HEIGHT[own] or (own == "train" and name == "engine")}
    assert not up, f"{path.name} imports {sorted(up)}"


@pytest.mark.parametrize("path", [p for p in modules() if layer_of(p) != "ui"], ids=lambda p: p.name)
def test_only_the_ui_imports_gradio(path):
    assert not {name for name in imported(path) if name.split(".")[0] in ("gradio", "spaces")}


def test_schema_needs_neither_torch_nor_gradio():
    assert not {name.split(".")[0] for name in imported(PACKAGE / "schema.py")} & {"torch", "gradio", "lua_demo"}


def test_import_touches_no_device_no_weights_and_no_environment(tmp_path):
    program = """
import os, sys, torch
from huggingface_hub import PyTorchModelHubMixin  # its filelock probes the file system, on Python 3.10 with a folder
opened = []
def watch(event, args):
    weights = event == "open" and str(args[0]).endswith((".safetensors", ".pth", ".pt"))
    if weights or event in ("os.mkdir", "socket.connect"):
        opened.append((event, args))
sys.addaudithook(watch)
before, threads = dict(os.environ), torch.get_num_threads()
import lua_demo, lua_demo.cli, lua_demo.engine, lua_demo.evaluate
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert not torch.cuda.is_initialized() and torch.get_num_threads() == threads
assert not opened, opened
assert "gradio" not in sys.modules and "torchmetrics" not in sys.modules
"""
    environment = {
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
