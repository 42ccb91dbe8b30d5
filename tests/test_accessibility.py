"""Every state of the page under axe-core (MPL-2.0, from npm; only here): no serious and no critical violation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import picture
from PIL import Image
from playwright.sync_api import Page, expect

from lua_demo.runs.store import Store

AXE = Path(sys.prefix) / "axe-core" / "package" / "axe.min.js"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not AXE.is_file(), reason=f"no {AXE}; `npm pack axe-core` unpacked there runs these tests"),
]
RUN = """async () => {
    const ends = document.getAnimations().filter((one) => one.effect.getTiming().iterations !== Infinity);
    await Promise.allSettled(ends.map((one) => one.finished)); // colours between two states are neither's
    const { violations } = await axe.run(document, { resultTypes: ["violations"] });
    return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
        .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(" AND ")}`);
}"""


@pytest.fixture(scope="module")
def page_store(tmp_path_factory) -> Store:
    """With the pinned runs, the first of which is on show at once."""
    return Store(tmp_path_factory.mktemp("results") / "store")


@pytest.fixture(params=[("light", 1280), ("dark", 1280), ("light", 390)], ids=["light", "dark", "phone"])
def checked(request, open_page) -> tuple[Page, Callable[[str], None]]:
    """The page with a result, and a check of what it shows."""
    theme, width = request.param
    page = open_page(width, 900, theme)
    expect(page.locator("#viewer .empty")).to_be_hidden(timeout=60_000)
    page.add_script_tag(content=AXE.read_text("utf-8"))

    def check(state: str) -> None:
        assert page.evaluate(RUN) == [], state

    return page, check


def test_the_viewer(checked, tmp_path):
    page, check = checked
    viewer = page.locator("#viewer")
    for mode in ("Slider", "Grid", "Blink", "Difference", "Overlay"):
        viewer.get_by_role("button", name=mode).click()
        settled_viewer(page)
        check(mode)
    stage = viewer.locator(".stage")
    for key in ("n", "h", "m", "k", "e"):
        stage.press(key)
    expect(viewer.locator("[data-ref=pins] tbody tr")).to_have_count(1)
    settled_viewer(page)
    check("instruments")
    store = Store(tmp_path / "unused")
    shown = Image.open(store.open(store.pinned_names()[0]).pictures()["lua"])
    Image.fromarray(picture(*shown.size)).save(tmp_path / "rival.png")
    page.set_input_files("#viewer [data-ref=file]", tmp_path / "rival.png")
    expect(viewer.get_by_role("button", name="Keep with this comparison")).to_be_visible()
    check("a picture from outside")
    stage.press("?")
    check("help")


def settled_viewer(page: Page) -> None:
    expect(page.locator("#viewer .stage[aria-busy=false]")).to_have_count(1, timeout=60_000)


def test_the_form_and_what_is_below(checked):
    page, check = checked
    check("result")
    for source in ("Prompt", "Photo", "Latent file"):
        page.locator("#source").get_by_text(source, exact=True).click()
        check(source)
    page.locator("#advanced > button").click()
    check("advanced")
    page.locator("#vote > button").click()
    expect(page.locator("#vote-viewer .stage")).to_be_visible()
    check("a blind pair")
    page.get_by_role("button", name="No difference").click()
    expect(page.locator("#vote-words .told")).to_be_visible()
    check("a vote")
    page.locator("#batch > button, #batch button.label-wrap").first.click()
    check("batch")
    page.locator("#source").get_by_text("Latent file", exact=True).click()
    page.click("#compare")
    expect(page.locator("#status .line")).to_have_attribute("data-state", "error")
    check("an error")
