"""The one line that says what the page is doing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import gradio as gr

from lua_demo.ui.component import Private
from lua_demo.ui.viewer import static


@dataclass(frozen=True)
class Status:
    """`state` chooses the look; `done` of `total` fill the bar of a busy line, whose seconds the browser counts."""

    state: Literal["empty", "waiting", "busy", "done", "stopped", "error"]
    text: str
    done: float = 0
    total: int = 0


class StatusLine(gr.HTML, metaclass=Private):
    """Shows a `Status`. The value reaches the page as JSON and `textContent`, never as HTML."""

    def __init__(self, value: Status | None = None, **kwargs: Any):
        super().__init__(
            value,
            html_template=static("status.html"),
            css_template=static("status.css"),
            js_on_load=static("status.js"),
            apply_default_css=False,
            **kwargs,
        )

    def postprocess(self, value: Status | None) -> dict[str, Any] | None:  # type: ignore[override]  # gradio's is str
        return asdict(value) if value else None
