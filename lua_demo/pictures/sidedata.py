"""What lies beside the pixels of a picture file (colour, orientation, text), taken apart from them.

Side data that is too large, damaged or garbage must not decide over the picture: pixels are read from a file without
it, and what of it cannot be read is left out.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from PIL import Image

from lua_demo.pictures import tiff
from lua_demo.pictures.isobmff import icc_of_jp2, nclx, without_exif
from lua_demo.pictures.windows import ICO_START, V5_SIZE, largest, profile

# What Pillow's decoders raise on damaged files.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError, AssertionError,
    RuntimeError, struct.error, zlib.error,
)  # fmt: skip
PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n"
MAX_PROFILE = 16 << 20
MAX_PARTS = 1 << 18
"""Chunks of a PNG, segments of a JPEG and blocks of a GIF that are looked at; a PNG of 1 GiB has half as many."""

MAX_FRAMES = tiff.MAX_PAGES
MAX_PNM_HEADER = 1 << 16
"""Bytes up to the pixels of a PPM, comments included: Pillow reads them one by one."""

_PNM_START = re.compile(rb"P[0-6fy]")
_PNM_FIELD = rb"(?:\s++|#[^\r\n]*+[\r\n])++[^\s#]{1,10}"
_PNM_HEADER = re.compile(rb"P(?:[14](?:%b){2}|(?![14])\w{1,5}(?:%b){3})" % (_PNM_FIELD, _PNM_FIELD))
ORIENTATION = 0x0112
NO_END = "the file lacks its end, but all pixels are there"


@dataclass(frozen=True)
class Side:
    """Side data that counts.

    Attributes:
        icc: an ICC profile.
        code_points: (colour primaries, transfer characteristics) as in ITU-T H.273, from cICP or nclx.
        points_first: the code points come before the profile (PNG), not after it (AVIF, HEIC).
        gamma, chromaticities: gAMA (file gamma) and cHRM (x and y of white, red, green, blue) of PNG.
        narrow: the values run from 16 to 235.
        orientation: as in EXIF, 1 to 8.
        key: the grey value or the colour that stands for transparency, in the file's own depth, with that depth.
        frames: of an animation, or pages; no more than `MAX_FRAMES` are counted where counting takes time.
        notes: what a viewer would not expect.
    """

    icc: bytes | None = None
    code_points: tuple[int, int] | None = None
    points_first: bool = False
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None
    narrow: bool = False
    orientation: int = 1
    key: tuple[tuple[int, ...], int] | None = None
    frames: int = 1
    notes: tuple[str, ...] = ()


def apart(data: bytes) -> tuple[bytes, Side]:
    """A file as (its pixels in the same format, what lies beside them); the same file where nothing is taken out.

    An ICO becomes its largest picture: a PNG, or an ICO that holds nothing else.

    Raises:
        OSError or another of `DECODE_ERRORS`: damaged, or made to take a decoder's time or memory.
    """
    if data.startswith(ICO_START):
        data = largest(data)
    if data.startswith(PNG_START):
        return _png(data)
    if data.startswith(JPEG_START):
        return _jpeg(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif(data)
    if _PNM_START.match(data) and not _PNM_HEADER.match(data[:MAX_PNM_HEADER]):
        raise OSError("its header is damaged or too long")
    if data.startswith(b"MM\0+"):
        raise OSError("a BigTIFF with the high bytes first is not read here")
    if data.startswith(tiff.STARTS):
        tiff.checked(data)
        return data, Side(frames=tiff.pages(data))
    if data[4:8] == b"ftyp":
        return without_exif(data), Side(code_points=nclx(data))
    if data.startswith(JP2_START):
        return data, Side(icc=icc_of_jp2(data))
    if data.startswith((b"BM", V5_SIZE)):
        icc, notes = profile(data[14:] if data.startswith(b"BM") else data)
        return data, Side(icc=icc, notes=notes)
    return data, Side()


def of_opened(image: Image.Image, side: Side) -> Side:
    """`side` with what Pillow has read from the formats that `apart` leaves as they are."""
    info = image.info
    frames = side.frames
    if image.format not in ("TIFF", "GIF"):  # of which Pillow walks all frames to count them
        frames = max(frames, getattr(image, "n_frames", 1))
    turned = side.orientation
    if turned == 1 and image.format != "TIFF":  # Pillow turns TIFF while it decodes
        turned = orientation(_bytes(info.get("exif")), _bytes(info.get("xmp")))
    return replace(side, icc=side.icc or _bytes(info.get("icc_profile")), frames=frames, orientation=turned)


def orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    """From EXIF, or from XMP where EXIF has none; 1 where neither can be read."""
    exif = re.sub(rb"\A(?:Exif\0\0)+", b"", exif or b"")
    if exif.startswith(tiff.STARTS):
        try:
            if told := tiff.directory(exif).get(ORIENTATION):
                return told[0] if 1 <= told[0] <= 8 else 1
        except OSError:
            pass
    match = re.search(rb'tiff:Orientation(?:="|>)([1-8])\D', xmp or b"")
    return int(match[1]) if match else 1


def _bytes(value: object) -> bytes | None:
    return value if isinstance(value, bytes) and value else None


_WANTED = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"tEXt", b"zTXt", b"iTXt")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """(name, content, sound) of the chunks of a PNG that count. Behind the first `MAX_PARTS`, IEND stands for the rest.

    Sound are chunks with the right checksum, and pixels whose checksum is cut off with the end of the file.
    """
    at = len(PNG_START)
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, at)
        if not name.isalpha():
            return
        if name[:1].isupper() or name in _WANTED:
            content, told = data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]
            right = zlib.crc32(content, zlib.crc32(name)).to_bytes(4, "big")
            yield name, content, told == right or (len(told) < 4 and name == b"IDAT")
        at += 12 + length
        if name == b"IEND":
            return
    yield b"IEND", b"", True


def _chunk(name: bytes, content: bytes, sound: bool = True) -> bytes:
    checksum = zlib.crc32(name + content) ^ (not sound)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _png(data: bytes) -> tuple[bytes, Side]:
    """Only the header, the palette with its transparency, and the pixels are kept."""
    beside: dict[bytes, bytes] = {}
    animated = None
    kept, header, palette, whole = [PNG_START], b"", False, False
    for name, content, sound in _chunks(data):
        if name == b"IHDR" and not header:
            header = content.ljust(13, b"\0")
            kept.append(_chunk(name, content, sound))
        elif name == b"IDAT":
            if header[9:10] == b"\x03" and not palette:
                raise OSError("it has no palette")
            animated = b"fcTL" in beside if animated is None else animated
            kept.append(_chunk(name, content, sound))
        elif name == b"PLTE" and header[9:10] == b"\x03":
            palette = True
            kept.append(_chunk(name, content, sound))
        elif name == b"tRNS" and header[9:10] == b"\x03":
            kept += [_chunk(name, content[:256])] if sound and content else []
        elif name == b"IEND":
            whole = True
        elif sound and name[:1].islower():
            beside.setdefault(name, content)
            if content.startswith((b"XML:com.adobe.xmp\0", b"Raw profile type")):
                beside.setdefault(content.split(b"\0")[0], content)
    side = _png_side(header.ljust(13, b"\0"), beside, bool(animated))
    if not whole:
        side = replace(side, notes=(NO_END,))
    return b"".join([*kept, _chunk(b"IEND", b"")]), side


def _png_side(header: bytes, beside: Mapping[bytes, bytes], animated: bool) -> Side:
    """`animated`: the picture itself is the first frame."""
    found: dict = {"points_first": True}
    cicp = beside.get(b"cICP", b"")
    if len(cicp) == 4 and cicp[2] == 0:
        found |= {"code_points": (cicp[0], cicp[1]), "narrow": cicp[3] == 0}
    profile = beside.get(b"iCCP", b"").split(b"\0", 1)
    if len(profile) == 2 and profile[1][:1] == b"\0":
        found["icc"] = _inflated(profile[1][1:])
    if b"sRGB" not in beside:
        if len(gamma := beside.get(b"gAMA", b"")) == 4:
            found["gamma"] = struct.unpack(">I", gamma)[0] / 1e5
        if len(points := beside.get(b"cHRM", b"")) == 32:
            found["chromaticities"] = tuple(value / 1e5 for value in struct.unpack(">8I", points))
    key, depth, kind = beside.get(b"tRNS", b""), *header[8:10]
    if (kind, len(key)) in ((0, 2), (2, 6)):
        found["key"] = struct.unpack(f">{len(key) // 2}H", key), depth
    if len(count := beside.get(b"acTL", b"")) == 8 and struct.unpack(">II", count)[0] < 1 << 31:
        found["frames"] = struct.unpack(">II", count)[0] + (not animated)
    exif = beside.get(b"eXIf") or _raw_profile(beside)
    xmp = beside.get(b"XML:com.adobe.xmp")
    return Side(**found, orientation=orientation(exif, xmp))


def _raw_profile(beside: Mapping[bytes, bytes]) -> bytes | None:
    """EXIF as ImageMagick writes it: hexadecimal digits in a text chunk."""
    text = beside.get(b"Raw profile type exif", b"") or beside.get(b"Raw profile type APP1", b"")
    parts = text.split(b"\0", 1)
    if len(parts) < 2:
        return None
    content = _inflated(parts[1][1:]) if parts[1][:1] == b"\0" else parts[1]
    try:
        return bytes.fromhex("".join((content or b"").decode("ascii").split("\n")[3:]))
    except ValueError:
        return None


def _inflated(content: bytes) -> bytes | None:
    try:
        inflater = zlib.decompressobj()
        made = inflater.decompress(content, MAX_PROFILE)
        return made if inflater.eof else None
    except zlib.error:
        return None


_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""Of a segment. What is passed over is garbage between segments, fill bytes and markers that have no segment."""

