"""A comparison as the page shows it, running or stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lua_demo.report import records
from lua_demo.ui.viewer import Pane


def panes(document: dict[str, Any], files: Mapping[str, Path | str], **missing: str) -> list[Pane]:
    """One pane per asked-for method, in that order. `missing` goes on to `records.captions`."""
    captions = records.captions(document, **missing)
    return [Pane(method, label, detail, files.get(method)) for method, label, detail in captions]


def summary(document: Mapping[str, Any]) -> str:
    """What took how long, and what was left out, in one line."""
    rows = document["methods"].values()
    times = ", ".join(f"{row['label']} {row['total_seconds']:.2f} s" for row in rows if row["stages"])
    left_out = [row["label"] for row in rows if row["file"] is None]
    return f"{times or 'Nothing to time'}." + (f" Left out: {', '.join(left_out)}." if left_out else "")
