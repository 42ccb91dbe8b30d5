"""Upscalers from files, through the real spandrel. `test_upscaler_files` runs this in a process of its own.

Two of spandrel's architectures import three names of torchvision. A stand-in is there while spandrel is imported, and
nowhere else: what is tested here calls none of them.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from gradio_client import Client
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from lua_demo.catalog.methods import METHODS, add_own, add_own_folder
from lua_demo.commands.main import main
from lua_demo.engine import Engine
from lua_demo.models.upscaler_files import read_upscaler
from lua_demo.pictures.images import to_array, to_tensor
from lua_demo.report.timing import timing_html
from lua_demo.runs.store import Store
from lua_demo.schema import Request, Result, UserError
from lua_demo.ui.opening import first_pinned, request_of
from lua_demo.ui.page import build_demo, launch_options
from lua_demo.ui.public import PublicEngine

NAMES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
for name in NAMES:
    sys.modules[name] = ModuleType(name)
for name in ("InterpolationMode", "rotate", "normalize"):
    setattr(sys.modules[NAMES[-1]], name, None)
spandrel = importlib.import_module("spandrel")
for name in NAMES:
    del sys.modules[name]

SHARED = Path(__file__).parents[2] / "shared"
DAT = SHARED / "weights" / "dat-light"


def compact(scale: int, channels: int = 3) -> torch.nn.Module:
    torch.manual_seed(scale)
    return spandrel.architectures.Compact.Compact(
        num_in_ch=channels, num_out_ch=channels, num_feat=24, num_conv=4, upscale=scale
    ).eval()


@pytest.fixture
def saved(tmp_path):
    """Writes the weights of a network: saved(network, name) -> path."""

    def save(network, name="model.pth", key="params"):
        path = tmp_path / name
        tensors = network.state_dict()
        if path.suffix == ".safetensors":
            save_file(tensors, path)
        else:
            torch.save({key: tensors} if key else tensors, path)
        return path

    return save


def refusal(work, *words: str) -> None:
    with pytest.raises(UserError) as error:
        work()
    message = str(error.value)
    assert "\n" not in message and [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    "name, key", [("a.safetensors", ""), ("a.pth", "params_ema"), ("a.pt", ""), ("a.ckpt", "params")]
)
def test_the_numbers_are_the_networks_own(saved, name, key):
    network, image = compact(2), torch.rand(2, 3, 17, 22)
    upscaler = read_upscaler(saved(network, name, key))
    assert upscaler.scales == (2,) and not any(p.requires_grad for p in upscaler.parameters())
    with torch.inference_mode():
        made, notes = upscaler.enlarge(image, 2)
        assert torch.allclose(made, network(image).clamp(0, 1), atol=1e-6)
    assert notes == () and made.shape == (2, 3, 34, 44)


def test_other_architectures_are_told_by_their_tensors(saved):
    torch.manual_seed(0)
    networks = {
        2: spandrel.architectures.ESRGAN.ESRGAN(scale=2, num_filters=16, num_blocks=2),
        4: spandrel.architectures.SPAN.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=4),
    }
    for scale, network in networks.items():
        upscaler = read_upscaler(saved(network, f"{scale}.pth"))
        assert upscaler.scales == (scale,)
        with torch.inference_mode():
            assert upscaler(torch.rand(1, 3, 21, 16), scale).shape == (1, 3, 21 * scale, 16 * scale)


def test_a_larger_model_is_averaged_down_and_a_smaller_one_enlarged(saved):
    image = torch.rand(1, 3, 16, 20)
    x4, x2 = (read_upscaler(saved(compact(scale), f"{scale}.pth")) for scale in (4, 2))
    with torch.inference_mode():
        down, down_notes = x4.enlarge(image, 2)
        up, up_notes = x2.enlarge(image, 4)
        assert torch.allclose(down, F.avg_pool2d(x4(image, 4), 2), atol=1e-6)
        assert up.shape == (1, 3, 64, 80)
        assert torch.allclose(F.avg_pool2d(up, 2).mean(), x2(image, 2).mean(), atol=0.02)
    assert "x4" in down_notes[0] and "averaged" in down_notes[0] and "x2" in up_notes[0] and "bicubic" in up_notes[0]


def test_of_several_files_the_nearest_scale_serves(saved):
    upscaler = read_upscaler(*(saved(compact(scale), f"{scale}.pth") for scale in (4, 2)))
    assert upscaler.scales == (2, 4)
    assert [upscaler.native_scale(scale) for scale in (2, 3, 4, 8)] == [2, 4, 4, 4]
    assert upscaler.enlarge(torch.rand(1, 3, 8, 8), 4)[1] == ()


def test_half_precision_where_the_architecture_supports_it(saved):
    upscaler = read_upscaler(saved(compact(2))).set_dtype(torch.bfloat16)
    image = torch.rand(1, 3, 16, 16)
    assert next(upscaler.parameters()).dtype == torch.bfloat16
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        made = upscaler(image, 2)
    upscaler.set_dtype(torch.float32)
    assert made.dtype == torch.float32 and (made - upscaler(image, 2)).abs().max() < 0.05
    upscaler.models[2].supports_bfloat16 = False
    assert next(upscaler.set_dtype(torch.bfloat16).parameters()).dtype == torch.float32


def test_tiles_after_out_of_memory(saved, monkeypatch):
    """Memory for 256 px: 512 is tried first, then half of it; the tiles blend into what the whole would be."""
    upscaler, image = read_upscaler(saved(compact(2))), torch.rand(1, 3, 300, 270)
    asked = []
    with torch.inference_mode():
        whole = upscaler(image, 2)
        (model,) = upscaler.models.values()
        call = model._call_fn

        def limited(network, x):
            asked.append(max(x.shape[-2:]))
            if asked[-1] > 256:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return call(network, x)

        monkeypatch.setattr(model, "_call_fn", limited)
        made, notes = upscaler.enlarge(image, 2)
    assert asked[0] == 300 and max(asked[1:]) <= 256
    assert "256 px" in notes[0] and made.shape == whole.shape
    assert (made - whole).abs().max() < 0.005


def test_no_memory_for_the_smallest_tile_is_an_out_of_memory(saved, monkeypatch):
    upscaler = read_upscaler(saved(compact(2)))
    (model,) = upscaler.models.values()

    def none(network, x):
        raise torch.OutOfMemoryError("nothing left")

    monkeypatch.setattr(model, "_call_fn", none)
    with pytest.raises(torch.OutOfMemoryError):
        upscaler(torch.rand(1, 3, 300, 200), 2)


def test_what_is_no_upscaler_is_refused(saved, tmp_path):
    class Script(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    script = tmp_path / "program.pt"
    torch.jit.script(Script()).save(script)
    refusal(lambda: read_upscaler(script), "program.pt", "TorchScript")
    refusal(lambda: read_upscaler(tmp_path / "none.pth"), "none.pth", "does not exist")
    (tmp_path / "picture.png").write_bytes(b"x")
    refusal(lambda: read_upscaler(tmp_path / "picture.png"), "picture.png", ".safetensors")
    for name in ("page.pth", "page.safetensors"):
        (tmp_path / name).write_text("<!DOCTYPE html>")
        refusal(lambda name=name: read_upscaler(tmp_path / name), name, "not readable")
    refusal(lambda: read_upscaler(saved(torch.nn.Linear(2, 2), "other.pth")), "other.pth", "no architecture")
    refusal(lambda: read_upscaler(saved(compact(2, channels=1), "grey.pth")), "grey.pth", "1 and gives 1", "RGB")
    refusal(lambda: read_upscaler(saved(compact(1), "x1.pth")), "x1.pth", "x1")
    torch.save({"params": {}}, tmp_path / "empty.pth")
    refusal(lambda: read_upscaler(tmp_path / "empty.pth"), "empty.pth")


def test_code_in_a_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    torch.save({"params": Evil()}, tmp_path / "evil.pth")
    refusal(lambda: read_upscaler(tmp_path / "evil.pth"), "evil.pth", "not readable")
    assert not (tmp_path / "touched").exists()


def test_own_files_are_columns_of_compare_and_evaluate(saved, toy_weights, photo, tmp_path, monkeypatch):
    """The stem is the column, and what compare writes is what the file's network makes of the base."""
    files = [saved(compact(scale), f"My model_x{scale}.pth") for scale in (2, 4)]
    for name in ("My-model_x2", "My-model_x4"):
        monkeypatch.setitem(METHODS, name, None)  # so that what the command adds is taken back
        del METHODS[name]
    out, common = tmp_path / "out", ["--device", "cpu", "--weights", str(toy_weights)]
    own = [part for file in files for part in ("--upscaler", str(file))]
    command = ["compare", "--image", str(photo(96, 64)), "--size", "48", "--methods", "base,swinir"]
    assert main([*command, *own, *common, "--out", str(out)]) == 0
    document = json.loads((out / "results.json").read_text())
    assert list(document["methods"]) == ["base", "swinir", "My-model_x2", "My-model_x4"]
    row = document["methods"]["My-model_x2"]
    assert row["label"] == "My model_x2" and row["metrics"]["psnr"] > 0 and row["notes"] == []
    assert [stage["name"] for stage in row["stages"]] == ["encode", "decode", "upscale"]
    assert "averaged" in document["methods"]["My-model_x4"]["notes"][0]
    assert document["weights"]["My-model_x2"].startswith("My model_x2.pth (")
    base, made = (np.asarray(Image.open(out / f"{name}.png")) for name in ("base", "My-model_x2"))
    with torch.inference_mode():
        expected = compact(2)(to_tensor(base)).clamp(0, 1)
    assert np.abs(made.astype(int) - to_array(expected)).max() <= 6, "the base was rounded to 8 bits"
    (tmp_path / "photos").mkdir()
    shutil.copy(photo(96, 64), tmp_path / "photos")
    methods = ["--methods", "base,My-model_x2", *own[:2], "--crop", "64", "--scales", "2", "4"]
    plot = tmp_path / "plot.svg"
    assert main(["evaluate", "--images", str(tmp_path / "photos"), *methods, *common, "--plot", str(plot)]) == 0
    assert plot.read_text().count("My model_x2:") == 2


