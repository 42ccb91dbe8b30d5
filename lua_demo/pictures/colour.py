"""Colours as a picture file describes them -> 8-bit sRGB, as a colour-managed browser draws them.

An ICC profile describes them, code points (ITU-T H.273: cICP in PNG, nclx in AVIF and HEIC), or gAMA and cHRM in PNG.
A file without any of these is sRGB.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from lua_demo.pictures.sidedata import Side

Curve = Callable[[np.ndarray], np.ndarray]
"""Coded values in [0, 1] -> linear light, where 1 is the white of SDR."""

D65, C, DCI, E = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351), (1 / 3, 1 / 3)
PRIMARIES = {  # ITU-T H.273, table 2: x and y of white, red, green and blue
    1: (*D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    4: (*C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    10: (*E, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    11: (*DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
UNSPECIFIED = 2
SRGB_CURVES = (1, 2, 6, 7, 11, 12, 13, 14, 15)
"""Transfers shown with sRGB's curve: its own, and those of video, whose stills are shown unchanged by most viewers."""

PQ, HLG = 16, 18
SDR_WHITE = 203.0
"""cd/m2 of diffuse white in HDR pictures (ITU-R BT.2408); what is brighter is clipped."""

HLG_PEAK, HLG_GAMMA = 1000.0, 1.2
ROWS_AT_ONCE = 1 << 20  # pixels
SAME = 1
"""A profile that moves no colour by more than this many of 255 levels is sRGB, whatever its name."""


def to_srgb(image: Image.Image, side: Side) -> tuple[Image.Image, tuple[str, ...]]:
    """Modes L, RGB and CMYK without alpha -> L or RGB in sRGB, and notes on what could not be kept.

    A profile that is broken or made for another mode is ignored, as viewers do.
    """
    points = None if side.code_points == (UNSPECIFIED, UNSPECIFIED) else side.code_points
    if points and (side.points_first or not side.icc):
        return _by_code_points(image, *points, side.narrow)
    if side.icc:
        return _by_profile(image, side.icc), ()
    if side.gamma is not None and image.mode in ("L", "RGB"):
        return _by_gamma(image, side.gamma, side.chromaticities or PRIMARIES[1]), ()
    return image, ()


def _by_profile(image: Image.Image, content: bytes) -> Image.Image:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), image.mode, "RGB")
        probe = _probe(image.mode)
        made = np.asarray(ImageCms.applyTransform(probe, transform), dtype=np.int16)
        if image.mode != "CMYK" and np.abs(made - np.asarray(probe.convert("RGB"))).max() <= SAME:
            return image
        return ImageCms.applyTransform(image, transform) or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image


@cache
def _probe(mode: str) -> Image.Image:
    """All greys, or colours from all over the cube."""
    if mode != "RGB":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(mode)
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(17, -1, 3))


def _by_code_points(
    image: Image.Image, primaries: int, transfer: int, narrow: bool
) -> tuple[Image.Image, tuple[str, ...]]:
    if image.mode not in ("L", "RGB"):
        return image, ()
    curve = CURVES.get(transfer)
    told = [f"colour primaries {primaries}"] if primaries not in PRIMARIES and primaries != UNSPECIFIED else []
    told += [f"transfer {transfer}"] if curve is None else []
    if curve is None or told:
        return image, (f"its colours have code points that are not known here: {', '.join(told)}; left as sRGB",)
    notes: tuple[str, ...] = ()
    if transfer in (PQ, HLG):
        name = "PQ" if transfer == PQ else "HLG"
        notes = (f"an HDR photo ({name}): what is brighter than the white of SDR is clipped",)
    matrix = _matrix(PRIMARIES.get(primaries, PRIMARIES[1]))
    return _converted(image, curve, matrix, narrow, transfer == HLG), notes


