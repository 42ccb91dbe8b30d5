"""The fast copies of LUA and SwinIR: the same numbers, and nothing done twice (C8 of the benchmark)."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lua_demo import LUA, SwinIR, load_lua
from lua_demo.models.pixel_upscalers import ByScale
from lua_demo.models.upscalers import Fast, fast
from lua_demo.models.vaes import VAE
from lua_demo.models.weights import load_autoencoder
from lua_demo.networks import onednn, windows
from lua_demo.networks.fast import Graph, accelerate
from lua_demo.networks.linear import Linear
from lua_demo.paths import WEIGHTS_DIR

GOLDEN = Path(__file__).parent / "golden"
ODD_HEADS = dict(embed_dim=60, depths=(2, 2), num_heads=(2, 2), window_size=4, head_num_feat=8, scales=(2, 4))


def noisy(network):
    torch.manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2 if parameter.ndim < 2 else (1 / parameter[0].numel()) ** 0.5)
    return network.eval()


@pytest.mark.parametrize("kind", [LUA, SwinIR])
def test_padded_heads_and_frozen_biases_change_nothing(kind):
    network = noisy(kind(**ODD_HEADS))
    fast = accelerate(network)
    assert fast.layers[0].residual_group["blocks"][0].attn.qkv.out_features == 3 * 2 * 32
    x = torch.rand(2, network.in_chans, 9, 14)
    with torch.inference_mode():
        for scale in (2, 4):
            expected = network(x, scale)
            assert (fast(x, scale) - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("number", [0, 1])
def test_fast_lua_gives_the_published_numbers(number):
    vectors = load_file(GOLDEN / "lua_tiny_io.safetensors")
    fast = accelerate(load_lua(GOLDEN / "lua_tiny.pth"))
    with torch.inference_mode():
        for scale, out in fast.forward_scales(vectors[f"in{number}"], (2, 4)).items():
            torch.testing.assert_close(out, vectors[f"out{number}_x{scale}"], atol=1e-5, rtol=0)


def test_the_original_stays_as_it_was():
    network = noisy(LUA(**ODD_HEADS))
    before = copy.deepcopy(network.state_dict())
    accelerate(network, torch.bfloat16)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("shape", [(7, 60, 24), (64, 8, 8)])
@pytest.mark.parametrize("extra", ["nothing", "gelu", "residual"])
def test_linear_is_the_same_with_and_without_gradients(shape, extra):
    tokens, inputs, outputs = shape
    layer, x = Linear(inputs, outputs), torch.randn(tokens, inputs)
    options = {"nothing": {}, "gelu": {"gelu": True}, "residual": {"residual": torch.randn(tokens, outputs)}}[extra]
    assert not onednn.takes(x, layer.weight)
    expected = layer(x, **options)
    assert expected.requires_grad
    with torch.no_grad():
        assert onednn.takes(x, layer.weight) == torch.backends.mkldnn.is_available()
        torch.testing.assert_close(layer(x, **options), expected.detach(), atol=1e-5, rtol=0)


def test_a_torch_without_the_private_operations_computes_the_same(monkeypatch):
    layer, x, residual = Linear(24, 8), torch.randn(60, 24), torch.randn(60, 8)
    with torch.no_grad():
        expected = layer(x, gelu=True), layer(x, residual=residual)
        monkeypatch.setattr(onednn, "_ops", object)
        onednn.available.cache_clear()
        try:
            assert not onednn.takes(x, layer.weight)
            torch.testing.assert_close((layer(x, gelu=True), layer(x, residual=residual)), expected, atol=1e-5, rtol=0)
        finally:
            onednn.available.cache_clear()


def test_bf16_of_the_shipped_lua_is_close_in_latents_and_pictures():
    lua = load_lua(WEIGHTS_DIR / "embedded" / "lua")
    vae = VAE(load_autoencoder(WEIGHTS_DIR / "embedded" / "autoencoder")).eval()
    rows, columns = torch.meshgrid(torch.linspace(0, 9, 128), torch.linspace(0, 7, 160), indexing="ij")
    picture = torch.stack([(rows * columns).sin(), rows.sin(), (columns + rows).cos()])[None] / 2 + 0.5
    with torch.inference_mode():
        latent = vae.encode(picture)
        exact = lua(latent, 2)
        narrow = accelerate(lua, torch.bfloat16)(latent.bfloat16(), 2).float()
        error = (vae.decode(narrow) - vae.decode(exact)).square().mean()
    assert 0 < (narrow - exact).norm() / exact.norm() < 1e-2
    assert -10 * error.log10() > 45


class Watched(TorchDispatchMode):
    """Counts operations, and remembers those that make tensors out of nothing or move them between devices."""

    def __init__(self):
        super().__init__()
        self.operations, self.made, self.largest = 0, [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.operations += 1
        if name in ("arange", "tensor", "lift_fresh", "meshgrid", "_to_copy", "_local_scalar_dense", "argsort"):
            self.made.append(name)
        self.largest = max([self.largest, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))])
        return out


def test_a_second_forward_builds_nothing_and_stays_in_its_budget():
    network = accelerate(noisy(LUA(**ODD_HEADS)))
    blocks, x = 4, torch.rand(1, 16, 15, 21)
    windows.layout.cache_clear()
    windows.reflection.cache_clear()
    with torch.no_grad():
        with Watched() as first:
            network(x, 2)
        with Watched() as second:
            network(x, 2)
    assert "arange" in first.made and second.made == []
    assert second.operations < first.operations
    # Views count too: per block two norms, four products, four sizes of windows at most, and the copies.
    assert second.operations <= 52 * blocks


def test_no_scores_bias_or_mask_of_all_windows():
    """The largest tensor of 128 x 128 in windows of 64 tokens, 8 heads: far below windows x heads x tokens^2."""
    network = accelerate(noisy(LUA(**{**ODD_HEADS, "embed_dim": 64, "num_heads": (8, 8), "window_size": 8})))
    with torch.no_grad(), Watched() as watched:
        network(torch.rand(1, 16, 128, 128), 2)
    assert 0 < watched.largest < 256 * 8 * 64**2 / 4


def test_graphs_need_cuda():
    with pytest.raises(ValueError, match="CUDA"):
        Graph(LUA(**ODD_HEADS))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graph_on_cuda_equals_the_network():
    fast = accelerate(noisy(LUA(**ODD_HEADS)).cuda(), compiled=False)
    graph, inputs = Graph(fast), [torch.rand(1, 16, 16, 16, device="cuda") for _ in range(2)]
    with torch.inference_mode():
        for x in inputs:
            torch.testing.assert_close(graph(x, 2), fast(x, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_upscalers_in_the_engine(dtype):
    """Whatever wraps them is kept; autocast around them changes nothing in bfloat16."""
    networks = {scale: noisy(SwinIR(**{**ODD_HEADS, "scales": (scale,)})) for scale in (2, 4)}
    x = torch.rand(1, 3, 9, 12)
    with torch.inference_mode():
        expected = {scale: network(x, scale) for scale, network in networks.items()}
        wrapped = fast(ByScale(networks), dtype)
        assert isinstance(wrapped, ByScale) and all(isinstance(one, Fast) for one in wrapped.networks.values())
        for scale, wanted in expected.items():
            with torch.autocast("cpu", torch.bfloat16 if dtype == torch.float32 else dtype):
                made = wrapped(x, scale)
            error = (made.float() - wanted).norm() / wanted.norm()
            assert error < (1e-5 if dtype == torch.float32 else 1e-2)
    kept = torch.float32 if dtype == torch.float16 else dtype
    assert {p.dtype for p in wrapped.parameters()} == {kept} and not any(p.requires_grad for p in wrapped.parameters())


def test_the_copy_moves_with_its_biases():
    """Made on the CPU and moved then, as on ZeroGPU; biases keep their layout where convolutions change theirs."""
    network = noisy(LUA(**ODD_HEADS))
    moved = accelerate(network).to(memory_format=torch.channels_last)
    biases = {name: value for name, value in moved.named_buffers() if ".bias_" in name}
    assert biases and all(value.is_contiguous() for value in biases.values())
    assert not biases.keys() & moved.state_dict().keys()
    assert all(value.is_meta for value in moved.to("meta").buffers())
