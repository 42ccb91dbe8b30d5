"""What the viewer shows, read from a browser's page."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
from playwright.sync_api import Page, expect

from lua_demo.report.viewer_files import viewer_files

READ_CANVAS = """(canvas) => {
    const {width, height} = canvas, bytes = canvas.getContext('2d').getImageData(0, 0, width, height).data;
    let text = '';
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return [width, height, btoa(text)];
}"""
STANDALONE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>A comparison</title>
<style>
body {{ margin: 16px; background: light-dark(#fff, #191919); color-scheme: light dark; }}
.viewer {{ {css} }}
</style>
<body><main><h1>A comparison</h1>
<div class="viewer" id="viewer">{html}</div></main>
<script>
const run = new Function("element", "props", "watch", "trigger", {js});
const props = {{ value: {value} }};
const watch = (name, told) => {{ window.give = (change) => {{ props.value = change(props.value); told(); }}; }};
run(document.querySelector(".viewer"), props, watch, () => {{}});
</script>"""


def one_file(path: Path, files: dict[str, Path], state: str = "", **value: Any) -> Path:
    """A page at `path` that has the viewer and the pictures in it, without gradio and without a network."""
    html, css, js = viewer_files()
    panes = [
        {"key": name, "label": name, "detail": "", "image": {"url": f"data:image/webp;base64,{data}"}}
        for name, file in files.items()
        for data in [base64.b64encode(file.read_bytes()).decode()]
    ]
    text = json.dumps({"panes": panes, "state": state, **value}).replace("<", "\\u003c")
    path.write_text(STANDALONE.format(html=html, css=css, js=json.dumps(js), value=text), encoding="utf-8")
    return path


def settled(page: Page) -> None:
    """All pictures decoded as finely as the view needs, and painted."""
    expect(page.locator(".stage[aria-busy=false]")).to_have_count(1, timeout=60_000)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(page.locator(".stage[aria-busy=false]")).to_have_count(1, timeout=60_000)


def canvas(page: Page, where: str = "[data-ref=single] canvas") -> np.ndarray:
    """H x W x 3."""
    page.wait_for_function("canvas => canvas.width > 0", arg=page.locator(where).element_handle())  # laid out
    settled(page)
    width, height, data = page.locator(where).evaluate(READ_CANVAS)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]


def view(page: Page) -> dict[str, str]:
    settled(page)
    return {
        name: values[0] for name, values in parse_qs(page.locator("[data-view]").get_attribute("data-view")).items()
    }


def corner(page: Page, picture: np.ndarray, pixels: np.ndarray, zoom: int = 1) -> tuple[int, int]:
    """Where the canvas begins in the enlarged picture, row and column."""
    now, (height, width) = view(page), pixels.shape[:2]
    top = -round(height / 2 - float(now["y"]) * picture.shape[0] * zoom)
    return top, -round(width / 2 - float(now["x"]) * picture.shape[1] * zoom)


def crop(picture: np.ndarray, page: Page, pixels: np.ndarray) -> np.ndarray:
    """The part of a full-size picture that a canvas of this size shows at 1:1."""
    top, left = corner(page, picture, pixels)
    assert top >= 0 and left >= 0
    return picture[top : top + pixels.shape[0], left : left + pixels.shape[1]]
