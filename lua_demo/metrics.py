"""How far a picture is from the ground truth. Inputs are H x W x 3 uint8 sRGB: the pixels that are shown and saved."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lua_demo.images import to_tensor

PSNR_OF_IDENTICAL = 100.0
MIN_SIDE = {"ssim": 11, "ms_ssim": 176, "vif": 41}
LOW_PASS = 16


def against(image: np.ndarray, truth: np.ndarray, device: torch.device | str = "cpu") -> dict[str, float | None]:
    """`psnr` (dB), `ssim`, `ms_ssim` and `colour_shift` (dE2000) of `image` against `truth`.

    SSIM and MS-SSIM are torchmetrics' with its standard Gaussian window; None where a side is too short for them.
    """
    # torchmetrics takes two seconds to import, which only a comparison with a ground truth should pay.
    from torchmetrics.functional.image import (  # noqa: PLC0415
        multiscale_structural_similarity_index_measure as ms_ssim,
    )
    from torchmetrics.functional.image import (  # noqa: PLC0415
        structural_similarity_index_measure as ssim,
    )

    x, y = _pair(image, truth, device)
    return {
        "psnr": psnr(image, truth),
        "ssim": ssim(x, y, data_range=1.0).item() if _fits("ssim", truth) else None,
        "ms_ssim": ms_ssim(x, y, data_range=1.0).item() if _fits("ms_ssim", truth) else None,
        "colour_shift": colour_shift(image, truth),
    }


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all RGB values in dB; 100 for identical pictures."""
    error = np.mean((image.astype(np.float32) - truth) ** 2, dtype=np.float64)
    return min(PSNR_OF_IDENTICAL, float(10 * np.log10(255**2 / error))) if error else PSNR_OF_IDENTICAL


def colour_shift(image: np.ndarray, truth: np.ndarray) -> float:
    """Mean CIE dE2000 after averaging over blocks of about 16 x 16 px: the colour of areas, not of edges and grain."""
    from skimage.color import deltaE_ciede2000, rgb2lab  # noqa: PLC0415

    size = [max(1, side // LOW_PASS) for side in truth.shape[:2]]
    areas = (F.adaptive_avg_pool2d(to_tensor(picture), size)[0] for picture in (image, truth))
    return float(deltaE_ciede2000(*(rgb2lab(area.permute(1, 2, 0).numpy()) for area in areas)).mean())


def vif(image: np.ndarray, truth: np.ndarray, device: torch.device | str = "cpu") -> float | None:
    """Visual information fidelity of the luma (ITU-R 601), torchmetrics' pixel-domain version. None below 41 pixels.

    Slow (a second per 512 x 512 on a CPU core), so not part of `against`.
    """
    from torchmetrics.functional.image import visual_information_fidelity  # noqa: PLC0415

    if not _fits("vif", truth):
        return None
    weights = torch.tensor([0.299, 0.587, 0.114], device=device).view(1, 3, 1, 1) * 255
    x, y = (((part * weights).sum(1, keepdim=True)) for part in _pair(image, truth, device))
    return visual_information_fidelity(x, y).item()


def _pair(image: np.ndarray, truth: np.ndarray, device: torch.device | str) -> list[Tensor]:
    # torchmetrics' depthwise 11 x 11 convolutions are seven times faster on a CPU in this layout.
    return [to_tensor(x).to(device, memory_format=torch.channels_last) for x in (image, truth)]


def _fits(name: str, truth: np.ndarray) -> bool:
    return min(truth.shape[:2]) >= MIN_SIDE[name]
