"""The tiny autoencoder of Qwen-Image's latents: a video's, for one frame."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TRUNK
from safetensors.torch import save_file
from test_bases import results
from torch.nn.functional import conv2d

from lua_demo.catalog.spaces import SPACES
from lua_demo.catalog.upscalers import File, download_folder
from lua_demo.engine import Engine
from lua_demo.models.vaes import load_network, load_tiny, tiny_source
from lua_demo.networks.lua import LUA
from lua_demo.networks.taehv import Memory, TinyVideoAutoencoder
from lua_demo.pictures.images import load_photo, to_array, to_tensor
from lua_demo.pictures.latents import save_latent
from lua_demo.schema import Request, UserError


@pytest.fixture
def network() -> TinyVideoAutoencoder:
    torch.manual_seed(0)
    return TinyVideoAutoencoder().half().float().eval()


@pytest.fixture
def folder(network, tmp_path) -> Path:
    """As it is published: one file, in half precision."""
    (tmp_path / "tiny").mkdir()
    tensors = {name: value.half() for name, value in network.state_dict().items()}
    save_file(tensors, tmp_path / "tiny" / "taew2_1.safetensors")
    return tmp_path / "tiny"


def as_a_video(layers: torch.nn.Sequential, frames: list[torch.Tensor]) -> list[torch.Tensor]:
    """Every frame, and before the first one a frame of zeros."""
    for layer in layers:
        if isinstance(layer, Memory):
            made = []
            for x, past in zip(frames, [torch.zeros_like(frames[0]), *frames], strict=False):
                y = conv2d(torch.cat([x, past], 1), layer.conv[0].weight, layer.conv[0].bias, padding=1).relu()
                y = layer.conv[4](layer.conv[2](y).relu())
                made.append((x + y).relu())
            frames = made
        elif type(layer).__name__ == "Join":
            many = torch.cat(frames, 1).split(layer.count * frames[0].shape[1], 1)
            frames = [layer.conv(x) for x in many]
        elif type(layer).__name__ == "Split":
            frames = [x for frame in frames for x in layer.conv(frame).split(frame.shape[1], 1)]
        else:
            frames = [layer(x) for x in frames]
    return frames


@torch.inference_mode()
def test_a_picture_is_a_video_of_one_frame(network):
    image = torch.rand(1, 3, 24, 16)
    (latent,) = as_a_video(network.encoder, [image] * 4)
    torch.testing.assert_close(network.encode(image), latent)
    assert latent.shape == (1, 16, 3, 2)
    frames = as_a_video(network.decoder, [latent])
    assert len(frames) == 4 and (frames[-1] - frames[-2]).abs().max() > 1e-3
    torch.testing.assert_close(network.decode(latent), frames[-1])


def test_it_is_as_large_as_the_published_one(network):
    values = network.state_dict().values()
    assert len(values) == 128 and sum(x.numel() for x in values) == pytest.approx(11.3e6, rel=0.01)


def test_from_a_folder_and_from_the_published_file(network, folder, monkeypatch, tmp_path):
    image = torch.rand(1, 3, 16, 24)
    for source in (folder, folder / "taew2_1.safetensors"):
        assert torch.equal(load_network("qwen", source).encode(image), network.encode(image))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = (folder / "taew2_1.safetensors").read_bytes()
    file = File("http://localhost:9/taew2_1.safetensors", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(SPACES, "qwen", replace(SPACES["qwen"], tiny_file=file))
    assert tiny_source("qwen", tmp_path) == download_folder() / "taew2_1.safetensors"
    with pytest.raises(UserError, match="could not be downloaded"):
        load_network("qwen")
    download_folder().mkdir(parents=True, exist_ok=True)
    file.path.write_bytes(content)
    assert torch.equal(load_network("qwen").encode(image), network.encode(image))
    file.path.write_bytes(content[:-1])
    with pytest.raises(UserError, match="is not the published file"):
        load_network("qwen")


def test_refusals(folder):
    file = folder / "taew2_1.safetensors"
    with pytest.raises(UserError, match=r"no tiny autoencoder of TAESD's family, .* give a plain LUA"):
        load_tiny("qwen", folder)
    save_file({"decoder.1.weight": torch.zeros(256, 16, 3, 3)}, file)
    with pytest.raises(UserError, match="is not exactly a TinyVideoAutoencoder"):
        load_network("qwen", folder)


def test_through_the_engine(network, folder, toy_weights, photo, tmp_path):
    """A photo and its latent, of whose values nothing is known: they are taken, and no share outside is told."""
    (tmp_path / "embedded").symlink_to(toy_weights / "embedded")
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "tiny").symlink_to(folder)
    LUA(in_chans=16, **TRUNK).save_pretrained(tmp_path / "qwen" / "lua")
    engine = Engine("cpu", weights=tmp_path)
    request = Request(str(photo(96, 64)), size=96, base="qwen-image", decoder="tiny", methods=("base", "lua"))
    done = results(engine, request)
    with torch.inference_mode():
        expected = network.decode(network.encode(to_tensor(load_photo(photo(96, 64))))).clamp(0, 1)
    assert np.abs(done["base"].image.astype(int) - to_array(expected)).max() <= 1
    assert done["lua"].image.shape == (128, 192, 3) and done["lua"].outside is None
    file = save_latent(tmp_path / "latent.safetensors", done["base"].latent)
    again = results(engine, replace(request, image="", latent=str(file)))
    assert np.array_equal(again["lua"].image, done["lua"].image)
    assert engine.environment(request).weights["decoder"] == "tiny decoder of qwen/tiny"
