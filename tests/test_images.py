"""Every kind of picture that people upload either works as they expect or is refused in one line."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageCms

from lua_demo.paths import EXAMPLES
from lua_demo.pictures import images
from lua_demo.schema import UserError


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(source) -> np.ndarray:
    photo = images.load_photo(source)
    assert photo.mode == "RGB"
    return np.asarray(photo)


def refusal(source) -> str:
    with pytest.raises(UserError) as caught:
        images.load_photo(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


RGB = picture(48, 32)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG", "PPM"])
def test_common_formats(kind, tmp_path):
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encoded(Image.fromarray(RGB), kind))
    array = pixels(path)
    assert array.shape == RGB.shape
    assert np.abs(array.astype(int) - RGB).mean() < 12


def test_lossless_input_is_exact(photo):
    assert np.array_equal(pixels(photo(48, 32)), RGB)


def test_one_pixel():
    assert pixels(encoded(Image.new("RGB", (1, 1), (10, 20, 30)))).tolist() == [[[10, 20, 30]]]


def test_palette_with_and_without_transparency():
    palette = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(pixels(encoded(palette)), np.asarray(palette.convert("RGB")))
    hole = palette.getpixel((0, 0))
    array = pixels(encoded(palette, transparency=hole))
    assert array[0, 0].tolist() == [255, 255, 255]


def test_alpha_is_composited_on_white_and_noted():
    rgba = np.dstack([np.full((4, 4, 3), 100, np.uint8), np.full((4, 4), 128, np.uint8)])
    photo = images.load_photo(encoded(Image.fromarray(rgba)))
    assert np.abs(np.asarray(photo).astype(int) - round(100 * 128 / 255 + 255 * 127 / 255)).max() <= 1
    assert "white" in photo.info["notes"][0]
    opaque = images.load_photo(encoded(Image.fromarray(RGB).convert("RGBA")))
    assert opaque.info["notes"] == () and np.array_equal(np.asarray(opaque), RGB)


def test_grey_with_alpha():
    array = pixels(encoded(Image.merge("LA", [Image.new("L", (2, 2), 0), Image.new("L", (2, 2), 0)])))
    assert (array == 255).all()


def test_cmyk():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = pixels(encoded(cmyk, "JPEG", quality=95))[4, 4]
    assert red > 240 and green < 15 and blue < 15


def test_16_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    for kind in ("PNG", "TIFF"):
        array = pixels(encoded(Image.fromarray(ramp), kind))
        assert np.array_equal(array[0, :, 0], np.arange(256))


def test_32_bit_and_float_grey():
    assert pixels(encoded(Image.fromarray(np.array([[0, 40000]], np.int32)), "TIFF"))[0, 1, 0] == round(
        40000 / 65535 * 255
    )
    floats = np.array([[0.0, 0.5, 1.0, np.nan, -1.0]], np.float32)
    assert pixels(encoded(Image.fromarray(floats), "TIFF"))[0, :, 0].tolist() == [0, 128, 255, 0, 0]


def png_16_bit_rgb(values: np.ndarray) -> bytes:
    """Pillow cannot write 16-bit RGB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_rgb():
    array = pixels(png_16_bit_rgb(RGB.astype(np.uint16) * 257))
    assert np.array_equal(array, RGB)


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored top is the right side
    array = pixels(encoded(Image.fromarray(RGB), "PNG", exif=exif))
    assert np.array_equal(array, np.rot90(RGB, -1))


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        photo = images.load_photo(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
        assert photo.getpixel((3, 3)) == (255, 0, 0)
        assert "3 frames" in photo.info["notes"][0]


def test_colour_profile_is_converted_to_srgb():
    linear = linear_profile()
    array = pixels(encoded(Image.new("RGB", (4, 4), (55, 55, 55)), icc_profile=linear))
    # Linear 55 / 255 is 0.2157; the sRGB curve makes that 0.502.
    assert np.abs(array.astype(int) - 128).max() <= 2
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(pixels(encoded(Image.fromarray(RGB), icc_profile=srgb)), RGB)
    assert np.array_equal(pixels(encoded(Image.fromarray(RGB), icc_profile=b"broken")), RGB)


def linear_profile() -> bytes:
    """An sRGB profile whose three tone curves are replaced by the identity."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(struct.unpack(">I", data[128:132])[0]):
        name, offset, size = struct.unpack(">4sII", data[132 + 12 * index : 144 + 12 * index])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + 12] = b"curv" + struct.pack(">II", 0, 0)
            assert size >= 12
        if name == b"desc":
            text = bytes(data[offset : offset + size])
            data[offset : offset + size] = text.replace("sRGB".encode("utf-16-be"), "LINR".encode("utf-16-be"))
    return bytes(data)


def test_what_is_refused(tmp_path):
    assert "empty" in refusal(b"")
    assert "not a readable image" in refusal(b"hello, I am a text file")
    assert "not a readable image" in refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    missing = tmp_path / "nowhere.png"
    assert "nowhere.png" in refusal(missing)
    assert tmp_path.name in refusal(tmp_path)
    assert "cannot be read" in refusal("a\0b.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_truncated(kind, tmp_path):
    data = encoded(Image.fromarray(picture(200, 150)), kind)
    path = tmp_path / "half.png"
    path.write_bytes(data[: len(data) // 2])
    assert "half.png" in refusal(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 15_000, 60_000])
def test_decompression_bomb_is_refused_before_decoding(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    message = refusal(bomb)
    assert "megapixels" in message and (str(side) in message or str(side * side) in message)


@pytest.mark.parametrize(
    ("photo_size", "size", "base", "holds_2"),
    [
        ((1024, 683), 512, (512, 341), True),
        ((1023, 683), 512, (512, 341), False),
        ((600, 400), 512, (512, 341), False),
        ((100, 80), 512, (100, 80), False),
        ((20, 4000), 512, (2, 512), True),
        ((1, 1), 512, (1, 1), False),
        ((1, 3000), 512, (1, 512), False),
        ((1000, 1000), 500, (500, 500), True),
    ],
)
def test_fit(photo_size, size, base, holds_2):
    fitted = images.fit(Image.new("RGB", photo_size), size)
    assert fitted.size == base
    assert fitted.holds(2) is holds_2
    assert fitted.at(2).shape == (2 * base[1], 2 * base[0], 3)
    left, top, right, bottom = fitted.box
    assert (right - left) / (bottom - top) == pytest.approx(base[0] / base[1])
    assert left == pytest.approx(photo_size[0] - right) and top == pytest.approx(photo_size[1] - bottom)


@pytest.mark.parametrize(
    ("size", "noted"),
    [((2000, 3), True), ((3, 2000), True), ((2000, 7), True), ((10_000, 1), True), ((1, 1), False),
     ((1023, 683), False), ((2000, 600), False), ((512, 511), False), ((700, 2), True)],
)  # fmt: skip
def test_a_photo_that_is_cut_is_noted(size, noted):
    photo = Image.new("RGB", size)
    photo.info["notes"] = ("turned",)
    notes = images.fit(photo, 512).notes
    assert notes[0] == "turned" and len(notes) == 1 + noted
    assert not noted or f"{size[0]} x {size[1]}" in notes[1]


def test_fit_of_the_exact_size_is_the_photo_itself():
    fitted = images.fit(Image.fromarray(RGB), 24)
    assert np.array_equal(fitted.at(2), RGB)


def test_tensor_round_trip():
    tensor = images.to_tensor(RGB)
    assert tensor.shape == (1, 3, 32, 48)
    assert tensor[0, 2, 5, 7].item() == pytest.approx(RGB[5, 7, 2] / 255)
    assert np.array_equal(images.to_array(tensor), RGB)
    assert images.to_array(tensor * 0 + 2).max() == 255 and images.to_array(tensor * 0 - 2).min() == 0


def test_save_png_is_lossless_and_carries_text(tmp_path):
    path = tmp_path / "new" / "a.png"
    images.save_png(RGB, path, {"lua_demo": "scale 2, ü"})
    with Image.open(path) as image:
        assert image.text["lua_demo"] == "scale 2, ü"
        assert np.array_equal(np.asarray(image), RGB)


def test_save_display_is_lossless(tmp_path):
    path = images.save_display(RGB, tmp_path / "a.webp")
    assert path.suffix == ".webp" and np.array_equal(np.asarray(Image.open(path)), RGB)
    long = np.zeros((1, images.WEBP_MAX_SIDE + 1, 3), np.uint8)
    path = images.save_display(long, tmp_path / "b.webp")
    assert path.suffix == ".png" and np.array_equal(np.asarray(Image.open(path)), long)


def test_list_images(tmp_path, photo):
    with pytest.raises(UserError, match="not a folder"):
        images.list_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no photo"):
        images.list_images(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    paths = [photo(8, 9), photo(8, 8)]
    assert images.list_images(tmp_path) == sorted(paths)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_example_photographs_are_those_that_scikit_image_ships(name):
    """Their licences are those that its documentation names, and assets/examples/README.md repeats."""
    import skimage.data

    shipped = Path(skimage.data.__file__).parent / f"{name}.png"
    assert (EXAMPLES / f"{name}.png").read_bytes() == shipped.read_bytes()
    assert f"`{name}.png`" in (EXAMPLES / "README.md").read_text()
