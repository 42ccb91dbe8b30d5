"""Metrics against values worked out by hand."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture

from lua_demo.pictures import metrics

ROOT = Path(__file__).parent.parent
SQUEEZENET = """
import torch
from torch import nn

resnet50 = vgg16 = VGG16_Weights = None  # torchmetrics imports them for other metrics

class SqueezeNet1_1_Weights:
    DEFAULT = None

class Fire(nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1, self.expand3x3 = nn.Conv2d(squeezed, expanded, 1), nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)

def squeezenet1_1(weights=None):
    torch.manual_seed(0)
    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)
    network = nn.Module()
    network.features = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128),
        Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    )
    return network
"""


def flat(value, side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def test_psnr_by_hand():
    assert metrics.psnr(flat(110), flat(100)) == pytest.approx(20 * math.log10(255 / 10))
    one_off = flat(100)
    one_off[0, 0, 0] += 8
    assert metrics.psnr(one_off, flat(100)) == pytest.approx(10 * math.log10(255**2 / (64 / (64 * 64 * 3))))
    assert metrics.psnr(flat(7), flat(7)) == metrics.PSNR_OF_IDENTICAL


def test_ssim_of_flat_pictures_by_hand():
    # Without variance only the luminance term is left.
    x, y, c1 = 110 / 255, 100 / 255, 0.01**2
    expected = (2 * x * y + c1) / (x * x + y * y + c1)
    assert metrics.against(flat(110), flat(100))["ssim"] == pytest.approx(expected, abs=3e-4)


def test_identical_pictures_are_perfect():
    image = picture(192, 180)
    scores = metrics.against(image, image)
    assert scores["ssim"] == pytest.approx(1, abs=1e-5) and scores["ms_ssim"] == pytest.approx(1, abs=1e-5)
    assert scores["colour_shift"] == pytest.approx(0, abs=1e-6) and scores["flip"] == 0
    assert metrics.vif(image, image) == pytest.approx(1, abs=1e-3)


def test_worse_pictures_score_worse():
    image = picture(192, 180)
    rng = np.random.default_rng(0)
    noisy = [(image + rng.normal(0, sigma, image.shape)).clip(0, 255).astype(np.uint8) for sigma in (5, 25)]
    little, much = (metrics.against(other, image) | {"vif": metrics.vif(other, image)} for other in noisy)
    for name in ("psnr", "ssim", "ms_ssim", "vif"):
        assert little[name] > much[name], name
    assert 0 < little["flip"] < much["flip"] < 1


def test_too_small_for_a_metric_is_none():
    assert metrics.against(flat(1, 175), flat(2, 175))["ms_ssim"] is None
    assert metrics.against(flat(1, 176), flat(2, 176))["ms_ssim"] is not None
    small = metrics.against(flat(1, 10), flat(2, 10))
    assert small["ssim"] is None and small["ms_ssim"] is None and small["psnr"] is not None
    assert metrics.against(flat(1, 11), flat(2, 11))["ssim"] is not None
    assert metrics.vif(flat(1, 40), flat(2, 40)) is None
    assert metrics.against(flat(0, 1), flat(0, 1))["colour_shift"] == 0


def test_flip_by_strips_is_that_of_the_whole(monkeypatch):
    from flip_evaluator import evaluate

    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 256, (61, 83, 3), dtype=np.uint8) for _ in range(2))
    whole = evaluate(other.astype(np.float32) / 255, one.astype(np.float32) / 255, "LDR", applyMagma=False)[1]
    strips = []
    for pixels in (1, 17 * 83, 10**6):
        monkeypatch.setattr(metrics, "STRIP_PIXELS", pixels)
        assert metrics.flip(one, other, lambda: strips.append(0)) == pytest.approx(float(whole), abs=1e-6), pixels
    assert len(strips) == 11 + 4 + 1


@pytest.mark.parametrize("height, width", [(11, 11), (61, 83), (176, 180), (331, 203)])
@pytest.mark.parametrize("pixels", [1, 40 * 203, 10**6])
def test_ssim_by_strips_is_torchmetrics_of_the_whole(monkeypatch, height, width, pixels):
    from torchmetrics.functional import image

    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.rand(1, 3, height, width, generator=generator) for _ in range(2))
    y = 0.7 * x + 0.3 * noise
    monkeypatch.setattr(metrics, "STRIP_PIXELS", pixels)
    whole = image.structural_similarity_index_measure(x, y, data_range=1.0)
    assert metrics.ssim(x, y) == pytest.approx(float(whole), abs=1e-6)
    if min(height, width) >= metrics.MIN_SIDE["ms_ssim"]:
        whole = image.multiscale_structural_similarity_index_measure(x, y, data_range=1.0)
        assert metrics.ms_ssim(x, y) == pytest.approx(float(whole), abs=1e-6)


def test_what_is_measured_can_be_stopped_in_every_metric(monkeypatch):
    calls = []
    image = picture(192, 180)
    metrics.against(image, image, check=lambda: calls.append(0))
    assert len(calls) > 50, "PSNR alone has two"
    for stop in (1, len(calls) // 2, len(calls)):
        left = list(range(stop - 1))
        with pytest.raises(IndexError, match="pop from empty list"):
            metrics.against(image, image, check=left.pop)


def test_flip_of_black_and_white_is_all_there_can_be():
    assert metrics.flip(flat(255), flat(0)) == pytest.approx(1, abs=0.05)
    assert metrics.flip(flat(255, 1), flat(255, 1)) == 0


def test_lpips_through_torchmetrics_where_torchvision_is(tmp_path):
    """In a process of its own: a stand-in for torchvision whose SqueezeNet has the real layers and random weights."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torchvision import models\n")
    (package / "models.py").write_text(SQUEEZENET)
    (package / "transforms.py").touch()
    (tmp_path / "torchvision-9.9.dist-info").mkdir()
    (tmp_path / "torchvision-9.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 9.9\n"
    )
    program = """
import numpy as np
from lua_demo.pictures import metrics
truth = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
near, far = (np.where(np.random.default_rng(1).random(truth.shape) < share, 0, truth) for share in (0.1, 0.9))
assert metrics.no_lpips() == "", metrics.no_lpips()
values = [metrics.against(image.astype(np.uint8), truth)["lpips"] for image in (truth, near, far)]
assert values[0] == 0 < values[1] < values[2], values
assert metrics.against(truth[:20], truth[:20])["lpips"] is None
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_without_torchvision_lpips_is_left_out_and_says_why():
    assert "lpips" not in metrics.against(flat(1), flat(2))
    assert "torchvision" in metrics.no_lpips() and "\n" not in metrics.no_lpips()


def test_colour_shift_by_hand():
    # From black to white only lightness differs: dL = 100 at mean lightness 50, where S_L is 1.
    assert metrics.colour_shift(flat(255), flat(0)) == pytest.approx(100, abs=0.1)


def test_colour_shift_ignores_grain_and_sees_a_cast():
    rng = np.random.default_rng(0)
    grain = (128 + rng.normal(0, 12, (256, 256, 3))).clip(0, 255).astype(np.uint8)
    cast = flat(128, 256)
    cast[..., 0] += 12
    assert metrics.colour_shift(grain, flat(128, 256)) < 1.0 < 3.0 < metrics.colour_shift(cast, flat(128, 256))


def test_vif_is_torchmetrics_own():
    from torchmetrics.functional.image import visual_information_fidelity

    image = picture(96, 80)
    noisy = (image + np.random.default_rng(0).normal(0, 9, image.shape)).clip(0, 255).astype(np.uint8)
    lumas = [torch.from_numpy(x @ np.array(metrics.LUMA)).float()[None, None] for x in (noisy, image)]
    assert metrics.vif(noisy, image) == pytest.approx(visual_information_fidelity(*lumas).item(), abs=1e-3)


def test_drift_is_measured_against_the_base_not_the_truth():
    """A base whose colour is off: an upscaler that keeps it drifts by nothing, one that corrects it drifts."""
    truth = picture(128, 128)
    base = (truth[::2, ::2].astype(int) + np.array([20, 0, 0])).clip(0, 255).astype(np.uint8)
    faithful = base.repeat(2, 0).repeat(2, 1)
    kept, corrected = (metrics.further(image, truth, base, ())["colour_drift"] for image in (faithful, truth))
    assert kept == pytest.approx(0, abs=1e-3) and corrected > 1 and metrics.colour_shift(faithful, truth) > 1
    assert metrics.further(truth, truth, None, ())["colour_drift"] is None


def test_sharpness_is_the_share_of_fine_detail():
    truth = picture(96, 96)
    assert metrics.sharpness(truth, truth) == 1
    # Halving every deviation from a constant halves the amplitude, so quarters the energy.
    halved = ((truth.astype(int) // 2 * 2 - 128) / 2 + 128).astype(np.uint8)
    assert metrics.sharpness(halved, truth // 2 * 2) == pytest.approx(0.25, rel=0.02)
    assert metrics.sharpness(flat(100), flat(100)) == 1


def test_grid_by_hand():
    """A ramp of 2 per px in which the steps at multiples of 16 are 6: three times as large as those beside them."""
    steps = np.full(63, 2)
    steps[15::16] = 6
    row = np.concatenate([[0], steps.cumsum()])
    image = np.repeat(np.add.outer(row, row)[..., None] // 2, 3, axis=2).astype(np.uint8)
    plain = np.repeat(np.add.outer(np.arange(64), np.arange(64))[..., None], 3, axis=2).astype(np.uint8)
    assert metrics.grid(image, plain, (16,)) == pytest.approx(3, rel=1e-4)
    assert metrics.grid(image, plain, (16, 24)) == pytest.approx(3, rel=1e-4), "the worst counts"
    assert metrics.grid(image, image, (16,)) == 1, "what the ground truth has is no artifact"
    assert metrics.grid(image, plain, ()) == metrics.grid(image, plain, (64,)) == 1


def test_border_by_hand():
    image = flat(100, 64)
    image[16:-16, 16:-16] += 2
    image[:16] += 6
    # Frame: 64^2 - 32^2 = 3072 px, of which 16 * 64 are off by 6; interior: all off by 2.
    assert metrics.border(image, flat(100, 64)) == pytest.approx((6 * 16 * 64 / 3072) / 2, rel=1e-4)
    assert metrics.border(flat(1, 32), flat(2, 32)) is None
    assert metrics.border(flat(5), flat(5)) == 1
