"""Results as files: the one writer behind every --out folder, pinned run and batch. No gradio."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from lua_demo.pictures import images
from lua_demo.pictures.latents import save_latent
from lua_demo.report import records
from lua_demo.report.document import Document, Source
from lua_demo.runs import store
from lua_demo.schema import Result, UserError

RESULTS, LATENT = "results.json", "latent.safetensors"


def write_result(out: Path, result: Result, document: Document) -> None:
    """Write `<method>.png` with all about it inside, the base latent, and last results.json, which is `document`.

    Raises:
        UserError: `out` cannot be written.
    """
    with writing(out):
        if result.image is not None:
            images.save_png(result.image, out / f"{result.method}.png", records.png_metadata(document, result.method))
        if result.latent is not None:
            save_latent(out / LATENT, result.latent, document["source"])
        store.write_json(out / RESULTS, document)


def write_display(folder: Path, result: Result, source: Source, effort: int = 0) -> Path | None:
    """Write what a stored run holds of `result`: a lossless picture for browsers, whose path is returned, and the base
    latent.

    `effort` is that of `images.save_display`; `source` is what `records.describe_source` gives.
    """
    picture = None
    if result.image is not None:
        picture = images.save_display(result.image, folder / f"{result.method}.webp", effort)
    if result.latent is not None:
        save_latent(folder / LATENT, result.latent, source)
    return picture


def refuse_to_overwrite(files: Iterable[Path], *sources: str | Path) -> None:
    """UserError where one of `files`, which are about to be written, is a source; before anything is written."""
    for source in filter(None, map(str, sources)):
        for file in files:
            try:
                same = file.samefile(source)
            except (OSError, ValueError):
                continue
            if same:
                raise UserError(f"{file} is the source itself and would be overwritten; write to another place")


def writes(methods: Iterable[str]) -> list[str]:
    """The names of the files that `write_result` writes for these methods."""
    return [*(f"{method}.png" for method in methods), LATENT, RESULTS]


def make_folder(path: Path) -> None:
    """Make the folder that the user gave, and fail before anything is computed, not after."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Failures to write below a path that the user gave are the user's to solve."""
    if "\0" in str(path):
        raise UserError(f"{path} is no path; choose another place")
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); choose another place") from error
