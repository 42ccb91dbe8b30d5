"""Files as people have them: what lies beside the pixels, colours, tones, raw files, cut ends. Kinds, not files."""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from conftest import picture
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from lua_demo.pictures.colour import PRIMARIES
from lua_demo.pictures.formats import RAW_SUFFIXES, SUFFIXES, TABLE, to_markdown
from lua_demo.pictures.reading import load_photo, size_of
from lua_demo.pictures.sidedata import orientation
from lua_demo.schema import UserError

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
RGB = picture(48, 32)
FLAT = (200, 60, 40)
GARBAGE = bytes(range(7, 251, 3))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes, damage: int = 0) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content) ^ damage)
    return struct.pack(">I", len(content)) + name + content + check


def png(values: np.ndarray, *before: bytes, after: bytes = b"", end: bool = True) -> bytes:
    """H x W (grey) or H x W x (2, 3, 4), uint8 or uint16."""
    height, width = values.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, values.itemsize * 8, kind, 0, 0, 0))
    parts = [b"\x89PNG\r\n\x1a\n", header, *before, chunk(b"IDAT", zlib.compress(rows)), after]
    return b"".join([*parts, chunk(b"IEND", b"") if end else b""])


def flat(colour: tuple[int, ...] | int = FLAT, dtype: type = np.uint8) -> np.ndarray:
    return np.broadcast_to(np.array(colour, dtype), (6, 8, *np.shape(colour))).copy()


def first_pixel(data: bytes) -> tuple[int, int, int]:
    return load_photo(data).getpixel((5, 5))


def notes(data: bytes) -> str:
    return "; ".join(load_photo(data).info["notes"])


def refusal(source) -> str:
    with pytest.raises(UserError) as caught:
        load_photo(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.shared
@pytest.mark.skipif(not CASES.is_dir(), reason="needs the development data")
def test_the_collected_cases():
    wrong = []
    for name, case in json.loads((CASES / "pictures.json").read_text(encoding="utf-8")).items():
        path = CASES / "pictures" / name
        if "refused" in case:
            assert case["refused"] in refusal(path)
            continue
        photo = load_photo(path)
        rgb, told = photo.getpixel((5, 5)), "; ".join(photo.info["notes"])
        near = [max(abs(a - b) for a, b in zip(rgb, right, strict=True)) <= 2 for right in _right(case)]
        held = any(near) or bool(case.get("or_note") and case["or_note"] in told) or not near
        if not held or case.get("note", "") not in told or photo.size != tuple(case["size"]):
            wrong.append((name, rgb, told))
    assert wrong == []


def _right(case: dict) -> list:
    return case.get("rgb_any", [case["rgb"]] if "rgb" in case else [])


# What lies beside the pixels decides nothing


CHUNKS = [
    b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tIME", b"bKGD", b"sPLT",
    b"hIST", b"acTL", b"fcTL", b"cICP", b"mDCv", b"oFFs", b"PLTE",
]  # fmt: skip
CONTENTS = {
    "empty": b"",
    "short": b"\0\1",
    "garbage": GARBAGE,
    "named garbage": b"name\0\0" + GARBAGE,
    "inflates": b"name\0\0" + zlib.compress(bytes(3 << 20)),
    "inflates as iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(3 << 20)),
}


@pytest.mark.parametrize("name", CHUNKS, ids=bytes.decode)
@pytest.mark.parametrize("content", CONTENTS)
def test_no_chunk_of_a_png_keeps_its_pixels_from_being_read(name, content):
    for damage in (0, 1):
        extra = chunk(name, CONTENTS[content], damage)
        assert np.array_equal(np.asarray(load_photo(png(RGB, extra))), RGB)
        assert np.array_equal(np.asarray(load_photo(png(RGB, after=extra))), RGB)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


STARTS = (b"", b"JFIF\0", b"Exif\0\0", b"Exif\0\0II*\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0\1\1",
          b"ICC_PROFILE\0\1\x09", b"MPF\0", b"Photoshop 3.0\0008BIM", b"Adobe", b"FPXR\0")  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
def test_no_segment_of_a_jpeg_keeps_its_pixels_from_being_read(start):
    plain = encoded(Image.fromarray(RGB), "JPEG", quality=95)
    right = np.asarray(load_photo(plain))
    for marker in [*range(0xE0, 0xF0), 0xFE]:
        for content in (
            start,
            start + b"\0",
            start + GARBAGE[: 2 if start == b"Adobe" else None],
            start + bytes(60_000),
        ):
            if start == b"Adobe" and len(content) >= 12 and marker == 0xEE:
                continue  # that one tells how the pixels are coded
            made = load_photo(plain[:2] + segment(marker, content) + plain[2:])
            assert np.array_equal(np.asarray(made), right), (marker, content[:20])


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "AVIF", "HEIF", "PNG"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0" + GARBAGE, b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"]
)
def test_broken_exif_and_profile_in_every_format(kind, exif):
    pillow_heif.register_heif_opener()
    if kind == "AVIF" and exif.endswith(GARBAGE):
        pytest.skip("Pillow refuses to write that")
    options = {} if kind == "TIFF" else {"exif": exif}
    photo = load_photo(encoded(Image.new("RGB", (64, 64), FLAT), kind, icc_profile=GARBAGE, **options))
    assert np.abs(np.array(photo.getpixel((9, 9))) - FLAT).max() <= 4


