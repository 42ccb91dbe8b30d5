"""Files dropped anywhere on the page, outside of the fields that take files themselves."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lua_demo.report.viewer_files import static
from lua_demo.ui.component import Private


class PageDrop(gr.HTML, metaclass=Private):
    """Uploads the file that is dropped on the page and triggers `upload` with its `path`; empty where that failed.

    While a file is over the page it shows that it may be dropped.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(
            html_template=static("drop.html"),
            css_template=static("drop.css"),
            js_on_load=static("drop.js"),
            apply_default_css=False,
            **kwargs,
        )
