"""Upscalers from files, through the real spandrel. `test_upscaler_files` runs this in a process of its own.

Two of spandrel's architectures import functions of torchvision, which these tests replace: neither is used here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from spandrel.architectures.Compact import Compact
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.SPAN import SPAN
from torch.nn import functional as F

from lua_demo.models.upscaler_files import read_upscaler
from lua_demo.pictures.images import to_tensor
from lua_demo.schema import UserError

SHARED = Path(__file__).parents[2] / "shared"
DAT = SHARED / "weights" / "dat-light"


def compact(scale: int, channels: int = 3) -> Compact:
    torch.manual_seed(scale)
    return Compact(num_in_ch=channels, num_out_ch=channels, num_feat=24, num_conv=4, upscale=scale).eval()


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
        2: ESRGAN(scale=2, num_filters=16, num_blocks=2),
        4: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=4),
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
