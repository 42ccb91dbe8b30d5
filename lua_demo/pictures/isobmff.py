"""The boxes of an ISO base media file (ISO/IEC 14496-12), as AVIF and HEIC are: how their colours are coded."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_BOXES = {b"meta": 4, b"iprp": 0}
"""Boxes on the way to the properties of an AVIF or HEIC, with what precedes the boxes in them."""


def nclx(data: bytes) -> tuple[int, int] | None:
    """Code points of the primary item of an ISO base media file; None where it has none."""
    ways = dict(_boxes(data, 0, len(data)))
    primary = ways.get(b"pitm", b"")
    wide = primary[:1] not in (b"", b"\0")
    item = int.from_bytes(primary[4 : 8 if wide else 6], "big")
    properties = list(_plain_boxes(ways.get(b"ipco", b"")))
    colours = [properties[i - 1] for i in _associated(ways.get(b"ipma", b""), item) if 0 < i <= len(properties)]
    for name, content in colours or properties:
        if name == b"colr" and content[:4] == b"nclx" and len(content) >= 10:
            first, second = struct.unpack(">HH", content[4:8])
            return first, second
    return None


def _plain_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        start = at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = len(data) if size == 0 else at + size
        if end < start:
            return
        yield name, data[start:end]
        at = end


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Boxes with those in `_BOXES` opened; the first of each name is last, so that a dict keeps it."""
    for name, content in reversed(list(_plain_boxes(data[start:end]))):
        if name in _BOXES:
            yield from _boxes(content, _BOXES[name], len(content))
        yield name, content


def _associated(data: bytes, item: int) -> Iterator[int]:
    """The numbers of the properties of `item`, counted from 1."""
    if len(data) < 8:
        return
    version, wide, at = data[0], data[3] & 1, 8
    for _ in range(int.from_bytes(data[4:8], "big")):
        size = 4 if version else 2
        of, count = int.from_bytes(data[at : at + size], "big"), data[at + size : at + size + 1]
        at += size + 1
        if not count:
            return
        step = 2 if wide else 1
        for place in range(at, at + count[0] * step, step):
            if of == item:
                yield int.from_bytes(data[place : place + step], "big") & (0x7FFF if wide else 0x7F)
        at += count[0] * step
