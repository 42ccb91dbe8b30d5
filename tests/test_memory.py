"""What fits is decided from numbers; what does not is tried again with less, and nothing is lost."""

from __future__ import annotations

import errno
import gc
import weakref

import numpy as np
import pytest
import torch
from conftest import network_of
from diffusers import AutoencoderKL
from test_bases import asked, engine, results, weights  # noqa: F401  fixtures
from tiny_bases import KL

from lua_demo.catalog import cost
from lua_demo.catalog.bases import BASES
from lua_demo.commands.doctor import base_state
from lua_demo.engine import Engine
from lua_demo.machine import memory
from lua_demo.machine.memory import (
    DROP_ENCODERS,
    GIB,
    MODEL_OFFLOAD,
    PLANS,
    RESIDENT,
    SEQUENTIAL_OFFLOAD,
    Need,
    fitting,
    need,
    slower,
)
from lua_demo.models import tiles
from lua_demo.models.decoding import decode
from lua_demo.models.vaes import VAE, KLAutoencoder
from lua_demo.schema import Result, UserError


@pytest.mark.parametrize(
    ("key", "device", "host", "expected"),
    [
        ("flux1-dev", 80, 128, RESIDENT),
        ("flux1-dev", 32, 128, MODEL_OFFLOAD),
        ("flux1-dev", 32, 28, DROP_ENCODERS),  # not all weights fit into the memory beside the device
        ("flux1-dev", 80, 8, RESIDENT),  # nor here, but they are read straight onto the device
        ("flux1-dev", 16, 64, SEQUENTIAL_OFFLOAD),
        ("flux1-dev", 16, 16, None),
        ("sdxl", 12, 32, RESIDENT),
        ("sdxl", 8, 32, MODEL_OFFLOAD),
        ("sd35-medium", 24, 64, RESIDENT),
        ("sd35-medium", 16, 64, MODEL_OFFLOAD),
        ("flux2-dev", 141, 128, RESIDENT),
        ("flux2-dev", 80, 128, MODEL_OFFLOAD),
        ("flux2-dev", 80, 96, DROP_ENCODERS),
        ("flux2-dev", 24, 128, SEQUENTIAL_OFFLOAD),
        ("z-image-turbo", 24, 32, RESIDENT),
        ("sdxl", 16, None, RESIDENT),  # a CPU: nothing to offload to
        ("sdxl", 7.5, None, DROP_ENCODERS),
        ("sdxl", 4, None, None),
    ],
)
def test_the_fastest_plan_that_fits(key, device, host, expected):
    plans = fitting(need(BASES[key], 1024, 1024), int(device * GIB), None if host is None else int(host * GIB))
    assert (plans[0] if plans else None) is expected
    assert list(plans) == sorted(plans, key=PLANS.index), "fastest first"


def test_more_memory_never_makes_it_slower():
    for key in BASES:
        needed = need(BASES[key], 1024, 1024)
        ranks = []
        for gib in range(1, 200, 3):
            plans = fitting(needed, gib * GIB, 256 * GIB)
            ranks.append(PLANS.index(plans[0]) if plans else len(PLANS))
        assert ranks == sorted(ranks, reverse=True), key


def test_a_step_down_asks_less_of_the_device():
    needed = Need(encoders=9 * GIB, denoiser=22 * GIB, vae=GIB, working=2 * GIB)
    assert slower(RESIDENT, needed, 64 * GIB) == (MODEL_OFFLOAD, DROP_ENCODERS, SEQUENTIAL_OFFLOAD)
    assert slower(MODEL_OFFLOAD, needed, 64 * GIB) == (SEQUENTIAL_OFFLOAD,)
    assert slower(SEQUENTIAL_OFFLOAD, needed, 64 * GIB) == ()
    assert slower(RESIDENT, needed, 16 * GIB) == (DROP_ENCODERS,), "offloading would not fit into the memory beside it"
    assert slower(RESIDENT, needed, None) == (DROP_ENCODERS,) and slower(DROP_ENCODERS, needed, None) == ()


def test_a_refusal_names_what_there_is_too_little_of():
    needed = need(BASES["flux2-dev"], 1024, 1024)
    few, many = (
        memory.refusal("FLUX.2", needed, 2 * GIB, 256 * GIB),
        memory.refusal("FLUX.2", needed, 24 * GIB, 48 * GIB),
    )
    assert "on the device here, of which 2.0 GiB are free" in few and "beside" not in few
    assert "115.4 GiB of the machine's memory beside the device, of which 48.0 GiB are free" in many
    assert "on the device here" in memory.refusal("FLUX.2", needed, 24 * GIB, None)


def test_a_larger_picture_and_wider_weights_need_more():
    small, large = need(BASES["sdxl"], 512, 512), need(BASES["sdxl"], 1024, 512)
    assert large.working == pytest.approx(2 * small.working, abs=2) and large.weights == small.weights
    assert need(BASES["sdxl"], 512, 512, 4).weights == pytest.approx(2 * small.weights, abs=4)


