"""A comparison in words that can be quoted: what the viewer's "Copy as Markdown" says. Plain text, not escaped."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from lua_demo.catalog.bases import BASES
from lua_demo.report import claims
from lua_demo.report.document import Document, Row
from lua_demo.report.measures import METRICS, format_metric
from lua_demo.report.records import source_name
from lua_demo.schema import Request


class Quote(TypedDict):
    """One sentence, and one table.

    Attributes:
        columns: names.
        rows: method -> a cell per column. Times include the decode; a method that was not timed has none.
        link: of the comparison, where there is one.
    """

    sentence: str
    columns: list[str]
    rows: dict[str, list[str]]
    link: NotRequired[str]


def quote(document: Document, link: str = "") -> Quote:
    """`document` in words. The sentence has source, scale, latent space, decoder, seed, device and dtype."""
    rows = {key: row for key, row in document["methods"].items() if row["file"] is not None}
    names = [name for name in METRICS if any(name in (row["metrics"] or {}) for row in rows.values())]
    words: Quote = {
        "sentence": sentence(document),
        "columns": ["Size", "Time with decoder", *(METRICS[name].head for name in names)],
        "rows": {
            key: [
                f"{row['width']} × {row['height']}",
                _time(row),
                *(format_metric(name, (row["metrics"] or {}).get(name)) for name in names),
            ]
            for key, row in rows.items()
        },
    }
    if link:
        words["link"] = link
    return words


def sentence(document: Document) -> str:
    settings = document["settings"]
    base = BASES.get(settings.get("base", Request.base))
    kind, version = document["source"]["kind"], document["versions"].get("lua_demo", "")
    parts = [
        f"{kind.capitalize()} “{source_name(document)}”, {settings['scale']}×",
        *([f"{base.space} latents"] if base else []),
        claims.decoder(settings),
        f"seed {settings.get('seed', Request.seed)}",
        f"{document['device']}, {document['dtype']}",
    ]
    return f"{', '.join(parts)}{f' (lua_demo {version})' if version else ''}."


def _time(row: Row) -> str:
    if not row["stages"]:
        return "-"
    stages = " + ".join(f"{stage['name']} {stage['seconds']:.3f}" for stage in row["stages"])
    return f"{row['total_seconds']:.3f} s ({stages})"
