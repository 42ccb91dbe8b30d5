"""The page in a real browser: Debian's chromium, the real engine, toy weights."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import set_advanced
from PIL import Image
from playwright.sync_api import Page, expect

from lua_demo.engine import Engine
from lua_demo.runs.store import Store
from lua_demo.schema import Request, Result

pytestmark = pytest.mark.browser
METHODS = ("base", "lua", "swinir", "bicubic", "native")
WIDTH, HEIGHT = 240, 180  # of the photo: the base is not enlarged, so results are 480 x 360 and fit the window at 1:1
READ_CANVAS = """() => {
    const canvas = document.querySelector('#viewer [data-ref=single] canvas'), {width, height} = canvas;
    const bytes = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    let text = '';
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return [width, height, btoa(text)];
}"""


def clear_photo(page: Page) -> None:
    if page.get_by_role("button", name="Remove Image").count():
        page.get_by_role("button", name="Remove Image").click()


def upload(page: Page, path: Path) -> None:
    page.locator("#source").get_by_text("Photo").click()
    clear_photo(page)
    page.set_input_files("#photo input[type=file]", path)
    expect(page.locator("#photo img")).to_have_attribute("src", re.compile(re.escape(path.name)))


def expect_state(page: Page, state: str) -> None:
    expect(page.locator("#status .line")).to_have_attribute("data-state", state, timeout=60_000)


def shared_run(page: Page) -> str:
    """The id in the link below the pictures; empty before the first comparison."""
    return re.search(r"run=([\w-]*)|$", page.locator("#share [data-ref=link]").input_value())[1] or ""


def compare(page: Page, path: Path | None = None) -> None:
    """Run to the end; the id in the link tells this run from the one before."""
    before = shared_run(page)
    if path:
        upload(page, path)
    page.click("#compare")
    link = page.locator("#share [data-ref=link]")
    expect(link).to_have_value(re.compile(rf"run=(?!{before or 'none'}\b)"), timeout=60_000)
    expect_state(page, "done")


def ask_for_much(page: Page, path: Path) -> None:
    """Settings that keep even toy networks busy for seconds."""
    upload(page, path)
    page.get_by_role("radio", name="4×").check()
    set_advanced(page, size=1024)


def overflow(page: Page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def canvas(page: Page) -> np.ndarray:
    """H x W x 4: what the canvas holds, after the frame that is due and all that it waits for."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(page.locator("#viewer .stage")).to_have_attribute("aria-busy", "false", timeout=60_000)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    width, height, data = page.evaluate(READ_CANVAS)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)


