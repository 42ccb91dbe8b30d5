"""SesquiLSR against the conformance vectors of an independent implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lua_demo.networks.sesqui import Sesqui

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
