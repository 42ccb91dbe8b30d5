"""The fast decode of diffusers' AutoencoderKL equals diffusers' own, whole and in strips."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from test_bases import asked, weights  # noqa: F401  a fixture
from tiny_bases import KL
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lua_demo.engine import Engine
from lua_demo.machine.cancel import stops_on
from lua_demo.models.decoding import decode
from lua_demo.models.tiles import tiled
from lua_demo.models.vaes import VAE, KLAutoencoder, load_network
from lua_demo.networks import kl, strips
from lua_demo.networks.kl import fast_decode
from lua_demo.request.job import with_rows
from lua_demo.schema import Result, Stopped, UserError

TINY = dict(
    block_out_channels=(8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 3, latent_channels=4,
    up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, norm_num_groups=4, sample_size=32,
)  # fmt: skip


def tiny(**changes) -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(**{**TINY, **changes}).eval()
    for module in vae.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return vae


@pytest.mark.parametrize("changes", [{}, {"mid_block_add_attention": False}, {"use_post_quant_conv": False}])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 5, 7), (2, 8, 4)])
@pytest.mark.parametrize("limit", [None, 1, 700])
def test_decode_equals_diffusers(changes, size, limit):
    vae = tiny(**changes)
    fast = fast_decode(copy.deepcopy(vae))
    fast.decoder.strip_elements = fast.decoder.score_elements = limit
    latent = torch.randn(size[0], 4, *size[1:])
    with torch.inference_mode():
        torch.testing.assert_close(fast.decode(latent).sample, vae.decode(latent).sample, atol=1e-4, rtol=0)


def test_a_block_of_real_width_equals_diffusers():
    """The middle of the decoder of SD and FLUX: width 512, 32 groups, attention of one head."""
    vae = tiny(block_out_channels=(512,), down_block_types=("DownEncoderBlock2D",), norm_num_groups=32,
               up_block_types=("UpDecoderBlock2D",), latent_channels=16)  # fmt: skip
    fast, latent = fast_decode(copy.deepcopy(vae)), torch.randn(1, 16, 12, 20)
    with torch.inference_mode():
        torch.testing.assert_close(fast.decode(latent).sample, vae.decode(latent).sample, atol=1e-4, rtol=0)


class Largest(TorchDispatchMode):
    """The largest tensor that an operation other than an allocation or a view made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in ("empty", "empty_like", "permute", "view", "slice", "detach", "alias"):
            made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t._base is None]
            self.elements = max([self.elements, *(t.numel() for t in made)])
        return out


def test_no_kernel_gets_more_than_the_limit():
    """What a 4096 px image is to 2^31 on a GPU, a small one is to a small limit here."""
    fast, latent, limit = fast_decode(tiny()), torch.randn(1, 4, 24, 16), 8000
    fast.decoder.strip_elements = fast.decoder.score_elements = limit
    with torch.inference_mode(), Largest() as whole_steps:
        decoded = fast.decode(latent).sample
    assert decoded.shape == (1, 3, 96, 64)
    # The widest tensor of the decode has 16 x 96 x 64 elements. Two rows of neighbours come on top of a strip.
    assert limit / 2 < whole_steps.elements <= limit + 2 * 16 * 64 < 16 * 96 * 64 / 4


@pytest.mark.parametrize(("height", "row", "limit"), [(10, 7, 20), (10, 7, 1), (10, 7, 70), (1, 5, 100), (9, 1, 4)])
def test_strips_cover_every_row_once_and_stay_below_the_limit(height, row, limit):
    made = list(strips.strips(height, row, limit))
    assert [y for top, bottom in made for y in range(top, bottom)] == list(range(height))
    assert all((bottom - top) * row <= max(limit, row) for top, bottom in made)


def test_4096_px_stays_below_two_to_the_31_on_a_gpu():
    """Every size of the real decoder, on paper: the rows of a strip and the queries of a block."""
    for channels, outputs, side in ((512, 512, 512), (512, 512 * 4, 2048), (256, 256 * 4, 2048), (256, 128, 4096)):
        row = side * max(channels, outputs)
        top, bottom = next(strips.strips(side, row, strips.ELEMENTS["cuda"]))
        assert (bottom - top + 2) * row < 2**31
    tokens = 512 * 512
    assert kl.SCORES["cuda"] // tokens * tokens < 2**31


def test_a_large_convolution_by_strips_gives_the_same_and_can_be_stopped(monkeypatch):
    torch.manual_seed(0)
    conv, x, event = strips.StripConv2d(8, 12, 3, padding=1), torch.randn(1, 8, 50, 30), threading.Event()
    monkeypatch.setitem(strips.ELEMENTS, "cpu", 12 * 30 * 4)
    whole = nn.Conv2d.forward(conv, x)
    with torch.inference_mode():
        monkeypatch.setattr(strips, "LARGE", 1)
        assert torch.equal(conv(x), whole)
        seen: list[int] = []
        monkeypatch.setattr(event, "is_set", lambda: seen.append(0) or len(seen) > 4)
        with pytest.raises(Stopped), stops_on(event):
            strips.convolve(x, conv, strips.ELEMENTS["cpu"])
    assert len(seen) < 13, "there are 13 strips"


