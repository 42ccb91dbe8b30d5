"""TIFF and HEIC in the photo field: a preview is shown, the file itself is compared."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from conftest import picture
from gradio.components.image import ImageData
from PIL import Image
from playwright.sync_api import expect

from lua_demo.ui import preview
from lua_demo.ui.inputs import PhotoInput


@pytest.fixture
def uploads(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / ("a" * 64)).mkdir()
    return tmp_path / ("a" * 64)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.tif", "TIFF"), ("Zürich 山.HEIC", "HEIF"), ("b.pgm", "PPM"), ("c.jp2", "JPEG2000")]
)
def test_a_preview_that_leads_back_to_the_file(name, kind, uploads, tmp_path):
    pillow_heif.register_heif_opener()
    path = uploads / name
    Image.fromarray(picture(1600, 1200)).save(path, kind)
    field = PhotoInput(type="filepath")
    shown = field.postprocess(str(path)).path
    with Image.open(shown) as small:
        assert small.format == "WEBP" and small.size == (768, 576)
    moved = tmp_path / "elsewhere" / Path(shown).name  # gradio copies what it serves
    for back in (shown, str(moved)):
        assert field.preprocess(ImageData(path=back)) == str(path)
    assert preview.preview_of(shown) == shown


def test_what_browsers_draw_and_what_cannot_be_read_stays(uploads, tmp_path):
    Image.fromarray(picture(40, 30)).save(uploads / "a.png")
    (uploads / "b.tif").write_bytes(b"no picture")
    for name in ("a.png", "b.tif", "gone.heic"):
        assert preview.preview_of(str(uploads / name)) == str(uploads / name)
    for odd in ("../x.tif", "a" * 64 + "...preview.webp", "a" * 64 + ".gone.tif.preview.webp", "x.preview.webp"):
        assert preview.original_of(odd) == odd
    assert not (tmp_path / "previews").exists()


@pytest.mark.browser
def test_a_tiff_in_the_field_is_drawn(open_page, tmp_path):
    Image.fromarray(np.full((60, 80, 3), (200, 60, 40), np.uint8)).save(tmp_path / "red.tif")
    page = open_page()
    page.locator("#source").get_by_text("Photo").click()
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "red.tif")
    image = page.locator("#photo img")
    expect(image).to_have_attribute("src", re.compile(r"preview\.webp"))
    page.wait_for_function("() => document.querySelector('#photo img')?.naturalWidth > 0")
