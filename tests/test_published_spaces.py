"""Our LUAs of published latent spaces, shipped or kept to go on from: cards, sizes, and what they do on Kodak."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_own_pipeline import in_diffusers_layout
from test_weights import cache, offline_cache  # noqa: F401  a fixture
from torch.nn import functional as F

from lua_demo.catalog.spaces import SPACES
from lua_demo.models.lua import PROJECTED_NOTE, SHIPPED_NOTE, STAND_IN, find_lua, lua_from, lua_source
from lua_demo.models.vaes import load_tiny
from lua_demo.models.weights import load_any_lua
from lua_demo.networks.feature_lua import FeatureLUA
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.pictures import metrics
from lua_demo.pictures.images import load_photo, to_array, to_tensor
from lua_demo.schema import UserError
from lua_demo.train.data import shrink

SHARED = Path(__file__).resolve().parents[2] / "shared"
KEPT = {
    space: folder
    for space, row in SPACES.items()
    for folder in (WEIGHTS_DIR / space / name for name in ("lua", STAND_IN, "checkpoint"))
    if row.tiny and folder.is_dir()
}


@pytest.mark.parametrize("space", KEPT)
def test_only_what_is_good_enough_is_used(space, tmp_path, offline_cache):  # noqa: F811
    """What misses a must is there to be trained on, and not to be found; what is used says that it is small."""
    if KEPT[space].name == "checkpoint":
        with pytest.raises(UserError, match=f"no LUA for the latent space {space}"):
            lua_source(space)
        return
    torch.manual_seed(0)
    tiny = TinyAutoencoder(SPACES[space].channels).eval()
    cache(offline_cache, f"madebyollin/{SPACES[space].tiny}", *in_diffusers_layout(tiny, tmp_path))
    found = find_lua(space)
    note = PROJECTED_NOTE if found.network.back_project else ""
    if KEPT[space].name == STAND_IN:
        said = f"the published LUA is not used, but our own small one, which is weaker{note}: "
        assert found.note.startswith(said) and SPACES[space].lua.hub_id in found.note
    else:
        assert found.note == SHIPPED_NOTE + note
    assert found.source == KEPT[space]
    assert found.network(torch.randn(1, tiny.latent_channels, 8, 8), 2).shape == (1, tiny.latent_channels, 16, 16)


@pytest.mark.parametrize("space", KEPT)
def test_weights_and_card(space):
    """Of the sizes that were asked for, with all that a reader of the weights must know."""
    network = load_any_lua(KEPT[space])
    assert isinstance(network, FeatureLUA) and network.scales == (2, 4)
    assert 180 <= network.conv_first.out_channels <= 384
    assert (KEPT[space] / "model.safetensors").stat().st_size < 20e6
    facts = json.loads((KEPT[space] / "training.json").read_text())
    assert facts["space"] == space
    assert all(one["steps"] > 0 for one in facts.get("average_of", [facts]))
    assert facts["near_duplicates"]["test_images"] == 24, "trained without Kodak, and checked"
    card = (KEPT[space] / "README.md").read_text(encoding="utf-8")
    for heading in ("## What it is", "## Training data", "## Training", "## Numbers", "## Limits"):
        assert heading in card, heading


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize("space", KEPT)
def test_it_upscales_photos(space):
    """On two Kodak crops: 3 dB above the bicubic latent at both scales, and close to decode-then-bicubic at x2."""
    tiny = load_tiny(space, SHARED / "weights" / "tae" / f"{SPACES[space].tiny}_encoder.safetensors")
    lua = lua_from(KEPT[space], space, tiny=tiny)
    found = {}
    for scale in lua.scales:
        rows = []
        for name in ("kodim08", "kodim20"):
            truth = to_tensor(load_photo(SHARED / "data" / "kodak" / f"{name}.png").crop((256, 128, 512, 384)))
            with torch.inference_mode():
                latent = tiny.encode(shrink(truth, scale))
                pictures = {
                    "base": F.interpolate(tiny.decode(latent).clamp(0, 1), scale_factor=scale, mode="bicubic"),
                    "bicubic": tiny.decode(F.interpolate(latent, scale_factor=scale, mode="bicubic")),
                    "lua": tiny.decode(lua(latent, scale)),
                }
            rows.append([metrics.psnr(to_array(p.clamp(0, 1)), to_array(truth)) for p in pictures.values()])
        found[scale] = torch.tensor(rows).mean(0).tolist()
        assert found[scale][2] > found[scale][1] + 3, found
    assert found[2][2] > found[2][0] - 0.7, found


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize("space", [space for space in KEPT if load_any_lua(KEPT[space]).back_project])
def test_back_projection_holds_shading_and_colours_to_the_base(space):
    """Of averages of 16 px: less than half of the difference from decode-then-bicubic is left."""
    tiny = load_tiny(space, SHARED / "weights" / "tae" / f"{SPACES[space].tiny}_encoder.safetensors")
    lua = lua_from(KEPT[space], space, tiny=tiny)
    photo = to_tensor(load_photo(SHARED / "data" / "kodak" / "kodim03.png").crop((256, 128, 512, 384)))
    drift = {}
    with torch.inference_mode():
        latent = tiny.encode(shrink(photo, 2))
        base = F.interpolate(tiny.decode(latent).clamp(0, 1), scale_factor=2, mode="bicubic")
        for side in (0, lua.back_project):
            lua.back_project = side
            difference = tiny.decode(lua(latent, 2)).clamp(0, 1) - base
            drift[side > 0] = F.avg_pool2d(difference, 16).abs().mean().item()
    assert drift[True] < drift[False] / 2, drift
