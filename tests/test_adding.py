"""What can be added is one row of one table: a base, a latent space, a pixel upscaler and a method from outside."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TRUNK
from safetensors.torch import save_file
from tiny_bases import PIPELINES

from lua_demo.catalog.bases import BASES, Base
from lua_demo.catalog.compositions import PIXEL_UPSCALE
from lua_demo.catalog.methods import METHODS, Method
from lua_demo.catalog.spaces import SPACES, Space
from lua_demo.catalog.upscalers import Upscaler
from lua_demo.commands import doctor
from lua_demo.engine import Engine
from lua_demo.networks.swinir import SwinIR
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.pictures import latent_check
from lua_demo.pictures.latent_check import Statistics, save_statistics
from lua_demo.pictures.latents import save_latent
from lua_demo.schema import Request, Result
from lua_demo.ui.form import method_choices
from lua_demo.ui.models import states
from lua_demo.ui.public import PublicEngine


@pytest.fixture
def weights(toy_weights, tmp_path) -> Path:
    folder = tmp_path / "weights"
    shutil.copytree(toy_weights, folder)
    return folder


def run(engine: Engine, request: Request) -> dict[str, Result]:
    return {event.method: event for event in engine.compare(request) if isinstance(event, Result)}


def test_a_pixel_upscaler_is_one_row(weights, photo, monkeypatch):
    torch.manual_seed(1)
    network = SwinIR(**TRUNK)
    torch.nn.init.normal_(network.heads["x2"].conv_last.weight, std=0.1)
    network.save_pretrained(weights / "mine" / "swinir")
    row = Method("Mine (pixels)", "One decode, then mine.", PIXEL_UPSCALE, Upscaler("swinir", "mine/swinir"))
    monkeypatch.setitem(METHODS, "mine", row)
    engine = Engine("cpu", weights=weights)
    request = Request(str(photo(96, 64)), size=48, methods=("base", "mine", "swinir"))
    made = run(engine, request)
    assert made["mine"].label == "Mine (pixels)" and made["mine"].image.shape == (64, 96, 3)
    assert not np.array_equal(made["mine"].image, made["swinir"].image)
    assert engine.environment(request).weights["mine"].startswith("mine/swinir (")
    for source in ("photo", "prompt"):
        for base in ("embedded", "scene"):
            assert ("Mine (pixels)", "mine") in method_choices(source, base)


def test_a_method_is_one_row(weights, photo, monkeypatch):
    row = Method("Bicubic (pixels)", "One decode, then bicubic.", PIXEL_UPSCALE, Upscaler("bicubic"), default=False)
    monkeypatch.setitem(METHODS, "plain", row)
    made = run(Engine("cpu", weights=weights), Request(str(photo(96, 64)), size=48, scale=4, methods=("plain",)))
    assert made["plain"].image.shape == (128, 192, 3)
    assert [span.name for span in made["plain"].spans] == ["encode", "decode", "upscale"]


def test_a_base_of_a_known_family_is_one_row(weights, monkeypatch):
    monkeypatch.setitem(BASES, "sd15-mine", replace(BASES["sd15"], label="Mine 1.5", hub_id="somebody/mine"))
    torch.manual_seed(0)
    PIPELINES["sd15"]().save_pretrained(weights / "bases" / "sd15-mine")
    engine = Engine("cpu", weights=weights)
    asked = dict(prompt="a lake", size=64, steps=2, methods=("base", "bicubic"))
    made = run(engine, Request(base="sd15-mine", **asked))
    assert made["base"].image.shape == (64, 64, 3) and made["bicubic"].image.shape == (128, 128, 3)
    assert doctor.base_state("sd15-mine", engine.models).label == "Mine 1.5"
    assert states(PublicEngine(engine))["sd15-mine"].runs


def test_a_latent_space_is_a_row_and_its_statistics(weights, photo, monkeypatch, tmp_path):
    monkeypatch.setitem(SPACES, "toy", Space("a toy", 6, tiny="taetoy"))
    monkeypatch.setitem(BASES, "toy", Base("Toy", "sd1", "toy", "somebody/toy"))
    torch.manual_seed(0)
    network = TinyAutoencoder(6)
    (weights / "toy" / "tiny").mkdir(parents=True)
    for half in ("encoder", "decoder"):
        save_file(getattr(network, half).state_dict(), weights / "toy" / "tiny" / f"taetoy_{half}.safetensors")
    engine = Engine("cpu", weights=weights)
    request = Request(str(photo(96, 64)), size=48, base="toy", decoder="tiny", methods=("base", "bicubic", "lua"))
    made = run(engine, request)
    assert made["bicubic"].image.shape == (64, 96, 3) and made["bicubic"].outside is None
    assert "no LUA for the latent space toy" in made["lua"].skipped
    latent = made["base"].latent
    file = tmp_path / "statistics.safetensors"
    torch.manual_seed(0)
    noise = torch.randn(1, 6, 96, 96)
    save_statistics({**latent_check.load_statistics(), "toy": Statistics.of(noise)}, file)
    known = latent_check.load_statistics(file)
    monkeypatch.setattr(latent_check, "load_statistics", lambda: known)
    save_latent(tmp_path / "base.safetensors", latent)
    again = run(engine, replace(request, image="", latent=str(tmp_path / "base.safetensors")))
    assert np.array_equal(again["bicubic"].image, made["bicubic"].image) and 0 <= again["bicubic"].outside <= 1