def test_one_transposed_convolution_enlarges_and_convolves():
    conv = nn.Conv2d(5, 6, 3, padding=1).double()
    x = torch.randn(2, 5, 4, 7, dtype=torch.float64)
    expected = conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(strips.upsampling(conv)(x), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(strips.convolve(x, strips.upsampling(conv), 1), expected, atol=1e-12, rtol=0)


def test_norm_of_values_far_from_zero():
    """Mean 1000 times the deviation: sums of squares alone would lose everything."""
    norm = nn.GroupNorm(2, 4)
    x = torch.randn(1, 4, 16, 16) + 1000
    exact = F.silu(F.group_norm(x.double(), 2))
    with torch.inference_mode():
        ours = torch.cat([strips.group_norm_silu(x, norm, 64)(row) for row in x.split(3, dim=2)], dim=2)
    torch.testing.assert_close(ours.double(), exact, atol=1e-3, rtol=0)


def test_bf16_is_as_close_as_that_of_diffusers():
    vae = tiny()
    plain, fast = copy.deepcopy(vae).bfloat16(), fast_decode(copy.deepcopy(vae)).bfloat16()
    latent = torch.randn(1, 4, 16, 16)
    with torch.inference_mode():
        exact = vae.decode(latent).sample
        theirs, ours = ((v.decode(latent.bfloat16()).sample.float() - exact).norm() for v in (plain, fast))
    assert 0 < ours < 1.3 * theirs


def test_twice_is_once():
    vae = fast_decode(tiny())
    decoder = vae.decoder
    assert fast_decode(vae).decoder is decoder


def test_an_unknown_decoder_is_refused():
    vae = tiny()
    vae.decoder.up_blocks[0].resnets[0].output_scale_factor = 2.0
    with pytest.raises(UserError, match="cannot be made fast: a residual block that is scaled"):
        fast_decode(vae)


def in_tiles(vae: VAE, latent: torch.Tensor) -> torch.Tensor:
    """The image, decoded in tiles of 32 x 32 latent pixels."""
    return tiled(vae.network.decode, latent, 32, vae.stride)


def test_the_app_decodes_fast_and_as_diffusers(weights):  # noqa: F811
    """Through the engine, of two kinds of autoencoder; in tiles, too."""
    for key, kind in (("flux1-dev", AutoencoderKL), ("flux2-klein", AutoencoderKLFlux2)):
        app, request = Engine("cpu", weights=weights), asked(key, methods=("base",))
        (latent,) = (event.latent for event in app.compare(request) if isinstance(event, Result))
        vae = app.models.vae(with_rows(request))
        assert isinstance(vae.network.model.decoder, kl.Decoder)
        plain = VAE(KLAutoencoder(kind.from_pretrained(weights / "bases" / key, subfolder="vae").eval()), "kl")
        values = torch.from_numpy(latent.values)[None]
        with torch.inference_mode():
            for x in (values, values[..., :5, :7]):
                torch.testing.assert_close(decode(vae, x)[0], decode(plain, x)[0], atol=1e-4, rtol=0)
            wide = values.repeat(1, 1, 5, 4)
            ours, whole = in_tiles(vae, wide), decode(plain, wide)[0]
            torch.testing.assert_close(ours, in_tiles(plain, wide), atol=1e-4, rtol=0)
            assert (ours - whole).abs().max() > 1e-4, "tiles are tiles"


@torch.inference_mode()
def test_fp16_that_overflows_in_the_fast_decode_is_run_again_in_fp32():
    model = tiny(scaling_factor=1.0)
    # One block works at values that fp16 cannot hold; what leaves it is the same.
    block = model.decoder.up_blocks[0].resnets[0]
    for layer, factor in ((block.conv1, 1e6), (block.norm2, 1.0)):
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)
    plain, latent = VAE(KLAutoencoder(copy.deepcopy(model)), "kl"), torch.randn(1, 4, 8, 8)
    vae = VAE(KLAutoencoder(fast_decode(model)), "kl")
    expected, _ = decode(plain, latent)
    for decoded in (lambda: decode(vae, latent)[0], lambda: in_tiles(vae, latent).clamp(0, 1)):
        torch.testing.assert_close(decoded(), expected, atol=1e-4, rtol=0)
    with torch.autocast("cpu", torch.float16):
        assert not vae.network.decode(latent).isfinite().all(), "this overflows"
        image, notes = decode(vae, latent)
    assert "run again in fp32" in notes[1]
    torch.testing.assert_close(image, expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_bf16_autocast_is_as_close_as_that_of_diffusers():
    """As the engine runs it: weights in float32."""
    vae, latent = tiny(), torch.randn(1, 4, 16, 16)
    fast, exact = fast_decode(copy.deepcopy(vae)), vae.decode(latent).sample
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours = ((v.decode(latent).sample.float() - exact).norm() for v in (vae, fast))
    assert 0 < ours < 1.3 * theirs


def test_a_decoder_that_is_not_known_stays_as_it_is(tmp_path):
    model = AutoencoderKL(
        latent_channels=4, **{**KL, "up_block_types": ("UpDecoderBlock2D",) * 3 + ("AttnUpDecoderBlock2D",)}
    )
    model.save_pretrained(tmp_path)
    network = load_network("sd1", tmp_path, fast=True)
    assert type(network.model.decoder) is type(model.decoder)
    latent = torch.randn(1, 4, 5, 7)
    with torch.inference_mode():
        theirs = model.eval().decode(latent / 0.18215).sample
        torch.testing.assert_close(network.decode(latent) * 2 - 1, theirs)
