"""The comparison viewer in a real browser, in a small page of its own: Debian's chromium, no engine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageFilter
from playwright.sync_api import Page, expect
from viewing import canvas, corner, crop, one_file, settled, view

from lua_demo.pictures import images
from lua_demo.ui.theme import theme
from lua_demo.ui.viewer import CompareViewer, Pane, View

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parent.parent
LABELS = {
    "base": "Base",
    "lua": "LUA (latent)",
    "swinir": "SwinIR (pixels)",
    "bicubic": "Bicubic latent",
    "native": "Native (original)",
}
NAMES = tuple(LABELS)
# Pixels of all ImageBitmaps that are open, now and at most.
COUNT_BITMAPS = """() => {
    const make = window.createImageBitmap, close = ImageBitmap.prototype.close;
    window.bitmaps = { now: 0, most: 0 };
    window.createImageBitmap = async (...given) => {
        const bitmap = await make(...given);
        bitmaps.now += bitmap.width * bitmap.height;
        bitmaps.most = Math.max(bitmaps.most, bitmaps.now);
        return bitmap;
    };
    ImageBitmap.prototype.close = function () { bitmaps.now -= this.width * this.height; close.call(this); };
}"""


def blurred(source: Image.Image, side: int) -> dict[str, Image.Image]:
    """Five versions of one square photo; the base has a quarter of the side."""
    whole = source.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    blur = {"lua": 1, "swinir": 2, "bicubic": 4, "native": 0}
    versions = {name: whole.filter(ImageFilter.BoxBlur(radius)) for name, radius in blur.items()}
    return {"base": whole.resize((side // 4, side // 4), Image.Resampling.BOX), **versions}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("viewer")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Five pictures with noise in every pixel; the base is a quarter as large."""
    sides = {name: (2048, 1536) for name in NAMES} | {"base": (512, 384)}
    grain = np.random.default_rng(0)
    return {
        name: (picture(*size).astype(int) + grain.integers(-20, 20, (size[1], size[0], 3))).clip(0, 255).astype("uint8")
        for name, size in sides.items()
    }


@pytest.fixture(scope="module")
def sets(folder, arrays) -> dict[str, list[Pane] | View]:
    """What the buttons of the page show."""

    def panes(name: str, files: dict[str, Path]) -> list[Pane]:
        return [Pane(key, LABELS[key], f"{name} · 0.5 s", files[key]) for key in NAMES if key in files]

    exact = {name: images.save_display(array, folder / f"{name}.webp") for name, array in arrays.items()}
    huge = {}
    source = Image.open(ROOT / "assets" / "examples" / "misty-forest.jpg")
    for name, version in blurred(source, 4096).items():
        huge[name] = folder / f"huge_{name}.jpg"
        version.save(huge[name], quality=90)
    y, x = np.mgrid[0:1024, 0:1024]
    checks = np.repeat(((x + y) % 2 * 255).astype("uint8")[..., None], 3, 2)
    state = "mode=difference&left=lua&right=native&zoom=2&x=0.3&y=0.6&gain=4&map=signed&smooth=1"
    missing = Pane("swinir", "SwinIR (pixels)", "Left out: too large")
    return {
        "exact": panes("2048 × 1536 px", exact),
        "first": panes("2048 × 1536 px", {name: exact[name] for name in ("base", "lua")}),
        "huge": panes("4096 × 4096 px", huge),
        "checks": panes("1024 × 1024 px", {"lua": images.save_display(checks, folder / "checks.webp")}),
        "state": View(panes("2048 × 1536 px", exact), state),
        "same state": View(panes("2048 × 1536 px", {name: exact[name] for name in ("lua", "native")}), state),
        "broken state": View(panes("2048 × 1536 px", exact), "mode=cube&zoom=4&x=7&gain=&constructor=1&left=nobody"),
        "odd": [
            *panes("2048 × 1536 px", {"lua": exact["lua"]}),
            missing,
            Pane("x", "<img src=x onerror=boom()>", "${1}"),
        ],
    }


