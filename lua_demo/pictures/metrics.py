"""How far a picture is from the ground truth. Inputs are H x W x 3 uint8 sRGB: the pixels that are shown and saved."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lua_demo.pictures.images import to_tensor

if TYPE_CHECKING:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity as Lpips

PSNR_OF_IDENTICAL = 100.0
STRIP_PIXELS = 1 << 18
"""Of what is measured at a time: a large picture at once takes a minute and gigabytes."""
FLIP_REACH, SSIM_REACH = 12, 5
"""Rows that the filters of FLIP (10, at least) and of SSIM reach."""
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of five resolutions, each half of the one before (Wang et al., 2003)."""
MIN_SIDE = {"ssim": 11, "ms_ssim": 176, "vif": 41, "lpips": 32}
LOW_PASS = 16
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
BORDER = 16
# A multiple of both scales: interpolation alone makes steps that repeat with the scale, and they are no seams.
BESIDE = 4


def prepare() -> None:
    """Import ahead of time what `against` needs: two seconds that only a comparison with a ground truth needs."""
    import flip_evaluator  # noqa: F401, PLC0415
    import skimage.color  # noqa: F401, PLC0415
    import torchmetrics.functional.image  # noqa: F401, PLC0415


class _Checked(TorchFunctionMode):
    """Within the block `check` is called before every operation of torch on this thread."""

    def __init__(self, check: Callable[[], None]):
        super().__init__()
        self.check = check

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.check()
        return func(*args, **(kwargs or {}))


def against(
    image: np.ndarray,
    truth: np.ndarray,
    device: torch.device | str = "cpu",
    check: Callable[[], None] = lambda: None,
) -> dict[str, float | None]:
    """`psnr` (dB), `ssim`, `ms_ssim`, `flip` and `colour_shift` (dE2000) of `image` against `truth`; and `lpips`, where
    `no_lpips` gives no reason against it.

    SSIM and MS-SSIM are torchmetrics' with its standard Gaussian window. None where a side is too short. `check` is
    called every few tenths of a second of work; it may raise to stop it.
    """
    has_lpips = not no_lpips()  # not below: a stop would count as a reason against it
    with _Checked(check):
        x, y = _pair(image, truth, device)
        return {
            "psnr": psnr(image, truth, check),
            "ssim": ssim(x, y) if _fits("ssim", truth) else None,
            "ms_ssim": ms_ssim(x, y) if _fits("ms_ssim", truth) else None,
            "flip": flip(image, truth, check),
            **({"lpips": lpips(x, y) if _fits("lpips", truth) else None} if has_lpips else {}),
            "colour_shift": colour_shift(image, truth),
        }


def psnr(image: np.ndarray, truth: np.ndarray, check: Callable[[], None] = lambda: None) -> float:
    """Peak signal-to-noise ratio over all RGB values in dB; 100 for identical pictures. `check` as in `against`."""
    total = 0.0
    for top, end in _strips(*truth.shape[:2]):
        check()
        total += float(np.sum((image[top:end].astype(np.float32) - truth[top:end]) ** 2, dtype=np.float64))
    error = total / truth.size
    return min(PSNR_OF_IDENTICAL, float(10 * np.log10(255**2 / error))) if error else PSNR_OF_IDENTICAL


def ssim(x: Tensor, y: Tensor) -> float:
    """Structural similarity of two 1 x C x H x W in [0, 1], strip by strip: torchmetrics' of the whole pictures."""
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity  # noqa: PLC0415

    height, width = x.shape[-2:]
    total = 0.0
    for top, end in _strips(height, width):
        start, stop = max(0, top - SSIM_REACH), min(height, end + SSIM_REACH)
        every = similarity(x[..., start:stop, :], y[..., start:stop, :], data_range=1.0, return_full_image=True)[1]
        total += float(every[..., top - start : end - start, :].mean()) * (end - top)
    return total / height


def ms_ssim(x: Tensor, y: Tensor) -> float:
    """The same over five resolutions (MS-SSIM, negative terms as 0): torchmetrics' of the whole pictures."""
    result = 1.0
    for weight in MS_SSIM_WEIGHTS[:-1]:
        result *= max(0.0, _contrast(x, y)) ** weight
        x, y = (F.avg_pool2d(picture, 2) for picture in (x, y))
    return result * max(0.0, ssim(x, y)) ** MS_SSIM_WEIGHTS[-1]


