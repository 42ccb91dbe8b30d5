"""What sampling at the target size costs, told before it is started."""

from __future__ import annotations

from lua_demo.catalog.bases import Base

LONGEST_SECONDS = 60.0
"""Seconds: a native column that would take longer is left out, unless it is forced."""


def step_tflop(row: Base, width: int, height: int) -> float:
    """TFLOP of one forward of the denoiser for a picture of `width` x `height` px, from the counts in the table."""
    constant, linear, quadratic = row.step_tflop
    megapixels = width * height / 2**20
    return constant + linear * megapixels + quadratic * megapixels**2


def native_seconds(
    row: Base, steps: int, base: tuple[int, int], target: tuple[int, int], seconds_per_step: float
) -> float:
    """Seconds that `steps` steps take at `target` px (width, height).

    This base's own measured seconds per step at `base` px, times the ratio of the operations: a lower bound on a device
    that the base size already fills, rather an upper one where it does not.
    """
    return steps * seconds_per_step * step_tflop(row, *target) / step_tflop(row, *base)


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