def centre(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The width x height picture in the middle of the canvas, RGB."""
    top, left = round(pixels.shape[0] / 2 - height / 2), round(pixels.shape[1] / 2 - width / 2)
    return pixels[top : top + height, left : left + width, :3]


def truth(toy_weights: Path, path: Path) -> dict[str, np.ndarray]:
    events = Engine("cpu", weights=toy_weights).compare(Request(str(path), methods=METHODS))
    return {event.method: event.image for event in events if isinstance(event, Result) and event.image is not None}


def test_slider_shows_the_engines_pixels(open_page, photo, toy_weights):
    page, path = open_page(), photo(WIDTH, HEIGHT)
    compare(page, path)
    expected = truth(toy_weights, path)
    page.get_by_label("Picture on the left").select_option("bicubic")
    page.get_by_label("Picture on the right").select_option("lua")
    page.get_by_role("button", name="1:1").click()
    divider, stage = page.locator("#viewer .divider"), page.locator("#viewer .stage").bounding_box()

    divider.focus()
    page.keyboard.press("End")
    assert np.array_equal(centre(canvas(page), 2 * WIDTH, 2 * HEIGHT), expected["bicubic"])
    page.keyboard.press("Home")
    assert np.array_equal(centre(canvas(page), 2 * WIDTH, 2 * HEIGHT), expected["lua"])

    # By mouse to the middle of the left half: one side changes, the other does not.
    handle = divider.bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + 40)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] * 0.4, stage["y"] + 60, steps=4)
    page.mouse.up()
    pixels = canvas(page)
    split = round(0.4 * pixels.shape[1]) - round(pixels.shape[1] / 2 - WIDTH)
    shown = centre(pixels, 2 * WIDTH, 2 * HEIGHT)
    assert np.array_equal(shown[:, : split - 2], expected["bicubic"][:, : split - 2])
    assert np.array_equal(shown[:, split + 2 :], expected["lua"][:, split + 2 :])
    expect(divider).to_have_attribute("aria-valuenow", "40")
    pane = page.locator("#viewer [data-ref=single]")
    expect(pane.locator(".tag.left b")).to_have_text("Bicubic latent")
    expect(pane.locator(".tag.right span")).to_have_text(re.compile(rf"{2 * WIDTH} × {2 * HEIGHT} px · \d"))

    # A small picture beside a large one: each of its pixels covers 2 x 2 of the large one's.
    page.get_by_label("Picture on the left").select_option("base")
    divider.focus()
    page.keyboard.press("End")
    assert np.array_equal(centre(canvas(page), 2 * WIDTH, 2 * HEIGHT), expected["base"].repeat(2, 0).repeat(2, 1))
    page.get_by_role("button", name="Smooth").click()
    assert not np.array_equal(centre(canvas(page), 2 * WIDTH, 2 * HEIGHT), expected["base"].repeat(2, 0).repeat(2, 1))


def test_zoom_pan_and_pair_survive_the_next_run(open_page, photo):
    page = open_page()
    compare(page, photo(WIDTH, HEIGHT))
    page.get_by_label("Picture on the left").select_option("base")
    page.get_by_role("button", name="4×", exact=True).click()
    before = canvas(page)
    page.locator("#viewer .stage").focus()
    page.keyboard.press("ArrowRight")
    moved = canvas(page)
    assert not np.array_equal(before, moved)
    compare(page)
    assert np.array_equal(canvas(page), moved)
    expect(page.get_by_label("Picture on the left")).to_have_value("base")
    page.mouse.move(*page.locator("#viewer .stage").evaluate("e => [e.getBoundingClientRect().x + 200, 300]"))
    page.mouse.wheel(0, -300)
    assert not np.array_equal(canvas(page), moved)
    page.get_by_role("button", name="Fit").click()
    expect(page.get_by_role("button", name="Fit")).to_have_attribute("aria-pressed", "true")


def test_grid_shows_all_and_says_what_is_missing(open_page, photo):
    page = open_page()
    compare(page, photo(WIDTH, HEIGHT))
    page.get_by_role("button", name="Grid").click()
    expect(page.locator("#viewer .grid .pane canvas")).to_have_count(5)
    missing = page.locator("#viewer .grid .pane .wait")
    expect(missing).to_have_text(re.compile(f"Left out: the photo is {WIDTH} x {HEIGHT}"))
    picture = page.locator("#viewer").screenshot()
    assert len(picture) > 20_000  # a blank one of this size compresses to a few kB


def test_stop_stops_and_the_next_run_works(open_page, photo):
    page = open_page()
    compare(page, photo(WIDTH, HEIGHT))
    ask_for_much(page, photo(1024, 768))
    page.click("#compare")
    expect_state(page, "busy")
    page.click("#stop")
    expect_state(page, "stopped")
    expect(page.locator("#status .text")).to_have_text(re.compile(r"^Stopped\. [0-5] of 6 finished\.$"))
    page.get_by_role("radio", name="2×").check()
    compare(page, photo(WIDTH, HEIGHT))


def test_second_visitor_waits_and_can_leave_the_queue(open_page, photo):
    first, second = open_page(), open_page()
    ask_for_much(first, photo(1024, 768))
    upload(second, photo(WIDTH, HEIGHT))
    first.click("#compare")
    expect_state(first, "busy")
    second.click("#compare")
    expect_state(second, "waiting")
    second.click("#stop")
    expect_state(second, "stopped")
    expect_state(first, "busy")
    first.click("#stop")
    expect_state(first, "stopped")
    second.click("#compare")
    expect_state(second, "done")


def test_bad_file_is_named_and_keeps_the_results(open_page, photo, tmp_path):
    page, bad = open_page(), tmp_path / "broken.png"
    bad.write_bytes(b"not a picture")
    compare(page, photo(WIDTH, HEIGHT))
    upload(page, bad)
    page.click("#compare")
    expect_state(page, "error")
    expect(page.locator("#status .text")).to_have_text(re.compile(r"broken\.png .*; use PNG"))
    expect(page.get_by_test_id("toast-body")).to_contain_text(re.compile(r"broken\.png .*; use PNG"))
    expect(page.locator("#viewer [data-ref=single]")).to_be_visible()
    expect(page.locator("#timing table")).to_be_visible()


def test_a_crash_does_not_look_busy(open_page, photo, monkeypatch):
    page = open_page()
    compare(page, photo(WIDTH, HEIGHT))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "draft", lambda store: 1 / 0)
        page.click("#compare")
        expect_state(page, "error")
        expect(page.locator("#status .text")).to_contain_text("error of the program")
    compare(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_phone_and_dark(open_page, photo, theme):
    page = open_page(390, 844, theme, has_touch=True, device_scale_factor=2)
    assert overflow(page) == 0
    ink = page.locator("h1").evaluate("e => getComputedStyle(e).color.match(/[0-9]+/g).slice(0, 3).map(Number)")
    assert (min(ink) > 200) == (theme == "dark")
    compare(page, photo(WIDTH, HEIGHT))
    assert overflow(page) == 0
    pixels = canvas(page)
    assert pixels.shape[1] == 2 * round(page.locator("#viewer .stage").bounding_box()["width"])
    assert pixels[..., :3].std() > 10
    shot = page.locator("#viewer").screenshot()
    assert len(shot) > 10_000
    page.get_by_role("button", name="Grid").tap()
    assert overflow(page) == 0


def test_files_are_offered_when_it_is_done(open_page, photo, tmp_path, toy_weights):
    page, path = open_page(), photo(WIDTH, HEIGHT)
    expect(page.locator("#share [data-ref=rows]")).to_be_hidden()
    compare(page, path)
    for _ in range(2):  # the second time it is there already
        page.get_by_label("File to download").select_option("lua.png")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download", exact=True).click()
        assert download.value.suggested_filename == f"photo_{WIDTH}x{HEIGHT}_x2_lua.png"
        download.value.save_as(tmp_path / "lua.png")
        with Image.open(tmp_path / "lua.png") as picture:
            assert np.array_equal(np.asarray(picture), truth(toy_weights, path)["lua"])
    page.get_by_label("File to download").select_option("comparison.html")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    download.value.save_as(tmp_path / "comparison.html")
    assert b"data:image/webp;base64," in (tmp_path / "comparison.html").read_bytes()
