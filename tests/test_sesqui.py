"""SesquiLSR against the conformance vectors of an independent implementation."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lua_demo.catalog.methods import METHODS
from lua_demo.catalog.upscalers import File
from lua_demo.engine import Engine
from lua_demo.models.sesqui import load_sesqui
from lua_demo.networks.sesqui import Sesqui
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.paths import FLUX2_NORMALISATION
from lua_demo.schema import Request, Result, UserError

GOLDEN = Path(__file__).parent / "golden"
TINY = {"in_chans": 4, "width": 32, "in_depth": 2, "out_depth": 1}


@pytest.fixture(scope="module")
def tiny() -> Sesqui:
    network = Sesqui(**TINY)
    network.load_state_dict(load_file(GOLDEN / "sesqui_tiny.safetensors"))
    return network.eval()


@pytest.mark.parametrize("number", range(4))
def test_sesqui_gives_the_reference_numbers(tiny, number):
    """At x2, x1.5 and x1; odd sides are among them."""
    vectors = load_file(GOLDEN / "sesqui_tiny_io.safetensors")
    wanted = vectors[f"out{number}"]
    with torch.inference_mode():
        out = tiny.to_size(vectors[f"in{number}"], tuple(wanted.shape[-2:]))
    assert torch.allclose(out, wanted, atol=1e-4)


def test_a_scale_is_a_size(tiny):
    latent = torch.randn(1, 4, 6, 9)
    with torch.inference_mode():
        assert torch.equal(tiny(latent, 2), tiny.to_size(latent, (12, 18)))
        assert tiny(latent, 1.5).shape == (1, 4, 9, 14)
    with pytest.raises(ValueError, match="1 to 2"):
        tiny(latent, 4)


@pytest.mark.parametrize("channels, parameters", [(4, 3_071_542), (16, 3_091_378)])
def test_the_defaults_are_the_published_networks(channels, parameters):
    assert sum(p.numel() for p in Sesqui(channels).parameters()) == parameters


@pytest.fixture
def published(tmp_path, monkeypatch) -> dict[str, Path]:
    """Files of the real architecture with random weights, where the published ones are kept once downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    row = METHODS["sesqui"]
    files = dict(row.upscaler.by_space)
    for space, channels in (("sdxl", 4), ("flux2", 32)):
        torch.manual_seed(channels)
        path = files[space].path
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(Sesqui(channels).state_dict(), path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files[space] = replace(files[space], sha256=digest, size=path.stat().st_size)
    monkeypatch.setitem(METHODS, "sesqui", replace(row, upscaler=replace(row.upscaler, by_space=files)))
    return {space: file.path for space, file in files.items()}


@pytest.fixture
def weights(toy_weights, tmp_path) -> Path:
    folder = tmp_path / "weights"
    shutil.copytree(toy_weights, folder)
    (folder / "sdxl" / "tiny").mkdir(parents=True)
    torch.manual_seed(0)
    network = TinyAutoencoder(4)
    for half in ("encoder", "decoder"):
        save_file(getattr(network, half).state_dict(), folder / "sdxl" / "tiny" / f"taesdxl_{half}.safetensors")
    return folder


def run(engine: Engine, photo: Path, **changes) -> dict[str, Result]:
    request = Request(str(photo), **{"size": 64, "methods": ("base", "sesqui"), **changes})
    return {event.method: event for event in engine.compare(request) if isinstance(event, Result)}


def test_the_latent_rival_is_a_column_at_x2(published, weights, photo):
    engine, path = Engine("cpu", weights=weights), photo(128, 96)
    made = run(engine, path, base="sdxl", decoder="tiny")
    assert made["sesqui"].image.shape == (96, 128, 3)
    assert [span.name for span in made["sesqui"].spans] == ["encode", "upscale", "decode"]
    request = Request(str(path), size=64, base="sdxl", decoder="tiny", methods=("sesqui",))
    assert engine.environment(request).weights["sesqui"].startswith("upscaler_SDXL.safetensors (")
    again = run(engine, path, base="sdxl", decoder="tiny", scale=4)
    assert again["base"].image is not None and again["sesqui"].image is None
    assert again["sesqui"].skipped == "it enlarges by 2, not by 4; choose another scale"


def test_where_it_was_not_published_the_column_says_so(published, weights, photo):
    made = run(Engine("cpu", weights=weights), photo(128, 96))
    assert "sdxl, flux1, flux2" in made["sesqui"].skipped and "not for embedded" in made["sesqui"].skipped


def test_flux2_takes_latents_before_the_batch_norm(published):
    """By hand: raw = normalised * sqrt(variance + eps) + mean, per channel and place in the 2 x 2 patch."""
    wrapped, plain = load_sesqui(published["flux2"], "flux2", 32), Sesqui(32)
    plain.load_state_dict(load_file(published["flux2"]))
    known = json.loads(FLUX2_NORMALISATION.read_text())
    mean, deviation = torch.tensor(known["mean"]), (torch.tensor(known["variance"]) + known["eps"]).sqrt()
    packed = torch.randn(1, 128, 4, 3)
    raw = torch.nn.functional.pixel_shuffle(packed * deviation[:, None, None] + mean[:, None, None], 2)
    with torch.inference_mode():
        larger = torch.nn.functional.pixel_unshuffle(plain(raw, 2), 2)
        wanted = (larger - mean[:, None, None]) / deviation[:, None, None]
        made = wrapped(torch.nn.functional.pixel_shuffle(packed, 2), 2)
        assert torch.allclose(made, torch.nn.functional.pixel_shuffle(wanted, 2), atol=1e-4)
        assert wrapped(torch.randn(1, 32, 5, 7), 2).shape == (1, 32, 10, 14)


def test_another_file_is_named(published, tmp_path):
    with pytest.raises(UserError, match=r"upscaler_SDXL.* is not SesquiLSR for 16 channels"):
        load_sesqui(published["sdxl"], "flux1", 16)
    assert File("https://host/folder/name.bin", 1, "").name == "name.bin"
