"""The viewer's instruments in one file from disk: numbers, colours, pins, FLIP, overlay, pictures from outside."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import flip_evaluator
import numpy as np
import pytest
from conftest import picture
from PIL import Image
from playwright.sync_api import Page, expect
from viewing import canvas, crop, one_file, settled, view

from lua_demo.paths import STATIC
from lua_demo.pictures import images, metrics

pytestmark = pytest.mark.browser
README = STATIC.parent / "README.md"
WIDTH, HEIGHT = 1200, 900
PRESS = """const press = (key) => {
    const event = new KeyboardEvent("keydown", { key, bubbles: true });
    document.querySelector(".stage").dispatchEvent(event);
    return new Promise((done) => requestAnimationFrame(done));
};"""
HOSTILE = "<img src=x onerror=boom()> | `b`.png"


@pytest.fixture(scope="module")
def url() -> str:
    return "file://"


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    grain, whole = np.random.default_rng(1), picture(WIDTH, HEIGHT)
    noisy = (whole.astype(int) + grain.integers(-12, 13, whole.shape)).clip(0, 255).astype("uint8")
    soft = np.asarray(Image.fromarray(whole).resize((WIDTH // 2, HEIGHT // 2)).resize((WIDTH, HEIGHT)))
    small = np.asarray(Image.fromarray(whole).resize((WIDTH // 2, HEIGHT // 2)))
    return {"base": small, "noisy": noisy, "soft": soft, "native": whole}


@pytest.fixture(scope="module")
def files(arrays, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("instruments")
    return {name: images.save_display(array, folder / f"{name}.webp") for name, array in arrays.items()}


@pytest.fixture
def show(open_page, files, tmp_path) -> Callable[..., Page]:
    """show(state, width, height, value...) -> the page with these pictures, settled."""

    def show_(state: str = "", width: int = 1000, height: int = 900, value: dict | None = None, **options) -> Page:
        path = one_file(
            tmp_path / "page.html", files, state, pair=["noisy", "soft"], **{"truth": "native"} | (value or {})
        )
        page = open_page(width, height, address=path.as_uri(), **options)
        expect(page.locator(".empty")).to_be_hidden()
        settled(page)
        return page

    return show_


def measured(page: Page) -> tuple[slice, slice]:
    """The rows and columns that the numbers on show are of."""
    settled(page)
    expect(page.locator("[data-measured]:not([data-measured=''])")).to_have_count(1, timeout=60_000)
    x, y, width, height = map(int, page.locator("[data-measured]").get_attribute("data-measured").split())
    return slice(y, y + height), slice(x, x + width)


def numbers(page: Page, name: str) -> list[str]:
    return page.locator("[data-ref=numbers] tbody tr", has_text=name).locator("td").all_inner_texts()


def check_numbers(page: Page, arrays: dict[str, np.ndarray], against: str = "native") -> None:
    part = measured(page)
    for name in {"noisy", "soft", "native"} - {against}:
        image, truth = arrays[name][part], arrays[against][part]
        expected = metrics.against(image, truth)
        psnr, ssim, sharpness = map(float, numbers(page, name))
        assert psnr == pytest.approx(expected["psnr"], abs=0.01), name
        assert ssim == pytest.approx(expected["ssim"], abs=3e-4), name
        assert sharpness == pytest.approx(metrics.sharpness(image, truth), abs=1e-3), name


def test_numbers_of_the_visible_crop_are_the_engines(show, arrays):
    page = show("zoom=1")
    page.locator(".stage").press("n")
    check_numbers(page, arrays)
    assert numbers(page, "base") == ["·"] * 3, "another size cannot be compared"
    page.locator("[data-ref=single] canvas").hover(position={"x": 200, "y": 200})
    page.mouse.down()
    page.mouse.move(300, 500, steps=5)
    page.mouse.up()
    check_numbers(page, arrays)
    page.get_by_role("button", name="4×", exact=True).click()
    assert measured(page)[1].stop - measured(page)[1].start in (242, 243)  # a quarter of 968
    check_numbers(page, arrays)
    shown = page.locator("[data-ref=single] .tag.left span")
    expect(shown).to_contain_text(re.compile(r"[\d.]+ dB · SSIM 0\.\d{4} · sharpness [\d.]+"))


@pytest.mark.parametrize("milliseconds", [0, 30, 80])
def test_numbers_after_there_and_back_are_of_the_view(show, arrays, milliseconds):
    """While the numbers of the view in between are computed, or when they are there."""
    page = show("zoom=2&measure=1")
    check_numbers(page, arrays)
    back = "await press('ArrowRight'); await new Promise((done) => setTimeout(done, wait)); await press('ArrowLeft');"
    page.evaluate(f"async (wait) => {{ {PRESS} {back} }}", milliseconds)
    check_numbers(page, arrays)


def test_numbers_follow_a_view_that_does_not_rest(show):
    page = show("zoom=2&measure=1")
    measured(page)
    pan = """
        const told = new Set(), place = document.querySelector("[data-ref=crop]");
        for (let i = 0; i < 120; i += 1) {
            await press(i % 60 < 30 ? "ArrowRight" : "ArrowLeft");
            told.add(place.textContent);
        }
        return told.size;
    """
    told = page.evaluate(f"async () => {{ {PRESS} {pan} }}")
    assert told > 3


def test_numbers_stay_when_another_pane_is_announced(show, arrays):
    page = show("zoom=2&measure=1")
    check_numbers(page, arrays)
    pane = {"key": "later", "label": "later", "detail": "waiting"}
    page.evaluate("(pane) => give((value) => ({ ...value, panes: [...value.panes, pane] }))", pane)
    check_numbers(page, arrays)


def test_the_compiled_kernels_are_those_of_the_source(tmp_path):
    pytest.importorskip("ziglang", reason="to compile them: pip install ziglang==0.17.1")
    command = re.search(r"```\n(python -m ziglang .*?)```", README.read_text(), re.DOTALL)
    shutil.copy(STATIC / "lab" / "metrics.c", tmp_path)
    subprocess.run(command[1].replace("python", sys.executable, 1), shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "metrics.wasm").read_bytes() == (STATIC / "lab" / "metrics.wasm").read_bytes()


def test_whole_pictures_and_another_reference(show, arrays):
    page = show("measure=1")
    part = measured(page)
    assert (part[0].stop - part[0].start, part[1].stop - part[1].start) == (HEIGHT, WIDTH)
    check_numbers(page, arrays)
    page.get_by_label("Reference").select_option("soft")
    check_numbers(page, arrays, "soft")
    expect(page.locator("[data-ref=numbers]")).to_contain_text("soft, reference")
    assert view(page)["reference"] == "soft"
    page.get_by_label("Reference").select_option("")
    measured(page)
    assert numbers(page, "noisy") == ["·"] * 3
    page.locator(".stage").press("r")  # the left one
    expect(page.locator("[data-ref=numbers]")).to_contain_text("noisy, reference")
    expect(page.locator("[data-ref=said]")).to_contain_text("decibels", timeout=10_000)


def test_histograms_are_of_the_crop(show, arrays):
    page = show("zoom=2&histogram=1&x=0.3&y=0.4")
    part = measured(page)
    luma = (arrays["soft"][part] @ np.array([0.299, 0.587, 0.114]) + 0.5).astype(int).mean()
    text = page.locator("[data-ref=histograms] [data-key=soft] span")
    expect(text).to_have_text(re.compile(rf"^mean {luma:.1f}, [\d.]+ % at 0, [\d.]+ % at 255$"))
    drawn = canvas(page, "[data-ref=histograms] [data-key=soft] canvas")
    assert drawn.std() > 5
    expect(page.get_by_role("img", name=re.compile("^Histogram of soft: mean"))).to_be_visible()


def colours(text: str) -> list[int]:
    return [int(number) for number in text.split()]


def test_probe_and_pins_tell_the_pixels(show, arrays):
    page = show("zoom=1")
    page.get_by_role("button", name="Magnifier").click()
    box = page.locator("[data-ref=single] canvas").bounding_box()
    for i in range(9):
        x, y = box["x"] + 60 + 40 * i, box["y"] + 200 + 20 * i
        page.mouse.move(x, y)
        settled(page)
        if i == 0:
            for name in ("noisy", "native"):
                spoken = page.locator(f".loupe [data-key={name}] .colour span")
                expect(spoken).to_have_text(re.compile(r"\d+ \d+ \d+"))
        page.mouse.click(x, y)
    expect(page.locator("[data-ref=pins] tbody tr")).to_have_count(8)
    expect(page.locator("[data-ref=said]")).to_have_text("8 pins are the most; take one away first")
    expect(page.locator("[data-ref=single] .pin")).to_have_count(8)

    kept = [tuple(map(float, pin.split("_"))) for pin in view(page)["pins"].split("~")]
    state = page.locator("[data-view]").get_attribute("data-view")

    def check(page: Page) -> None:
        rows = page.locator("[data-ref=pins] tbody tr")
        for i, (x, y) in enumerate(kept):
            expect(rows.nth(i).locator(".colour span").last).to_have_text(re.compile(r"\d+ \d+ \d+"))
            told = rows.nth(i).locator(".colour").all_inner_texts()
            row, column = int(y * HEIGHT), int(x * WIDTH)
            truth = arrays["native"][row, column].astype(int)
            for name, text in zip(("noisy", "soft"), told[1:3], strict=True):
                values, difference = text.replace("−", "-").split("Δ")
                assert colours(values) == arrays[name][row, column].tolist(), name
                assert colours(difference) == (arrays[name][row, column].astype(int) - truth).tolist(), name

    check(page)
    check(show(state))  # as the link has it
    page = show(state)
    page.locator(".stage").press("Backspace")
    expect(page.locator("[data-ref=pins] tbody tr")).to_have_count(7)
    page.get_by_role("button", name="Remove pin 1").click()
    expect(page.locator("[data-ref=pins] tbody tr")).to_have_count(6)
    page.locator(".stage").press("Shift+ArrowRight")
    expect(page.locator("[data-ref=said]")).to_have_text(re.compile(r"^At \d+, \d+: noisy \d+ \d+ \d+, soft "))
    page.keyboard.press("k")
    expect(page.locator("[data-ref=pins] tbody tr")).to_have_count(7)


def magma() -> np.ndarray:
    text = "".join(re.findall(r'"([A-Za-z0-9+/=]+)"', (STATIC / "magma.js").read_text("utf-8")))
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(256, 3)


def test_flip_is_the_authors(show, arrays):
    page = show("mode=difference&map=flip&zoom=1&left=noisy&right=native")
    settled(page)
    page.wait_for_function("document.querySelector('[data-view]').dataset.flip", timeout=120_000)
    pixels = canvas(page)
    reference, test = ((arrays[name] / 255).astype(np.float32) for name in ("native", "noisy"))
    expected, mean, _ = flip_evaluator.evaluate(reference, test, "LDR", applyMagma=False)
    errors = crop(expected[..., 0], page, pixels)
    table = magma().astype(int)
    shown = np.array([abs(table - colour).sum(1).argmin() for colour in pixels.reshape(-1, 3)[::7].astype(int)]) / 255
    assert abs(shown - errors.reshape(-1)[::7]).max() < 1.6 / 255
    expect(page.locator("[data-ref=single] .tag.left b")).to_have_text("FLIP: noisy, native")
    page.get_by_role("button", name="Fit").click()
    settled(page)
    page.wait_for_function(
        "document.querySelector('[data-ref=single] .tag.left span').textContent.startsWith('mean')", timeout=120_000
    )
    assert float(page.locator("[data-flip]").get_attribute("data-flip")) == pytest.approx(mean, abs=2e-4)


def test_exposure_and_gain_by_keys(show, arrays):
    page = show("zoom=1&split=1")
    before, shot = canvas(page), np.asarray(Image.open(io.BytesIO(page.locator(".stage").screenshot())).convert("RGB"))
    page.locator(".stage").press("e")
    page.keyboard.press("e")
    assert view(page)["exposure"] == "1"
    expect(page.locator("[data-ref=said]")).to_have_text("Exposure +1 EV")
    assert np.array_equal(canvas(page), before), "the pixels stay"
    after = np.asarray(Image.open(io.BytesIO(page.locator(".stage").screenshot())).convert("RGB"))
    where = (slice(200, 300), slice(200, 300))
    linear = np.where(
        shot[where] / 255 <= 0.04045, shot[where] / 255 / 12.92, ((shot[where] / 255 + 0.055) / 1.055) ** 2.4
    )
    bright = (2 * linear).clip(0, 1)
    expected = 255 * np.where(bright <= 0.0031308, 12.92 * bright, 1.055 * bright ** (1 / 2.4) - 0.055)
    assert abs(after[where] - expected).mean() < 3
    for _ in range(3):
        page.keyboard.press("Shift+E")
    assert view(page)["exposure"] == "-0.5"
    page.keyboard.press("d")
    page.keyboard.press("]")
    assert view(page)["gain"] == "16"
    page.keyboard.press("[")
    page.keyboard.press("[")
    assert view(page)["gain"] == "4"
    for layer in ("signed", "flip", "colour"):
        page.keyboard.press("l")
        assert view(page)["map"] == layer


def test_overlay_has_a_strip_per_picture(show, arrays):
    page = show("zoom=1&x=0.5&y=0.5")
    page.get_by_role("button", name="Overlay").click()
    dividers = page.get_by_role("slider", name=re.compile("^Divider"))
    expect(dividers).to_have_count(2)
    assert [divider.get_attribute("aria-valuenow") for divider in dividers.all()] == ["33", "67"]

    def strips(names: list[str], edges: list[float]) -> None:
        pixels = canvas(page)
        ends = [round(edge * pixels.shape[1]) for edge in edges]
        for name, start, end in zip(names, ends[:-1], ends[1:], strict=True):
            assert np.array_equal(pixels[:, start:end], crop(arrays[name], page, pixels)[:, start:end]), name

    strips(["noisy", "soft", "native"], [0, 1 / 3, 2 / 3, 1])
    expect(page.locator(".tag.strip:visible b")).to_have_text(["noisy", "soft", "native"])
    dividers.nth(1).press("Shift+ArrowLeft")
    assert view(page)["splits"] == "0.33333~0.56667"
    handle = dividers.first.bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + 60)
    page.mouse.down()
    page.mouse.move(handle["x"] + handle["width"] / 2 + 100, handle["y"] + 60, steps=4)
    page.mouse.up()
    splits = [float(split) for split in view(page)["splits"].split("~")]
    assert splits[0] == pytest.approx(1 / 3 + 100 / canvas(page).shape[1], abs=0.01) and splits[1] == pytest.approx(
        0.56667
    )
    strips(["noisy", "soft", "native"], [0, *splits, 1])
    dividers.first.press("End")  # pushes the other one before it
    assert view(page)["splits"] == "1~1"
    page.get_by_role("group", name="Pictures in the overlay").get_by_role("button", name="1: base").click()
    expect(dividers).to_have_count(3)
    assert view(page)["strips"] == "noisy~soft~native~base"
    page.get_by_role("button", name="Slider").click()
    expect(dividers).to_have_count(1)


def drop(page: Page, path: Path) -> None:
    """As if the file were dragged from a desktop onto the stage."""
    transfer = page.evaluate_handle(
        """async ([name, bytes]) => {
            const transfer = new DataTransfer(), data = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([data], name, { type: "image/png" }));
            return transfer;
        }""",
        [path.name, base64.b64encode(path.read_bytes()).decode()],
    )
    page.dispatch_event(".stage", "dragover", {"dataTransfer": transfer})
    expect(page.locator("[data-ref=cue]")).to_be_visible()
    page.dispatch_event(".stage", "drop", {"dataTransfer": transfer})
    expect(page.locator("[data-ref=cue]")).to_be_hidden()


def test_a_picture_from_outside_is_a_pane_like_the_others(show, arrays, tmp_path):
    page = show("zoom=1&split=0&measure=1")
    own = (arrays["native"].astype(int) + 9).clip(0, 255).astype("uint8")
    Image.fromarray(own).save(tmp_path / HOSTILE)
    drop(page, tmp_path / HOSTILE)
    label = HOSTILE.removesuffix(".png")
    expect(page.get_by_label("Picture on the right").locator("option:checked")).to_have_text(label)
    expect(page.locator("[data-ref=single] .tag.right b")).to_have_text(label)
    pixels = canvas(page)
    assert np.array_equal(pixels, crop(own, page, pixels))
    expect(page.locator("[data-ref=numbers] tbody tr")).to_have_count(5)
    part = measured(page)
    assert float(numbers(page, label)[0]) == pytest.approx(metrics.psnr(own[part], arrays["native"][part]), abs=0.01)

    Image.fromarray(arrays["native"]).resize((WIDTH * 2, HEIGHT * 2)).save(tmp_path / "large.png")
    page.set_input_files("[data-ref=file]", tmp_path / "large.png")
    expect(page.locator(".guests li").nth(1)).to_contain_text(f"resampled from {WIDTH * 2} × {HEIGHT * 2}")
    expect(page.locator("[data-ref=said]")).to_have_text(re.compile("^large.png is a pane now: "))
    page.keyboard.press("Escape")
    near = canvas(page).astype(int)
    assert abs(near - crop(arrays["native"], page, near)).mean() < 3, "in its place"

    Image.fromarray(arrays["native"][:600, :600]).save(tmp_path / "square.png")
    page.set_input_files("[data-ref=file]", tmp_path / "square.png")
    expect(page.locator("[data-ref=said].visible")).to_have_text(
        f"square.png has 600 × 600 px, another aspect than the {WIDTH} × {HEIGHT} px here; crop it to that shape first"
    )
    (tmp_path / "text.png").write_text("no picture")
    page.set_input_files("[data-ref=file]", tmp_path / "text.png")
    expect(page.locator("[data-ref=said].visible")).to_have_text(
        re.compile("^text.png is no picture that this browser")
    )
    expect(page.get_by_role("button", name="Keep with this comparison")).to_be_hidden()  # nobody here could keep it
    page.get_by_role("button", name="Remove large").click()
    expect(page.locator(".guests li")).to_have_count(1)
    expect(page.get_by_label("Picture on the right").locator("option")).to_have_count(5)


def test_markdown_says_what_the_value_says(show):
    words = {
        "sentence": "Photo “a|b*.jpg”, seed 3.", "columns": ["Size", "Time"], "link": "https://example.org/?run=x",
        "rows": {"noisy": ["1200 × 900", "0.5 s"], "soft": ["1200 × 900", "-"]},
    }  # fmt: skip
    page = show(value={"quote": words})
    page.locator(".stage").press("c")
    expect(page.locator("[data-ref=said].visible")).to_have_text(re.compile("^Copied as Markdown|^Copying was refused"))
    first, gap, head, rule, *rows = page.locator("[data-copied]").get_attribute("data-copied").rstrip().split("\n")
    assert first.startswith("Photo “a\\|b\\*.jpg”, seed 3. <https://example.org/?run=x&view=mode%3Dslider") and not gap
    assert head == "| Method | Size | Time |" and rule == "| --- | --- | --- |"
    assert rows[1:3] == ["| noisy | 1200 × 900 | 0.5 s |", "| soft | 1200 × 900 | - |"] and len(rows) == 4
    page = show("measure=1")
    measured(page)
    page.get_by_role("button", name="Copy as Markdown").click()
    text = page.locator("[data-copied]").get_attribute("data-copied")
    assert "4 pictures of one subject. Crop: 1200 × 900 px from 0, 0, against native." in text and "<" not in text
    assert re.search(r"\| noisy \|  \| [\d.]+ \| 0\.\d{4} \| [\d.]+ \|", text)


def test_the_wheel_over_a_fitted_picture_scrolls_the_page(show):
    page = show()
    page.evaluate("document.body.style.paddingBottom = '2000px'")
    page.locator(".stage").hover()
    page.mouse.wheel(0, -120)
    page.mouse.wheel(0, 120)
    page.wait_for_function("scrollY > 50")
    expect(page.get_by_text("Hold Ctrl while you scroll to zoom")).to_be_visible()
    assert view(page)["zoom"] == "fit"
    expect(page.get_by_text("Hold Ctrl while you scroll to zoom")).to_be_hidden()
    page.evaluate("scrollTo(0, 0)")
    page.locator(".stage").hover()
    page.keyboard.down("Control")
    page.mouse.wheel(0, -120)
    page.keyboard.up("Control")
    zoomed = float(view(page)["zoom"])
    page.mouse.wheel(0, -120)  # not fitted any more: the picture has the wheel
    assert float(view(page)["zoom"]) > zoomed and page.evaluate("scrollY") == 0


def test_by_touch_on_a_phone(show):
    page = show("", 390, 844, has_touch=True, is_mobile=True, device_scale_factor=2, color_scheme="dark")
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    for name in ("Numbers of the visible crop", "Histograms of the visible crop", "Magnifier"):
        page.get_by_role("button", name=name).tap()
    box = page.locator(".stage").bounding_box()
    for x in (0.3, 0.7):
        page.touchscreen.tap(box["x"] + x * box["width"], box["y"] + box["height"] / 2)
        page.wait_for_timeout(500)  # two taps in a row would zoom
    expect(page.locator("[data-ref=pins] tbody tr")).to_have_count(2)
    page.get_by_role("button", name="Pin the spot").tap()  # on a pin: takes it away
    expect(page.locator("[data-ref=pins] tbody tr")).to_have_count(1)
    for mode in ("Overlay", "Grid", "Difference", "Slider"):
        page.get_by_role("button", name=mode).tap()
        settled(page)
        assert page.evaluate(overflow) == 0, mode
    sizes = page.locator("#viewer button:visible").evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
    assert min(sizes) >= 40
