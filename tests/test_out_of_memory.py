"""Memory that runs out, at every stage and in whatever words: other methods go on, and no finished picture is lost."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from conftest import network_of
from safetensors import SafetensorError

from lua_demo.engine import Engine
from lua_demo.machine.memory import is_out_of_memory
from lua_demo.models import tiles
from lua_demo.pictures import metrics
from lua_demo.pictures.files import read_regular
from lua_demo.request import inputs
from lua_demo.schema import Request, Result, UserError

TEXTS = ["could not create a primitive", "std::bad_alloc", "CUDA error: out of memory", "MPS backend out of memory"]
METHODS = ("base", "lua", "swinir", "bicubic")


def results(engine: Engine, path, methods=METHODS, **settings) -> dict[str, Result]:
    request = Request(str(path), **{"size": 64, "methods": methods, **settings})
    return {event.method: event for event in engine.compare(request) if isinstance(event, Result)}


def raising(error: Exception):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while deserializing header: Cannot allocate memory (os error 12)"),
        RuntimeError("Invalid buffer size: 24.00 GB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        ImportError("libx.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
    ],
    ids=str,
)
def test_further_words_for_it(error):
    assert is_out_of_memory(error) and not is_out_of_memory(type(error)("another"))


def test_a_small_file_takes_little_memory_to_read(photo):
    path = photo(64, 48)
    tracemalloc.start()
    read_regular(path, "a photo")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**20


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("role", ["lua", "swinir"])
def test_an_upscaler_is_left_out_and_the_others_go_on(engine, photo, text, role):
    results(engine, photo(160, 120), (role,))
    network_of(engine, role).register_forward_pre_hook(raising(RuntimeError(text)))
    made = results(engine, photo(160, 120))
    assert "out of memory on cpu; choose a smaller size" in made[role].skipped
    assert all(made[key].image is not None for key in METHODS if key != role)


@pytest.mark.parametrize("text", TEXTS[::3])
def test_decoding_and_encoding(engine, photo, text):
    results(engine, photo(160, 120), ("base",))
    hook = network_of(engine, "autoencoder").register_forward_pre_hook(raising(RuntimeError(text)))
    vae = network_of(engine, "autoencoder").network
    encode, decode = vae.encode, vae.decode
    vae.decode = raising(RuntimeError(text))
    made = results(engine, photo(96, 72))
    assert all("out of memory" in result.skipped for result in made.values())
    vae.decode, vae.encode = decode, raising(RuntimeError(text))
    made = results(engine, photo(128, 72))
    assert all("out of memory" in result.skipped for result in made.values())
    vae.encode = encode
    hook.remove()
    assert results(engine, photo(128, 72))["lua"].image is not None


@pytest.mark.parametrize(
    "error", [RuntimeError(TEXTS[0]), MemoryError(), ImportError("failed to map segment")], ids=str
)
def test_metrics_cost_no_picture(engine, photo, monkeypatch, error):
    expected = results(engine, photo(160, 120))
    monkeypatch.setattr(metrics, "against", raising(error))
    made = results(engine, photo(160, 120))
    for key in METHODS:
        assert np.array_equal(made[key].image, expected[key].image) and made[key].metrics is None
        assert "not measured: out of memory" in made[key].notes


@pytest.mark.parametrize(
    "error", [RuntimeError(TEXTS[1]), MemoryError(), OSError(12, "Cannot allocate memory")], ids=str
)
def test_weights_that_cannot_be_placed(engine, photo, monkeypatch, error):
    load = engine.models.load

    def fail(job, role):
        if role in ("lua", "autoencoder") and role in refused:
            told = UserError(f"{role} is not readable")
            raise told from error
        load(job, role)

    monkeypatch.setattr(engine.models, "load", fail)
    refused = {"lua"}
    made = results(engine, photo(160, 120))
    assert "out of memory on cpu while its weights were placed" in made["lua"].skipped
    assert made["swinir"].image is not None
    engine.models.networks.clear()
    refused = {"autoencoder"}
    with pytest.raises(UserError, match="autoencoder: out of memory on cpu while its weights were placed"):
        results(engine, photo(160, 120))


def test_a_photo_that_does_not_fit(engine, photo, monkeypatch):
    monkeypatch.setattr(inputs.images, "load_photo", raising(MemoryError()))
    with pytest.raises(UserError, match=r"out of memory while photo_160x120\.png was read; use a smaller one"):
        results(engine, photo(160, 120))


def test_a_pixel_upscaler_is_tiled_where_it_does_not_fit_and_refused_where_no_tile_does(engine, photo, monkeypatch):
    expected = results(engine, photo(300, 300), ("swinir",), size=300)["swinir"]
    assert not any("tiles" in note for note in expected.notes)
    per_pixel = 8 * network_of(engine, "swinir").network.conv_first.out_channels * 4 * 1.1
    monkeypatch.setattr(tiles, "free_bytes", lambda device: 140**2 * per_pixel)
    monkeypatch.setattr("lua_demo.models.decoding.within_memory", lambda run, x, *_, **__: (run(x), None))
    made = results(engine, photo(300, 300), ("swinir",), size=300)["swinir"]
    assert "in blended tiles of 128 px, for want of memory" in made.notes
    assert np.abs(made.image.astype(int) - expected.image).mean() < 2
    monkeypatch.setattr(tiles, "free_bytes", lambda device: 10**4)
    made = results(engine, photo(300, 300), ("swinir", "bicubic"), size=300)
    assert "out of memory" in made["swinir"].skipped and made["bicubic"].image is not None


def test_an_error_of_the_program_is_no_want_of_memory(engine, photo):
    results(engine, photo(160, 120), ("lua",))
    network_of(engine, "lua").register_forward_pre_hook(raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        results(engine, photo(160, 120))
    with pytest.raises(torch.OutOfMemoryError):
        tiles.within_memory(raising(RuntimeError(TEXTS[0])), torch.rand(1, 3, 9, 9), 2, 0)
