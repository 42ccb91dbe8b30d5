"""Imports point down, and nothing happens on import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lua_demo"

# The rooms of the house, from the ground up: modules and folders of the package. Each imports those before it only.
ROOMS = (
    "paths",  # where the data files lie
    "schema",  # the plain values that cross every boundary
    "catalog",  # what can run, as tables: data only
    "machine",  # devices, memory, timing, stopping, arguments
    "pictures",  # images, latents, metrics
    "request",  # a request: checked, resolved to the rows that it names
    "networks",  # nn.Modules only
    "scenes",  # the renderer
    "models",  # networks with their weights
    "train",
    "report",  # results as records, claims, HTML
    "sampling",  # on a thread, step by step
    "chains",  # runs the steps that make a picture
    "engine",  # runs a comparison
    "runs",  # comparisons that are kept
    "bench",
    "commands",
    "ui",
    "__main__",
)
HEIGHT = {name: height for height, name in enumerate(ROOMS)}
NO_TORCH = ("paths", "schema", "catalog", "request.validate", "request.settings", "request.job")
AT_THE_ROOT = 12


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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


def own_rooms(path: Path) -> set[str]:
    """The rooms of our package that `path` imports; the package itself, which imports nothing before use, is none."""
    parts = [name.split(".") for name in imported(path)]
    return {names[1] for names in parts if names[0] == "lua_demo" and len(names) > 1} & HEIGHT.keys()


def test_every_module_is_in_a_room():
    assert {room_of(path) for path in modules()} == {*ROOMS, "__init__"}


def test_few_modules_at_the_root():
    assert len(list(PACKAGE.glob("*.py"))) <= AT_THE_ROOT


def test_the_walk_sees_imports():
    assert {"engine", "catalog", "report"} <= own_rooms(PACKAGE / "commands" / "main.py")


@pytest.mark.parametrize(
    "path", [path for path in modules() if room_of(path) != "__init__"], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_point_down(path):
    own = room_of(path)
    up = {name for name in own_rooms(path) if HEIGHT[name] > HEIGHT[own]}
    assert not up, f"{path.name} imports {sorted(up)}"


def test_no_module_imports_itself_in_a_circle():
    """Inside the rooms, too."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in modules()
    }
    edges = {
        name: {
            target
            for entry in imported(path)
            for target in (entry, entry.rpartition(".")[0])
            if target in names and target != name and names[target].name != "__init__.py"
        }
        for name, path in names.items()
        if path.name != "__init__.py"
    }
    while leaves := {name for name, targets in edges.items() if not targets & edges.keys()}:
        edges = {name: targets for name, targets in edges.items() if name not in leaves}
    assert not edges, f"modules that import each other in a circle, or what leads there: {sorted(edges)}"


@pytest.mark.parametrize("name", NO_TORCH)
def test_the_tables_need_no_torch(name):
    """In a process of its own: torch, diffusers and gradio take seconds to import."""
    modules_of = [f"lua_demo.{name}"]
    if (PACKAGE / name).is_dir():
        modules_of = [f"lua_demo.{name}.{path.stem}" for path in (PACKAGE / name).glob("[a-z]*.py")]
    program = f"import sys, {', '.join(modules_of)}\nprint(*{{'torch', 'diffusers', 'gradio'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_what_the_readme_advertises_is_importable_from_the_package():
    program = "import lua_demo\nfor name in lua_demo.__all__: assert getattr(lua_demo, name).__module__, name"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("path", [p for p in modules() if room_of(p) != "ui"], ids=lambda p: p.name)
def test_only_the_ui_imports_gradio(path):
    assert not {name for name in imported(path) if name.split(".")[0] in ("gradio", "spaces")}


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
import lua_demo, lua_demo.commands.main, lua_demo.engine, lua_demo.commands.evaluate
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
