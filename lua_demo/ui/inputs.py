"""Controls that hand over what they got, as long as it is plain values: the engine checks these, so page, API and CLI
refuse them in the same words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_static_file

from lua_demo.ui.component import Private
from lua_demo.ui.preview import original_of, preview_of


class PhotoInput(gr.Image, metaclass=Private):
    """An image control whose value is the path of the uploaded file itself.

    `gr.Image` would open the file first: rotate, convert and re-encode it, and answer a broken one with a traceback.
    What a browser cannot draw is shown as a preview; the value stays the file.
    """

    is_template = True  # gradio names the browser's component after the base class

    def preprocess(self, payload: Any) -> str | None:
        return uploaded("image", original_of(payload.path)) if payload and payload.path else None

    def postprocess(self, value: Any) -> Any:
        return super().postprocess(preview_of(value) if isinstance(value, str) else value)


class LatentInput(gr.File, metaclass=Private):
    """A file control whose value is the path of the uploaded file itself."""

    is_template = True

    def preprocess(self, payload: Any) -> str | None:
        return uploaded("latent", payload.path) if payload and payload.path else None


class FilesInput(gr.File, metaclass=Private):
    """A control for several files whose value is the list of the paths of the uploaded files themselves."""

    is_template = True

    def preprocess(self, payload: Any) -> list[str]:
        return [uploaded("files", file.path) for file in payload or () if file.path]


def uploaded(name: str, path: str) -> str:
    """`path`, if its file was uploaded or is served by this page anyway; else an error that names `name`."""
    # gradio checks this only for payloads that are marked as files, and a client may leave the mark out.
    inside = Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve())
    if not inside and not is_static_file(path):
        raise gr.Error(f"{name} is not an uploaded file; upload it first", print_exception=False)
    return path


SCALARS = (str, int, float, type(None))


def _one(self: gr.components.Component, payload: Any) -> Any:
    if not isinstance(payload, SCALARS):
        raise gr.Error(f"{self.label} takes one value", print_exception=False)
    return payload


def _several(self: gr.components.Component, payload: Any) -> Any:
    if not all(isinstance(value, SCALARS) for value in (payload if isinstance(payload, list) else [payload])):
        raise gr.Error(f"{self.label} takes a list of values", print_exception=False)
    return payload


class Radio(gr.Radio, metaclass=Private):
    is_template = True
    preprocess = _one


class CheckboxGroup(gr.CheckboxGroup, metaclass=Private):
    is_template = True
    preprocess = _several


class Slider(gr.Slider, metaclass=Private):
    is_template = True
    preprocess = _one


class Number(gr.Number, metaclass=Private):
    is_template = True
    preprocess = _one


class Dropdown(gr.Dropdown, metaclass=Private):
    is_template = True
    preprocess = _one


class Checkbox(gr.Checkbox, metaclass=Private):
    is_template = True
    preprocess = _one