def test_orientation_is_read_where_it_can_be():
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        assert load_photo(encoded(Image.fromarray(RGB), kind, exif=exif.tobytes())).size == (32, 48), kind
    text = b"Raw profile type exif\0\nexif\n      1\n" + exif.tobytes().hex().encode() + b"\n"
    assert load_photo(png(RGB, chunk(b"tEXt", text))).size == (32, 48)
    exif[0x0112] = 99
    assert load_photo(encoded(Image.fromarray(RGB), "PNG", exif=exif)).size == (48, 32)


# Colours


def renamed(profile: bytes, name: str) -> bytes:
    """The same profile with another description (both in UTF-16 of one length)."""
    at = profile.index(b"mluc", profile.index(b"desc"))
    size, offset = struct.unpack(">II", profile[at + 20 : at + 28])
    text = name.encode("utf-16-be").ljust(size, b"\0")[:size]
    return profile[: at + offset] + text + profile[at + offset + size :]


def linear(profile: bytes) -> bytes:
    data = bytearray(profile)
    for index in range(struct.unpack(">I", data[128:132])[0]):
        name, offset, _ = struct.unpack(">4sII", data[132 + 12 * index : 144 + 12 * index])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + 12] = b"curv" + struct.pack(">II", 0, 0)
    return bytes(data)


def test_a_profile_is_judged_by_its_content():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in ("sRGB", "sRGB-elle", "any"):
        lit = encoded(Image.new("RGB", (8, 8), FLAT), icc_profile=renamed(linear(srgb), name))
        assert np.abs(np.array(first_pixel(lit)) - (229, 133, 110)).max() <= 1
        same = encoded(Image.fromarray(RGB), icc_profile=renamed(srgb, name))
        assert np.array_equal(np.asarray(load_photo(same)), RGB)


def grey_profile() -> bytes:
    """A linear grey one, version 2, as small as it may be."""
    tags = [(b"wtpt", b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)), (b"kTRC", b"curv" + bytes(8))]
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags:
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content.ljust(-(-len(content) // 4) * 4, b"\0")
    size = offset + len(body)
    white = struct.pack(">iii", 63190, 65536, 54061)
    header = struct.pack(">I", size) + b"\0\0\0\0\x02\x40\0\0mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + white
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize(
    ("values", "extra"),
    [
        (flat(128), ()),
        (flat((128, 255)), ()),
        (flat(128), (chunk(b"tRNS", b"\0\1"),)),
        (flat(128 * 257, np.uint16), ()),
        (flat(128 * 257, np.uint16), (chunk(b"tRNS", b"\0\1"),)),
    ],
)
def test_a_grey_profile_counts_beside_transparency_too(values, extra):
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(grey_profile()))
    assert np.abs(np.array(first_pixel(png(values, profile, *extra))) - 188).max() <= 1


def test_a_profile_of_another_mode_is_ignored():
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(grey_profile()))
    assert first_pixel(png(flat(), profile)) == FLAT


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, matrix, full]))


