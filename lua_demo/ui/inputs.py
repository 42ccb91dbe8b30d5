"""Controls that hand over what they got: the engine checks it, so page, API and CLI refuse it in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from lua_demo.ui.component import Private


class PhotoInput(gr.Image, metaclass=Private):
    """An image control whose value is the path of the uploaded file itself.

    `gr.Image` would open the file first: rotate, convert and re-encode it, and answer a broken one with a traceback.
    """

    is_template = True  # gradio names the browser's component after the base class

    def preprocess(self, payload: Any) -> str | None:
        if not payload or not payload.path:
            return None
        # gradio checks this only for payloads that are marked as files, and a client may leave the mark out.
        if not Path(payload.path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
            raise gr.Error("image is not an uploaded file; upload it first", print_exception=False)
        return payload.path


def _as_it_is(self: gr.components.Component, payload: Any) -> Any:
    return payload


class Radio(gr.Radio, metaclass=Private):
    is_template = True
    preprocess = _as_it_is


class CheckboxGroup(gr.CheckboxGroup, metaclass=Private):
    is_template = True
    preprocess = _as_it_is


class Slider(gr.Slider, metaclass=Private):
    is_template = True
    preprocess = _as_it_is


class Number(gr.Number, metaclass=Private):
    is_template = True
    preprocess = _as_it_is
