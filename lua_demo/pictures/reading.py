"""Photos as people have them -> upright 8-bit sRGB, or one line on why not."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image
from tqdm import tqdm

from lua_demo.pictures import colour, tiff, tones
from lua_demo.pictures.files import read_regular
from lua_demo.pictures.formats import NAMES, PILLOW_FORMATS, looks_raw
from lua_demo.pictures.sidedata import DECODE_ERRORS, JPEG_START, MAX_FRAMES, NO_END, Side, apart, of_opened
from lua_demo.pictures.windows import ICO_START, size_in
from lua_demo.schema import UserError

MAX_PIXELS = 100_000_000
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture with this EXIF orientation upright."""

_TIFF_WAY_OUT = "save it as PNG, or as TIFF with 8 bits"
FILLERS = (b"", bytes(range(1, 65)) * 4, bytes(range(254, 190, -1)) * 4)
"""Behind pixels that are all there, none of these changes anything; where some lack, decoders take them for pixels."""


def load_photo(source: str | Path | bytes) -> Image.Image:
    """Read a photo as people expect it: upright, 8-bit sRGB, the first frame of an animation, transparency on white.

    Args:
        source: path of the file, or its bytes.
    Returns:
        A Pillow image in mode RGB. `info["notes"]` is a tuple of sentences on changes that a viewer would not expect.
    Raises:
        UserError: not there, not a picture, damaged, camera raw, or more than `MAX_PIXELS` (refused before decoding).
    """
    name, pixels, side = _taken_apart(source)
    try:
        image = _opened(pixels, name)
        side = of_opened(image, side)
        try:
            image.load()
        except OSError:
            image = _without_end(pixels, name)
            side = Side(**{**vars(side), "notes": (NO_END,)})
        if tones.is_wide(image) and not tones.holds_numbers(image):
            raise UserError(f"{name} holds no pixel that is a number, only NaN and infinity; export it again")
        return _normalised(image, side)
    except Image.DecompressionBombError as error:
        raise _too_large(name, "too many pixels") from error
    except UserError:
        raise
    except DECODE_ERRORS as error:
        raise _damaged(name, error) from error


def size_of(source: str | Path) -> tuple[int, int]:
    """(width, height) in pixels as the header says, before any pixel is decoded. UserError as `load_photo`."""
    name, pixels, _ = _taken_apart(source)
    return _size_in_icon(pixels, name) or _opened(pixels, name).size


def load_photos(paths: Iterable[Path]) -> Iterator[tuple[Path, Image.Image]]:
    """Each path with its photo; of those that cannot be read a line on stderr says why."""
    for path in paths:
        try:
            photo = load_photo(path)
        except UserError as error:
            tqdm.write(f"left out {error}", file=sys.stderr)  # above a progress bar, where there is one
        else:
            yield path, photo


def _taken_apart(source: str | Path | bytes) -> tuple[str, bytes, Side]:
    """The name for errors, the pixels still encoded, and what lies beside them."""
    name = "the image" if isinstance(source, bytes) else Path(source).name or str(source)
    data = source if isinstance(source, bytes) else read_regular(source, "a photo")
    if not data:
        raise UserError(f"{name} is empty (0 bytes); choose another file")
    if looks_raw("", data):
        raise _raw(name)
    try:
        return name, *apart(data)
    except DECODE_ERRORS as error:
        raise (_raw(name) if looks_raw(name, data) else _damaged(name, error)) from error


def _opened(pixels: bytes, name: str) -> Image.Image:
    """Header read, pixels not, but for an icon, whose header is looked at first."""
    Image.init()
    pillow_heif.register_heif_opener(thumbnails=False)
    _size_in_icon(pixels, name)
    try:
        image = Image.open(io.BytesIO(pixels), formats=[f for f in PILLOW_FORMATS if f in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error).split("(", 1)[-1].split(" pixels", 1)[0] + " pixels") from error
    except DECODE_ERRORS as error:
        if looks_raw(name, pixels):
            raise _raw(name) from error
        kind = tiff.kind(tiff.directory(pixels)) if pixels.startswith(tiff.STARTS) else ""
        if kind:
            raise UserError(f"{name} is a TIFF that is damaged or not read here ({kind}); {_TIFF_WAY_OUT}") from error
        raise UserError(f"{name} is not a readable image; use {NAMES}") from error
    _limited(image.size, name)
    if image.format == "TIFF" and looks_raw(name, pixels, tiff.directory(pixels)):
        raise _raw(name)
    return image