def test_code_points_of_png():
    assert np.abs(np.array(first_pixel(png(flat(), cicp(12, 13)))) - (217, 42, 23)).max() <= 1
    assert np.abs(np.array(first_pixel(png(flat(), cicp(1, 8)))) - (229, 133, 110)).max() <= 1
    assert np.abs(np.array(first_pixel(png(flat(128), cicp(1, 8)))) - 188).max() <= 1
    assert np.array_equal(np.asarray(load_photo(png(RGB, cicp(1, 13)))), RGB)
    assert np.array_equal(np.asarray(load_photo(png(RGB, cicp(2, 2)))), RGB)
    assert np.array_equal(np.asarray(load_photo(png(RGB, cicp(1, 13, matrix=5)))), RGB)
    assert first_pixel(png(flat(235), cicp(1, 13, full=0))) == (255, 255, 255)
    assert "not known" in notes(png(flat(), cicp(99, 13))) and "not known" in notes(png(flat(), cicp(1, 9)))


def test_code_points_come_before_a_profile_and_gamma_after_srgb():
    profile = chunk(
        b"iCCP", b"x\0\0" + zlib.compress(linear(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()))
    )
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    assert first_pixel(png(flat(), cicp(1, 13), profile, gamma)) == FLAT
    assert np.abs(np.array(first_pixel(png(flat(), profile, chunk(b"sRGB", b"\0")))) - (229, 133, 110)).max() <= 1
    assert first_pixel(png(flat(), gamma, chunk(b"sRGB", b"\0"))) == FLAT


def test_white_stays_white_in_all_primaries():
    for code in PRIMARIES:
        assert np.abs(np.array(first_pixel(png(flat((255, 255, 255)), cicp(code, 13)))) - 255).max() <= 1, code


def test_hdr_is_noted_and_its_white_is_where_bt_2408_has_it():
    for transfer, coded in ((16, 0.58), (18, 0.75)):  # ITU-R BT.2408: 203 cd/m2
        data = png(flat((round(coded * 255),) * 3), cicp(9, transfer))
        assert "HDR" in notes(data)
        assert min(first_pixel(data)) >= 248
        darker = png(flat((round(coded * 0.6 * 255),) * 3), cicp(9, transfer))
        assert max(first_pixel(darker)) < 200


def test_gamma_and_chromaticities():
    gamma = lambda value: chunk(b"gAMA", struct.pack(">I", value))  # noqa: E731
    points = lambda values: chunk(b"cHRM", struct.pack(">8I", *(round(v * 1e5) for v in values)))  # noqa: E731
    assert np.abs(np.array(first_pixel(png(flat(), gamma(100_000)))) - (229, 133, 110)).max() <= 1
    assert np.array_equal(np.asarray(load_photo(png(RGB, gamma(45_455), points(PRIMARIES[1])))), RGB)
    assert np.abs(np.array(first_pixel(png(flat(), gamma(45_455), points(PRIMARIES[12])))) - (217, 42, 23)).max() <= 1
    for odd in (0, 1, 2**32 - 1):
        assert first_pixel(png(flat(), gamma(odd))) == FLAT
    for odd in ((0,) * 8, (0.3, 0.3) * 4, (30_000,) * 8):
        assert first_pixel(png(flat(), gamma(45_455), points(odd))) == FLAT


def with_nclx(data: bytes, primaries: int, transfer: int) -> bytes:
    """An AVIF or HEIC whose nclx tells other colours."""
    at = data.index(b"colrnclx")
    return data[: at + 8] + struct.pack(">HH", primaries, transfer) + data[at + 12 :]


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_code_points_of_avif_and_heic(kind):
    pillow_heif.register_heif_opener()
    plain = encoded(Image.new("RGB", (64, 64), FLAT), kind, quality=100)
    told = with_nclx(plain, 12, 13)
    assert np.abs(np.array(first_pixel(plain)) - FLAT).max() <= 4
    assert np.abs(np.array(first_pixel(told)) - (217, 42, 23)).max() <= 5
    assert "HDR" in notes(with_nclx(plain, 9, 16))


# Tones


def test_16_bits_are_as_8_bits_in_every_grey_tiff():
    for white in (0, 1):
        for bits, top in ((8, 255), (16, 65535)):
            values = np.linspace(0, top, 48).round().astype(np.uint8 if bits == 8 else np.uint16)[None].repeat(4, 0)
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            tags[262] = white
            data = encoded(Image.fromarray(values), "TIFF", tiffinfo=tags)
            # Pillow turns 8 bits itself when it writes; what counts is what the file says.
            with Image.open(io.BytesIO(data)) as opened:
                assert opened.tag_v2[262] in (0, 1)
                inverted = opened.tag_v2[262] == 0 and bits == 16
            right = np.linspace(0, 255, 48).round()
            got = np.asarray(load_photo(data))[0, :, 0].astype(int)
            assert np.abs(got - (255 - right if inverted else right)).max() <= 1, (white, bits)


