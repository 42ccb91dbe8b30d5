"""The weights that are shipped: they load, they have cards, and they are worth showing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lua_demo.catalog.methods import METHODS
from lua_demo.catalog.spaces import SPACES
from lua_demo.commands import evaluate
from lua_demo.engine import Engine
from lua_demo.models.weights import load_autoencoder, load_lua, load_swinir
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.pictures.images import list_images
from lua_demo.schema import Request, Result

KODAK = Path(__file__).resolve().parents[2] / "shared" / "data" / "kodak"
EMBEDDED = WEIGHTS_DIR / "embedded"


@pytest.mark.parametrize("space", SPACES)
def test_every_row_of_the_catalog_has_a_card(space):
    shipped = {method.upscaler.folder for method in METHODS.values() if method.upscaler and method.upscaler.folder}
    for folder in {*SPACES[space].roles.values(), *shipped}:
        card = (WEIGHTS_DIR / folder / "README.md").read_text(encoding="utf-8")
        for heading in ("## What it is", "## Training data", "## Training", "## Numbers", "## Limits"):
            assert heading in card, f"{folder}: the card has no {heading!r}"
        assert json.loads((WEIGHTS_DIR / folder / "training.json").read_text())["steps"] > 0


def test_weights_stay_small_and_safe():
    files = [path for path in WEIGHTS_DIR.rglob("*") if path.suffix in {".safetensors", ".pth", ".pt", ".bin"}]
    assert {path.suffix for path in files} == {".safetensors"}
    assert sum(path.stat().st_size for path in files) < 120 * 2**20


def test_lua_and_swinir_have_the_same_trunk():
    def trunk(model):
        outside = ("heads.", "skips.", "conv_first.", "stem.")
        return {name: p.shape for name, p in model.named_parameters() if not name.startswith(outside)}

    lua, swinir = load_lua(EMBEDDED / "lua"), load_swinir(EMBEDDED / "swinir")
    assert trunk(lua) == trunk(swinir)
    assert 2e6 <= sum(p.numel() for p in lua.parameters()) <= 10e6
    assert lua.scales == swinir.scales == (2, 4)


def test_latents_are_normalised():
    photo = evaluate.images.load_photo(WEIGHTS_DIR.parent / "examples" / "mountain-lake.jpg").resize((512, 384))
    model = load_autoencoder(EMBEDDED / "autoencoder")
    latent = model.encode(evaluate.images.to_tensor(photo))
    assert latent.shape == (1, 64, 48, 64)
    sampled, detail = latent.split([64 - model.detail_channels, model.detail_channels], dim=1)
    assert 0.1 < detail.std().item() < 0.5 < sampled.std().item() < 1.6


def test_decoder_stays_under_its_budget():
    """Operations of the decode at 1024 x 1024, counted: the decoder, not LUA, is the cost of the LUA path."""
    from torch.utils.flop_counter import FlopCounterMode

    model = load_autoencoder(EMBEDDED / "autoencoder").to("meta")
    with FlopCounterMode(display=False) as counter:
        model.decode(torch.empty(1, model.latent_channels, 128, 128, device="meta"))
    assert counter.get_total_flops() < 400e9


SAMPLE = """
import sys
import torch
from safetensors.torch import save_file
from lua_demo.models.generators import load_generator
torch.set_num_threads(int(sys.argv[1]))
with torch.inference_mode():
    latent = load_generator(sys.argv[2])("the sea at sunset, sun ahead", (256, 256), 6, 3.0, 7)[0]
save_file({"latent": latent.float().contiguous()}, sys.argv[3])
"""


def test_a_seed_gives_the_same_latent_on_machines_with_other_instructions(tmp_path):
    """Other vector units and thread counts stand for other machines: other kernels, other orders of summation."""
    old = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    latents = []
    for threads, settings in ((2, {}), (1, old)):
        file = tmp_path / f"{threads}.safetensors"
        command = [sys.executable, "-c", SAMPLE, str(threads), str(EMBEDDED / "generator"), str(file)]
        subprocess.run(command, env={**os.environ, **settings}, cwd=WEIGHTS_DIR.parents[1], check=True)
        latents.append(load_file(file)["latent"])
    assert latents[0].std() > 0.3
    torch.testing.assert_close(*latents, atol=1e-3, rtol=0)


@pytest.mark.shared
@pytest.mark.skipif(not KODAK.is_dir(), reason="needs the development data beside the checkout (../shared)")
def test_lua_beats_the_baselines_on_kodak(tmp_path):
    """On two of the images, as the cards say of all 24, with a little room for other machines."""
    for path in list_images(KODAK)[6::12]:
        shutil.copy(path, tmp_path)
    result = evaluate.evaluate(Engine(), tmp_path, methods=("roundtrip", "base", "bicubic", "lua"))
    psnr = {(scale, method): result.mean(scale, method, "psnr") for scale in (2, 4) for method in result.values[2]}
    assert psnr[2, "roundtrip"] >= 40.5
    assert psnr[2, "lua"] >= psnr[2, "base"] + 0.9
    assert 0.6 < result.mean(2, "lua", "sharpness") < 1.1
    assert psnr[2, "lua"] >= psnr[2, "bicubic"] + 8
    assert result.mean(2, "lua", "ms_ssim") > result.mean(2, "base", "ms_ssim")
    assert psnr[4, "lua"] >= psnr[4, "base"] + 0.8
    assert all(result.mean(scale, "lua", "grid") < 1.1 for scale in (2, 4))


def test_what_the_swinir_beside_lua_owes_the_cnn_stands_beside_its_pictures(photo):
    engine = Engine("cpu")
    request = Request(str(photo(64, 48)), size=32, methods=("swinir", "cnn"))
    notes = {event.method: event.notes for event in engine.compare(request) if isinstance(event, Result)}
    assert any("no verdict on SwinIR" in note for note in notes["swinir"])
    assert not any("SwinIR" in note for note in notes["cnn"])
