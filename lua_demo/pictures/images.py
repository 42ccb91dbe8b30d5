"""Pictures in and out: reading what people upload, fitting it to the base size, tensor <-> array, lossless files.

An array is H x W x 3 uint8 sRGB; an image tensor is B x 3 x H x W float in [0, 1].
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, PngImagePlugin
from torch import Tensor

from lua_demo.schema import UserError

MAX_PIXELS = 100_000_000
WEBP_MAX_SIDE = 16383
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif")
# Not all that Pillow knows: EPS would start Ghostscript on a stranger's file.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "GIF", "ICO", "PPM", "TGA", "JPEG2000")
# What Pillow's decoders raise on damaged files.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error,
)  # fmt: skip
# The largest value of the range that a wide greyscale picture uses is the smallest of these that holds its maximum.
WHITE_LEVELS = (1.0, 255.0, 65535.0, 4294967295.0)


def load_photo(source: str | Path | bytes) -> Image.Image:
    """Read a photo as people expect it: upright, 8-bit sRGB, the first frame of an animation, transparency on white.

    Args:
        source: path of the file, or its bytes.
    Returns:
        A Pillow image in mode RGB. `info["notes"]` is a tuple of sentences on changes that a viewer would not expect.
    Raises:
        UserError: not there, not a picture, damaged, or more than `MAX_PIXELS` (refused before it is decoded).
    """
    name = "the image" if isinstance(source, bytes) else Path(source).name or str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{source!r} cannot be read ({reason}); give the path of a photo") from error
    if not data:
        raise UserError(f"{name} is empty (0 bytes); choose another file")
    Image.init()
    try:
        image = Image.open(io.BytesIO(data), formats=[f for f in FORMATS if f in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error).split("(", 1)[-1].split(" pixels", 1)[0] + " pixels") from error
    except DECODE_ERRORS as error:
        raise UserError(f"{name} is not a readable image; use PNG, JPEG, WebP, AVIF, TIFF, BMP or GIF") from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, f"{image.width} x {image.height} pixels")
    try:
        image.load()
        return _normalise(image)
    except DECODE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name} is damaged or truncated ({reason}); export it again as PNG or JPEG") from error


def _too_large(name: str, size: str) -> UserError:
    return UserError(f"{name} has {size}; the limit is {MAX_PIXELS // 10**6} megapixels: shrink it first")


def _normalise(image: Image.Image) -> Image.Image:
    """Decoded Pillow image of any mode -> RGB with notes."""
    notes = []
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        notes.append(f"{image.format} with {image.n_frames} frames: the first is used")
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("RGB")
    if profile:
        image = _to_srgb(image, profile)
    if image.mode == "RGBA":
        if image.getextrema()[3][0] < 255:
            notes.append("the photo has transparency: it is shown on white")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    image.info = {"notes": tuple(notes)}
    return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit or float greyscale -> mode L. Pillow's own conversion clips at 255 instead of scaling."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    levels = {"I;": (65535.0,), "I": WHITE_LEVELS[1:], "F": WHITE_LEVELS}[image.mode[:2]]
    white = next((level for level in levels if values.max() <= level), values.max())
    return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply the embedded colour profile. One that is broken or made for another mode is ignored, as viewers do."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(source).strip().startswith("sRGB"):
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError):
        return image


def list_images(folder: str | Path) -> list[Path]:
    """The picture files below `folder`, by path. UserError when it is no folder or holds none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a folder of photos")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{folder} holds no photo ({', '.join(SUFFIXES)}); give a folder of photos")
    return files


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

    def holds(self, factor: int) -> bool:
        """Whether the crop has the pixels for `factor` times the base size."""
        left, top, right, bottom = self.box
        return min((right - left) / self.size[0], (bottom - top) / self.size[1]) >= factor - 1e-6

    def at(self, factor: int) -> Image.Image:
        """The crop at `factor` times the base size, antialiased bicubic. Meant for factors that it holds."""
        return self.photo.resize((self.size[0] * factor, self.size[1] * factor), Image.Resampling.BICUBIC, box=self.box)


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
    path = Path(path)
    if max(array.shape[:2]) > WEBP_MAX_SIDE:
        path = path.with_suffix(".png")
        save_png(array, path)
        return path
    path = path.with_suffix(".webp")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, "WEBP", lossless=True, quality=effort * 100 // 6, method=effort)
    return path