@pytest.mark.parametrize("top", [1.0, 1.02, 1.5, 255.0, 255.4, 300.0])
def test_floats_that_overshoot(top):
    level = 1.0 if top < 2 else 255.0
    values = np.full((8, 8), level / 2, np.float32)
    values[0] = top
    data = encoded(Image.fromarray(values), "TIFF")
    assert first_pixel(data) == (128, 128, 128)
    assert load_photo(data).getpixel((0, 0)) == (255, 255, 255)
    assert ("255" in notes(data)) == (level == 255)


def test_one_hot_pixel_does_not_darken_a_picture():
    values = np.full((64, 64), 0.5, np.float32)
    values[3, 3] = 1e6
    assert first_pixel(encoded(Image.fromarray(values), "TIFF")) == (128, 128, 128)


@pytest.mark.parametrize(
    ("value", "top", "right"), [(128, 255, 128), (128, 300, 128), (20_000, 65_535, 78), (20_000, 70_000, 78)]
)
def test_integers_of_32_bits(value, top, right):
    values = np.full((8, 8), value, np.int32)
    values[0] = top
    assert first_pixel(encoded(Image.fromarray(values), "TIFF")) == (right,) * 3


@pytest.mark.parametrize(
    ("most", "value", "right"),
    [(65535, 100, 0), (65535, 32768, 128), (4095, 2048, 128), (1023, 1023, 255), (255, 128, 128)],
)
def test_grey_ppm_has_the_range_that_it_tells(most, value, right):
    pixels = np.full((8, 8), value, ">u2" if most > 255 else "u1").tobytes()
    assert np.abs(np.array(first_pixel(b"P5 8 8 %d\n" % most + pixels)) - right).max() <= 1


@pytest.mark.parametrize(
    "values", [flat(32896, np.uint16), flat(128), flat((200, 60, 40)), flat((200 * 257, 60 * 257, 40 * 257), np.uint16)]
)
def test_the_colour_that_is_transparent(values):
    key = np.atleast_1d(values[0, 0]).astype(">u2").tobytes()
    data = png(values, chunk(b"tRNS", key))
    assert first_pixel(data) == (255, 255, 255) and "transparen" in notes(data)
    other = png(values, chunk(b"tRNS", bytes(len(key))))
    assert first_pixel(other) != (255, 255, 255) and notes(other) == ""


# Formats


def test_camera_raw_is_refused_by_name(tmp_path):
    def tiff(**tags) -> bytes:
        info = TiffImagePlugin.ImageFileDirectory_v2()
        for name, value in tags.items():
            info[int(name[1:])] = value
        return encoded(Image.fromarray(RGB), "TIFF", tiffinfo=info)

    dng = tiff(_50706=b"\x01\x04\0\0")
    nef = tiff(_254=1, _330=8)
    for name in ("a.dng", "a.tif", "a.jpg"):
        (tmp_path / name).write_bytes(dng)
        assert "raw" in refusal(tmp_path / name)
        (tmp_path / name).write_bytes(nef)
        assert "raw" in refusal(tmp_path / name)
    for suffix in RAW_SUFFIXES:
        for content in (tiff(), b"FUJIFILMCCD-RAW " + GARBAGE, GARBAGE):
            path = tmp_path / f"A{suffix.upper()}"
            path.write_bytes(content)
            assert "raw" in refusal(path), suffix
    for start in (b"IIRO\x08\0", b"IIU\0\x08", b"II*\0\x10\0\0\0CR\x02\0", b"\0\0\0\x18ftypcrx "):
        assert "raw" in refusal(start + GARBAGE)
    assert np.array_equal(np.asarray(load_photo(tiff())), RGB)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_format_of_the_table_opens(row, tmp_path):
    pillow_heif.register_heif_opener()
    for suffix in row.suffixes:
        path = tmp_path / f"a{suffix}"
        kind = row.pillow[0]
        path.write_bytes(encoded(Image.new("RGB", (64, 64), FLAT), kind, **({"quality": 95} if kind == "HEIF" else {})))
        assert np.abs(np.array(load_photo(path).getpixel((9, 9))) - FLAT).max() <= 6
    assert set(row.suffixes) <= set(SUFFIXES)


