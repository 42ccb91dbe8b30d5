"""The table of the batch section, as HTML (`batch.html`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lua_demo.catalog.methods import methods_of
from lua_demo.report.document import Row
from lua_demo.report.html import render
from lua_demo.report.measures import format_metric
from lua_demo.runs.batch import Item, Outcome


@dataclass(frozen=True)
class Entry:
    """A row of the table: an item that is over.

    Attributes:
        run: id of the stored comparison; empty where it has no pictures or is not kept.
        missing: why it is not kept.
    """

    outcome: Outcome
    run: str = ""
    missing: str = ""


def table_html(entries: Sequence[Entry]) -> str:
    """A row per item with seconds and PSNR of every method and a link to the comparison."""
    if not entries:
        return ""
    request = entries[0].outcome.item.request
    known = methods_of(request.kind, request.base)
    heads = [request.kind.capitalize(), *(known[method].label for method in request.methods), "Comparison"]
    return render("batch.html", heads=heads, items=[_item(entry, request.methods) for entry in entries])


def item_label(item: Item) -> str:
    """What people call an item: the prompt with its seed, or the name of the file."""
    return f"{item.request.prompt}, seed {item.request.seed}" if item.request.prompt else Path(item.source).name


def _item(entry: Entry, methods: Sequence[str]) -> dict[str, object]:
    document = entry.outcome.document
    found = {} if document is None else document["methods"]
    rows = [found[method] for method in methods if method in found]
    return {
        "label": item_label(entry.outcome.item),
        "error": entry.outcome.error,
        "missing": len(methods) - len(rows),
        "run": entry.run,
        "rows": [{**row, "psnr": _psnr(row)} for row in rows],
    }


def _psnr(row: Row) -> str:
    value = (row["metrics"] or {}).get("psnr")
    return "" if value is None else format_metric("psnr", value)
