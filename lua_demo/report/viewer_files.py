"""The viewer's static files: what the Gradio component and a page without Gradio both show."""

from __future__ import annotations

import base64
import json

from lua_demo.paths import STATIC

# In this order they make one function; dom.js says what it is called with.
SCRIPTS = (
    *("dom", "state", "mips", "viewport", "difference", "lab", "measure", "panel", "probe", "magma", "flip", "loupe"),
    *("exposure", "overlay", "quote", "guests", "controls", "gestures", "viewer"),
)
LAB = ("pictures", "metrics", "flip", "serve")
"""Of the worker's script, which the viewer starts from a string: it needs no address of its own."""
PLACEHOLDER = "<p><b>Nothing to compare yet</b></p><p>Every picture lands here as soon as it is ready.</p>"


def static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def viewer_files(placeholder: str = PLACEHOLDER) -> tuple[str, str, str]:
    """The viewer for any page.

    Args:
        placeholder: HTML shown while there is no picture.

    Returns:
        html: what goes into the element that holds the viewer.
        css: the body of one rule, to be wrapped in that element's selector.
        js: the body of a function that is called once with `element`, `props` and `watch`.
    """
    html = static("viewer.html").replace("<!-- placeholder -->", placeholder)
    kernels = base64.b64encode((STATIC / "lab" / "metrics.wasm").read_bytes()).decode()
    lab = "\n".join([f'const METRICS_WASM = "{kernels}";', *(static(f"lab/{name}.js") for name in LAB)])
    script = "\n".join([f"const LAB_SOURCE = {json.dumps(lab)};", *(static(f"{name}.js") for name in SCRIPTS)])
    return html, static("viewer.css"), script