_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def _jpeg(data: bytes) -> tuple[bytes, Side]:
    """Application segments and comments are left out, except those that say how the colours are coded."""
    profile: dict[int, tuple[int, bytes]] = {}
    exif: list[bytes] = []
    xmp: list[bytes] = []
    kept, at = [b"\xff\xd8"], 2
    for _ in range(MAX_PARTS):
        found = _MARKER.search(data, at)
        at = found.start() if found else len(data)
        if at + 4 > len(data) or (marker := data[at + 1]) in (0xD9, 0xDA):
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : at + 2 + length]
        beside = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not beside:
            kept.append(data[at : at + 2 + length])
        elif content.startswith(b"JFIF\0"):
            kept.append(_JFIF)
        elif marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12:
            kept.append(b"\xff\xee\0\x0e" + content[:12])
        elif marker == 0xE1 and content.startswith(b"Exif\0\0"):
            exif.append(content[6 if exif else 0 :])
        elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp.append(content)
        elif marker == 0xE2 and content.startswith(b"ICC_PROFILE\0") and len(content) > 14:
            profile.setdefault(content[12], (content[13], content[14:]))
        at += 2 + max(length, 2) if not beside or at + 2 + length < len(data) else 2
    else:
        raise OSError(f"it has more than {MAX_PARTS} segments")
    counts = {count for count, _ in profile.values()}
    whole = counts == {len(profile)}
    icc = b"".join(part for _, (_, part) in sorted(profile.items())) if whole else None
    turned = orientation(b"".join(exif), b"".join(xmp))
    return b"".join([*kept, data[at:]]), Side(icc=icc, orientation=turned)


