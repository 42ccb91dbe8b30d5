"""A comparison as one file: read back, and the page in a real browser without any network."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import picture
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from lua_demo.pictures import images, metrics
from lua_demo.pictures.latents import load_latent, save_latent
from lua_demo.report import records
from lua_demo.runs import export
from lua_demo.runs.export import BAND, MARGIN
from lua_demo.runs.pins import colour, read_pins
from lua_demo.runs.provenance import read_png
from lua_demo.runs.store import Run, Store, read_run
from lua_demo.schema import BaseLatent, Environment, Request, Result, Span, UserError

CHROMIUM = shutil.which("chromium")
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<!--"
WIDTH, HEIGHT = 120, 90
READ = """() => {
    const canvas = document.querySelector('#viewer [data-ref=single] canvas'), {width, height} = canvas;
    return [width, height, [...canvas.getContext('2d').getImageData(0, 0, width, height).data]];
}"""


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return {
        "base": picture(WIDTH // 2, HEIGHT // 2),
        "lua": picture(WIDTH, HEIGHT),
        "swinir": 255 - picture(WIDTH, HEIGHT),
    }


@pytest.fixture
def run(tmp_path, arrays) -> Run:
    """A stored run whose every free text is hostile."""
    source = tmp_path / "a photo &copy; <b>.png"
    images.save_png(picture(WIDTH, HEIGHT), source)
    spans = (Span("encode", 0.25, 1 << 20, cold=True), Span(HOSTILE, 0.5, 2 << 20, shared=True))
    results = [Result(key, f"{key} {HOSTILE}", array, spans, {"psnr": 30.0}) for key, array in arrays.items()]
    results.append(Result("native", "Native", None, skipped=HOSTILE, notes=(HOSTILE,)))
    request = Request(str(source), 2, 60, (*arrays, "native", "bicubic"), seed=9)
    environment = Environment(HOSTILE, "float32", {"lua": HOSTILE}, {"torch": HOSTILE})
    shelf = Store(tmp_path / "store", pinned=None)
    draft = shelf.draft()
    for key, array in arrays.items():
        images.save_display(array, draft / f"{key}.webp")
    save_latent(draft / "latent.safetensors", BaseLatent(np.zeros((16, 6, 8), np.float32), "embedded", (60, 45)))
    return shelf.finish(draft, records.to_json(request, results, environment), source)


class Elements(HTMLParser):
    """Every element with its attributes, and the text of scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.found and self.found[-1][0] == "script" and self.scripts[-1] == "":
            self.scripts[-1] = data