def test_a_folder_of_upscalers_is_on_the_page(saved, toy_weights, photo, tmp_path, monkeypatch):
    folder = saved(compact(2), "Mine.safetensors").parent
    (folder / "notes.txt").write_text("no upscaler")
    monkeypatch.setenv("LUA_DEMO_UPSCALERS", str(folder))
    monkeypatch.setitem(METHODS, "Mine", None)
    del METHODS["Mine"]
    demo = build_demo(Engine("cpu", weights=toy_weights), Store(tmp_path / "store", pinned=None))
    demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        client = Client(f"http://127.0.0.1:{demo.server_port}", verbose=False)
        assert client.predict(api_name="/models")["methods"]["Mine"]["label"] == "Mine"
        assert "Mine" in str(demo.get_config_file()["components"])
    finally:
        demo.close()
    (folder / "Mine.safetensors").write_bytes(b"broken")
    page = PublicEngine(Engine("cpu", weights=toy_weights))
    request = Request(str(photo(96, 64)), size=48, methods=("base", "Mine"))
    reason = {event.method: event for event in page.compare(request) if isinstance(event, Result)}["Mine"].skipped
    assert reason.startswith("Mine.safetensors is not readable") and str(folder) not in reason
    monkeypatch.setenv("LUA_DEMO_UPSCALERS", str(tmp_path / "none"))
    refusal(lambda: add_own_folder(os.environ), "LUA_DEMO_UPSCALERS", "no folder")


