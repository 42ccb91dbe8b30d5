"""LUA between the layers of a tiny autoencoder: shapes, sizes, weights of its own only, loading, precision."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from lua_demo import load_lua
from lua_demo.engine import Engine
from lua_demo.models.lua import find_lua, lua_from
from lua_demo.models.upscalers import Fast, fast
from lua_demo.models.vaes import load_tiny, tiny_source
from lua_demo.models.weights import load_any_lua, load_swinir
from lua_demo.networks.feature_lua import FeatureLUA, OnFeatures, lost, on_latents
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.schema import Request, Result, UserError

TOY = dict(embed_dim=8, depths=(2,), num_heads=(2,), window_size=4, head_num_feat=8)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = FeatureLUA(**TOY, back_project=2).eval()
    with torch.no_grad():
        for head in network.heads.values():
            torch.nn.init.normal_(head.conv_last.weight, std=0.1)
    return network


@pytest.fixture
def tiny():
    torch.manual_seed(1)
    return TinyAutoencoder(4).eval()


@pytest.fixture
def weights(network, tiny, tmp_path):
    """A folder of weights with a LUA of SDXL and the tiny autoencoder that it needs."""
    network.save_pretrained(tmp_path / "sdxl" / "lua")
    (tmp_path / "sdxl" / "tiny").mkdir()
    for half in ("encoder", "decoder"):
        save_file(getattr(tiny, half).state_dict(), tmp_path / "sdxl" / "tiny" / f"taesdxl_{half}.safetensors")
    return tmp_path


@pytest.mark.parametrize("pool", [False, True])
def test_the_parts_of_the_autoencoder_are_its_decoder_and_encoder(pool):
    """What `read` starts the decoder ends, and `look` and `write` are the encoder."""
    torch.manual_seed(0)
    tiny = TinyAutoencoder(4, pool).eval()
    latent, image = torch.randn(1, 4, 6, 4), torch.rand(1, 3, 48, 32)
    with torch.inference_mode():
        features = tiny.read(latent)
        assert features.shape == (1, 64, 24, 16)
        torch.testing.assert_close(tiny.decoder[len(tiny.read) :](features), tiny.decode(latent))
        seen = tiny.look(image)
        assert seen.shape == (1, 64, 12, 8)
        torch.testing.assert_close(tiny.write(seen), tiny.encode(image))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8)])
def test_it_is_read_upscale_write_at_any_size(scale, size, network, tiny):
    latent = torch.randn(2, 4, *size)
    with torch.inference_mode():
        larger = on_latents(network, tiny, back_project=0)(latent, scale)
        assert larger.shape == (2, 4, scale * size[0], scale * size[1])
        torch.testing.assert_close(larger, tiny.write(network(tiny.read(latent), scale)))


@pytest.mark.parametrize("side", [1, 2, 4])
@pytest.mark.parametrize("scale", [2, 4])
def test_back_projection_encodes_the_picture_with_what_it_lost(scale, side, network, tiny):
    latent = torch.randn(2, 4, 3, 5)
    for layer in tiny.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight, a=1)  # PyTorch's own start hardly lets anything through
    with torch.inference_mode():
        larger = on_latents(network, tiny, back_project=0)(latent, scale)
        picture = tiny.decode(larger).clamp(0, 1)
        whole = (picture + lost(picture, tiny.decode(latent), scale, side)).clamp(0, 1)
        wanted = larger + tiny.encode(whole) - tiny.encode(picture)
        assert (wanted - larger).abs().mean() > 1e-3, "there is something to add"
        network.back_project = side
        torch.testing.assert_close(on_latents(network, tiny)(latent, scale), wanted)
        network.back_project = 0
        torch.testing.assert_close(on_latents(network, tiny)(latent, scale), larger)


@pytest.mark.parametrize("scale,side", [(2, 1), (2, 2), (4, 1), (4, 2)])
def test_only_what_the_small_picture_shows_can_be_lost(scale, side):
    """A uniform shift is lost whole; detail between the averages, or nothing, is not."""
    torch.manual_seed(0)
    small = 0.25 + torch.rand(1, 3, 8, 4) / 2
    base = torch.nn.functional.interpolate(small, scale_factor=scale, mode="bicubic")
    detail = torch.rand(1, 3, 8, scale, 4, scale) / 8
    detail = (detail - detail.mean((3, 5), keepdim=True)).flatten(4, 5).flatten(2, 3)
    nothing = torch.zeros_like(base)
    torch.testing.assert_close(lost(base, small, scale, side), nothing)
    torch.testing.assert_close(lost(base + detail, small, scale, side), nothing, atol=1e-6, rtol=0)
    torch.testing.assert_close(lost(base - 0.1, small, scale, side), nothing + 0.1)
    assert lost(base.bfloat16(), small.bfloat16(), scale).dtype == torch.float32


def test_it_starts_as_its_linear_skip(tiny):
    """The heads add nothing before training; the skip starts as the repetition of each feature."""
    torch.manual_seed(0)
    features = torch.randn(1, 64, 8, 12)
    repeated = features.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.inference_mode():
        network = FeatureLUA(**TOY)
        torch.testing.assert_close(network(features, 2), features)
        torch.testing.assert_close(network(features, 4), repeated)


def test_the_weights_are_its_own_and_load_into_the_same(network, tiny, weights):
    stored = load_file(weights / "sdxl" / "lua" / "model.safetensors")
    assert stored.keys() == network.state_dict().keys()
    theirs = {value.data_ptr() for value in tiny.state_dict().values()}
    assert not theirs & {value.data_ptr() for value in network.state_dict().values()}
    found = find_lua("sdxl", weights)
    assert found.source == weights / "sdxl" / "lua" and isinstance(found.network, OnFeatures)
    assert found.network.back_project, "config.json says so"
    latent = torch.randn(1, 4, 5, 3)
    with torch.inference_mode():
        torch.testing.assert_close(found.network(latent, 2), on_latents(network, tiny)(latent, 2))


def test_made_fast_it_gives_the_same(network, tiny):
    latent = torch.randn(1, 4, 9, 6)
    with torch.inference_mode():
        wanted = on_latents(network, tiny)(latent, 4)
        quick = fast(on_latents(network, tiny), torch.float32)
        assert isinstance(quick.network, Fast)
        torch.testing.assert_close(quick(latent, 4), wanted, rtol=1e-4, atol=1e-4)
        narrow = on_latents(network, tiny).to(torch.bfloat16)(latent, 4)
        assert narrow.dtype == latent.dtype and (narrow - wanted).norm() < 0.1 * wanted.norm()
        with torch.autocast("cpu", torch.bfloat16):
            mixed = fast(on_latents(network.float(), tiny.float()), torch.bfloat16)(latent, 4)
        assert (mixed - wanted).norm() < 0.1 * wanted.norm()


def test_what_it_costs():
    """Operations of 512 -> 1024 px with the shipped sizes, counted; the reading and writing layers included. By itself
    it takes less than the tiny decode after it, with back-projection less than a fifth of a KL decode (10.5e12).
    """
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    with torch.device("meta"), torch.no_grad():
        tiny = TinyAutoencoder(16)
        latent = torch.empty(1, 16, 64, 64)
        for run in (
            lambda: on_latents(FeatureLUA(), tiny)(latent, 2),
            lambda: on_latents(FeatureLUA(back_project=2), tiny)(latent, 2),
            lambda: tiny.decode(torch.empty(1, 16, 128, 128)),
        ):
            with FlopCounterMode(display=False) as counter:
                run()
            counts.append(counter.get_total_flops())
    assert counts[0] < 0.2e12 and 1.6e12 < counts[1] < 2e12 and 0.45e12 < counts[2] < 0.55e12


def test_the_page_upscales_with_it(weights, photo):
    """The engine finds it in the folder of weights, and the tiny autoencoder beside it."""
    engine = Engine("cpu", weights=weights)
    request = Request(image=str(photo(96, 80)), base="sdxl", decoder="tiny", size=64, methods=("base", "lua"))
    lua = {event.method: event for event in engine.compare(request) if isinstance(event, Result)}["lua"]
    assert lua.image is not None and lua.image.shape[:2] == (106, 128)
    assert engine.environment(request).weights["lua"].startswith("sdxl/lua (")


def test_what_does_not_fit_is_refused(network, tiny, weights):
    lua = on_latents(network, tiny)
    for call, *words in [
        (lambda: lua(torch.zeros(1, 16, 4, 4), 2), "B x 4 x h x w", "1 x 16 x 4 x 4", "own space"),
        (lambda: lua(torch.zeros(1, 4, 4, 4), 3), "no head for scale 3", "2 or 4"),
        (lambda: network(torch.zeros(1, 4, 4, 4), 2), "features B x 64 x 4h x 4w", "1 x 4 x 4 x 4", "find_lua"),
        (lambda: network(torch.zeros(1, 64, 6, 4), 2), "1 x 64 x 6 x 4"),
        (lambda: load_lua(weights / "sdxl" / "lua"), "holds FeatureLUA", "find_lua"),
        (lambda: load_swinir(weights / "sdxl" / "lua"), "holds FeatureLUA"),
        (lambda: lua_from(weights / "sdxl" / "lua", "embedded", weights), "embedded has no tiny autoencoder"),
    ]:
        with pytest.raises(UserError) as refusal:
            call()
        for word in words:
            assert word in str(refusal.value), (word, str(refusal.value))


def test_a_plain_lua_needs_no_tiny_autoencoder(toy_weights):
    plain = load_any_lua(toy_weights / "embedded" / "lua")
    assert on_latents(plain, None) is plain


def test_the_tiny_autoencoder_is_that_of_the_folder_or_of_the_hub(weights):
    assert tiny_source("sdxl", weights) == weights / "sdxl" / "tiny"
    assert tiny_source("sd3", weights) == "madebyollin/taesd3"
    assert load_tiny("sdxl", weights / "sdxl" / "tiny").latent_channels == 4