def test_html_is_one_file_and_text_stays_text(run):
    content = export.html(run).decode()
    page = Elements(content)
    assert "img" not in {tag for tag, _ in page.found} and len(page.scripts) == 2
    for tag, attributes in page.found:
        assert not {name for name in attributes if name in ("src", "href") or name.startswith("on")}, tag
    assert "http://" not in content.replace("http://www.w3.org/2000/svg", "") and "https://" not in content
    assert "@import" not in content and "url(" not in content.replace("url(#", "")  # its own filter
    data = json.loads(page.scripts[0])
    assert [pane["key"] for pane in data["panes"]] == ["base", "lua", "swinir", "native", "bicubic"]
    assert data["panes"][1]["label"] == f"lua {HOSTILE}" and data["panes"][3]["detail"] == f"Left out: {HOSTILE}"
    assert [bool(pane["image"]) for pane in data["panes"]] == [True, True, True, False, False]
    assert "0.250" in content and "seed</dt><dd>9</dd>" in content and run.document["source"]["sha256"] in content


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; apt-get install chromium runs these tests")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_html_opens_from_disk_without_network(run, tmp_path, arrays, scheme):
    file = tmp_path / "comparison.html"
    file.write_bytes(export.html(run, "mode=slider&left=swinir&right=lua&zoom=1&split=1&pins=0.5_0.5"))
    problems, requested = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(offline=True, color_scheme=scheme, viewport={"width": 1000, "height": 800})
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
        page.on("dialog", lambda dialog: problems.append("a dialog"))
        page.on("request", lambda request: requested.append(request.url.split(":", 1)[0]))
        page.goto(file.as_uri())
        expect(page.locator("#viewer [data-ref=single] .tag.left b")).to_have_text(f"swinir {HOSTILE}")
        expect(page.locator("#viewer [data-ref=stage]")).to_have_attribute("aria-busy", "false")
        width, height, data = page.evaluate(READ)
        shown = np.array(data, np.uint8).reshape(height, width, 4)
        top, left = (height - HEIGHT) // 2, (width - WIDTH) // 2
        assert np.array_equal(shown[top : top + HEIGHT, left : left + WIDTH, :3], arrays["swinir"])
        page.get_by_role("button", name="Grid").click()
        expect(page.locator("#viewer .grid .pane canvas")).to_have_count(3)
        expect(page.locator(".timing table tbody tr")).to_have_count(3)
        page.locator("#viewer .stage").press("n")  # in a worker, which the page's policy has to allow
        page.get_by_label("Reference").select_option("lua")
        measured = page.locator("#viewer [data-ref=numbers] tbody tr").nth(2).locator("td").first
        expect(measured).to_have_text(f"{metrics.psnr(arrays['swinir'], arrays['lua']):.2f}")
        page.set_input_files("#viewer [data-ref=file]", tmp_path / "a photo &copy; <b>.png")
        expect(page.locator("#viewer .grid .pane canvas")).to_have_count(4)
        expect(page.locator("#viewer [data-ref=pins] .colour span").nth(1)).to_have_text(
            " ".join(map(str, arrays["lua"][HEIGHT // 2, WIDTH // 2]))
        )
        ink = page.locator("h1").evaluate("e => getComputedStyle(e).color.match(/[0-9]+/g).slice(0, 3).map(Number)")
        assert (min(ink) > 200) == (scheme == "dark")
        browser.close()
    assert problems == [] and set(requested) <= {"file", "data", "blob"}


def test_strip_shows_the_same_part_of_each_pixel_by_pixel(run, arrays):
    side = 40
    sheet = np.asarray(Image.open(io.BytesIO(export.strip(run, (0.25, 0.9), side))).convert("RGB"))
    left, top = round(0.25 * WIDTH - side / 2), HEIGHT - side
    arrays["base"] = arrays["base"].repeat(2, 0).repeat(2, 1)
    for index, array in enumerate(arrays.values()):
        x = MARGIN + index * (side + MARGIN)
        part = sheet[BAND : BAND + side, x : x + side]
        assert np.array_equal(part, array[top : top + side, left : left + side]), index
        label = sheet[:BAND, x : x + side]
        assert label.min() < 100, "something is written above each"
    assert sheet[BAND + side :].min() < 150, "and below all"


def test_strip_has_the_pins(run, arrays):
    side, pins = 40, read_pins("0.25_0.9~0.9_0.1")
    plain = np.asarray(Image.open(io.BytesIO(export.strip(run, (0.25, 0.9), side))).convert("RGB"))
    sheet = np.asarray(Image.open(io.BytesIO(export.strip(run, (0.25, 0.9), side, pins))).convert("RGB"))
    assert sheet.shape[0] == plain.shape[0] + 2 * export.PIN_LINE
    part, marked = (picture[BAND : BAND + side, MARGIN : MARGIN + side].astype(int) for picture in (plain, sheet))
    changed = np.argwhere((part != marked).any(-1))
    assert len(changed) and changed.max() < side, "the one inside is marked"
    assert not np.array_equal(part, marked)
    assert colour(Image.fromarray(arrays["lua"]), pins[0]) == tuple(arrays["lua"][int(0.9 * HEIGHT), WIDTH // 4])
    assert export.make(run, "strip.png", "pins=0.25_0.9") != export.make(run, "strip.png", "pins=0.25_7")


@pytest.mark.parametrize("text", ["", "1", "0.5_0.5_0.5", "0.5_x", "2_0.5", "nan_0.5", "~".join(["0.5_0.5"] * 9)])
def test_pins_that_are_none_are_left_out(text):
    assert read_pins(text) == []


def test_blink_is_lossless_and_names_what_it_shows(run, arrays):
    content = export.blink(run, "swinir", "base")
    with Image.open(io.BytesIO(content)) as animation:
        assert (animation.n_frames, animation.info["loop"], animation.size) == (2, 0, (WIDTH, HEIGHT + BAND))
        frames = []
        for index in range(2):
            animation.seek(index)
            frames.append(np.asarray(animation.convert("RGB")))
            assert animation.info["duration"] == export.BLINK_MS
    assert np.array_equal(frames[0][:HEIGHT], arrays["swinir"])
    assert np.array_equal(frames[1][:HEIGHT], arrays["base"].repeat(2, 0).repeat(2, 1))
    assert not np.array_equal(frames[0][HEIGHT:], frames[1][HEIGHT:])
    middle = export.blink(run, "lua", "swinir", side=50)
    with Image.open(io.BytesIO(middle)) as animation:
        part = arrays["lua"][(HEIGHT - 50) // 2 :, (WIDTH - 50) // 2 :][:50, :50]
        assert np.array_equal(np.asarray(animation.convert("RGB"))[:50], part)


def test_every_offer_can_be_made(run, arrays):
    names = [name for name, _ in export.offers(run)]
    assert len(set(names)) == len(names) and {"base.png", "lua.png", "swinir.png"} < set(names)
    assert "native.png" not in names and "latent.safetensors" in names
    files = {name: export.make(run, name, "mode=grid&x=0.3&y=nan&left=base&right=gone") for name in names}
    for method, array in arrays.items():
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(files[f"{method}.png"]))), array)
    with Image.open(io.BytesIO(files["blink.webp"])) as animation:
        assert np.array_equal(np.asarray(animation.convert("RGB"))[:HEIGHT:2, ::2], arrays["base"])
    for wrong in ("native.png", "../run.json", "run.json", ""):
        with pytest.raises(UserError, match="there is no file"):
            export.make(run, wrong)


def test_files_tell_nothing_of_the_store(run, tmp_path):
    """A picture that is given away leads nobody to the photo, which only the link does."""
    for name, _ in export.offers(run):
        content = export.make(run, name)
        for secret in (run.id, "source.png", str(tmp_path)):
            assert secret.encode() not in content, (name, secret)


def test_png_and_zip_are_what_the_command_line_writes(run, tmp_path, arrays):
    (tmp_path / "lua.png").write_bytes(export.make(run, "lua.png"))
    made = read_png(tmp_path / "lua.png")
    assert made.request.seed == 9 and made.method == "lua" and made.sha256 == run.document["source"]["sha256"]
    with zipfile.ZipFile(io.BytesIO(export.make(run, "results.zip"))) as archive:
        archive.extractall(tmp_path / "out")
    again = read_run(tmp_path / "out", "results.json")
    assert set(again.pictures()) == set(arrays) and again.document["settings"] == run.document["settings"]
    assert load_latent(tmp_path / "out" / "latent.safetensors").size == (60, 45)
    assert again.document["methods"]["lua"]["file"] == "lua.png"
    assert json.loads(export.make(run, "results.json")) == again.document


def test_blink_refuses_what_is_not_there(run):
    with pytest.raises(UserError, match=re.escape("there is no picture of 'native'; choose two of base, lua, swinir")):
        export.blink(run, "lua", "native")


def test_without_pictures(tmp_path, photo):
    document = records.to_json(Request(str(photo(20, 20))), [], Environment("cpu", "float32"))
    empty = Run("", tmp_path, document)
    assert [name for name, _ in export.offers(empty)] == ["results.json"]
    with pytest.raises(UserError, match="no pictures"):
        export.html(empty)


def test_labels_are_drawn_with_letters_that_the_font_has():
    assert export._plain("Zürich, 30 × 20 px · 2 s, 山") == "Zurich, 30 x 20 px · 2 s, ?"