@pytest.fixture(scope="module")
def url(sets, folder) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, gr.Blocks(analytics_enabled=False, fill_width=True) as demo:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        viewer = CompareViewer(elem_id="viewer", pair=("swinir", "lua"))
        with gr.Row():
            for name in sets:
                gr.Button(name, elem_id=f"show-{name.replace(' ', '-')}").click(
                    lambda name=name: sets[name], None, viewer, show_progress="hidden"
                )
        demo.launch(
            prevent_thread_lock=True,
            quiet=True,
            server_name="127.0.0.1",
            theme=theme(),
            ssr_mode=False,
            footer_links=[],
        )
        yield demo.local_url
        demo.close()


@pytest.fixture
def open_page(browser, url):
    """open_page(set, width, height) -> a page that fails the test if it logs an error or leaves this machine."""
    problems: list[str] = []
    contexts = []

    def open_(
        show: str = "exact", width: int = 1280, height: int = 900, *, theme="light", address=url, **options
    ) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(f"({COUNT_BITMAPS})()")
        page.on("pageerror", lambda error: problems.append(f"pageerror {error}"))
        page.on("console", lambda line: problems.append(line.text) if is_ours(line) else None)
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else problems.append(r.url))
        page.goto(f"{address}?__theme={theme}")
        expect(page.locator(".stage")).to_be_visible(timeout=30_000)
        if show:
            choose(page, show)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []


def is_ours(line) -> bool:
    return line.type == "error" or "CompareViewer" in line.text


def choose(page: Page, name: str) -> None:
    page.locator(f"#show-{name.replace(' ', '-')}").click()
    expect(page.locator(".empty")).to_be_hidden(timeout=60_000)
    settled(page)


def test_native_pixels_at_2048_in_every_mode(open_page, arrays):
    page = open_page()
    page.get_by_role("button", name="1:1").click()
    for key in ("Home", "End"):
        page.locator(".divider").press(key)
        pixels = canvas(page)
        assert np.array_equal(pixels, crop(arrays["lua" if key == "Home" else "swinir"], page, pixels))
    page.get_by_role("button", name="Swap left and right").click()
    pixels = canvas(page)
    assert np.array_equal(pixels, crop(arrays["lua"], page, pixels))

    page.get_by_role("button", name="Grid").click()
    settled(page)
    for far in (1500, -1500):  # by mouse, as far as it goes
        box = page.locator(".grid .pane").nth(1).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + far, y + far, steps=4)
        page.mouse.up()
        for name in NAMES[1:]:
            pixels = canvas(page, f".grid [data-key={name}] canvas")
            assert np.array_equal(pixels, crop(arrays[name], page, pixels)), name

    page.locator(".stage").press("5")
    pixels = canvas(page)
    assert np.array_equal(pixels, crop(arrays["native"], page, pixels))
    page.get_by_role("button", name="4×", exact=True).click()
    pixels, whole = canvas(page), arrays["native"].repeat(4, 0).repeat(4, 1)
    top, left = corner(page, arrays["native"], pixels, 4)
    assert np.array_equal(pixels, whole[top : top + len(pixels), left : left + pixels.shape[1]])
    page.get_by_role("button", name="Smooth").click()
    assert not np.array_equal(canvas(page), pixels)


