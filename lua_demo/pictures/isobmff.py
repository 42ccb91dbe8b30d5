"""The boxes of AVIF and HEIC (ISO/IEC 14496-12) and of JPEG 2000 (ISO/IEC 15444-1): how their colours are coded.

Only the boxes on the way there are opened, so that boxes in boxes without end are no matter.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

MAX_BOXES = 20_000
"""In one place, and associations of one item list; photos have some dozens."""

_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)


def nclx(data: bytes) -> tuple[int, int] | None:
    """Code points of the primary item of an AVIF or HEIC; None where it has none. OSError for too many boxes."""
    meta = _firsts(_firsts(data).get(b"meta", b"")[4:])
    ways = _firsts(meta.get(b"iprp", b""))
    primary = meta.get(b"pitm", b"")
    wide = primary[:1] not in (b"", b"\0")
    item = int.from_bytes(primary[4 : 8 if wide else 6], "big")
    properties = list(_boxes(ways.get(b"ipco", b"")))
    colours = [properties[i - 1] for i in _associated(ways.get(b"ipma", b""), item) if 0 < i <= len(properties)]
    for name, content in colours or properties:
        if name == b"colr" and content[:4] == b"nclx" and len(content) >= 10:
            first, second = struct.unpack(">HH", content[4:8])
            return first, second
    return None


def without_exif(data: bytes) -> bytes:
    """An AVIF or HEIC with its EXIF hidden. Its orientation lies in boxes; that of EXIF does not count."""
    return _EXIF_ITEM.sub(rb"\1none", data) if _EXIF_ITEM.search(data) else data


def icc_of_jp2(data: bytes) -> bytes | None:
    """The ICC profile of a JPEG 2000 file; None where it has none, or another kind of colours comes first."""
    colours = _firsts(_firsts(data, b"jp2h").get(b"jp2h", b"")).get(b"colr", b"")
    return colours[3:] if colours[:1] in (b"\2", b"\3") else None


def _firsts(data: bytes, last: bytes = b"") -> dict[bytes, bytes]:
    """The first box of each name, and none behind the one that is named `last`."""
    found: dict[bytes, bytes] = {}
    for name, content in _boxes(data):
        found.setdefault(name, content)
        if name == last:
            break
    return found


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = count = 0
    while at + 8 <= len(data):
        count += 1
        if count > MAX_BOXES:
            raise OSError(f"it has more than {MAX_BOXES} boxes")
        size, name = struct.unpack(">I4s", data[at : at + 8])
        start = at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = len(data) if size == 0 else at + size
        if end < start:
            return
        yield name, data[start:end]
        at = end


def _associated(data: bytes, item: int) -> Iterator[int]:
    """The numbers of the properties of `item`, counted from 1."""
    if len(data) < 8:
        return
    version, wide, at = data[0], data[3] & 1, 8
    for _ in range(min(int.from_bytes(data[4:8], "big"), MAX_BOXES)):
        size = 4 if version else 2
        of, count = int.from_bytes(data[at : at + size], "big"), data[at + size : at + size + 1]
        at += size + 1
        if not count:
            return
        step = 2 if wide else 1
        if of == item:
            for place in range(at, at + count[0] * step, step):
                yield int.from_bytes(data[place : place + step], "big") & (0x7FFF if wide else 0x7F)
            return
        at += count[0] * step
