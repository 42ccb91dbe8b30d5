"""Links, copied and opened; settings in the address; dropped pictures: in a real browser, with toy weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from conftest import served
from playwright.sync_api import Page, expect
from test_browser import canvas, clear_photo, compare, expect_state, shared_run, upload

from lua_demo.runs import export
from lua_demo.runs.store import Store

pytestmark = pytest.mark.browser
LINK = "#share [data-ref=link]"


@pytest.fixture(scope="module")
def page_store(tmp_path_factory) -> Store:
    """With the pinned runs of the checkout."""
    return Store(tmp_path_factory.mktemp("results") / "store")


@pytest.fixture(scope="module")
def url(page_weights, page_store, tmp_path_factory) -> Iterator[str]:
    """By a name of its own: on 127.0.0.1 a browser has a clipboard without https too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUA_DEMO_HOSTS", "plain.test")
        with served(page_weights, tmp_path_factory.mktemp("cache"), page_store) as address:
            yield f"http://plain.test:{urlsplit(address).port}/"


def state(page: Page) -> dict[str, list[str]]:
    return parse_qs(page.locator("#viewer [data-view]").get_attribute("data-view"))


def settled(page: Page) -> None:
    """Wait for the pictures: a pair is chosen when they are there."""
    expect(page.locator(LINK)).to_have_value(re.compile("run=.*left%3D.*right%3D"), timeout=60_000)
    expect(page.locator("#viewer .stage")).to_have_attribute("aria-busy", "false", timeout=60_000)


def test_a_fresh_page_shows_a_finished_comparison(open_page, page_store):
    before = {run.id for run in page_store.runs()}
    page = open_page()
    expect(page.locator("#status .text")).to_contain_text("An example, computed beforehand")
    settled(page)
    assert canvas(page)[..., :3].std() > 20
    expect(page.locator("#timing table")).to_be_visible()
    pinned = page_store.open(page_store.pinned_names()[0])
    prompt = pinned.document["settings"]["prompt"]
    expect(page.locator("#prompt textarea")).to_have_value(prompt)
    assert shared_run(page) == page_store.pinned_names()[0] and "run=" not in page.url
    assert {run.id for run in page_store.runs()} == before, "nothing was computed"
    page.click("#compare")  # with what is in the form
    expect_state(page, "done")
    (run,) = (run for run in page_store.runs() if run.id not in before)
    assert run.document["settings"]["prompt"] == prompt


def test_a_link_shows_the_same_in_another_browser(open_page, photo):
    page = open_page()
    settled(page)
    compare(page, photo(240, 180))
    page.get_by_label("Picture on the left").select_option("bicubic")
    page.get_by_label("Picture on the right").select_option("base")
    page.get_by_role("button", name="Difference").click()
    page.get_by_label("Picture on the left").select_option("lua")
    page.get_by_role("button", name="4×", exact=True).click()
    page.locator("#viewer .stage").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(LINK)).to_have_value(re.compile("zoom%3D4"))
    expect(page).to_have_url(re.compile("zoom%3D4"))
    before, link = canvas(page), page.locator(LINK).input_value()
    assert page.url == link and state(page)["mode"] == ["difference"] and state(page)["left"] == ["lua"]
    form = page.locator("#scale input:checked").get_attribute("value")

    other = open_page(address=link)
    expect_state(other, "done")
    expect(other.locator("#status .text")).to_contain_text("Compared on 20")
    settled(other)
    expect(other).to_have_url(link)
    assert state(other) == state(page)
    assert np.array_equal(canvas(other), before)
    expect(other.locator("#photo img")).to_have_attribute("src", re.compile(r"source\.png"))
    assert other.locator("#scale input:checked").get_attribute("value") == form
    compare(other)  # again, from the photo that came with the link
    assert shared_run(other) != shared_run(page)


def test_copy_works_on_plain_http(open_page):
    page = open_page()
    settled(page)
    assert page.evaluate("window.isSecureContext") is False and page.evaluate("navigator.clipboard === undefined")
    expect(page.locator(LINK)).to_have_value(re.compile("left%3Dswinir%26right%3Dlua"))  # all pictures are on show
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    expect(page.get_by_role("button", name="Copy link")).to_be_visible()
    link = page.locator(LINK).input_value()
    page.evaluate("document.body.append(Object.assign(document.createElement('textarea'), {id: 'paste'}))")
    page.locator("#paste").focus()
    page.keyboard.press("Control+V")
    assert page.locator("#paste").input_value() == link


@pytest.mark.parametrize("run", ["no-such-run", "../../etc", "%00", "x" * 22])
def test_a_link_to_nothing_is_told_calmly(open_page, url, run):
    page = open_page(address=f"{url}?run={run}")
    expect(page.locator("#status .text")).to_contain_text("This comparison is no longer kept")
    settled(page)


