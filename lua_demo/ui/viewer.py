"""N pictures under one synchronised viewport: the Python half of static/viewer.*."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.data_classes import FileData

from lua_demo.pictures import images
from lua_demo.report.viewer_files import PLACEHOLDER, STATIC, static, viewer_files
from lua_demo.ui.component import Private

__all__ = ["STATIC", "CompareViewer", "Pane", "View", "data_url", "static"]


@dataclass(frozen=True)
class Pane:
    """One picture of the viewer.

    Attributes:
        key: stable name; the viewer keeps a chosen pair by it.
        label: the method's name.
        detail: second line of the label; the reason when there is no picture.
        file: a lossless picture, served as it is, or a data URL that holds it; None while there is none.
    """

    key: str
    label: str
    detail: str
    file: Path | str | None = None

    def to_json(self) -> dict[str, object]:
        """What a browser or a client gets; gradio turns the file into an address."""
        image: dict[str, object] | None = None
        if isinstance(self.file, Path):
            image = FileData(path=str(self.file), orig_name=self.file.name).model_dump()
        elif self.file:
            image = {"url": self.file}
        return {"key": self.key, "label": self.label, "detail": self.detail, "image": image}


def data_url(image: np.ndarray) -> str:
    """H x W x 3 uint8 as a lossless picture for `Pane.file` that needs no file."""
    suffix, content = images.encoded(image)
    return f"data:image/{suffix[1:]};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class View:
    """Pictures, and how to look at them.

    Attributes:
        panes: the pictures, in order.
        state: a query string as the viewer writes it into its `data-view` attribute, like "mode=slider&zoom=2". Set
            once, when it arrives; what it leaves out or has wrong stays as it was.
        truth: key of the picture that the others are measured against until the reader takes another one.
        quote: what "Copy as Markdown" says beside the labels: a `sentence`, `columns` (names), `rows` (key -> cells)
            and a `link`, each of which may be missing.
        keeps: a handler of the viewer's `upload` event keeps pictures from outside (`CompareViewer`).
    """

    panes: Sequence[Pane]
    state: str = ""
    truth: str = ""
    quote: Mapping[str, object] | None = None
    keeps: bool = False


class CompareViewer(gr.HTML, metaclass=Private):
    """Any number of pictures of one subject: slider, overlay, grid, blink, difference, magnifier, with one zoom and
    position; numbers, histograms and colours of what is visible.

    The value is a sequence of `Pane`, or a `View`; pictures may differ in size (they are laid over each other) and may
    be missing. The browser gets JSON and writes texts with `textContent`; the template is static, so the view survives
    an update.

    Args:
        pair: keys of the pictures on the left and on the right until the reader chooses; else the first two.
        placeholder: HTML shown while there is no picture.
        guests: the reader may add pictures from outside. Where the `View` says that it `keeps` them, the viewer has a
            button that uploads them and triggers `upload` with `files`, a list of {name, path}, and `state`.
    """

    def __init__(
        self,
        value: Sequence[Pane] | View | None = None,
        *,
        pair: tuple[str, str] | None = None,
        placeholder: str = PLACEHOLDER,
        guests: bool = True,
        **kwargs: Any,
    ):
        self.pair, self.placeholder, self.guests = pair, placeholder, guests
        html, css, js = viewer_files(placeholder)
        super().__init__(value, html_template=html, css_template=css, js_on_load=js, apply_default_css=False, **kwargs)

    def postprocess(self, value: Sequence[Pane] | View | None) -> dict[str, Any]:  # type: ignore[override]  # gradio's is str
        view = value if isinstance(value, View) else View(value or ())
        return {
            "panes": [pane.to_json() for pane in view.panes],
            "state": view.state,
            "pair": list(self.pair or ()),
            "truth": view.truth,
            "quote": dict(view.quote) if view.quote else None,
            "keeps": view.keeps,
            "guests": self.guests,
        }

    def api_info(self) -> dict[str, Any]:
        return {
            "type": "object",
            "description": "panes: list of key, label, detail, image (file or null); state: how they are looked at",
        }