def test_reduced_pictures_are_averages(open_page):
    page = open_page("checks", 700, 600)
    page.get_by_role("button", name="Grid").click()
    shown = canvas(page, ".grid canvas")
    middle = shown[shown.shape[0] // 2 - 100 :][:200, shown.shape[1] // 2 - 100 :][:, :200]
    # Point sampling would show black and white; a level of averages is grey, whatever its size.
    assert abs(middle.mean() - 127.5) < 1.5 and middle.std() < 30


def test_difference_is_exact_and_labelled(open_page, arrays):
    page = open_page()
    page.locator(".stage").press("d")
    page.locator(".stage").press("o")
    tag = page.locator("[data-ref=single] .tag.left")
    expect(tag.locator("b")).to_have_text("Difference: SwinIR (pixels) − LUA (latent), ×8")
    page.get_by_label("Picture on the right").select_option("native")
    for gain in (8, 1):
        page.get_by_label("Gain").fill(str(gain))
        pixels = canvas(page)
        left, right = (crop(arrays[name], page, pixels).astype(int) for name in ("swinir", "native"))
        assert np.array_equal(pixels, (abs(left - right) * gain).clip(max=255))
    expect(tag.locator("b")).to_have_text("Difference: SwinIR (pixels) − Native (original), ×1")
    expect(page.locator("[data-ref=single] canvas")).to_have_attribute("aria-label", re.compile("^Difference: "))

    page.get_by_label("What the colours mean").select_option("signed")
    pixels, brightness = canvas(page).astype(int), (left - right) @ (0.299, 0.587, 0.114)
    assert (pixels[..., 0] > pixels[..., 2])[brightness > 4].all()
    assert (pixels[..., 2] > pixels[..., 0])[brightness < -4].all()
    # The base has a quarter of the side: each of its pixels stands for 4 x 4.
    page.get_by_label("What the colours mean").select_option("colour")
    page.get_by_label("Picture on the left").select_option("base")
    pixels = canvas(page)
    base = arrays["base"].repeat(4, 0).repeat(4, 1).astype(int)
    assert np.array_equal(pixels, abs(crop(base, page, pixels) - crop(arrays["native"], page, pixels)))


def test_blink_flips_in_place_and_says_what_is_shown(open_page, arrays):
    page = open_page()
    page.get_by_role("button", name="Blink").click()
    tag, live = page.locator("[data-ref=single] .tag.left b"), page.locator("[data-ref=live][aria-live=polite]")
    expect(tag).to_have_text("SwinIR (pixels)")
    page.locator(".stage").focus()
    page.keyboard.down("Space")
    expect(tag).to_have_text("LUA (latent)")
    expect(live).to_have_text("LUA (latent)")
    page.keyboard.up("Space")
    expect(tag).to_have_text("SwinIR (pixels)")
    page.keyboard.press("4")
    expect(tag).to_have_text("Bicubic latent")
    expect(page.get_by_role("button", name="4: Bicubic latent")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("9")  # there is none
    expect(tag).to_have_text("Bicubic latent")
    page.get_by_role("button", name="1:1").click()
    for number, name in ((2, "lua"), (5, "native")):  # at once, since all were decoded
        page.keyboard.press(str(number))
        pixels = canvas(page)
        assert np.array_equal(pixels, crop(arrays[name], page, pixels))

    flip = page.get_by_role("button", name="Hold").bounding_box()
    page.mouse.move(flip["x"] + 9, flip["y"] + 9)
    page.mouse.down()
    expect(tag).to_have_text("LUA (latent)")
    page.mouse.move(flip["x"] + 300, flip["y"] + 300)
    page.mouse.up()
    expect(tag).to_have_text("Native (original)")
    page.keyboard.press("2")
    page.get_by_role("button", name="Auto").click()
    for name in ("SwinIR (pixels)", "LUA (latent)", "SwinIR (pixels)"):
        expect(tag).to_have_text(name)
    expect(live).to_have_text("LUA (latent)")  # a clock is not read out
    page.get_by_role("button", name="Slider").click()
    expect(page.get_by_role("button", name="Auto")).to_be_hidden()


def test_magnifier_shows_one_spot_of_every_picture(open_page, arrays):
    page = open_page()
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Magnifier").click()
    expect(page.locator(".loupe canvas")).to_have_count(5)
    expect(page.locator(".loupe figcaption").nth(4)).to_have_text("Native (original)")
    box = page.locator(".stage").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2 - 80)
    settled(page)
    across = page.locator("[data-ref=single] canvas").evaluate("c => c.width / 2 + 60") - box["width"] / 2
    assert across == 60
    shown = {name: canvas(page, f".loupe [data-key={name}] canvas") for name in NAMES}
    # Wherever it is: a piece of the picture, each pixel 4 x 4, and the same piece of all.
    found = {name: piece_of(arrays[name], shown[name], 4) for name in NAMES[1:]}
    assert len(set(found.values())) == 1
    place, side = found["lua"], shown["lua"].shape[0]
    panel, pointer = page.locator(".loupe").bounding_box(), box["y"] + box["height"] / 2 - 80
    assert not panel["y"] <= pointer <= panel["y"] + panel["height"]
    page.locator(".stage").focus()
    page.keyboard.press("Shift+ArrowRight")
    settled(page)
    moved = piece_of(arrays["lua"], canvas(page, ".loupe [data-key=lua] canvas"), 4)
    assert moved[0] == place[0] and 0 < moved[1] - place[1] <= side
    page.keyboard.press("m")
    expect(page.locator(".loupe")).to_be_hidden()
    assert view(page)["loupe"] == "0"


def piece_of(picture: np.ndarray, enlarged: np.ndarray, factor: int) -> tuple[int, int]:
    """Row and column in the picture of the first whole pixel of an enlarged piece of it."""
    for top in range(factor):
        for left in range(factor):
            small = enlarged[top::factor, left::factor][:8, :8]
            block = enlarged[top : top + factor, left : left + factor]
            if (block != block[0, 0]).any():
                continue
            rows, columns = np.nonzero((picture == small[0, 0]).all(-1))
            for row, column in zip(rows, columns, strict=True):
                if np.array_equal(picture[row : row + 8, column : column + 8], small):
                    return int(row), int(column)
    raise AssertionError("not a piece of the picture")


def test_every_view_has_a_key_and_every_control_a_name(open_page):
    page = open_page()
    page.locator(".stage").focus()
    for key, field, value in (
        ("g", "mode", "grid"),
        ("b", "mode", "blink"),
        ("d", "mode", "difference"),
        ("s", "mode", "slider"),
        ("o", "zoom", "1"),
        ("+", "zoom", "1.25"),
        ("-", "zoom", "1"),
        ("p", "smooth", "1"),
        ("m", "loupe", "1"),
        ("f", "zoom", "fit"),
        ("x", "left", "lua"),
        ("3", "show", "swinir"),
    ):
        page.keyboard.press(key)
        assert view(page)[field] == value, key
    page.keyboard.press("o")
    before = float(view(page)["x"])
    page.keyboard.press("ArrowRight")
    assert float(view(page)["x"]) == pytest.approx(before + 80 / 2048, abs=1e-4)
    page.get_by_role("button", name="16×").click()
    page.keyboard.press("ArrowLeft")  # from a button, too
    assert view(page)["zoom"] == "16" and float(view(page)["x"]) == pytest.approx(
        before + 80 / 2048 * 15 / 16, abs=1e-4
    )

    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys and gestures")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    for mode in ("Slider", "Grid", "Blink", "Difference"):
        page.get_by_role("button", name=mode, exact=True).click()
        settled(page)
        controls = page.locator("#viewer :is(button, select, input, [tabindex='0'], canvas):visible:not(.loupe *)")
        names = controls.evaluate_all(
            "all => all.map(e => e.ariaLabel || e.labels?.[0]?.textContent.trim() || e.textContent.trim())"
        )
        assert all(names) and len(names) > 12
    page.locator(".stage").press("s")
    page.locator("[data-ref=left]").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_wheel_zooms_around_the_pointer_and_double_click_changes(open_page):
    page = open_page()
    box = page.locator(".stage").bounding_box()
    right, down = 200, 150  # of the middle

    def under_pointer() -> tuple[float, float]:
        now = view(page)
        zoom = float(now["zoom"])
        return float(now["x"]) + right / (zoom * 2048), float(now["y"]) + down / (zoom * 1536)

    page.mouse.move(box["x"] + box["width"] / 2 + right, box["y"] + box["height"] / 2 + down)
    page.get_by_role("button", name="2×", exact=True).press("Enter")
    before = under_pointer()
    for _ in range(5):
        page.mouse.wheel(0, -60)
    assert float(view(page)["zoom"]) > 2.5 and under_pointer() == pytest.approx(before, abs=1e-3)
    for _ in range(20):
        page.mouse.wheel(0, 200)
    assert view(page)["zoom"] == "fit"
    page.mouse.dblclick(box["x"] + box["width"] / 2 + 100, box["y"] + 60)
    assert view(page)["zoom"] == "1"
    page.mouse.dblclick(box["x"] + box["width"] / 2 + 100, box["y"] + 60)
    assert view(page)["zoom"] == "fit"


def test_state_sets_the_view_once_and_is_written_back(open_page):
    page = open_page("")
    page.evaluate("addEventListener('viewchange', (e) => { window.heard = [...(window.heard ?? []), e.detail] })")
    choose(page, "state")
    expect(page.locator("[data-ref=single] .tag b").first).to_have_text(
        "Difference: LUA (latent) − Native (original), ×4"
    )
    given = dict(mode="difference", left="lua", right="native", zoom="2", x="0.3", y="0.6", gain="4", map="signed")
    now = view(page)
    assert given.items() <= now.items() and now["smooth"] == "1"
    page.wait_for_function("window.heard?.length")
    assert page.locator("#viewer [data-view]").get_attribute("data-view") == page.evaluate("heard.at(-1)")

    # More pictures with the same state are no reason to take the reader's view away; another state is.
    page.locator(".stage").press("g")
    choose(page, "same state")
    expect(page.locator(".grid .pane")).to_have_count(2)
    assert view(page)["mode"] == "grid"
    choose(page, "broken state")
    expect(page.locator(".grid .pane")).to_have_count(5)
    now = view(page)
    assert (now["mode"], now["zoom"], now["x"], now["gain"]) == ("grid", "4", "0.3", "4")
    expect(page.locator("[data-view*='left=swinir']")).to_have_count(1)


def test_pair_follows_the_arrivals_until_it_is_chosen(open_page):
    page = open_page("first")
    expect(page.get_by_label("Picture on the right")).to_have_value("lua")
    expect(page.get_by_label("Picture on the left")).to_have_value("base")
    choose(page, "exact")
    expect(page.get_by_label("Picture on the left")).to_have_value("swinir")
    page.get_by_label("Picture on the right").select_option("native")
    choose(page, "first")
    expect(page.get_by_label("Picture on the right")).not_to_have_value("native")
    choose(page, "exact")
    expect(page.get_by_label("Picture on the right")).to_have_value("native")


def test_texts_are_texts_and_missing_pictures_are_named(open_page):
    page = open_page("odd")
    page.get_by_role("button", name="Grid").click()
    expect(page.locator(".grid .wait").first).to_have_text("Left out: too large")
    expect(page.locator(".grid .tag b").nth(2)).to_have_text("<img src=x onerror=boom()>")
    expect(page.locator(".grid .wait").nth(1)).to_have_text("${1}")


def touch(page: Page, kind: str, *points: tuple[float, float]) -> None:
    touches = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
    page.touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})


