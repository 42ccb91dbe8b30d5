"""The directories of a TIFF file and of EXIF, as the bytes have them: looked at before a decoder trusts them.

A small file can tell a decoder to take a lot of memory: tags that share one long value, tiles far larger than the
picture, pages without end.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

Tags = Mapping[int, tuple[int, ...]]

STARTS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0")
"""As Pillow takes them. The last is BigTIFF."""

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, SAMPLE_FORMAT = 256, 257, 258, 259, 262, 277, 339
TILE_WIDTH, TILE_HEIGHT, EXIF, GPS = 322, 323, 34665, 34853
SIGNED, FLOAT = 2, 3  # of SAMPLE_FORMAT
MIN_IS_WHITE = 0  # of PHOTOMETRIC
MAX_TAGS, MAX_PAGES, MAX_VALUES = 4096, 1000, 16
_COMMON_COMPRESSIONS = (1, 5, 7, 8, 32773, 32946)  # none, LZW, JPEG, Deflate twice, PackBits
_LAYOUT = (WIDTH, HEIGHT, BITS, SAMPLES, TILE_WIDTH, TILE_HEIGHT)
SMALL_TILE, TILE_SHARE, MAX_TILE = 16_000_000, 4, 1 << 27
"""Pixels of a tile. One that is not small is refused where it exceeds that many times the picture, or the most."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q"}


def directory(data: bytes, at: int | None = None) -> Tags:
    """The whole numbers of a directory.

    Args:
        data: a TIFF, or EXIF without what precedes its TIFF header.
        at: byte where the directory starts; the first one without.
    Returns:
        From one to `MAX_VALUES` values per tag. Empty where there is no directory.
    Raises:
        OSError: more than `MAX_TAGS` tags, tags that together take more room than the file has, or a size told twice.
    """
    order, big = _layout(data)
    found: dict[int, tuple[int, ...]] = {}
    room = 0
    try:
        at = _first(data) if at is None else at
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        if count > MAX_TAGS:
            raise OSError(f"it has more than {MAX_TAGS} tags")
        for index in range(count):
            entry = at + (8 + 20 * index if big else 2 + 12 * index)
            tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, entry)
            size = _SIZES.get(kind, 0) * number
            inline, place = (8, entry + 12) if big else (4, entry + 8)
            if size > inline:
                (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
            if place + size > len(data):
                continue
            if tag in found and tag in _LAYOUT:  # Pillow takes the last, libtiff the first
                raise OSError("it tells its size twice")
            room += size
            if kind in _INTEGERS and number:
                found[tag] = struct.unpack_from(f"{order}{min(number, MAX_VALUES)}{_INTEGERS[kind]}", data, place)
    except struct.error:
        pass  # the file ends
    if room > len(data):
        raise OSError("its tags take more room than the file has")
    return found


def checked(data: bytes) -> Tags:
    """`directory`, with what it names checked, too. OSError as there, and for tiles far larger than the picture."""
    tags = directory(data)
    for pointer in (EXIF, GPS):
        if place := tags.get(pointer):
            directory(data, place[0])
    tile, picture = _of(tags, TILE_WIDTH) * _of(tags, TILE_HEIGHT), _of(tags, WIDTH) * _of(tags, HEIGHT)
    if tile > min(max(SMALL_TILE, TILE_SHARE * picture), MAX_TILE):
        size = f"{_of(tags, TILE_WIDTH)} x {_of(tags, TILE_HEIGHT)}"
        raise OSError(f"its tiles have {size} pixels, far more than the picture")
    return tags


def pages(data: bytes) -> int:
    """How many directories follow each other; at most `MAX_PAGES` are counted."""
    order, big = _layout(data)
    seen: set[int] = set()
    try:
        at = _first(data)
        while at and at not in seen and len(seen) < MAX_PAGES:
            (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
            (following,) = struct.unpack_from(
                order + ("Q" if big else "I"), data, at + (8 + 20 * count if big else 2 + 12 * count)
            )
            seen.add(at)
            at = following
    except (struct.error, OverflowError):
        pass  # the chain is broken
    return max(len(seen), 1)


def kind(tags: Tags) -> str:
    """What the pixels of a TIFF are, as "3 channels of 32 bits, floats"; empty where its tags do not tell.

    A compression that is not one of the common ones is told by its number.
    """
    if not _of(tags, WIDTH) or not _of(tags, HEIGHT) or not tags.get(BITS):
        return ""
    channels = _of(tags, SAMPLES) or 1
    bits = " and ".join(map(str, sorted(set(tags[BITS]))))
    numbers = {SIGNED: ", signed", FLOAT: ", floats"}.get(_of(tags, SAMPLE_FORMAT), "")
    white = ", zero is white" if tags.get(PHOTOMETRIC, (1,))[0] == MIN_IS_WHITE else ""
    packed = _of(tags, COMPRESSION) or 1
    packing = "" if packed in _COMMON_COMPRESSIONS else f", compression {packed}"
    return f"{channels} channel{'s' * (channels > 1)} of {bits} bit{'s' * (bits != '1')}{numbers}{white}{packing}"


def _layout(data: bytes) -> tuple[str, bool]:
    """The order of the bytes, and whether offsets have 64 bits."""
    return (">" if data[:2] == b"MM" else "<"), data[2:3] == b"+"


def _first(data: bytes) -> int:
    order, big = _layout(data)
    return struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]


def _of(tags: Tags, tag: int) -> int:
    return (tags.get(tag) or (0,))[0]