def test_settings_in_the_address_fill_the_form(open_page, url, page_store):
    before = {run.id for run in page_store.runs()}
    page = open_page(address=f"{url}?scale=4&seed=77&size=96&methods=lua,swinir&view=x")
    expect(page.locator("#status .text")).to_contain_text("nothing has run yet")
    expect(page.get_by_role("radio", name="4×")).to_be_checked()
    expect(page.locator("#methods input:checked")).to_have_count(2)
    expect(page.locator("#seed input")).to_have_value("77")
    expect(page.locator("#share [data-ref=rows]")).to_be_hidden()
    assert {run.id for run in page_store.runs()} == before


def test_bad_settings_in_the_address_break_nothing(open_page, url):
    page = open_page(address=f"{url}?scale=3&seed=<b>")
    expect_state(page, "error")
    expect(page.locator("#status .text")).to_contain_text("scale 3 does not exist")
    settled(page)
    expect(page.get_by_role("radio", name="2×")).to_be_checked()


def store_kind(page_store: Store, page: Page) -> str:
    return page_store.open(shared_run(page)).document["source"]["kind"]


def drop(page: Page, path: Path) -> None:
    clear_photo(page)
    page.set_input_files("#photo input[type=file]", path)


def test_a_picture_of_ours_is_a_photo_and_its_settings_are_offered(open_page, photo, page_store, tmp_path):
    page = open_page()
    settled(page)
    restore = page.get_by_role("button", name="Use the settings of this picture")
    upload(page, photo(240, 180))
    expect(restore).to_be_hidden()
    page.get_by_role("radio", name="4×").check()
    page.locator("#methods label", has_text="Native").click()
    compare(page)
    run = page_store.open(shared_run(page))
    (tmp_path / "mine.png").write_bytes(export.make(run, "lua.png"))
    first, told, field = page.url, page.locator("#status .text"), page.locator("#photo img")

    page.get_by_role("radio", name="2×").check()
    drop(page, tmp_path / "mine.png")
    expect(told).to_contain_text("The photo is a LUA (latent) picture made by lua_demo")
    expect(field).to_have_attribute("src", re.compile(r"mine\.png"))
    expect(page.get_by_role("radio", name="2×")).to_be_checked()
    compare(page)  # the enlarged picture, enlarged again
    again = page_store.open(shared_run(page)).document
    assert again["source"]["file"] == "mine.png" and again["settings"]["scale"] == 2
    page.goto(first)  # where the photo of the first picture is on show
    settled(page)
    page.locator("#source").get_by_text("Photo").click()
    drop(page, tmp_path / "mine.png")
    restore.click()
    expect(told).to_contain_text("photo_240x180.png: press Compare to run it again")
    expect(field).to_have_attribute("src", re.compile(r"source\.png"))
    expect(page.get_by_role("radio", name="4×")).to_be_checked()
    expect(restore).to_be_hidden()

    other = open_page()  # where nobody has seen the photo
    settled(other)
    other.locator("#source").get_by_text("Photo").click()
    drop(other, tmp_path / "mine.png")
    other.get_by_role("button", name="Use the settings of this picture").click()
    expect(other.locator("#status .text")).to_contain_text("photo_240x180.png, which is not here")
    expect(other.get_by_role("radio", name="4×")).to_be_checked()
    expect(other.locator("#methods input:checked")).to_have_count(5)
    expect(other.locator("#photo img")).to_have_attribute("src", re.compile(r"mine\.png"))
    drop(other, photo(240, 180))
    expect(other.get_by_role("button", name="Use the settings of this picture")).to_be_hidden()
    compare(other)
    same = page_store.open(shared_run(other))
    assert same.pictures()["lua"].read_bytes() == run.pictures()["lua"].read_bytes()


def test_a_latent_takes_the_place_of_the_photo(open_page, page_store, photo, tmp_path):
    page = open_page()
    settled(page)
    compare(page, photo(240, 180))
    path = tmp_path / "base.safetensors"
    path.write_bytes(page_store.open(shared_run(page)).latent.read_bytes())
    page.locator("#source").get_by_text("Latent file").click()
    expect(page.locator("#photo")).to_be_hidden()
    page.set_input_files("#latent input[type=file]", path)
    expect(page.locator("#latent")).to_contain_text("base")
    compare(page)
    assert store_kind(page_store, page) == "latent"
    page.locator("#source").get_by_text("Photo").click()  # what was there is there still
    expect(page.locator("#photo img")).to_be_visible()
    other = open_page(address=page.url)
    settled(other)
    expect(other.locator("#photo")).to_be_hidden()
    expect(other.locator("#latent")).to_contain_text("source")
    other.locator("#source").get_by_text("Photo").click()
    compare(other, photo(240, 180))
    assert store_kind(page_store, other) == "photo"


def test_a_file_of_a_run_that_is_gone(open_page, page_store, photo):
    page = open_page()
    settled(page)
    compare(page, photo(240, 180))
    (page_store.open(shared_run(page)).folder / "run.json").unlink()
    page.get_by_label("File to download").select_option("strip.png")
    button = page.get_by_role("button", name="Download", exact=True)
    button.click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("no longer kept; compare again")
    expect(button).to_be_enabled()
