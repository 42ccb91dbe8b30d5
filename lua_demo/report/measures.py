"""What is measured of a picture: name, unit, which way is better, and what it means, for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Measure(NamedTuple):
    """One metric.

    Attributes:
        head: its name with its unit.
        form: format of its values.
        means: one line for people.
        better: `max` or `min`; None where neither end is better, as of a ratio whose ideal is 1.
    """

    head: str
    form: str
    means: str
    better: Callable[..., float] | None = None


METRICS: dict[str, Measure] = {
    "psnr": Measure("PSNR dB", "{:.2f}", "Mean squared error of the pixels, in dB. Soft pictures do well by it.", max),
    "ssim": Measure("SSIM", "{:.4f}", "Local brightness, contrast and structure; 1: identical.", max),
    "ms_ssim": Measure("MS-SSIM", "{:.4f}", "SSIM over five resolutions; 1: identical.", max),
    "flip": Measure(
        "FLIP", "{:.4f}",
        "What a viewer notices when flipping between picture and original, at 67 pixels per degree; 0: nothing.", min,
    ),
    "lpips": Measure(
        "LPIPS", "{:.4f}", "Distance between the features that a recognition network (SqueezeNet) sees; 0: none.", min
    ),
    "vif": Measure("VIF", "{:.4f}", "Visual information kept of the original's brightness; 1: all of it.", max),
    "colour_shift": Measure("colour shift dE", "{:.2f}", "Colour of areas of 16 px against the original, dE2000.", min),
    "colour_drift": Measure("dE from base", "{:.2f}", "Colour of areas of 16 px against the base, dE2000.", min),
    "sharpness": Measure("sharpness", "{:.3f}", "Energy of fine detail over the original's; noise counts too."),
    "grid": Measure("grid", "{:.3f}", "Steps across the lines of cells and windows over those beside; 1: no seams."),
    "border": Measure("border", "{:.3f}", "Error along the frame over that inside; 1: the same."),
}  # fmt: skip

DISAGREE = (
    "These numbers disagree: a soft picture can have the best PSNR, a sharp one with invented detail the best LPIPS. "
    "Trust none alone, and look."
)
NO_LPIPS = (
    "LPIPS is measured where torchvision is installed: pip install torchvision; its network's 5 MB are downloaded."
)


def format_metric(name: str, value: float | None) -> str:
    return "-" if value is None else METRICS[name].form.format(value)