def test_heic_with_transparency():
    pillow_heif.register_heif_opener()
    see_through = encoded(Image.new("RGBA", (64, 64), (*FLAT, 0)), "HEIF")
    assert min(first_pixel(see_through)) >= 250 and "transparen" in notes(see_through)


# Cut ends


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}], ids=str)
@pytest.mark.parametrize("image", [Image.fromarray(picture(200, 150)), Image.fromarray(picture(37, 53)).convert("L")])
def test_a_jpeg_that_lacks_its_end_marker_opens_and_one_that_lacks_pixels_does_not(image, options):
    data = encoded(image, "JPEG", **options)
    right = np.asarray(load_photo(data))
    for less in (1, 2):
        photo = load_photo(data[:-less])
        assert np.array_equal(np.asarray(photo), right)
        assert "lacks its end" in photo.info["notes"][0]
    for share in (0.5, 0.8, 0.95):
        assert "truncated" in refusal(data[: int(len(data) * share)])


def test_a_png_that_lacks_its_end_opens():
    data = png(RGB)
    for less in (1, 8, 12, 14, 16):
        photo = load_photo(data[:-less])
        assert np.array_equal(np.asarray(photo), RGB)
        assert less == 1 or "lacks its end" in photo.info["notes"][0]
    assert "truncated" in refusal(data[: len(data) // 2])
    flipped = bytearray(data)
    flipped[-20] ^= 1
    assert "damaged" in refusal(bytes(flipped))


def test_the_table_in_the_readme_is_the_one_of_the_code():
    text = (
        Path(__file__).resolve().parent.parent.joinpath("lua_demo", "pictures", "README.md").read_text(encoding="utf-8")
    )
    assert to_markdown() in text


def test_a_png_without_a_header_is_refused():
    """Found by the campaign."""
    assert "not a readable image" in refusal(b"\x89PNG\r\n\x1a\n" + chunk(b"tRNS", b"\0\1") + chunk(b"IDAT", b"x"))
    assert "not a readable image" in refusal(b"\x89PNG\r\n\x1a\n")


# Small files that would take much time or memory


def tiff(values: np.ndarray, kind: int = 1, photo: int | None = None, order: str = "<", **tags: int) -> bytes:
    """Uncompressed. `kind` is of the samples: 1 unsigned, 2 signed, 3 floats; `tags` have one value, as _322=64."""
    height, width, channels = (*values.shape, 1)[:3]
    photo = photo if photo is not None else (1 if channels < 3 else {3: 2, 4: 5}[channels])
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    pixels += bytes(len(pixels) % 2)
    bits = struct.pack(f"{order}{channels}H", *[values.itemsize * 8] * channels)
    kinds = struct.pack(f"{order}{channels}H", *[kind] * channels)
    entries: dict[int, tuple[int, int, bytes | int]] = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, channels, bits), 259: (3, 1, 1), 262: (3, 1, photo),
        273: (4, 1, 8), 277: (3, 1, channels), 278: (4, 1, height), 279: (4, 1, len(pixels)), 339: (3, channels, kinds),
    }  # fmt: skip
    entries |= {int(tag[1:]): (4, 1, value) for tag, value in tags.items()}
    if channels == 2:
        entries[338] = (3, 1, 2)
    table, after = struct.pack(f"{order}H", len(entries)), b""
    place = 8 + len(pixels) + 2 + 12 * len(entries) + 4
    for tag, (form, count, value) in sorted(entries.items()):
        content = value if isinstance(value, bytes) else struct.pack(order + {3: "H", 4: "I"}[form], value)
        if len(content) > 4:
            after, content = after + content, struct.pack(f"{order}I", place + len(after))
        table += struct.pack(f"{order}HHI", tag, form, count) + content.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(pixels))
    return start + pixels + table + bytes(4) + after


def many_pages(count: int) -> bytes:
    """Directories of three tags, each pointing to the next; the first is whole."""
    data = bytearray(tiff(flat(9)))
    at = len(data)
    struct.pack_into("<I", data, 8 + 48 + 2 + 12 * 10, at)
    page = struct.pack("<HHHIIHHIIHHII", 3, 256, 4, 1, 8, 257, 4, 1, 6, 273, 4, 1, 8)
    pages = (page + struct.pack("<I", at + 42 * (index + 1)) for index in range(count - 1))
    return bytes(data) + b"".join(pages) + page + bytes(4)


