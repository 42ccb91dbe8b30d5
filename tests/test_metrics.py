"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import picture

from lua_demo import metrics


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
    assert scores["colour_shift"] == pytest.approx(0, abs=1e-6)
    assert metrics.vif(image, image) == pytest.approx(1, abs=1e-3)


def test_worse_pictures_score_worse():
    image = picture(192, 180)
    rng = np.random.default_rng(0)
    noisy = [(image + rng.normal(0, sigma, image.shape)).clip(0, 255).astype(np.uint8) for sigma in (5, 25)]
    little, much = (metrics.against(other, image) | {"vif": metrics.vif(other, image)} for other in noisy)
    for name in ("psnr", "ssim", "ms_ssim", "vif"):
        assert little[name] > much[name], name


def test_too_small_for_a_metric_is_none():
    assert metrics.against(flat(1, 175), flat(2, 175))["ms_ssim"] is None
    assert metrics.against(flat(1, 176), flat(2, 176))["ms_ssim"] is not None
    small = metrics.against(flat(1, 10), flat(2, 10))
    assert small["ssim"] is None and small["ms_ssim"] is None and small["psnr"] is not None
    assert metrics.against(flat(1, 11), flat(2, 11))["ssim"] is not None
    assert metrics.vif(flat(1, 40), flat(2, 40)) is None
    assert metrics.against(flat(0, 1), flat(0, 1))["colour_shift"] == 0


def test_colour_shift_by_hand():
    # From black to white only lightness differs: dL = 100 at mean lightness 50, where S_L is 1.
    assert metrics.colour_shift(flat(255), flat(0)) == pytest.approx(100, abs=0.1)


def test_colour_shift_ignores_grain_and_sees_a_cast():
    rng = np.random.default_rng(0)
    grain = (128 + rng.normal(0, 12, (256, 256, 3))).clip(0, 255).astype(np.uint8)
    cast = flat(128, 256)
    cast[..., 0] += 12
    assert metrics.colour_shift(grain, flat(128, 256)) < 1.0 < 3.0 < metrics.colour_shift(cast, flat(128, 256))
