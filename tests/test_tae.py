"""The tiny autoencoders: names, layouts and conventions of the published files; the real ones where they are there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lua_demo.models.vaes import SPACES, VAE, KLAutoencoder, load_network
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.pictures import metrics
from lua_demo.pictures.images import load_photo, to_array, to_tensor
from lua_demo.schema import UserError

SHARED = Path(__file__).resolve().parents[2] / "shared"
TINY = [space for space, row in SPACES.items() if row.tiny and not row.tiny_file]


def write(folder: Path, network: TinyAutoencoder, name: str) -> None:
    """In the published layout: two files, names counted from the start of each half, half precision."""
    for half in ("encoder", "decoder"):
        tensors = {key: value.half() for key, value in getattr(network, half).state_dict().items()}
        save_file(tensors, folder / f"{name}_{half}.safetensors")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return TinyAutoencoder(32, pool=True).half().float().eval()


@pytest.fixture
def folder(network, tmp_path):
    write(tmp_path, network, "taef2")
    return tmp_path


def test_the_same_from_a_folder_a_file_and_diffusers_layout(network, folder):
    image = torch.rand(1, 3, 24, 16)
    for source in (folder, folder / "taef2_decoder.safetensors", folder / "taef2_encoder.safetensors"):
        loaded = load_network("flux2", source)
        assert torch.equal(loaded.decode(loaded.encode(image)), network.decode(network.encode(image)))
    tensors = {f"encoder.layers.{name}": value for name, value in network.encoder.state_dict().items()}
    for name, value in network.decoder.state_dict().items():
        index, rest = name.split(".", 1)
        tensors[f"decoder.layers.{int(index) - 1}.{rest}"] = value
    other = folder / "diffusers"
    other.mkdir()
    save_file(tensors, other / "diffusion_pytorch_model.safetensors")
    (other / "config.json").write_text(json.dumps({"_class_name": "AutoencoderTiny"}))
    loaded = load_network("flux2", other)
    assert torch.equal(loaded.decode(loaded.encode(image)), network.decode(network.encode(image)))


def test_latent_is_bounded_and_gradients_pass(network):
    latent = torch.full((1, 32, 2, 3), 1e4)
    assert torch.equal(network.decode(latent), network.decode(latent * 2)), "tanh(z / 3) * 3"
    latent = torch.randn(1, 32, 2, 3, requires_grad=True)
    image = VAE(network).decode(latent)
    assert image.shape == (1, 3, 16, 24) and image.min() >= 0 and image.max() <= 1
    network.decode(latent).sum().backward()
    assert latent.grad.abs().sum() > 0
    assert VAE(network).encode(torch.rand(1, 3, 17, 8)).shape == (1, 32, 3, 1), "padded up to the stride"


def test_refusals(folder, tmp_path):
    with pytest.raises(UserError, match="choose embedded, sd1, sdxl"):
        load_network("sd9", folder)
    with pytest.raises(UserError, match="32 channels at stride 8, but space flux1 has 16"):
        load_network("flux1", folder / "taef2_encoder.safetensors")
    (folder / "taef2_encoder.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="is missing or not readable"):
        load_network("flux2", folder)
    save_file({"1.weight": torch.zeros(64, 32, 3, 3)}, folder / "taef2_decoder.safetensors")
    save_file({"0.weight": torch.zeros(64, 3, 3, 3)}, folder / "taef2_encoder.safetensors")
    with pytest.raises(UserError, match="is not exactly a TinyAutoencoder"):
        load_network("flux2", folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="is not readable as a configuration"):
        load_network("sdxl", empty)
    (empty / "config.json").write_text('{"_class_name": "VQModel"}')
    with pytest.raises(UserError, match="holds a VQModel"):
        load_network("sdxl", empty)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize("space", TINY)
def test_published_weights_reconstruct_a_photo(space):
    network = load_network(space, SHARED / "weights" / "tae")
    photo = load_photo(SHARED / "data" / "kodak" / "kodim15.png").crop((0, 0, 256, 256))
    with torch.inference_mode():
        latent = VAE(network).encode(to_tensor(photo))
        image = to_array(VAE(network).decode(latent))
    assert latent.shape == (1, SPACES[space].channels, 32, 32) and 0.5 < latent.std().item() < 1.5
    assert metrics.psnr(image, np.asarray(photo)) > 24


def test_scale_shift_and_range_of_a_kl_autoencoder():
    """Against diffusers' convention: it takes [-1, 1], and the denoiser sees (raw - shift) * scale."""

    class Model(torch.nn.Module):
        config = SimpleNamespace(
            block_out_channels=(1, 1, 1, 1), latent_channels=3, scaling_factor=0.5, shift_factor=0.1
        )

        def encode(self, x):
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=x))

        def decode(self, z):
            return SimpleNamespace(sample=z)

    network = KLAutoencoder(Model())
    image = torch.rand(1, 3, 8, 8)
    latent = network.encode(image)
    torch.testing.assert_close(latent, (image * 2 - 1 - 0.1) * 0.5)
    torch.testing.assert_close(network.decode(latent), image)
    assert (network.stride, network.latent_channels) == (8, 3)