def _gif(data: bytes) -> tuple[bytes, Side]:
    """Comments and what programs keep before the first picture are left out; the pictures are counted."""
    start = at = 13 + _palette_size(data[10:11])
    kept: list[bytes] = []
    first = frames = looked_at = 0
    while data[at : at + 1] not in (b"", b";") and looked_at < MAX_PARTS and frames < MAX_FRAMES:
        begin, kind = at, data[at : at + 1]
        looked_at += 1
        if kind == b",":
            first, frames = first or at, frames + 1
            at += 11 + _palette_size(data[at + 9 : at + 10])
        elif kind == b"!":
            at += 2
        else:
            at += 1  # garbage
            continue
        while at < len(data) and data[at] and looked_at < MAX_PARTS:
            at += 1 + data[at]
            looked_at += 1
        at += 1
        if not first and data[begin + 1 : begin + 2] == b"\xf9":  # what is transparent
            kept.append(data[begin:at])
    if not first and looked_at == MAX_PARTS:
        raise OSError(f"it has more than {MAX_PARTS} blocks before its picture")
    return b"".join([data[:start], *kept, data[first or at :]]), Side(frames=max(frames, 1))


def _palette_size(flags: bytes) -> int:
    """Bytes of the palette that this byte of a GIF tells of."""
    return 6 << (flags[0] & 7) if flags and flags[0] & 0x80 else 0