def test_out_of_memory_while_sampling_is_tried_again_with_less(engine):  # noqa: F811
    """A part of the real pipeline really raises, once: same picture, the memory of the first try is given back."""
    expected = results(Engine("cpu", weights=engine.weights), asked("flux1-dev", methods=("base", "lua")))
    engine.models.known_base("flux1-dev", BASES["flux1-dev"]).place((96, 64))
    transformer = engine.models.bases["flux1-dev"]._pipeline.transformer
    raised = []

    def fail(module, args):
        raised.append(weakref.ref(module))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    transformer.transformer_blocks[0].register_forward_pre_hook(fail)
    del transformer
    events = list(engine.compare(asked("flux1-dev", methods=("base", "lua"))))
    done = {event.method: event for event in events if isinstance(event, Result)}
    gc.collect()
    assert [module() for module in raised] == [None], "raised once, and its weights are gone"
    assert engine.models.bases["flux1-dev"].plan is DROP_ENCODERS
    for method in ("base", "lua"):
        assert np.array_equal(done[method].image, expected[method].image), method
        assert any("out of memory" in note for note in done[method].notes)
        assert any(DROP_ENCODERS.label in note for note in done[method].notes)
    assert not any("out of memory" in note for note in expected["base"].notes)


def test_out_of_memory_with_no_plan_left_loses_one_method_only(engine):  # noqa: F811
    model = engine.models.known_base("sdxl", BASES["sdxl"])
    model._use(DROP_ENCODERS)
    load = model._load_for

    def load_and_hook(plan, encoders=None):
        load(plan, encoders)
        if not encoders:
            model._pipeline.unet.register_forward_pre_hook(fail)

    def fail(module, args):
        raise torch.OutOfMemoryError("out of memory")

    model._load_for = load_and_hook
    done = results(engine, asked("sdxl", methods=("base",)))
    assert done["base"].image is None and "out of memory on cpu" in done["base"].skipped
    model._load_for = load
    model.release()
    assert results(engine, asked("sdxl", methods=("base",)))["base"].image is not None


def test_an_upscaler_that_runs_out_gets_the_memory_of_the_base(engine):  # noqa: F811
    results(engine, asked("sdxl", methods=("lua",), seed=3))
    calls = []

    def fail_once(module, args):
        calls.append(engine.models.bases["sdxl"].plan)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("out of memory")

    network_of(engine, "lua", "sdxl").register_forward_pre_hook(fail_once)
    done = results(engine, asked("sdxl", methods=("lua", "native"), seed=3))
    assert calls == [RESIDENT, None] and done["lua"].image is not None
    assert any("gave back its own" in note for note in done["lua"].notes)
    assert done["native"].image is not None, "the base is loaded again where it is needed"


def autoencoder(**changes):
    torch.manual_seed(1)
    model = AutoencoderKL(latent_channels=4, scaling_factor=0.5, **{**KL, **changes}).eval()
    return VAE(KLAutoencoder(model).eval(), "kl")


@torch.inference_mode()
def test_tiles_where_the_whole_does_not_fit(monkeypatch):
    vae, latent = autoencoder(mid_block_add_attention=False), torch.randn(1, 4, 70, 41)
    whole, notes = decode(vae, latent)
    assert notes == ("full KL decoder, in one piece",)
    monkeypatch.setattr(tiles, "free_bytes", lambda device: 49 * 49 * 64 * 800 * 4)
    tiled, notes = decode(vae, latent)
    assert notes == ("full KL decoder, in blended tiles of 384 px",) and tiled.shape == whole.shape == (1, 3, 560, 328)
    assert (tiled - whole).abs().mean() < 0.02
    # No seams: across the line where a tile begins, neighbours differ no more than elsewhere.
    steps = (tiled - whole).diff(dim=-2).abs().mean((0, 1, 3))
    assert steps.max() < 5 * steps.mean() + 1e-3


@torch.inference_mode()
def test_a_tile_as_large_as_the_latent_is_the_whole():
    vae, latent = autoencoder(), torch.randn(1, 4, 9, 12)
    torch.testing.assert_close(
        tiles.tiled(vae.network.decode, latent, 32, vae.stride).clamp(0, 1), decode(vae, latent)[0]
    )


@torch.inference_mode()
def test_out_of_memory_in_the_decode_goes_on_in_tiles():
    vae, latent = autoencoder(), torch.randn(1, 4, 64, 64)

    def fail_when_large(module, args):
        if args[0].shape[-1] > 48:
            raise torch.OutOfMemoryError("out of memory")

    vae.network.model.decoder.register_forward_pre_hook(fail_when_large)
    image, notes = decode(vae, latent)
    assert notes == ("full KL decoder, in blended tiles of 384 px",) and image.isfinite().all()