def _size_in_icon(pixels: bytes, name: str) -> tuple[int, int] | None:
    """Pillow decodes an icon when it opens it."""
    if not pixels.startswith(ICO_START):
        return None
    try:
        size = size_in(pixels)
    except DECODE_ERRORS as error:
        raise _damaged(name, error) from error
    return _limited(size, name)


def _limited(size: tuple[int, int], name: str) -> tuple[int, int]:
    """UserError above the limit."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height} pixels")
    return size


def _damaged(name: str, error: BaseException) -> UserError:
    """What Pillow says of the file is told; what Python says of Pillow's code is not."""
    reason = " ".join(str(error).split()) if isinstance(error, OSError | SyntaxError) else ""
    return UserError(f"{name} is damaged or truncated{f' ({reason})' * bool(reason)}; export it again as PNG or JPEG")


def _too_large(name: str, size: str) -> UserError:
    return UserError(f"{name} has {size}; the limit is {MAX_PIXELS // 10**6} megapixels: shrink it first")


def _raw(name: str) -> UserError:
    return UserError(f"{name} is a camera raw file; develop it first: export it as JPEG, PNG or TIFF and give that")


def _without_end(pixels: bytes, name: str) -> Image.Image:
    """A JPEG that lacks its end marker and nothing else. OSError for any other file."""
    if not pixels.startswith(JPEG_START[:2]):
        raise OSError("the file ends too early")
    made = [_opened(pixels.rstrip(b"\xff") + filler + b"\xff\xd9", name) for filler in FILLERS]
    first, *others = (np.asarray(image) for image in made)
    if any((first != other).any() for other in others):
        raise OSError("the file ends too early")
    return made[0]


def _normalised(image: Image.Image, side: Side) -> Image.Image:
    """Decoded Pillow image of any mode -> RGB with notes."""
    notes = list(side.notes)
    if side.frames > 1 and image.format not in ("MPO", "ICO"):
        more = " or more" * (side.frames == MAX_FRAMES)
        notes.append(f"{image.format} with {side.frames} frames{more}: the first is used")
    alpha = _keyed_out(image, side.key) if side.key else None
    if tones.is_wide(image):
        image, said = tones.to_8_bit(image)
        notes += said
    image, own = _without_alpha(image)
    alpha = own if alpha is None else alpha
    image, said = colour.to_srgb(image, side)
    notes += said
    image = image.convert("RGB")
    if alpha is not None and np.asarray(alpha).min() < 255:
        notes.append("the photo has transparency: it is shown on white")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, Image.merge("RGBA", (*image.split(), alpha))).convert("RGB")
    if side.orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[side.orientation])
    image.info = {"notes": tuple(notes)}
    return image


def _without_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Modes L, RGB or CMYK, and the alpha channel where there is one."""
    premultiplied = {"La": "LA", "RGBa": "RGBA"}
    if image.mode in premultiplied:
        image = image.convert(premultiplied[image.mode])
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if image.mode == "1":
        return image.convert("L"), None
    return (image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")), None


def _keyed_out(image: Image.Image, key: tuple[tuple[int, ...], int]) -> Image.Image:
    """The alpha channel of a PNG where one colour stands for transparency. Pillow has scaled the pixels to its mode."""
    values, depth = key
    pixels = np.asarray(image)
    if image.mode == "1":
        scaled = [int(value != 0) for value in values]
    elif image.mode == "L":
        scaled = [value * 255 // ((1 << depth) - 1) for value in values]
    else:
        scaled = [value >> 8 if depth == 16 and image.mode == "RGB" else value for value in values]
    same = pixels == (np.array(scaled) if len(scaled) > 1 else scaled[0])
    same = same.all(-1) if same.ndim == 3 else same
    return Image.fromarray(np.where(same, 0, 255).astype(np.uint8))
