"""Toy weights of the real classes and deterministic pictures, for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lua_demo.engine import Engine
from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.networks.lua import LUA
from lua_demo.networks.swinir import SwinIR

TRUNK = dict(embed_dim=8, depths=[2], num_heads=[2], window_size=4, head_num_feat=8, scales=[2, 4], residual="bicubic")


def toy_autoencoder() -> Autoencoder:
    """Small, and with a decode that resembles the input: its linear part is the PCA of a picture's patches."""
    network = Autoencoder(fine=8, coarse=8, encoder_coarse=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    network.start_from_pca(torch.from_numpy(picture(256, 192)).permute(2, 0, 1)[None].float() / 255)
    return network


def picture(width: int, height: int) -> np.ndarray:
    """H x W x 3 uint8 with smooth colour, edges and grain, so that no two methods and no two regions look the same."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(9 * x + 4 * y), np.cos(7 * y - 3 * x * x), np.sin(11 * x * y + 1)]
    image = 0.5 + 0.3 * np.stack(waves, -1) + 0.15 * (((x * 13).astype(int) + (y * 17).astype(int)) % 2)[..., None]
    image += np.random.default_rng(width * 10_007 + height).normal(0, 0.02, image.shape)
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


@pytest.fixture(scope="session", autouse=True)
def no_store_at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever uses the default store writes below the tests' own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUA_DEMO_STORE", str(tmp_path_factory.mktemp("default-store")))
        yield


@pytest.fixture(scope="session")
def toy_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like assets/weights with tiny, untrained networks of the real classes."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("weights")
    toy_autoencoder().save_pretrained(root / "embedded" / "autoencoder")
    LUA(in_chans=16, **TRUNK).save_pretrained(root / "embedded" / "lua")
    SwinIR(**TRUNK).save_pretrained(root / "embedded" / "swinir")
    return root


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[int, int], Path]:
    """photo(w, h) writes a picture of that size and gives its path."""

    def write(width: int, height: int) -> Path:
        path = tmp_path / f"photo_{width}x{height}.png"
        Image.fromarray(picture(width, height)).save(path)
        return path

    return write


@pytest.fixture
def engine(toy_weights: Path) -> Engine:
    """A fresh engine on the CPU with toy weights."""
    return Engine("cpu", weights=toy_weights)