def test_a_pinned_comparison_may_hold_an_upscaler_of_others(saved, toy_weights, photo, tmp_path, monkeypatch):
    """It opens where the file is not, and a note says where the column came from."""
    store = Store(tmp_path / "store", pinned=tmp_path / "runs")
    monkeypatch.setattr("lua_demo.commands.main.store.Store", lambda folder: store)
    monkeypatch.setitem(METHODS, "Other", None)
    del METHODS["Other"]
    own = ["--upscaler", str(saved(compact(2), "Other.pth")), "--device", "cpu", "--weights", str(toy_weights)]
    command = ["compare", "--image", str(photo(96, 64)), "--size", "48", "--methods", "base,lua,native", *own]
    assert main([*command, "--pin", "first"]) == 0
    del METHODS["Other"]
    build_demo(Engine("cpu", weights=toy_weights), store)
    run = first_pinned(store)
    assert request_of(run).methods and "Other" not in request_of(run).methods
    assert request_of(run).seed == run.document["settings"]["seed"] and request_of(run) != Request()
    timing = timing_html(run.document)
    assert "Other: computed beforehand" in timing and "LUA path" in timing


def test_a_name_that_is_taken_is_refused(saved):
    refusal(lambda: add_own([saved(compact(2), "lua.pth")]), "lua.pth", "rename the file")


@pytest.mark.skipif(not DAT.is_dir(), reason="no ../shared/weights/dat-light")
@pytest.mark.parametrize("scale", [2, 4])
def test_a_published_model_enlarges_a_photo(scale):
    """On a photo that was shrunk: at least 1 dB above bicubic."""
    side = 48 * scale
    photo = Image.open(SHARED / "data" / "kodak" / "kodim08.png").crop((200, 100, 200 + side, 100 + side))
    truth, image = to_tensor(np.asarray(photo)), to_tensor(np.asarray(photo.resize((48, 48), Image.Resampling.BICUBIC)))
    with torch.inference_mode():
        made = read_upscaler(DAT / f"DAT_light_x{scale}.pth")(image, scale)
        plain = F.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False).clamp(0, 1)
    gain = 10 * torch.log10((plain - truth).square().mean() / (made - truth).square().mean())
    assert gain > 1.0