def _by_gamma(image: Image.Image, gamma: float, points: tuple[float, ...]) -> Image.Image:
    if not 0.1 <= gamma <= 10:
        return image
    # 1 / 2.2 is what writers of sRGB give readers that know no sRGB.
    curve = _from_srgb if abs(gamma * 2.2 - 1) < 0.05 else lambda x: x ** np.float32(1 / gamma)
    try:
        matrix = _matrix(points)
    except (np.linalg.LinAlgError, ZeroDivisionError, ValueError):
        matrix = np.eye(3)
    return _converted(image, curve, matrix, False, False)


def _matrix(points: tuple[float, ...]) -> np.ndarray:
    """Linear RGB of these primaries -> linear sRGB, the white adapted (Bradford). ValueError for impossible ones."""
    if not all(0 <= value <= 1 for value in points) or min(points[1::2][:1]) <= 0:
        raise ValueError("chromaticities out of range")
    cone = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

    def to_xyz(points: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        x, y = np.array(points).reshape(4, 2).T
        white = np.array([x[0] / y[0], 1, (1 - x[0] - y[0]) / y[0]])
        columns = np.stack([x[1:], y[1:], 1 - x[1:] - y[1:]])
        return columns * np.linalg.solve(columns, white), white

    (source, white), (target, d65) = to_xyz(points), to_xyz(PRIMARIES[1])
    adapted = np.linalg.inv(cone) @ np.diag((cone @ d65) / (cone @ white)) @ cone
    made = np.linalg.inv(target) @ adapted @ source
    if not np.isfinite(made).all() or np.abs(made).max() > 100:
        raise ValueError("chromaticities that span nothing")
    return made


def _converted(image: Image.Image, curve: Curve, matrix: np.ndarray, narrow: bool, is_hlg: bool) -> Image.Image:
    """Coded values of `image` -> linear light by `curve`, sRGB's primaries by `matrix`, sRGB's own curve."""
    levels = np.arange(256, dtype=np.float32) / 255
    if narrow:
        levels = ((levels * 255 - 16) / 219).clip(0, 1)
    linear = curve(levels).astype(np.float32)
    same_primaries = np.abs(matrix - np.eye(3)).max() < 1e-3 or image.mode == "L"
    if same_primaries and not is_hlg:
        table = _encoded(linear)
        identity = np.abs(table.astype(int) - np.arange(256)).max() == 0
        return image if identity else image.point(table.tolist() * len(image.getbands()))
    source = np.asarray(image.convert("RGB"))
    made, rows = np.empty_like(source), max(1, ROWS_AT_ONCE // source.shape[1])
    for top in range(0, len(source), rows):
        light = linear[source[top : top + rows]]
        if is_hlg:  # the system gamma acts on the luminance
            luminance = (light @ np.array([0.2627, 0.6780, 0.0593], np.float32))[..., None]
            light = light * luminance ** np.float32(HLG_GAMMA - 1) * np.float32(HLG_PEAK / SDR_WHITE)
        made[top : top + rows] = _encoded(light @ matrix.T.astype(np.float32))
    return Image.fromarray(made)


def _encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light -> uint8 with sRGB's curve (IEC 61966-2-1)."""
    x = linear.clip(0, 1)
    coded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)
    return (coded * 255).round().astype(np.uint8)


def _from_srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _from_pq(x: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, in multiples of SDR white."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = x ** (1 / m2)
    return 10_000 / SDR_WHITE * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def _from_hlg(x: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100: scene light in [0, 1]."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(x <= 0.5, x * x / 3, (np.exp((x - c) / a) + b) / 12)


CURVES: dict[int, Curve] = {
    **dict.fromkeys(SRGB_CURVES, _from_srgb),
    4: lambda x: x**2.2,
    5: lambda x: x**2.8,
    8: lambda x: x,
    PQ: _from_pq,
    17: lambda x: 52.37 / 48 * x**2.6,
    HLG: _from_hlg,
}
"""ITU-T H.273, table 3, by code point."""