def test_touch_pinches_pans_and_scrolls(open_page):
    page = open_page("exact", 390, 600, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.touches = page.context.new_cdp_session(page)
    page.evaluate("document.body.style.paddingBottom = '2000px'")
    page.locator(".stage").scroll_into_view_if_needed()
    settled(page)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    box = page.locator(".stage").bounding_box()
    x, y = box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2

    # The whole picture is visible: a finger scrolls the page.
    start = page.evaluate("scrollY")
    touch(page, "touchStart", (x, y))
    for step in range(1, 9):
        touch(page, "touchMove", (x, y - 15 * step))
    touch(page, "touchEnd")
    page.wait_for_function("start => scrollY > start + 40", arg=start)
    page.evaluate("start => scrollTo(0, start)", start)
    assert view(page)["split"] == "0.5"

    touch(page, "touchStart", (x, y), (x + 20, y))
    for step in range(1, 9):
        touch(page, "touchMove", (x - 8 * step, y), (x + 20 + 8 * step, y))
    touch(page, "touchEnd")
    now = view(page)
    assert now["zoom"] != "fit" and float(now["zoom"]) > 0.5
    start = page.evaluate("scrollY")
    touch(page, "touchStart", (x, y))
    for step in range(1, 9):
        touch(page, "touchMove", (x - 5 * step, y - 5 * step))
    touch(page, "touchEnd")
    assert float(view(page)["x"]) > float(now["x"]) and page.evaluate("scrollY") == start

    for mode in ("Slider", "Grid", "Blink", "Difference"):
        page.get_by_role("button", name=mode, exact=True).tap()
        settled(page)
        assert page.evaluate(overflow) == 0
        assert page.locator("#viewer button:visible").evaluate_all(
            "all => all.every(e => e.getBoundingClientRect().right <= innerWidth)"
        )


PAN = """async ([dx, dy, frames]) => {
    const stage = document.querySelector('.grid .pane'), viewer = document.querySelector('[data-view]');
    const box = stage.getBoundingClientRect();
    const at = (i) => ({ clientX: box.x + 40 + dx * i, clientY: box.y + 40 + dy * i, pointerId: 1, bubbles: true });
    stage.setPointerCapture = () => {};
    const next = () => new Promise(requestAnimationFrame), times = [], drawn = [];
    stage.dispatchEvent(new PointerEvent('pointerdown', at(0)));
    for (let i = 1; i <= frames; i += 1) {
        times.push(await next());
        stage.dispatchEvent(new PointerEvent('pointermove', at(i)));
        drawn.push(Number(viewer.dataset.drawn));
    }
    stage.dispatchEvent(new PointerEvent('pointerup', at(frames)));
    const gaps = times.slice(1).map((time, i) => time - times[i]).sort((a, b) => a - b);
    const canvases = [...document.querySelectorAll('.grid canvas')].reduce((sum, c) => sum + c.width * c.height, 0);
    const atShare = (share) => gaps[Math.floor(gaps.length * share)];
    return { median: atShare(0.5), p95: atShare(0.95), drawn: Math.max(...drawn), canvases };
}"""


def test_pan_of_five_pictures_of_4096_px(open_page, capsys):
    page = open_page("huge", 1440, 900)
    page.get_by_role("button", name="Grid").click()
    expect(page.locator(".grid canvas")).to_have_count(5, timeout=60_000)
    for zoom in ("Fit", "1:1", "4×", "16×"):
        page.get_by_role("button", name=zoom, exact=True).click()
        settled(page)
        run = page.evaluate(PAN, [-3, -2, 60])
        # A level is at most halved; beside the visible part only a rim is read.
        assert run["drawn"] <= 4 * run["canvases"] + 5 * 20_000
        with capsys.disabled():
            print(
                f"\n  pan of five 4096 px pictures, {zoom}: {run['median']:.1f} ms a frame (median), "
                f"{run['p95']:.1f} ms (95th percentile), {run['drawn'] / 1e6:.2f} Mpx read",
                end="",
            )
    assert page.evaluate("bitmaps.now") <= 96e6 + 5 * 1.4e6
    page.get_by_role("button", name="Fit").click()
    settled(page)
    assert page.evaluate("bitmaps.now") <= 5 * 1.4e6  # nothing is kept that is not shown


def test_a_phone_draws_from_crops(open_page, sets):
    page = open_page("huge", 390, 844, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.locator(".stage").press("g")
    page.locator(".stage").press("o")
    expect(page.locator(".grid canvas")).to_have_count(5, timeout=60_000)
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    expected = np.asarray(Image.open(next(pane.file for pane in sets["huge"] if pane.key == "native")).convert("RGB"))
    shown = canvas(page, ".grid [data-key=native] canvas")
    # Browsers decode JPEG by their own rounding; a wrong place would be far off.
    assert abs(shown.astype(int) - crop(expected, page, shown)).mean() < 1
    assert page.evaluate("bitmaps.now") <= 32e6 + 5 * 1.4e6
    assert page.evaluate("bitmaps.most") <= 2 * 32e6 + 5 * 1.4e6  # a new crop before the old one goes


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_file_without_gradio(open_page, folder, arrays, scheme):
    files = {name: folder / f"{name}.webp" for name in ("lua", "native")}
    path = one_file(folder / "one_file.html", files, "mode=blink&show=native&zoom=1")
    page = open_page("", address=path.as_uri(), color_scheme=scheme)
    pixels = canvas(page)
    assert np.array_equal(pixels, crop(arrays["native"], page, pixels))
    paper = "getComputedStyle(document.querySelector('select')).backgroundColor"
    assert page.evaluate(paper) == {"light": "rgb(255, 255, 255)", "dark": "rgb(34, 34, 34)"}[scheme]


def test_the_readmes_example_runs(open_page, folder, monkeypatch):
    readme = (ROOT / "lua_demo" / "ui" / "README.md").read_text("utf-8")
    section = re.search(r"^## The viewer in your own app$(.*?)^## ", readme, re.M | re.S)
    assert section, "the README of the ui has a section on the viewer"
    program = re.search(r"^```python\n(.*?)^```$", section[1], re.M | re.S)[1]
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    names = {"__name__": "example"}
    exec(compile(program, "README.md", "exec"), names)
    demo = names["demo"]
    demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", ssr_mode=False)
    try:
        page = open_page("", address=demo.local_url)
        expect(page.locator(".empty")).to_be_hidden(timeout=30_000)
        assert view(page)["split"] == "0.3"
    finally:
        demo.close()
