"""ICO and BMP: which picture of an icon counts and how large it is, and the colour profile of a bitmap."""

from __future__ import annotations

import struct

ICO_START = b"\0\0\1\0"
V5_SIZE = b"\x7c\0\0\0"
"""The first bytes of the last version of a bitmap's header: its size. Older ones hold no profile."""

_HEADER, _ENTRY = 6, 16
_EMBEDDED, _LINKED = b"DEBM", b"KNIL"  # PROFILE_EMBEDDED and PROFILE_LINKED, bytes in little-endian order


def largest(data: bytes) -> bytes:
    """The largest picture of an ICO, of those the one of the most bits: a PNG, or an ICO that holds nothing else.

    OSError where there is none.
    """
    count = int.from_bytes(data[4:6], "little")
    entries = [data[at : at + _ENTRY] for at in range(_HEADER, _HEADER + count * _ENTRY, _ENTRY)]
    entries = [entry for entry in entries if len(entry) == _ENTRY]
    if not entries:
        raise OSError("it holds no picture")
    best = max(entries, key=lambda entry: ((entry[0] or 256) * (entry[1] or 256), entry[6] or 256))
    size, offset = struct.unpack("<II", best[8:])
    if data[offset : offset + 4] == b"\x89PNG":
        return data[offset:]
    return ICO_START + b"\1\0" + best[:8] + struct.pack("<II", size, _HEADER + _ENTRY) + data[offset:]


def size_in(icon: bytes) -> tuple[int, int]:
    """(width, height) in pixels of the bitmap in an ICO from `largest`. struct.error where it is cut off."""
    at = _HEADER + _ENTRY
    old = struct.unpack_from("<I", icon, at) == (12,)
    width, height = struct.unpack_from("<HH" if old else "<Ii", icon, at + 4)
    return width, abs(height) // 2  # the mask lies in the same bitmap


def profile(bitmap: bytes) -> tuple[bytes | None, tuple[str, ...]]:
    """The ICC profile of a bitmap, from its second header on, and a note where it has one elsewhere."""
    if not bitmap.startswith(V5_SIZE) or len(bitmap) < 124:
        return None, ()
    offset, size = struct.unpack("<II", bitmap[112:120])
    if bitmap[56:60] == _LINKED:
        return None, ("its colour profile lies in another file, which is not read; its colours are left as sRGB",)
    return (bitmap[offset : offset + size] if bitmap[56:60] == _EMBEDDED else None), ()
