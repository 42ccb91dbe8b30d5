"""A finished comparison in its folder, read with care: it may have been edited. No torch, no gradio."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeGuard, cast

from lua_demo.paths import EXAMPLES
from lua_demo.pictures.files import read_regular
from lua_demo.report.document import Document
from lua_demo.report.records import is_guest
from lua_demo.request.settings import FIELDS
from lua_demo.schema import Span

FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,79}\.[a-z0-9]{1,12}")  # any key of the catalog, with a suffix
STAGE_KEYS = {field.name for field in fields(Span)}
MOST_CHARACTERS = 2000  # of any text in a run that is shown
MOST = 1e15  # of any number in a run: bytes, pixels, seconds since 1970
SOURCE_KEYS = {"kind": str, "file": str, "sha256": str, "bytes": int}


@dataclass(frozen=True)
class Run:
    """A finished comparison.

    Attributes:
        id: what a link names; empty for a folder that is in no store.
        folder: where its files are.
        document: what `records.to_json` gives, with the names of the files here.
    """

    id: str
    folder: Path
    document: Document

    def file(self, name: object) -> Path | None:
        """The plain file `name` of this run; None for anything else, links and paths included."""
        if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
            return None
        path = self.folder / name
        return path if path.is_file() and not path.is_symlink() else None

    def pictures(self) -> dict[str, Path]:
        """Method -> its picture, for those that there are."""
        files = {method: self.file(row["file"]) for method, row in self.document["methods"].items()}
        return {method: path for method, path in files.items() if path}

    @property
    def source(self) -> Path | None:
        """The photo or latent that it was made from; None where it is not kept."""
        source = self.document["source"]
        if (name := source.get("example")) and name in {path.name for path in EXAMPLES.glob("*")}:
            return EXAMPLES / name
        return self.file(source.get("stored"))

    @property
    def latent(self) -> Path | None:
        return self.file("latent.safetensors")


def read_run(folder: Path, name: str = "run.json", run_id: str = "") -> Run | None:
    """The run in `folder`; None where there is no finished, well-formed one."""
    path = folder / name
    if folder.is_symlink() or path.is_symlink():
        return None
    try:
        document: object = json.loads(read_regular(path, "a run").decode("utf-8"))
        json.dumps(
            document, ensure_ascii=False, allow_nan=False
        ).encode()  # a browser reads neither NaN nor a lone surrogate
        return Run(run_id, folder, document) if _well_formed(document) else None
    except (OSError, ValueError, RecursionError):
        return None


def _well_formed(read: object) -> TypeGuard[Document]:
    """Whether everything that readers rely on is there, of its type and in its range."""
    document = cast(Document, read)  # if it is none, an error below says so
    try:
        settings, source, methods = document["settings"], document["source"], document["methods"]
        texts: list[object] = [document["device"], document["dtype"], *settings["methods"]]
        texts += [*document["weights"].values(), *document["versions"].values()]
        numbers: list[object] = [document.get("created", 0)]
        for row in methods.values():
            if any(stage.keys() != STAGE_KEYS for stage in row["stages"]):
                return False
            spans = [Span(**stage) for stage in row["stages"]]
            texts += [row["label"], *row["notes"], *(span.name for span in spans)]
            numbers += [row["total_seconds"], *(span.seconds for span in spans), *(span.peak_bytes for span in spans)]
            numbers += [value for value in (row["metrics"] or {}).values() if value is not None]
            numbers += [row["peak_bytes"] or 0, row.get("outside") or 0]
            if row["file"] is not None:
                numbers += [row["width"], row["height"]]
                texts.append(row["file"])
            texts += [] if row["skipped"] is None else [row["skipped"]]
        made_here = {key for key, row in methods.items() if not is_guest(row)}
        plain = isinstance(settings["methods"], list) and made_here <= set(settings["methods"])
        texts += [settings.get(name, "") for name in ("base", "decoder", "prompt", "aspect")]
        plain = plain and type(settings["scale"]) is int
        plain = plain and all(isinstance(text, str) and len(text) <= MOST_CHARACTERS for text in texts)
        plain = plain and all(isinstance(number, (int, float)) and 0 <= abs(number) < MOST for number in numbers)
        facts: Mapping[str, object] = source
        known = all(isinstance(facts[key], kind) for key, kind in SOURCE_KEYS.items())
        return plain and known and source["kind"] in FIELDS and document.get("created", 0) >= 0
    except (KeyError, TypeError, AttributeError):
        return False
