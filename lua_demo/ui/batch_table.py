"""The table of the batch section, as escaped HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from lua_demo.catalog.methods import METHODS_BY_KIND
from lua_demo.report.records import format_metric
from lua_demo.runs.batch import Item, Outcome


@dataclass(frozen=True)
class Entry:
    """A row of the table: an item that is over. `run` is the id of the stored comparison, empty where it failed."""

    outcome: Outcome
    run: str = ""


def table_html(entries: Sequence[Entry]) -> str:
    """A row per item with seconds and PSNR of every method and a link to the comparison; all text is escaped."""
    if not entries:
        return ""
    request = entries[0].outcome.item.request
    methods, known = request.methods, METHODS_BY_KIND[request.kind]
    heads = [request.kind.capitalize(), *(known[method].label for method in methods), "Comparison"]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(_row(entry, methods) for entry in entries)
    return (
        '<section class="timing" aria-label="Results of the batch"><div class="scroll" tabindex="0" role="region" '
        'aria-label="Seconds and PSNR per item and method">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def item_label(item: Item) -> str:
    """What people call an item: the prompt with its seed, or the name of the file."""
    return f"{item.request.prompt}, seed {item.request.seed}" if item.request.prompt else Path(item.source).name


def _row(entry: Entry, methods: Sequence[str]) -> str:
    item = entry.outcome.item
    label = escape(item_label(item))
    name = f'<th scope="row" title="{label}"><span>{label}</span></th>'
    if entry.outcome.document is None:
        error = f"<span>{escape(entry.outcome.error)}</span>"
        return f'<tr>{name}<td class="error" colspan="{len(methods) + 1}">{error}</td></tr>'
    cells = "".join(_cell(entry.outcome.document["methods"][method]) for method in methods)
    link = f'<td><a href="?run={escape(entry.run)}" target="_blank" rel="noopener">Open</a></td>'
    return f"<tr>{name}{cells}{link}</tr>"


def _cell(row: Mapping[str, Any]) -> str:
    if row["file"] is None:
        return f'<td class="none" title="{escape(row["skipped"])}">left out</td>'
    psnr = (row["metrics"] or {}).get("psnr")
    quality = "" if psnr is None else f"<small>{escape(format_metric('psnr', psnr))} dB</small>"
    seconds = f"{row['total_seconds']:.2f} s" if row["stages"] else "·"
    return f"<td>{seconds}{quality}</td>"
