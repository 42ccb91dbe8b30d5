"""A picture from outside on the page: added in the browser, kept by the server, there again behind its link."""

from __future__ import annotations

import re

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from lua_demo.pictures import metrics
from lua_demo.runs.store import Store
from lua_demo.ui.guests import Guests
from lua_demo.ui.opening import Opening

HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def page_store(tmp_path_factory) -> Store:
    """With the pinned runs, the first of which is on show at once."""
    return Store(tmp_path_factory.mktemp("results") / "store")


@pytest.mark.browser
def test_a_guest_is_kept_behind_a_new_link(open_page, page_store, tmp_path, url):
    page = open_page()
    expect(page.locator("#viewer .empty")).to_be_hidden(timeout=60_000)
    native = np.asarray(Image.open(page_store.open(page_store.pinned_names()[0]).pictures()["native"]).convert("RGB"))
    own = (native.astype(int) - 5).clip(0, 255).astype("uint8")
    Image.fromarray(own).save(tmp_path / HOSTILE)
    page.set_input_files("#viewer [data-ref=file]", tmp_path / HOSTILE)
    expect(page.locator("#viewer .guests li")).to_have_count(1)
    page.locator("#viewer .stage").press("g")
    before = page.locator("#share [data-ref=link]").input_value()
    page.get_by_role("button", name="Keep with this comparison").click()
    expect(page.locator("#status .text")).to_contain_text(
        "Kept: the link below opens the comparison with <img", timeout=60_000
    )
    expect(page.locator("#viewer .guests")).to_be_hidden()
    link = page.locator("#share [data-ref=link]")
    expect(link).not_to_have_value(before)
    panes = len(page_store.open(page_store.pinned_names()[0]).pictures()) + 1  # and the guest
    expect(page.locator("#viewer .grid .pane")).to_have_count(panes)
    label = HOSTILE.removesuffix(".png")
    expect(page.locator("#viewer .grid .tag b").last).to_have_text(label)
    row = page.locator("#timing tbody tr", has_text=label)
    expect(row).to_contain_text(f"{metrics.psnr(own, native):.2f}")
    again = open_page(address=f"{url}?{link.input_value().split('?')[1]}")
    expect(again.locator("#viewer .grid .pane")).to_have_count(panes, timeout=60_000)
    kept = page_store.open(re.search(r"run=([\w-]{22})", link.input_value())[1])
    assert np.array_equal(np.asarray(Image.open(kept.pictures()["guest_1"]).convert("RGB")), own)


class Event:
    def __init__(self, **data):
        self.__dict__.update(data)


@pytest.mark.parametrize(
    "files", [None, "x", ["x"], [{}], [{"name": "x.png"}], [{"name": "x.png", "path": "/etc/passwd"}]]
)
def test_what_no_viewer_sends_is_refused(page_store, files):
    guests = Guests(page_store, Opening(page_store, ()))
    with pytest.raises(gr.Error, match=r"wrong form|not an uploaded file"):
        guests.keep(Event(files=files), {"run": page_store.pinned_names()[0]})
