"""Pictures from outside that a visitor keeps with a comparison: a copy of the run with them in it. No gradio."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lua_demo.pictures import images, metrics
from lua_demo.report import claims
from lua_demo.report.document import Row
from lua_demo.report.records import is_guest, size_of
from lua_demo.runs.run import Run
from lua_demo.runs.store import Store, sha256
from lua_demo.schema import UserError

MOST_GUESTS = 4
ASPECT_SLACK = 0.005
LABEL_LENGTH = 80
NOTE = "a picture from outside, neither made nor timed here"


def with_guests(store: Store, run: Run, files: Sequence[tuple[str, Path]]) -> Run:
    """A new run: that one, and a row `guest_1`, ... per file, measured against the original as the others are.

    Runs are never changed, so whoever has the link to the old one sees what they saw. A picture of another size is
    resampled (Lanczos) to that of the largest one.

    Args:
        files: (name for people, path).
    Raises:
        UserError: no picture in the run, too many guests, no picture in a file, or one of another aspect.
    """
    pictures = run.pictures()
    if not pictures or not files:
        raise UserError("there is nothing to keep; compare again, then add a picture")
    rows = dict(run.document["methods"])
    if len(files) + sum(map(is_guest, rows.values())) > MOST_GUESTS:
        raise UserError(f"{MOST_GUESTS} pictures from outside are the most; take one away first")
    size = max((size_of(rows[key]) for key in pictures), key=lambda side: side[0] * side[1])
    truth = _truth(run)
    draft = store.draft()
    try:
        for name, path in files:
            key = next(f"guest_{i}" for i in range(1, MOST_GUESTS + 1) if f"guest_{i}" not in rows)
            image, note = fitted(path, name, size)
            images.save_display(image, draft / f"{key}.webp")
            rows[key] = _row(name, path, image, note, truth)
        for key, path in pictures.items():
            shutil.copyfile(path, draft / f"{key}{path.suffix}")
        if run.latent:
            shutil.copyfile(run.latent, draft / run.latent.name)
        return store.finish(draft, {**run.document, "methods": rows}, run.source)
    except BaseException:
        store.discard(draft)
        raise


def fitted(path: Path, name: str, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """The picture as H x W x 3 uint8 of `size` (width, height), and what was done to it, empty for nothing."""
    image = images.load_photo(path)
    width, height = image.size
    if abs(width * size[1] / (height * size[0]) - 1) > ASPECT_SLACK:
        raise UserError(
            f"{label(name)} has {width} × {height} px, another aspect than the {size[0]} × {size[1]} px here; "
            "crop it to that shape first"
        )
    if image.size == size:
        return np.asarray(image), ""
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS)), f"resampled from {width} × {height} px (Lanczos)"


def label(name: str) -> str:
    """A file's name as people read it: one line, no suffix, not too long."""
    stem = "".join(letter if letter.isprintable() else " " for letter in Path(name).stem).strip()
    return stem[:LABEL_LENGTH] or "A picture from outside"


def _row(name: str, path: Path, image: np.ndarray, note: str, truth: np.ndarray | None) -> Row:
    return {
        "label": label(name),
        "file": "guest.png",  # `finish` puts the name of the stored file here
        "width": image.shape[1],
        "height": image.shape[0],
        "stages": [],
        "total_seconds": 0.0,
        "peak_bytes": None,
        "metrics": None if truth is None else metrics.against(image, truth),
        "outside": None,
        "notes": [NOTE, *([note] if note else [])],
        "skipped": None,
        "guest": {"file": Path(name).name[:200], "sha256": sha256(path), "bytes": path.stat().st_size},
    }


def _truth(run: Run) -> np.ndarray | None:
    """The original of a photo; None where there is none of that size."""
    path = run.pictures().get(claims.truth(run.document))
    if path is None:
        return None
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
