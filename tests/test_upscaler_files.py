"""The real spandrel reads upscalers, with a stand-in for what it imports of torchvision, in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from lua_demo.models.upscaler_files import read_upscaler
from lua_demo.schema import UserError

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(importlib.util.find_spec("spandrel") is None, reason="spandrel is not installed")
def test_upscalers_of_others():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/spandrel_cases.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


def test_without_spandrel_or_torchvision_one_line_says_what_to_install(tmp_path, monkeypatch):
    """None in sys.modules is how Python says that a module cannot be imported."""
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UserError) as error:
        read_upscaler(tmp_path / "model.pth")
    assert "pip install spandrel torchvision" in str(error.value) and "\n" not in str(error.value)
