"""The engine with tiny networks of the real classes: one stream, shared stages, stopping, refusals."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
import torch
from conftest import network_of, picture
from PIL import Image
from torch.nn import functional as F

from lua_demo.catalog.methods import METHODS, methods_of
from lua_demo.catalog.spaces import SPACES
from lua_demo.chains import KEPT_BASES
from lua_demo.engine import Engine
from lua_demo.models.loaders import LOADERS
from lua_demo.models.weights import load_autoencoder, load_cnn, load_lua, load_swinir
from lua_demo.pictures import images
from lua_demo.schema import Progress, Request, Result, Stopped, UserError

# What needs no download; the others are run where their files are served.
EVERYTHING = tuple(
    key
    for key, row in methods_of("photo").items()
    if not (row.upscaler and (row.upscaler.files or row.upscaler.by_space))
)


def run(engine: Engine, path, **options) -> dict[str, Result]:
    request = Request(str(path), **{"size": 64, **options})
    return {event.method: event for event in engine.compare(request) if isinstance(event, Result)}


def names(result: Result) -> list[str]:
    return [span.name for span in result.spans]


@pytest.mark.parametrize("key", EVERYTHING)
def test_every_catalog_row_loads_and_runs_at_both_scales(engine, photo, key):
    for scale in SPACES["embedded"].scales:
        result = run(engine, photo(260, 200), methods=(key,), scale=scale)[key]
        factor = 1 if key == "base" else scale
        assert result.image.shape == (49 * factor, 64 * factor, 3) and result.image.dtype == np.uint8
        assert result.label == METHODS[key].label and result.skipped is None


def test_catalog_refers_only_to_what_there_is():
    for row in METHODS.values():
        assert row.upscaler is None or row.upscaler.kind in LOADERS
    assert Request("x").methods == tuple(key for key, row in METHODS.items() if row.default)


def test_pictures_are_the_compositions(toy_weights, engine, photo):
    """Every column equals its chain of plain network calls."""
    path = photo(256, 192)
    results = run(engine, path, size=64, scale=2, methods=EVERYTHING)
    folder = toy_weights / "embedded"
    vae, lua, swinir, cnn = (
        load_autoencoder(folder / "autoencoder"),
        load_lua(folder / "lua"),
        load_swinir(folder / "swinir"),
        load_cnn(folder / "cnn"),
    )
    photo_image = Image.open(path)
    small = images.to_tensor(photo_image.resize((64, 48), Image.Resampling.BICUBIC))
    large = images.to_tensor(photo_image.resize((128, 96), Image.Resampling.BICUBIC))
    with torch.inference_mode():
        latent = vae.encode(small)
        base = vae.decode(latent).clamp(0, 1)
        expected = {
            "base": base,
            "lua": vae.decode(lua(latent, 2)),
            "swinir": swinir(base, 2),
            "cnn": cnn(base, 2),
            "bicubic": vae.decode(F.interpolate(latent, scale_factor=2, mode="bicubic")),
            "native": large,
            "roundtrip": vae.decode(vae.encode(large)),
        }
    for key, image in expected.items():
        assert np.abs(results[key].image.astype(int) - images.to_array(image)).max() <= 1, key
    assert not np.array_equal(results["lua"].image, results["swinir"].image)


def test_shared_latent_is_computed_once_and_charged_to_all(engine, photo):
    events = list(engine.compare(Request(str(photo(260, 200)), size=64, methods=EVERYTHING)))
    results = {event.method: event for event in events if isinstance(event, Result)}
    stages = [(event.method, event.stage) for event in events if isinstance(event, Progress)]
    assert [stage for stage in stages if stage[1] == "encode"] == [("base", "encode"), ("roundtrip", "encode")]
    assert names(results["base"]) == ["encode", "decode"]
    assert names(results["lua"]) == names(results["bicubic"]) == ["encode", "upscale", "decode"]
    assert names(results["swinir"]) == ["encode", "decode", "upscale"]
    assert names(results["native"]) == [] and names(results["roundtrip"]) == ["encode", "decode"]
    assert [span.shared for span in results["base"].spans] == [False, False]
    assert [span.shared for span in results["lua"].spans] == [True, False, False]
    assert [span.shared for span in results["swinir"].spans] == [True, True, False]
    assert [span.shared for span in results["roundtrip"].spans] == [False, False]
    assert results["lua"].spans[0].seconds == results["base"].spans[0].seconds
    assert results["swinir"].spans[1].seconds == results["base"].spans[1].seconds
    assert all(span.seconds > 0 and span.peak_bytes > 0 for result in results.values() for span in result.spans)
    assert results["lua"].seconds == sum(span.seconds for span in results["lua"].spans)


def test_latent_is_kept_between_comparisons(engine, photo):
    path = photo(300, 200)
    first = run(engine, path, methods=("base",), scale=2)["base"]
    events = list(engine.compare(Request(str(path), size=64, methods=("swinir",), scale=4)))
    stages = [event.stage for event in events if isinstance(event, Progress)]
    assert "encode" not in stages and "decode" not in stages
    spans = events[-1].spans
    assert [span.shared for span in spans] == [True, True, False]
    assert spans[0].seconds == first.spans[0].seconds
    # Another base size is another latent.
    assert not run(engine, path, methods=("base",), size=48)["base"].spans[0].shared


def test_few_latents_are_kept(engine, tmp_path):
    paths = []
    for index in range(KEPT_BASES + 1):
        paths.append(tmp_path / f"{index}.png")
        Image.new("RGB", (16, 16), (index, 0, 0)).save(paths[-1])
        run(engine, paths[-1], methods=("base",), size=16)
    assert run(engine, paths[-1], methods=("base",), size=16)["base"].spans[0].shared
    assert not run(engine, paths[0], methods=("base",), size=16)["base"].spans[0].shared


def test_cold_marks_the_first_run_of_a_stage_at_a_size(engine, tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for index, path in enumerate(paths):
        Image.fromarray(np.rot90(picture(96, 96), index)).save(path)
    first, second = (run(engine, path, methods=("lua",), size=32)["lua"] for path in paths)
    assert [span.cold for span in first.spans] == [True, True, True]
    assert [span.cold for span in second.spans] == [False, False, False]
    # The kept encode was cold when its seconds were taken; the rest runs at a new size.
    larger = run(engine, paths[1], methods=("lua",), size=32, scale=4)["lua"]
    assert [span.cold for span in larger.spans] == [False, True, True]


def test_metrics_against_the_photo(engine, photo):
    results = run(engine, photo(400, 360), size=200, methods=EVERYTHING)
    assert results["native"].metrics is None
    for key in set(EVERYTHING) - {"native"}:
        assert set(results[key].metrics) - {"lpips"} == {"psnr", "ssim", "ms_ssim", "flip", "colour_shift"}
        assert all(np.isfinite(value) for value in results[key].metrics.values()), key
    assert results["roundtrip"].metrics["psnr"] > results["bicubic"].metrics["psnr"]
    assert "bicubic enlargement to 400 x 360" in results["base"].notes[0]
    enlarged = images.enlarge(results["base"].image, (400, 360)).astype(float)
    error = np.mean((enlarged - results["native"].image) ** 2)
    assert results["base"].metrics["psnr"] == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)


def test_metrics_do_not_depend_on_native_being_shown(engine, photo):
    assert run(engine, photo(200, 200), methods=("lua",))["lua"].metrics is not None


def test_photo_smaller_than_the_target_leaves_native_out(engine, photo):
    results = run(engine, photo(600, 400), size=512, methods=("base", "native", "roundtrip"))
    assert results["native"].image is None and results["roundtrip"].image is None
    assert "the photo is 600 x 400" in results["native"].skipped and "1024 x 682" in results["native"].skipped
    assert "at most 300" in results["native"].skipped
    assert results["base"].metrics is None and results["base"].image.shape == (341, 512, 3)
    assert run(engine, photo(600, 400), size=300, methods=("native",))["native"].image.shape == (400, 600, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (20, 4000), (33, 65), (50, 41)])
def test_odd_sizes(engine, photo, size):
    width, height = images.fit(Image.new("RGB", size), 100).size
    results = run(engine, photo(*size), size=100, methods=EVERYTHING, scale=4)
    for key in ("lua", "swinir", "bicubic"):
        assert results[key].image.shape == (4 * height, 4 * width, 3)
    assert results["base"].image.shape == (height, width, 3)


def test_notes_on_the_photo_come_once(engine, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(path)
    results = run(engine, path, methods=("base", "lua"))
    assert "white" in results["base"].notes[0] and not any("white" in note for note in results["lua"].notes)
    assert (results["base"].image > 200).all()


def test_stop_within_a_stage_gives_memory_back_and_keeps_results(engine, photo):
    stop = threading.Event()
    stream = engine.compare(Request(str(photo(200, 200)), size=64, methods=("base", "swinir")), stop)
    result = next(event for event in stream if isinstance(event, Result))
    tensors, calls = [], []

    def press_stop(module, args):
        calls.append(module)
        tensors.append(weakref.ref(args[0]))
        stop.set()

    network = network_of(engine, "swinir")
    hooks = [layer.register_forward_pre_hook(press_stop) for layer in network.network.layers[0].residual_group.blocks]
    with pytest.raises(Stopped) as caught:
        list(stream)
    assert len(calls) == 1, "the second block must not run"
    gc.collect()
    assert [tensor() for tensor in tensors] == [None] and caught.value is not None
    assert result.method == "base"
    for hook in hooks:
        hook.remove()
    assert run(engine, photo(200, 200), methods=("swinir",))["swinir"].image is not None


def test_stop_before_the_start(engine, photo):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        list(engine.compare(Request(str(photo(20, 20)), size=16), stop))


def test_one_at_a_time_and_waiting_honours_stop(engine, photo):
    request = Request(str(photo(64, 64)), size=32, methods=("base",))
    first = engine.compare(request)
    next(first)
    stop = threading.Event()
    second = engine.compare(request, stop)
    assert next(second) == Progress("base", "wait", 0, 1)
    stop.set()
    with pytest.raises(Stopped):
        next(second)
    third = engine.compare(request)
    assert next(third).stage == "wait"
    first.close()
    assert isinstance(list(third)[-1], Result)


def test_generator_may_be_advanced_and_closed_on_other_threads(engine, photo):
    stream = engine.compare(Request(str(photo(64, 64)), size=32, methods=("base", "lua")))
    events = []
    for step in (lambda: events.append(next(stream)), lambda: events.append(next(stream)), stream.close):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    assert len(events) == 2
    assert not torch.is_inference_mode_enabled()
    assert len(run(engine, photo(64, 64), methods=("base",))) == 1


def test_out_of_memory_loses_one_method_only(engine, photo):
    run(engine, photo(64, 64), size=32)

    def fail(module, args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = network_of(engine, "lua").register_forward_pre_hook(fail)
    results = run(engine, photo(64, 64), size=32, methods=("lua", "swinir"))
    assert results["lua"].image is None and "out of memory on cpu" in results["lua"].skipped
    assert results["swinir"].image is not None
    hook.remove()


def test_other_failures_come_after_the_results_before_them(engine, photo):
    run(engine, photo(64, 64), size=32)

    def fail(module, args):
        raise RuntimeError("broken kernel")

    network_of(engine, "lua").register_forward_pre_hook(fail)
    stream = engine.compare(Request(str(photo(64, 64)), size=32, methods=("base", "lua")))
    seen = []
    with pytest.raises(RuntimeError, match="broken kernel"):
        for event in stream:
            seen.append(event)
    assert [event.method for event in seen if isinstance(event, Result)] == ["base"]
    assert run(engine, photo(64, 64), size=32, methods=("base",))["base"].image is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 3}, "scale 3 does not exist in this latent space; choose 2, 4"),
        ({"scale": "2"}, "scale '2' is not a whole number"),
        ({"scale": None}, "scale None"),
        ({"size": 8}, "size 8 is out of range"),
        ({"size": 1_000_000}, "size 1000000 is out of range"),
        ({"size": 100.5}, "size 100.5"),
        ({"size": float("nan")}, "size nan"),
        ({"size": float("inf")}, "size inf"),
        ({"seed": -1}, "seed -1"),
        ({"seed": True}, "seed True"),
        ({"methods": ()}, "no method is selected"),
        ({"methods": ("base", "magic")}, "method 'magic' does not exist; choose from base, lua"),
        ({"methods": "base"}, "methods is 'base'"),
        ({"methods": None}, "methods is None"),
        ({"base": "mars"}, "base 'mars' does not exist; choose scene, embedded"),
        ({"base": ["embedded"]}, "base"),
        ({"decoder": "kl"}, "decoder 'kl' does not exist for the base scene; choose none"),
        ({"base": "sdxl", "decoder": "large"}, "decoder 'large' does not exist for the base sdxl; choose kl, tiny"),
        ({"force_native": 1}, "force_native is 1"),
        ({"image": ""}, "give the path of a photo"),
        ({"image": None}, "give the path of a photo"),
        ({"image": "nowhere.png"}, "nowhere.png"),
    ],
)
def test_bad_requests_are_refused_at_once(engine, photo, options, words):
    with pytest.raises(UserError) as caught:
        engine.compare(Request(**{"image": str(photo(20, 20)), **options}))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_whole_floats_and_repeated_methods_are_taken(engine, photo):
    request = Request(str(photo(64, 64)), scale=2.0, size=32.0, methods=["base", "lua", "base"], seed=0.0)
    results = [event for event in engine.compare(request) if isinstance(event, Result)]
    assert [result.method for result in results] == ["base", "lua"]
    assert results[1].image.shape == (64, 64, 3)


def test_weights_missing_or_of_the_wrong_kind(toy_weights, tmp_path, photo):
    with pytest.raises(UserError, match="nowhere"):
        Engine("cpu", weights=tmp_path / "nowhere")
    root = tmp_path / "weights"
    (root / "embedded").mkdir(parents=True)
    (root / "embedded" / "autoencoder").symlink_to(toy_weights / "embedded" / "autoencoder")
    path = photo(40, 40)
    engine = Engine("cpu", weights=root)
    assert set(engine.environment().weights) == {"autoencoder"}
    assert run(engine, path, methods=("base", "bicubic"))["bicubic"].image is not None
    with pytest.raises(UserError, match="weights of lua are missing"):
        run(engine, path, methods=("base", "lua"))
    (root / "embedded" / "lua").symlink_to(toy_weights / "embedded" / "swinir")
    with pytest.raises(UserError, match="SwinIR"):
        run(engine, path, methods=("base", "lua"))
    assert run(engine, path, methods=("base",))["base"].image is not None, "the lock must be free again"


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta", "cpu:3", "", None])
def test_devices_that_are_not_there(device, toy_weights):
    with pytest.raises(UserError) as caught:
        Engine(device, weights=toy_weights)
    assert repr(device) in str(caught.value)


def test_dtype(toy_weights, photo):
    with pytest.raises(UserError, match="fp7"):
        Engine("cpu", "fp7", toy_weights)
    assert Engine("cpu", "auto", toy_weights).environment().dtype == "float32"
    narrow = Engine("cpu", "bf16", toy_weights)
    assert narrow.environment().dtype == "bfloat16"
    path = photo(128, 128)
    wide = Engine("cpu", "fp32", toy_weights)
    for key in ("base", "lua", "swinir"):
        one, other = (run(engine, path, methods=(key,))[key].image.astype(int) for engine in (narrow, wide))
        assert 0 < np.abs(one - other).mean() < 4, key


def test_environment_names_device_weights_and_versions(engine):
    environment = engine.environment()
    assert environment.device.startswith("cpu (") and environment.dtype == "float32"
    assert set(environment.weights) == {"autoencoder", "lua", "swinir", "cnn"}
    assert (
        environment.weights["lua"].startswith("embedded/lua (")
        and len(environment.weights["lua"]) == len("embedded/lua ()") + 12
    )
    assert set(environment.versions) == {"lua_demo", "torch", "python"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_runs_in_bf16_and_agrees_with_the_cpu(toy_weights, engine, photo):
    path = photo(256, 192)
    cuda = Engine("cuda", weights=toy_weights)
    assert cuda.environment().dtype == "bfloat16"
    for key, result in run(cuda, path, methods=EVERYTHING).items():
        other = run(engine, path, methods=(key,))[key]
        assert np.abs(result.image.astype(int) - other.image).mean() < 4, key
