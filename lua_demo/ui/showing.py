"""A comparison as the page shows it, running or stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lua_demo.report import claims, records
from lua_demo.report.document import Document
from lua_demo.report.quote import quote
from lua_demo.runs.run import Run
from lua_demo.ui.viewer import Pane, View


def panes(document: Document, files: Mapping[str, Path | str], **missing: str) -> list[Pane]:
    """One pane per asked-for method, in that order. `missing` goes on to `records.captions`."""
    captions = records.captions(document, **missing)
    return [Pane(method, label, detail, files.get(method)) for method, label, detail in captions]


def view(
    document: Document, files: Mapping[str, Path | str], state: str = "", run: Run | None = None, **missing: str
) -> View:
    """The pictures with what they are measured against and quoted with. `run` once it is stored: pictures from outside
    can be kept with it then. `missing` as in `panes`.
    """
    words = quote(document, f"{address()}?run={run.id}" if run else "")
    return View(panes(document, files, **missing), state, claims.truth(document), words, keeps=run is not None)


def address() -> str:
    """Where this page is for other people, as far as it knows."""
    space = os.environ.get("SPACE_ID")
    return f"https://huggingface.co/spaces/{space}" if space else ""


def summary(document: Document) -> str:
    """What took how long, and what was left out, in one line."""
    rows = document["methods"].values()
    times = ", ".join(f"{row['label']} {row['total_seconds']:.2f} s" for row in rows if row["stages"])
    left_out = [row["label"] for row in rows if row["file"] is None]
    return f"{times or 'Nothing to time'}." + (f" Left out: {', '.join(left_out)}." if left_out else "")
