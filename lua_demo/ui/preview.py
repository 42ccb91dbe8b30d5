"""Pictures that browsers cannot draw (TIFF, HEIC and others), as small ones that they can."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from gradio.utils import get_upload_folder

from lua_demo.pictures.formats import shown_by_browsers
from lua_demo.pictures.images import save_display
from lua_demo.pictures.reading import load_photo
from lua_demo.schema import UserError

SIDE = 768  # px
NAME = re.compile(r"([0-9a-f]{16,64})\.(.{1,150})\.preview\.webp", re.DOTALL)
"""Of a preview: the folder of the upload and the name in it, so that the upload is found again wherever gradio copies
the preview to, and after a restart."""


def needs_preview(path: str | None) -> bool:
    return bool(path) and not shown_by_browsers(str(path))


def preview_of(path: str) -> str:
    """A small picture of an uploaded file; the file itself where browsers draw it, or where it cannot be read."""
    source = Path(path)
    name = f"{source.parent.name}.{source.name}.preview.webp"
    if not needs_preview(path) or not NAME.fullmatch(name) or original_of(name) == name:
        return path
    try:
        photo = load_photo(path)
    except UserError:
        return path
    photo.thumbnail((SIDE, SIDE))
    return str(save_display(np.asarray(photo), Path(get_upload_folder()) / "previews" / name))


def original_of(path: str) -> str:
    """The uploaded file that `path` is the preview of; `path` itself where it is no preview."""
    match = NAME.fullmatch(Path(path).name)
    if match is None or Path(match[2]).name != match[2]:
        return path
    found = Path(get_upload_folder()) / match[1] / match[2]
    return str(found) if found.is_file() else path
