"""N pictures under one synchronised viewport: the Python half of static/viewer.*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from lua_demo.ui.component import Private

STATIC = Path(__file__).with_name("static")


def static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Pane:
    """One picture of the viewer.

    Attributes:
        key: stable name; the viewer keeps a chosen pair by it.
        label: the method's name.
        detail: second line of the label; the reason when there is no picture.
        file: a lossless picture, served as it is; None while there is none.
    """

    key: str
    label: str
    detail: str
    file: Path | None = None


class CompareViewer(gr.HTML, metaclass=Private):
    """Slider between any two pictures, or all of them in a grid, with one zoom and one position.

    The value is a sequence of `Pane`; pictures may differ in size (they are laid over each other) and may be missing.
    The browser gets JSON and writes texts with `textContent`; the template is static, so zoom, pair and mode survive
    an update.
    """

    def __init__(self, value: Sequence[Pane] | None = None, **kwargs: Any):
        super().__init__(
            value,
            html_template=static("viewer.html"),
            css_template=static("viewer.css"),
            js_on_load=static("viewport.js") + static("viewer.js"),
            apply_default_css=False,
            **kwargs,
        )

    def postprocess(self, value: Sequence[Pane] | None) -> list[dict[str, Any]]:
        return [
            {
                "key": pane.key,
                "label": pane.label,
                "detail": pane.detail,
                "image": FileData(path=str(pane.file), orig_name=pane.file.name).model_dump() if pane.file else None,
            }
            for pane in value or ()
        ]

    def api_info(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "object"}, "description": "key, label, detail, image (file or null)"}