@torch.inference_mode()
def test_half_precision_that_overflows_is_run_again_in_fp32():
    vae, latent = autoencoder(), torch.randn(1, 4, 8, 8)
    expected, notes = decode(vae, latent)
    with torch.autocast("cpu", torch.float16):
        narrow, notes = decode(vae, latent)
        assert len(notes) == 1 and 0 < (narrow - expected).abs().mean() < 0.01, "nothing overflowed"
    # One block works at values that fp16 cannot hold; what leaves the decoder is the same.
    block = vae.network.model.decoder.up_blocks[0].resnets[0]
    for layer, factor in ((block.conv1, 1e6), (block.norm2, 1.0)):
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)
    expected, _ = decode(vae, latent)
    with torch.autocast("cpu", torch.float16):
        assert not vae.network.decode(latent).isfinite().all(), "this overflows"
        image, notes = decode(vae, latent)
    assert "run again in fp32" in notes[1]
    torch.testing.assert_close(image, expected, atol=1e-5, rtol=1e-5)


def test_operations_at_the_sizes_that_were_counted():
    """Against the counts of the reference table, TFLOP per step at 512, 1024, 2048 and 4096 px."""
    for key, counts in {"flux1-dev": (21.5, 74.4, 418, 3908), "sdxl": (1.59, 6.76, 35.9, 287.8)}.items():
        for side, count in zip((512, 1024, 2048, 4096), counts, strict=True):
            assert cost.step_tflop(BASES[key], side, side) == pytest.approx(count, rel=0.02), (key, side)
    assert cost.native_seconds(BASES["flux1-dev"], 28, (512, 512), (1024, 1024), 0.1) == pytest.approx(9.69, rel=0.01)


def test_native_is_left_out_where_it_takes_long_and_can_be_forced(engine, monkeypatch):  # noqa: F811
    monkeypatch.setattr(cost, "LONGEST_SECONDS", 0.0)
    done = results(engine, asked("sd35-medium", methods=("native",)))["native"]
    assert done.image is None and "it would take about" in done.skipped and "192 x 128" in done.skipped
    assert "--force-native" in done.skipped
    forced = results(engine, asked("sd35-medium", methods=("native",), force_native=True))["native"]
    assert forced.image.shape == (128, 192, 3) and not any("made for up to" in note for note in forced.notes)


def test_native_is_left_out_where_it_does_not_fit(engine, monkeypatch):  # noqa: F811
    results(engine, asked("sd35-medium", methods=("base",)))
    working = need(BASES["sd35-medium"], 192, 128).working
    monkeypatch.setattr(memory, "free_bytes", lambda device: working)
    done = results(engine, asked("sd35-medium", methods=("native",)))["native"]
    assert done.image is None and "Stable Diffusion 3.5 medium needs at least" in done.skipped


def test_beyond_what_a_base_was_made_for(engine):  # noqa: F811
    from dataclasses import replace
    from unittest.mock import patch

    with patch.dict(BASES, sdxl=replace(BASES["sdxl"], largest=128)):
        done = results(engine, asked("sdxl", methods=("base", "native")))
    assert any("made for up to 128 px" in note and "192 x 128" in note for note in done["native"].notes)
    assert not any("made for" in note for note in done["base"].notes)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((10**9,), np.dtype("f8")),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes."),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("bad allocation"),
        RuntimeError("unable to mmap 4000 bytes from file <x>: Cannot allocate memory (12)"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("HIP out of memory."),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_out_of_memory_is_known_by_all_its_texts(error):
    assert memory.is_out_of_memory(error)
    told = UserError("x.safetensors is not readable as weights")
    told.__cause__ = error
    assert memory.is_out_of_memory(told), "wrapped on its way"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size of tensor a (3) must match"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("not a picture"),
        UserError("out of memory.png is not a file"),
        UserError("x"),
        ValueError("bad_alloc"),
        None,
    ],
    ids=str,
)
def test_other_errors_are_no_out_of_memory(error):
    assert not memory.is_out_of_memory(error)


def test_a_container_has_less_than_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    whole = memory.available_bytes()
    assert whole > GIB // 4
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes() > GIB // 4
    (tmp_path / "memory.max").write_text("4000000\n")
    assert memory.available_bytes() == memory.free_bytes(torch.device("cpu")) == 1_500_000


def test_a_model_that_is_there_can_run_there(engine, monkeypatch):  # noqa: F811
    """What it holds, or another that would give way, counts as free; asking moves nothing."""
    results(engine, asked("sdxl", methods=("base",)))
    model = engine.models.bases["sdxl"]
    monkeypatch.setattr(memory, "free_bytes", lambda device: round(model.need((1024, 1024)).working * 1.2))
    monkeypatch.setattr(memory, "host_bytes", lambda device: None)
    assert base_state("sdxl", engine.models).runs and model.plan is RESIDENT
    assert engine.models.peek("flux1-dev", BASES["flux1-dev"])[1][0] == model.held()[0] > 0
    assert "flux1-dev" not in engine.models.bases and engine.models.peek("sdxl", BASES["sdxl"]) == (model, (0, 0))
