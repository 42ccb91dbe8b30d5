"""Pictures as arrays and tensors: fitting a photo to the base size, tensor <-> array, lossless files.

An array is H x W x 3 uint8 sRGB; an image tensor is B x 3 x H x W float in [0, 1].
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from lua_demo.pictures.files import list_images as list_images
from lua_demo.pictures.reading import load_photo as load_photo
from lua_demo.pictures.reading import load_photos as load_photos
from lua_demo.pictures.sidedata import DECODE_ERRORS as DECODE_ERRORS

WEBP_MAX_SIDE = 16383
CUT = 0.05  # share of a side that may be cut off without a note


@dataclass(frozen=True)
class Fitted:
    """A photo with the part of it that is compared.

    Attributes:
        photo: Pillow RGB image, uncropped.
        size: (width, height) of the base image in pixels.
        box: (left, top, right, bottom) of the centred crop in photo pixels; its aspect ratio is exactly that of `size`.
    """

    photo: Image.Image
    size: tuple[int, int]
    box: tuple[float, float, float, float]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a viewer of the photo would not expect; that a good part of it is cut off among it."""
        notes, (width, height) = self.photo.info.get("notes", ()), self.photo.size
        left, top, right, bottom = self.box
        used = round(right - left), round(bottom - top)
        if used[0] >= (1 - CUT) * width and used[1] >= (1 - CUT) * height:
            return notes
        return (*notes, f"of the photo, {width} x {height}, the middle {used[0]} x {used[1]} px are used: too narrow")

    def holds(self, factor: int) -> bool:
        """Whether the crop has the pixels for `factor` times the base size."""
        left, top, right, bottom = self.box
        return min((right - left) / self.size[0], (bottom - top) / self.size[1]) >= factor - 1e-6

    def at(self, factor: int) -> np.ndarray:
        """The crop at `factor` times the base size, H x W x 3 uint8, antialiased bicubic. For factors that it holds."""
        size = self.size[0] * factor, self.size[1] * factor
        return np.asarray(self.photo.resize(size, Image.Resampling.BICUBIC, box=self.box))


def fit(photo: Image.Image, size: int) -> Fitted:
    """Fit `photo` to a base image whose longest side is `size` pixels, or less: a photo is never enlarged.

    The short side is rounded down, so that the crop keeps the long side whole: a photo of exactly scale x size stays
    large enough.
    """
    width, height = photo.size
    longest = max(width, height)
    target = min(size, longest)
    base = (max(1, width * target // longest), max(1, height * target // longest))
    unit = min(width / base[0], height / base[1])
    left, top = (width - base[0] * unit) / 2, (height - base[1] * unit) / 2
    box = (left, top, min(width, left + base[0] * unit), min(height, top + base[1] * unit))
    return Fitted(photo, base, box)


def enlarge(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """H x W x 3 uint8 -> the same at `size` (width, height), bicubic (Pillow's: a = -0.5, as in MATLAB)."""
    return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BICUBIC))


def to_tensor(image: Image.Image | np.ndarray) -> Tensor:
    """RGB picture, H x W x 3 uint8 -> 1 x 3 x H x W float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def to_array(image: Tensor) -> np.ndarray:
    """1 x 3 x H x W float on any device, clamped to [0, 1] and rounded -> H x W x 3 uint8."""
    return (image[0].detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().contiguous().numpy()


def save_png(array: np.ndarray, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write H x W x 3 uint8 losslessly, with `metadata` as text chunks; the folder is made when it is missing."""
    text = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        text.add_itxt(key, value)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, "PNG", compress_level=1, pnginfo=text)


def save_display(array: np.ndarray, path: str | Path, effort: int = 0) -> Path:
    """Write H x W x 3 uint8 for a browser: lossless WebP, or PNG where a side is too long for WebP.

    `effort` is from 0 (fastest) to 6 (smallest). Returns the path written: `path` with the suffix of the format.
    """
    suffix, content = encoded(array, effort)
    path = Path(path).with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def encoded(array: np.ndarray, effort: int = 0) -> tuple[str, bytes]:
    """As `save_display`: the suffix, and the content of the file."""
    content = io.BytesIO()
    if max(array.shape[:2]) > WEBP_MAX_SIDE:
        Image.fromarray(array).save(content, "PNG", compress_level=1)
        return ".png", content.getvalue()
    Image.fromarray(array).save(content, "WEBP", lossless=True, quality=effort * 100 // 6, method=effort)
    return ".webp", content.getvalue()
