"""The picture formats that open: one table for the reader, folders, the page's fields, the API and the README."""

from __future__ import annotations

from dataclasses import dataclass

from lua_demo.pictures import tiff
from lua_demo.pictures.tiff import Tags


@dataclass(frozen=True)
class Format:
    """One row.

    Attributes:
        name: for people.
        pillow: what Pillow calls it; more than one where Pillow has a name per variant.
        suffixes: of its files, in lower case.
        in_browsers: an <img> shows it; others need a preview.
        notes: what happens to what it can hold and a photo here cannot.
    """

    name: str
    pillow: tuple[str, ...]
    suffixes: tuple[str, ...]
    in_browsers: bool = True
    notes: str = ""


# Not all that Pillow knows: EPS would start Ghostscript on a stranger's file.
TABLE = (
    Format("PNG", ("PNG",), (".png", ".apng"), notes="cICP, iCCP, gAMA, cHRM are heeded; first frame of an animation"),
    Format("JPEG", ("JPEG", "MPO"), (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), notes="CMYK too; MPO: first picture"),
    Format("WebP", ("WEBP",), (".webp",), notes="first frame of an animation"),
    Format("AVIF", ("AVIF",), (".avif", ".avifs"), notes="nclx is heeded; 10 and 12 bits become 8"),
    Format("HEIC", ("HEIF",), (".heic", ".heif", ".hif"), False, "nclx is heeded; 10 and 12 bits become 8"),
    Format(
        "TIFF",
        ("TIFF",),
        (".tif", ".tiff"),
        False,
        "grey: 1 to 16 bits, or 32, integer or float; palettes; RGB, CMYK: 8 or 16 bits; Lab: 8 bits; first page",
    ),
    Format("BMP", ("BMP", "DIB"), (".bmp", ".dib"), notes="a profile in the file is heeded"),
    Format("GIF", ("GIF",), (".gif",), notes="first frame of an animation"),
    Format("ICO", ("ICO",), (".ico",), notes="the largest picture"),
    Format("PPM", ("PPM",), (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), False, "16 bits and PFM too"),
    Format("TGA", ("TGA",), (".tga",), False),
    Format(
        "JPEG 2000", ("JPEG2000",), (".jp2", ".j2k", ".jpf", ".jpx"), False, "ICC is heeded; more than 8 bits become 8"
    ),
)

SUFFIXES = tuple(suffix for row in TABLE for suffix in row.suffixes)
PILLOW_FORMATS = tuple(name for row in TABLE for name in row.pillow)
NAMES = ", ".join(row.name for row in TABLE[:-1]) + f" or {TABLE[-1].name}"

RAW_SUFFIXES = (
    ".3fr", ".ari", ".arw", ".bay", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25",
    ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".ptx", ".raf", ".raw", ".rw2", ".rwl", ".sr2",
    ".srf", ".srw", ".x3f",
)  # fmt: skip

# Of raw files that are no plain TIFF. CR2 is one with a mark behind the header.
_RAW_STARTS = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"II\x1a\0\0\0HEAPCCDR")


def looks_raw(name: str, data: bytes, tags: Tags | None = None) -> bool:
    """Whether a file is a camera's raw one, of which other programs open the thumbnail.

    Args:
        name: of the file, or anything else.
        data: its first bytes.
        tags: of the first directory, where it opened as a TIFF; None where it opened as nothing.
    """
    known = data.startswith(_RAW_STARTS) or (data[:2], data[8:10]) == (b"II", b"CR") or data[4:12] == b"ftypcrx "
    if tags is None or known:
        return known or name.lower().endswith(RAW_SUFFIXES)
    small = bool(tags.get(_NEW_SUBFILE_TYPE, (0,))[0] & 1)
    mosaic = tags.get(tiff.PHOTOMETRIC, (0,))[0] in _SENSOR_DATA
    return name.lower().endswith(RAW_SUFFIXES) or _DNG_VERSION in tags or mosaic or (small and _SUB_IFDS in tags)


# Tags of TIFF 6.0, TIFF/EP and DNG 1.7.
_NEW_SUBFILE_TYPE, _SUB_IFDS, _DNG_VERSION = 254, 330, 50706
_SENSOR_DATA = (32803, 34892)  # a colour filter array, and linear raw


def shown_by_browsers(name: str) -> bool:
    """Whether an <img> shows a file of this name; True for a name that is of no picture."""
    return not any(name.lower().endswith(row.suffixes) for row in TABLE if not row.in_browsers)


def to_markdown() -> str:
    """The table for the README."""
    rows = [f"| {row.name} | {', '.join(row.suffixes)} | {row.notes} |" for row in TABLE]
    return "\n".join(["| format | files | what is made of it |", "|---|---|---|", *rows])