def _contrast(x: Tensor, y: Tensor) -> float:
    """SSIM's terms of contrast and structure; as in torchmetrics, without the rows and columns at the border."""
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity  # noqa: PLC0415

    inside, total = x.shape[-2] - 2 * SSIM_REACH, 0.0
    for top, end in _strips(inside, x.shape[-1]):
        rows = slice(top, end + 2 * SSIM_REACH)
        terms = similarity(x[..., rows, :], y[..., rows, :], data_range=1.0, return_contrast_sensitivity=True)[1]
        total += float(terms) * (end - top)
    return total / inside


def _strips(height: int, width: int) -> list[tuple[int, int]]:
    """First row and the row after the last of strips of `STRIP_PIXELS`, about."""
    rows = max(SSIM_REACH + 1, STRIP_PIXELS // width)
    return [(top, min(height, top + rows)) for top in range(0, height, rows)]


def flip(image: np.ndarray, truth: np.ndarray, check: Callable[[], None] = lambda: None) -> float:
    """Mean LDR-FLIP error (doi.org/10.1145/3406183), 0 to 1, by its authors' flip-evaluator.

    Seen at 67 pixels per degree, its default: 0.7 m from a display of 3840 px on 0.7 m. Strip by strip, with the rows
    that its filters reach beside each. `check` is called before each strip.
    """
    from flip_evaluator import evaluate  # noqa: PLC0415

    height, width = truth.shape[:2]
    total = 0.0
    for top, end in _strips(height, width):
        check()
        start, stop = max(0, top - FLIP_REACH), min(height, end + FLIP_REACH)
        strips = (np.ascontiguousarray(picture[start:stop], np.float32) / 255 for picture in (truth, image))
        errors = evaluate(*strips, "LDR", applyMagma=False)[0]
        total += float(errors[top - start : end - start].sum(dtype=np.float64))
    return total / (height * width)


@functools.cache
def no_lpips() -> str:
    """Why LPIPS is left out; empty where it is measured. It needs torchvision, and once the weights of its network."""
    try:
        _lpips_network()
    # torchvision raises a RuntimeError where it does not fit torch, the download of the weights an OSError.
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        return (
            "LPIPS is left out: it needs torchvision with SqueezeNet's weights, which it downloads once (5 MB); "
            f"here: {next(iter(str(error).splitlines()), type(error).__name__)[:160]}"
        )
    return ""


def lpips(image: Tensor, truth: Tensor) -> float:
    """Learned perceptual image patch similarity (arXiv 1801.03924, SqueezeNet) of two 1 x 3 x H x W in [0, 1]."""
    metric = _lpips_network().to(image.device)
    value = metric(image, truth).item()
    metric.reset()
    return value


@functools.cache
def _lpips_network() -> Lpips:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # noqa: PLC0415

    return LearnedPerceptualImagePatchSimilarity(net_type="squeeze", normalize=True)


def colour_shift(image: np.ndarray, truth: np.ndarray) -> float:
    """Mean CIE dE2000 after averaging over blocks of about 16 x 16 px: the colour of areas, not of edges and grain."""
    from skimage.color import deltaE_ciede2000, rgb2lab  # noqa: PLC0415

    size = max(1, truth.shape[0] // LOW_PASS), max(1, truth.shape[1] // LOW_PASS)
    areas = (F.adaptive_avg_pool2d(to_tensor(picture), size)[0] for picture in (image, truth))
    return float(deltaE_ciede2000(*(rgb2lab(area.permute(1, 2, 0).numpy()) for area in areas)).mean())


def further(
    image: np.ndarray, truth: np.ndarray, base: np.ndarray | None, lines: Sequence[int]
) -> dict[str, float | None]:
    """What `evaluate` measures beside `against`: `vif`, `colour_drift`, `sharpness`, `grid` and `border`.

    Args:
        image, truth: of one size.
        base: the decoded base, which `image` was enlarged from; None where it is not known.
        lines: distances in px of the lines on which `image` could show seams.
    """
    return {
        "vif": vif(image, truth),
        "colour_drift": None if base is None else colour_shift(image, base),
        "sharpness": sharpness(image, truth),
        "grid": grid(image, truth, lines),
        "border": border(image, truth),
    }


def vif(image: np.ndarray, truth: np.ndarray) -> float | None:
    """Visual information fidelity of the luma, torchmetrics' pixel-domain version. None below 41 pixels."""
    from torchmetrics.functional.image import visual_information_fidelity  # noqa: PLC0415

    # Contiguous planes: in the layout that suits SSIM, a convolution of one channel takes thirty times as long.
    return visual_information_fidelity(luma_of(image), luma_of(truth)).item() if _fits("vif", truth) else None


def sharpness(image: np.ndarray, truth: np.ndarray) -> float:
    """Energy of the luma above a Gaussian low-pass (sigma 1 px), as a share of the ground truth's; 1: equally sharp.

    Noise and artifacts count as detail: read it beside a metric of fidelity.
    """
    return _ratio(*(high_pass_energy(luma_of(picture)) for picture in (image, truth)))


def grid(image: np.ndarray, truth: np.ndarray, lines: Sequence[int]) -> float:
    """Seams: the luma's mean step across lines every n px over that 4 px beside them, as a multiple of the same ratio
    of the ground truth; the worst n of `lines`. 1: no grid. An n that does not fit is left out.

    Absolute steps, not squared ones: three times less of the noise that the few lines of a wide grid pick up.
    """
    ratios = [
        _ratio(*(steps_on_lines(luma_of(picture), period) for picture in (image, truth)))
        for period in lines
        if min(truth.shape[:2]) > period + BESIDE
    ]
    return max(ratios, default=1.0)


def border(image: np.ndarray, truth: np.ndarray) -> float | None:
    """Mean absolute error in the outermost 16 px over that of the interior; None where there is no interior."""
    if min(truth.shape[:2]) <= 2 * BORDER:
        return None
    error = np.abs(image.astype(np.float32) - truth)
    interior = error[BORDER:-BORDER, BORDER:-BORDER]
    frame = (error.sum(dtype=np.float64) - interior.sum(dtype=np.float64)) / (error.size - interior.size)
    return _ratio(float(frame), float(interior.mean(dtype=np.float64)))


def steps_on_lines(luma: Tensor, period: int) -> float:
    """Mean absolute step across the lines at multiples of `period` over that across the lines `BESIDE` px away."""
    on, beside = [], []
    for plane in (luma[0, 0], luma[0, 0].T):
        steps = plane.diff(dim=-1).abs().mean(0)  # the step between pixels k - 1 and k is at k - 1
        at = torch.arange(period, len(steps) + 1 - BESIDE, period) - 1
        on.append(steps[at])
        beside += [steps[at - BESIDE], steps[at + BESIDE]]
    return _ratio(torch.cat(on).mean().item(), torch.cat(beside).mean().item())


def high_pass_energy(luma: Tensor) -> float:
    """Mean square of what a Gaussian low-pass (sigma 1 px) takes away, in squared steps of 255."""
    window = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / 2)
    window = window / window.sum()
    low = F.conv2d(F.pad(luma, (2, 2, 2, 2), mode="replicate"), (window[:, None] * window)[None, None])
    return (luma - low).square().mean().item()


def _ratio(value: float, of: float) -> float:
    """1 where there is nothing on either side; a bounded number where there is nothing below."""
    return (value + 1e-6) / (of + 1e-6)


def luma_of(image: np.ndarray) -> Tensor:
    """1 x 1 x H x W in [0, 255]."""
    return torch.from_numpy(image.astype(np.float32) @ np.array(LUMA, np.float32))[None, None]


def _pair(image: np.ndarray, truth: np.ndarray, device: torch.device | str) -> list[Tensor]:
    # torchmetrics' depthwise 11 x 11 convolutions are seven times faster on a CPU in this layout.
    return [to_tensor(x).to(device, memory_format=torch.channels_last) for x in (image, truth)]


def _fits(name: str, truth: np.ndarray) -> bool:
    return min(truth.shape[:2]) >= MIN_SIDE[name]
