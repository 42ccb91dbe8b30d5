"""The viewer's static files: what the Gradio component and a page without Gradio both show."""

from __future__ import annotations

from lua_demo.paths import STATIC

# In this order they make one function; dom.js says what it is called with.
SCRIPTS = ("dom", "state", "mips", "viewport", "difference", "loupe", "controls", "gestures", "viewer")
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
    return html, static("viewer.css"), "\n".join(static(f"{name}.js") for name in SCRIPTS)
