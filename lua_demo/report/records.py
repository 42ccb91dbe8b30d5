"""Results -> rows, Markdown, JSON. Shared by the app, the CLI and the evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from lua_demo.catalog.methods import methods_of
from lua_demo.pictures.files import read_regular
from lua_demo.report.document import Document, Made, NamedRow, Row, Source, Stage
from lua_demo.report.measures import METRICS, format_metric
from lua_demo.request.settings import to_settings
from lua_demo.schema import Environment, Progress, Request, Result, Span, printable

"""What a base comes from, as in `Request.kind` -> the field of `Request` that says which."""

METADATA_KEY = "lua_demo"
"""Keyword of the PNG text chunk that holds everything about the picture."""

PAIR = ("swinir", "lua")
"""What a viewer shows on the left and on the right until its reader chooses."""


def rows(results: Sequence[Result]) -> list[NamedRow]:
    """One dict per result, ready for JSON: method, label, file, width, height, stages, total_seconds, peak_bytes,
    metrics, outside, notes, skipped. `file`, `width` and `height` are None for a method that was left out.
    """
    return [{"method": result.method, **_row(result)} for result in results]


def _row(result: Result) -> Row:
    return {
        "label": result.label,
        "file": None if result.image is None else f"{result.method}.png",
        "width": None if result.image is None else result.image.shape[1],
        "height": None if result.image is None else result.image.shape[0],
        "stages": [_stage(span) for span in result.spans],
        "total_seconds": result.seconds,
        "peak_bytes": max((span.peak_bytes for span in result.spans), default=None),
        "metrics": None if result.metrics is None else dict(result.metrics),
        "outside": result.outside,
        "notes": list(result.notes),
        "skipped": result.skipped,
    }


def _stage(span: Span) -> Stage:
    return {
        "name": span.name,
        "seconds": span.seconds,
        "peak_bytes": span.peak_bytes,
        "cold": span.cold,
        "shared": span.shared,
    }


def to_json(
    request: Request, results: Sequence[Result], environment: Environment, source: Source | None = None
) -> Document:
    """The content of results.json: `methods` by key as in `rows`, and everything needed to run the comparison again.

    `source` is what `describe_source(request)` gives, for a caller that has it already.
    """
    return {
        "source": source or describe_source(request),
        "settings": to_settings(request),
        **environment_json(environment),
        "methods": {result.method: _row(result) for result in results},
    }


def describe_source(request: Request) -> Source:
    """The source of the base: kind ("photo", "latent" or "prompt"), file (empty for a prompt), sha256, bytes."""
    path = Path(request.latent or request.image)
    content = request.prompt.encode() if request.prompt else read_regular(path, f"a {request.kind}")
    return {
        "kind": request.kind,
        "file": printable(path.name),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }


def source_name(document: Document) -> str:
    """What people call the source of `to_json`'s document: the prompt, or the name of the file."""
    source = document["source"]
    return str(document["settings"].get("prompt", "")) if source["kind"] == "prompt" else source["file"]


def stage(progress: Progress) -> str:
    """What runs, with its steps where it has some."""
    return f"{progress.stage}, step {progress.step} of {progress.steps}" if progress.steps else progress.stage


def environment_json(environment: Environment) -> Made:
    return {
        "device": environment.device,
        "dtype": environment.dtype,
        "weights": dict(environment.weights),
        "versions": dict(environment.versions),
    }


def png_metadata(document: Document, method: str) -> dict[str, str]:
    """Text chunks for `<method>.png`, out of `to_json`'s document: the settings and this method's own entry."""
    settings = {key: value for key, value in document.items() if key != "methods"}
    content = {**settings, "method": method, **document["methods"][method]}
    return {"Software": "lua_demo", METADATA_KEY: json.dumps(content)}


def captions(document: Document, missing: str = "Not run: it was stopped before") -> list[tuple[str, str, str]]:
    """Method, label and a line of detail for every method that was asked for, in that order, then for what was added.

    `missing` is the detail of those without a result.
    """
    done, known = document["methods"], methods_of(document["source"]["kind"], document["settings"].get("base", ""))
    labels = {method: known[method].label if method in known else method for method in document["settings"]["methods"]}
    labels |= {method: row["label"] for method, row in done.items() if method not in labels}
    return [
        (method, done[method]["label"], _detail(done[method])) if method in done else (method, label, missing)
        for method, label in labels.items()
    ]


def is_guest(row: Row) -> bool:
    """Whether the picture of this row came from outside: nothing here made or timed it."""
    return bool(row.get("guest"))


def size_of(row: Row) -> tuple[int, int]:
    """(width, height) in pixels of the picture of this row."""
    return row["width"] or 0, row["height"] or 0


def _detail(row: Row) -> str:
    if row["file"] is None:
        return f"Left out: {row['skipped']}"
    return f"{row['width']} × {row['height']} px" + (f" · {row['total_seconds']:.2f} s" if row["stages"] else "")


def to_markdown(results: Sequence[Result], environment: Environment) -> str:
    """A table with one line per method, then notes, then the machine."""
    names = [name for name in METRICS if any(name in (result.metrics or {}) for result in results)]
    table = [["method", "size", "stages (s)", "total s", "peak MiB", *(METRICS[name].head for name in names)]]
    remarks = []
    for result, row in zip(results, rows(results), strict=True):
        if result.skipped:
            remarks.append(f"- {result.label}: left out: {result.skipped}")
        remarks += [f"- {result.label}: {note}" for note in result.notes]
        if result.image is None:
            continue
        stages = ", ".join(
            f"{span.name} {span.seconds:.3f}{'*' * span.shared}{' (first run)' * span.cold}" for span in result.spans
        )
        peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}"
        values = [format_metric(name, (result.metrics or {}).get(name)) for name in names]
        size = f"{row['width']} x {row['height']}"
        table.append([result.label, size, stages or "-", f"{result.seconds:.3f}", peak, *values])
    if any(span.shared for result in results for span in result.spans):
        remarks.append("- \\* computed once, charged to every method that needs it")
    return "\n".join([markdown_table(table), "", *remarks, f"- {machine(environment)}"])


def machine(environment: Environment) -> str:
    """Device, dtype and weights in one line."""
    weights = "; ".join(environment.weights.values()) or "none"
    return f"{environment.device}, {environment.dtype}; weights: {weights}"


def markdown_table(table: Sequence[Sequence[str]]) -> str:
    """The first row is the head. Columns are padded, so that it reads well in a terminal too."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in table)
    head, *lines = (f"| {' | '.join(row)} |" for row in padded)
    return "\n".join([head, f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines])