def comment(size: int) -> bytes:
    return b"!\xfe" + (b"\xff" + b"a" * 255) * (size // 256) + b"\0"


def before_the_picture_of_a_gif(extra: bytes) -> bytes:
    data = encoded(Image.fromarray(RGB).convert("P"), "GIF")
    at = 13 + (6 << (data[10] & 7))
    return data[:at] + extra + data[at:]


def quick_ones() -> dict[str, bytes]:
    jpeg = encoded(Image.fromarray(RGB), "JPEG")
    gif = encoded(Image.fromarray(RGB).convert("P"), "GIF")
    return {
        "pages of a TIFF": many_pages(100_000),
        "pages of a TIFF in a ring": many_pages(1)[:-4] + struct.pack("<I", 8 + 48),
        "chunks of a PNG": png(RGB, after=chunk(b"tEXt", b"") * 1_200_000),
        "bytes between segments of a JPEG": jpeg[:20] + bytes(12 << 20) + jpeg[20:],
        "a comment in a GIF": before_the_picture_of_a_gif(comment(12 << 20)),
        "frames of a GIF": gif[:-1] + gif[gif.index(b",") : -1] * 2000 + b";",
    }


@pytest.mark.parametrize("name", quick_ones())
def test_what_there_is_a_lot_of_is_passed_over_in_no_time(name, tmp_path):
    (tmp_path / "a").write_bytes(data := quick_ones()[name])
    start = time.process_time()
    told = notes(data)
    size_of(tmp_path / "a")
    assert time.process_time() - start < 1.5
    assert ("1000 frames or more" in told) == (name in ("pages of a TIFF", "frames of a GIF"))


def nested(name: bytes, depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = (bytes(4) if name == b"meta" else b"") + content
        content = struct.pack(">I4s", len(content) + 8, name) + content
    return content


FTYP = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"avif", 0, b"avif", b"mif1")


def overlapping(head: bytes, count: int) -> bytes:
    """A directory of which each tag takes the whole rest of the file."""
    room = 200_000
    tags = b"".join(struct.pack("<HHII", 1000 + index, 7, room, 8) for index in range(count))
    return head + struct.pack("<H", count) + tags + bytes(4) + bytes(room)


REFUSED = {
    "nested boxes": FTYP + nested(b"meta", 3000),
    "nested properties": FTYP + nested(b"iprp", 3000),
    "boxes of an AVIF": FTYP + b"\0\0\0\x08free" * 500_000,
    "boxes of a JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 2_000_000,
    "chunks before the pixels": png(RGB, chunk(b"tEXt", b"") * 500_000),
    "segments of a JPEG": b"\xff\xd8" + b"\xff\xe5\0\2" * (1 << 20),
    "blocks of a GIF": before_the_picture_of_a_gif(b"!\xfe\0" * 500_000),
    "a header of a PPM": b"P5 #" + b"a" * (4 << 20) + b"\n8 8 255\n" + bytes(64),
    "tags of a TIFF": overlapping(b"II*\0\x08\0\0\0", 3000),
    "tags of a TIFF's EXIF": tiff(flat(9), _34665=8 + 48 + 2 + 12 * 11 + 4) + overlapping(b"", 3000),
    "a tile of a TIFF": tiff(flat(9), _322=20_000, _323=20_000),
    "a tile told twice": tiff(flat(9), _322=20_000, _323=20_000).replace(
        struct.pack("<HHII", 339, 3, 1, 1), struct.pack("<HHII", 323, 4, 1, 64)
    ),
    "an empty icon": b"\0\0\1\0\0\0",
    "a cut icon": b"\0\0\1\0\1\0" + bytes(12) + b"\x16\0\0\0",
    "no palette": png(flat(3)).replace(
        *(chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 8, kind, 0, 0, 0)) for kind in (0, 3))
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_traps_are_refused_in_one_line_and_in_no_time(name, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(REFUSED[name])
    start = time.process_time()
    line = refusal(path)
    assert line.startswith("a.jpg ") and ("; export it again" in line or "; use PNG" in line)
    with contextlib.suppress(UserError):
        size_of(path)
    assert time.process_time() - start < 1.5
    if name != "chunks before the pixels":
        with pytest.raises(UserError):
            size_of(path)


def test_a_good_avif_with_endless_boxes_behind_it_opens():
    good = encoded(Image.new("RGB", (64, 64), FLAT), "AVIF", quality=100)
    assert np.abs(np.array(first_pixel(good + nested(b"iprp", 3000))) - FLAT).max() <= 4


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG", "WEBP", "PNG"])
def test_exif_whose_tags_share_one_long_value_is_left_out(kind, monkeypatch):
    """Pillow would take 60 MB for it, and more than there is for one of 4 MB."""
    pillow_heif.register_heif_opener()
    start = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
    data = encoded(Image.new("RGB", (64, 48), FLAT), kind, exif=start)
    monkeypatch.setattr(Image.Exif, "load", lambda *_: pytest.fail("read by Pillow"))
    assert load_photo(data).size == (48, 64)
    assert orientation(b"Exif\0\0" + start) == 6
    long = overlapping(b"II*\0\x08\0\0\0", 300)
    assert orientation(long) == orientation(b"Exif\0\0" + long) == 1


def icon(content: bytes, width: int = 64, bits: int = 32) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, width, width, 0, 0, 1, bits, len(content), 22) + content


def test_an_icon_is_looked_at_before_it_is_decoded(tmp_path, monkeypatch):
    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    large = png(RGB).replace(png(RGB)[8:33], chunk(b"IHDR", header))
    bitmap = struct.pack("<IiiHHIIiiII", 40, 9000, 18_000, 1, 32, 0, 0, 0, 0, 0, 0)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    for content in (large, bitmap):
        (tmp_path / "a.ico").write_bytes(icon(content))
        assert size_of(tmp_path / "a.ico") == (9000, 9000)
    bitmap = struct.pack("<IiiHHIIiiII", 40, 13_000, 26_000, 1, 32, 0, 0, 0, 0, 0, 0)
    assert "13000 x 13000" in refusal(icon(bitmap))


def test_of_an_icon_the_largest_picture_with_the_most_bits_is_taken():
    for form in ("png", "bmp"):
        data = encoded(Image.new("RGBA", (64, 64), (*FLAT, 255)), "ICO", bitmap_format=form)
        assert load_photo(data).size == (64, 64) and first_pixel(data) == FLAT
    grey, colour = encoded(Image.new("L", (32, 32), 9)), encoded(Image.new("RGB", (32, 32), FLAT))
    entries = [(32, 8, grey), (32, 32, colour), (16, 32, encoded(Image.new("RGB", (16, 16))))]
    data, place = struct.pack("<HHH", 0, 1, 3), 6 + 16 * 3
    for side, bits, content in entries:
        data += struct.pack("<BBBBHHII", side, side, 0, 0, 1, bits, len(content), place)
        place += len(content)
    assert first_pixel(data + grey + colour + entries[2][2]) == FLAT


# What opens of TIFF


def opens(bits: int, kind: int, channels: int, photo: int, order: str) -> bool:
    """As the README says: grey of 8, 16 and 32 bits, RGB and CMYK of 8 and 16 bits, grey with alpha of 8 bits."""
    little, white = order == "<", photo == 0
    if channels == 1:
        plain = {8: kind == 1 or (kind == 2 and not white), 64: False}
        plain[16] = (kind == 1 and (little or not white)) or (kind == 2 and not white)
        plain[32] = kind == 3 or (not white and (kind == 2 or little))
        return plain[bits]
    return kind == 1 and bits <= (8 if channels == 2 else 16)


def test_every_kind_of_tiff_opens_or_is_refused_by_what_it_is():
    types = {1: "u1 u2 u4", 2: "i1 i2 i4", 3: "f2 f4 f8"}
    for kind, names in types.items():
        for dtype in map(np.dtype, names.split()):
            for channels, photo in ((1, 1), (1, 0), (2, 1), (3, 2), (4, 5)):
                for order in "<>":
                    values = np.ones((6, 8) if channels == 1 else (6, 8, channels), dtype)
                    case = dtype.itemsize * 8, kind, channels, photo, order
                    data = tiff(values, kind, photo, order)
                    if opens(*case):
                        assert load_photo(data).size == (8, 6), case
                    else:
                        told = refusal(data)
                        assert "is a TIFF that is damaged or not read here" in told and "save it as" in told, case
                        assert f"{channels} channel" in told and f"of {dtype.itemsize * 8} bits" in told, case


def test_a_tag_of_a_tiff_without_a_value_is_left_out(tmp_path):
    """Found by flips."""
    for tag in (254, 262, 330, 34665):
        data = tiff(flat(9), **{f"_{tag}": 0}).replace(struct.pack("<HHI", tag, 4, 1), struct.pack("<HHI", tag, 4, 0))
        (tmp_path / "a.tif").write_bytes(data)
        assert size_of(tmp_path / "a.tif") == load_photo(data).size == (8, 6)


def test_a_compression_that_does_not_open_is_told():
    data = bytearray(tiff(flat(9)))
    at = data.index(struct.pack("<HHII", 259, 3, 1, 1))
    data[at : at + 12] = struct.pack("<HHII", 259, 3, 1, 34892)
    assert "(1 channel of 8 bits, compression 34892); save it as PNG" in refusal(bytes(data))


def test_signed_bytes_are_as_signed_numbers_of_16_bits():
    bytes_, words = tiff(flat(64, np.int8), 2), tiff(flat(64 * 257, np.int16), 2)
    assert np.abs(np.array(first_pixel(bytes_)) - 128).max() <= 1
    assert np.abs(np.array(first_pixel(words)) - 128).max() <= 1
    assert first_pixel(tiff(flat(-5, np.int8), 2)) == first_pixel(tiff(flat(-5, np.int16), 2)) == (0, 0, 0)


def test_values_that_are_no_numbers_are_told_or_refused():
    for value in (np.nan, np.inf):
        assert "holds no pixel that is a number" in refusal(tiff(flat(value, np.float32), 3))
    values = flat(0.5, np.float32)
    values[0, :3] = np.nan
    assert "3 of 48 pixels are no numbers" in notes(tiff(values, 3))
    assert first_pixel(tiff(values, 3)) == (128, 128, 128)
    assert notes(tiff(flat(0.5, np.float32), 3)) == ""


# Profiles of other formats


def bitmap(profile: bytes, kind: bytes = b"DEBM") -> bytes:
    pixels = bytes(FLAT[::-1]) * 64
    header = struct.pack("<IiiHHIIiiII", 124, 8, 8, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + bytes(16) + kind
    header += bytes(48) + struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(profile), 0, 0, 138) + header + pixels + profile


def jpeg_2000(profile: bytes) -> bytes:
    data = encoded(Image.new("RGB", (32, 32), FLAT), "JPEG2000")
    colours, header = data.index(b"colr") - 4, data.index(b"jp2h") - 4
    length, whole = (int.from_bytes(data[at : at + 4], "big") for at in (colours, header))
    new = struct.pack(">I4sBBB", 11 + len(profile), b"colr", 2, 0, 0) + profile
    size = struct.pack(">I", whole - length + len(new))
    return data[:header] + size + data[header + 4 : colours] + new + data[colours + length :]


def test_the_profile_of_a_bmp_and_of_a_jpeg_2000_counts():
    profile = linear(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for made in (bitmap(profile), bitmap(profile)[14:], jpeg_2000(profile)):
        assert np.abs(np.array(first_pixel(made)) - (229, 133, 110)).max() <= 1
    for made in (bitmap(GARBAGE), bitmap(b""), jpeg_2000(GARBAGE), bitmap(profile, b"BGRs")):
        assert first_pixel(made) == FLAT and notes(made) == ""
    assert "another file" in notes(bitmap(b"C:\\a.icc\0", b"KNIL"))


def test_damaged_pictures_are_refused_in_one_line_or_open():
    """Flips near the start, where decoders take most on trust; Python's own words never reach the line."""
    rng = np.random.default_rng(24)
    image = Image.fromarray(RGB)
    good = [encoded(image.convert(mode)) for mode in ("P", "LA", "1", "RGBA")] + [png(flat(9, np.uint16))]
    good += [encoded(image, kind) for kind in ("ICO", "WEBP", "JPEG2000", "TGA", "BMP", "GIF")]
    good += [encoded(image, "TIFF", compression=kind) for kind in ("raw", "packbits")]
    for data in good:
        for _ in range(40):
            made = bytearray(data)
            for _ in range(3):
                made[rng.integers(8, min(160, len(made)))] = rng.integers(256)
            try:
                load_photo(bytes(made))
            except UserError as error:
                assert not re.search(r"\n|index|object|argument|unpack|Error|codec|expected a", str(error))
