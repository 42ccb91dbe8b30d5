"""Grey pictures of more than 8 bits -> 8 bits. Pillow's own conversion clips at 255 instead of scaling."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lua_demo.pictures.tiff import BITS, MIN_IS_WHITE, PHOTOMETRIC, SAMPLE_FORMAT, SIGNED

ROWS_AT_ONCE = 1 << 20  # pixels
MOST = 0.999
"""Share of the values that must lie below a white level, but for overshoot; a few hot pixels do not set it."""

FLOAT_LEVELS, FLOAT_OVERSHOOT = (1.0, 255.0, 65535.0), 16
"""White levels tried for floats. The usual one is 1. Files with integer levels in floats exceed it by far; overshoot
and HDR do not."""

INTEGER_LEVELS, INTEGER_OVERSHOOT = (255, 65535), 2
"""White levels tried for integers of 32 bits: most such files hold 8 or 16 bits. Else it is the format's."""


def is_wide(image: Image.Image) -> bool:
    """Whether `to_8_bit` is needed: more than 8 bits, or signed ones."""
    return image.mode.startswith(("I", "F")) or _is_signed_byte(image)


def holds_numbers(image: Image.Image) -> bool:
    """Whether any pixel of a wide picture is finite."""
    return image.mode != "F" or bool(np.isfinite(np.asarray(image)).any())


def _is_signed_byte(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", {})
    return image.mode == "L" and _first(tags.get(BITS)) == 8 and _first(tags.get(SAMPLE_FORMAT)) == SIGNED


def to_8_bit(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Modes I, I;16 (all kinds), F and signed L -> L, and notes: on a white level that is not the format's own, on NaN.

    Of signed integers, what is below 0 becomes black.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and _first(tags.get(BITS)) == 32 and _first(tags.get(SAMPLE_FORMAT)) != SIGNED:
        values = values.view(np.uint32)
    if _is_signed_byte(image):
        values = values.view(np.int8)
    white, notes = _white(image, values, tags)
    inverted = tags.get(PHOTOMETRIC) == MIN_IS_WHITE
    strange = int(np.isnan(values).sum()) if image.mode == "F" else 0
    if strange:
        notes = (*notes, f"{strange} of {values.size} pixels are no numbers (NaN): they are taken as 0")
    made, rows = np.empty(values.shape, np.uint8), max(1, ROWS_AT_ONCE // values.shape[1])
    for top in range(0, len(values), rows):
        part = np.nan_to_num(values[top : top + rows].astype(np.float64), nan=0.0, posinf=white, neginf=0.0)
        part = (part / white).clip(0, 1)
        made[top : top + rows] = ((1 - part if inverted else part) * 255).round()
    result = Image.fromarray(made)
    return result, notes


def _white(image: Image.Image, values: np.ndarray, tags: dict) -> tuple[float, tuple[str, ...]]:
    bits, signed = _first(tags.get(BITS)), _first(tags.get(SAMPLE_FORMAT)) == SIGNED
    if image.mode == "L":
        return 127.0, ()
    if image.mode.startswith("I;"):
        return 2.0 ** (bits if 8 < bits < 16 else 16) - 1, ()
    if image.mode == "I" and (image.format != "TIFF" or bits == 16):  # Pillow has scaled what is not TIFF
        return (32767.0 if signed else 65535.0), ()
    sample = values.reshape(-1)[:: max(1, values.size >> 22)].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    most = float(np.quantile(sample, MOST)) if sample.size else 0.0
    if image.mode == "F":
        level = next((x for x in FLOAT_LEVELS if most <= x * FLOAT_OVERSHOOT), max(most, 1.0))
        own = 1.0
    else:
        own = 2.0**31 - 1 if signed else 2.0**32 - 1
        level = next((float(x) for x in INTEGER_LEVELS if most <= x * INTEGER_OVERSHOOT), own)
    notes = () if level == own else (f"the grey values are taken as 0 to {level:.0f}, which fits the largest",)
    return level, notes


def _first(value: object) -> int:
    """The first value of a TIFF tag, which may hold one value per channel."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else 0
