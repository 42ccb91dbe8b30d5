"""Base latents as files, and comparisons that start from one."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from lua_demo.pictures import latents
from lua_demo.pictures.latents import load_latent, save_latent
from lua_demo.schema import BaseLatent, Request, Result, UserError

METADATA = {"convention": "normalised", "version": "1", "space": "embedded", "width": "64", "height": "48"}
VALUES = np.random.default_rng(0).normal(size=(1, 16, 6, 8)).astype(np.float32)


def results(engine, request: Request) -> dict[str, Result]:
    return {event.method: event for event in engine.compare(request) if isinstance(event, Result)}


@pytest.fixture
def base(engine, photo, tmp_path):
    """The results for a photo, and a file with the latent that they started from."""
    made = results(engine, Request(str(photo(150, 111)), 2, 70))
    return made, save_latent(tmp_path / "base.safetensors", made["lua"].latent, {"sha256": "abc"})


def test_it_comes_back_exactly(base):
    made, path = base
    latent = load_latent(path)
    assert np.array_equal(latent.values, made["base"].latent.values) and latent.values.dtype == np.float32
    assert (latent.space, latent.size) == ("embedded", (70, 51))
    assert made["native"].latent is None


def test_a_comparison_from_a_latent_is_the_same(base, engine):
    """No multiple of the stride: what the decoder pads is cut off here too."""
    made, path = base
    again = results(engine, Request(scale=2, latent=str(path)))
    for method in ("base", "lua", "swinir", "bicubic"):
        assert np.array_equal(again[method].image, made[method].image), method
        assert again[method].metrics is None and "encode" not in [span.name for span in again[method].spans]
    assert again["native"].skipped == "the base is a latent; Native (original) needs a photo"
    assert np.array_equal(again["lua"].latent.values, made["lua"].latent.values)


def test_two_latents_of_one_size_do_not_share_pictures(base, engine, tmp_path):
    _, path = base
    latent = load_latent(path)
    other = save_latent(tmp_path / "other.safetensors", replace(latent, values=latent.values * 0.5))
    one, two = (results(engine, Request(latent=str(file), methods=("base",)))["base"] for file in (path, other))
    assert not np.array_equal(one.image, two.image)


@pytest.mark.parametrize(
    ("metadata", "tensors", "words"),
    [
        ({"convention": "raw"}, {}, "a normalised latent of version 1"),
        ({"version": "2"}, {}, "version 1"),
        ({"space": "flux1"}, {}, "a latent of the space 'flux1', not embedded"),
        ({"space": "x" * 5000}, {}, "not embedded"),
        ({"width": "many"}, {}, "width and height"),
        ({"width": "0"}, {}, "an image of 0 x 48"),
        ({"width": "9" * 40}, {}, "the longest side may be 16 to 2048"),
        ({"width": "8", "height": "8"}, {}, "an image of 8 x 8"),
        ({"width": "72"}, {}, "has shape (16, 6, 8); an image of 72 x 48 in the space embedded has (64, 6, 9)"),
        ({}, {"latent": VALUES[:, :4]}, "has shape (4, 6, 8)"),
        ({}, {"latent": VALUES[0]}, "a latent is float32 (F32), 1 x C x h x w"),
        ({}, {"latent": VALUES.astype(np.float64)}, "F64"),
        ({}, {"latent": np.zeros((1, 16, 0, 8), np.float32)}, "shape (1, 16, 0, 8)"),
        ({}, {"latent": np.full_like(VALUES, np.nan)}, "NaN"),
        ({}, {"latent": np.full_like(VALUES, np.inf)}, "infinity"),
        ({}, {"weights": VALUES}, 'no tensor "latent"'),
    ],
)
def test_refusals(engine, tmp_path, metadata, tensors, words):
    path = tmp_path / "odd.safetensors"
    save_file(tensors or {"latent": VALUES}, path, {**METADATA, **metadata})
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        results(engine, Request(latent=str(path)))
    assert str(caught.value).startswith("odd.safetensors ") and len(str(caught.value)) < 300


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken(dtype, tmp_path):
    narrow = torch.from_numpy(VALUES).to(dtype)
    save_torch({"latent": narrow}, tmp_path / "half.safetensors", METADATA)
    read = load_latent(tmp_path / "half.safetensors").values
    assert read.dtype == np.float32 and np.array_equal(read[None], narrow.float().numpy())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_half_precision_without_numbers_is_refused(value, tmp_path):
    odd = torch.from_numpy(VALUES).bfloat16()
    odd[0, 3, 2, 1] = value
    save_torch({"latent": odd}, tmp_path / "half.safetensors", METADATA)
    with pytest.raises(UserError, match="no numbers"):
        load_latent(tmp_path / "half.safetensors")


def test_pipes_and_folders_are_no_latents(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    for path, words in ((tmp_path / "a.safetensors", "no regular file"), (tmp_path, "directory"), ("a\0b", "null"),
                        ("x" * 5000, "too long")):  # fmt: skip
        with pytest.raises(UserError, match=words) as caught:
            load_latent(path)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04\x95", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_only_safetensors_are_read(engine, tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x.safetensors is not a readable safetensors file"):
        engine.compare(Request(latent=str(path)))
    with pytest.raises(UserError, match=r"gone.safetensors cannot be read"):
        engine.compare(Request(latent=str(tmp_path / "gone.safetensors")))


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "MAX_BYTES", 1000)
    path = save_latent(tmp_path / "large.safetensors", BaseLatent(VALUES[0], "embedded", (64, 48)))
    with pytest.raises(UserError, match=r"large.safetensors has .* the limit"):
        load_latent(path)


def test_one_source_only(engine, photo, base):
    with pytest.raises(UserError, match="both image and latent"):
        engine.compare(Request(str(photo(40, 40)), latent=str(base[1])))
