"""Where the seconds went, and how close each picture came: a claim, bars, a table and a plot, as HTML (`timing.html`).

They are drawn from the document of a comparison (`report.to_json`), so a stored one looks like one that just ran. A
`Row` is a method's entry in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from lua_demo.report import claims
from lua_demo.report.document import Document, Row
from lua_demo.report.html import render
from lua_demo.report.measures import DISAGREE, METRICS, NO_LPIPS, format_metric
from lua_demo.report.records import is_guest
from lua_demo.report.scatter import dots_of, scatter
from lua_demo.schema import Span

# In the order of legend and columns, with a colour in timing.css; any other stage comes last and is drawn in grey.
STAGES = ("generate", "encode", "upscale", "refine", "decode")
SHARED = "computed once, charged to all that need it"
COLD = "first run at this size: includes one-time set-up"
LEGEND: tuple[tuple[Literal["shared", "cold"], str], ...] = (("shared", SHARED), ("cold", COLD))
ARROWS: dict[object, tuple[str, str]] = {max: ("↑", "higher is better"), min: ("↓", "lower is better")}
LABELLED_SHARE = 0.09  # a bar segment narrower than this share of the scale has no room for its number


def merge(row: Row) -> dict[str, Span]:
    """Spans of one method by stage name, in order; repeated stages are added up."""
    stages: dict[str, Span] = {}
    for span in (Span(**stage) for stage in row["stages"]):
        if (seen := stages.get(span.name)) is None:
            stages[span.name] = span
        else:
            stages[span.name] = Span(
                span.name,
                seen.seconds + span.seconds,
                max(seen.peak_bytes, span.peak_bytes),
                seen.cold or span.cold,
                seen.shared or span.shared,
            )
    return stages


def marks(span: Span) -> list[str]:
    return [word for word, holds in (("shared", span.shared), ("first run", span.cold)) if holds]


def stage_names(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(stage["name"] for row in rows for stage in row["stages"])
    return sorted(names, key=lambda name: STAGES.index(name) if name in STAGES else len(STAGES))


def grow(seconds: float, longest: float) -> str:
    # Flex factors that add up to less than 1 do not fill their line, so the scale is parts of 1000.
    return f"{1000 * max(seconds, 0.0) / longest:.3f}"


def metric_column(rows: Mapping[str, Row], name: str) -> dict[str, object]:
    """A column of the table: its values as text by method, the best of them, and which way is better."""
    best = claims.best(rows, name)
    values = {key: (row["metrics"] or {}).get(name) for key, row in rows.items()}
    arrow, better = ARROWS.get(METRICS[name].better, ("", ""))
    return {
        "head": METRICS[name].head,
        "means": METRICS[name].means,
        "arrow": arrow,
        "better": better,
        "cells": {key: None if value is None else format_metric(name, value) for key, value in values.items()},
        "best": None if best is None else format_metric(name, best),
    }


def remarks(rows: Sequence[Row], *more: str) -> list[str]:
    lines = [f"{row['label']}: left out: {row['skipped']}" for row in rows if row["skipped"]]
    lines += [f"{row['label']}: {note}" for row in rows for note in row["notes"]]
    return [*lines, *filter(None, more)]


def timing_html(document: Document, maps: bool = True) -> str:
    """Claim, bars on one scale, table, plot, remarks and the machine they were measured on; empty without results.

    `maps`: beside a page's viewer that can show the error maps which the table offers.
    """
    rows = document["methods"]
    if not rows:
        return ""
    ran = {key: row for key, row in rows.items() if row["file"] is not None}
    shown = list(ran.values())
    longest = max((row["total_seconds"] for row in shown), default=0.0) or 1.0
    return render(
        "timing.html",
        rows={key: {**row, "spans": merge(row), "guest": is_guest(row)} for key, row in ran.items()},
        headline=claims.headline(document),
        plot=scatter({"PSNR, dB": dots_of(document)}),
        stages=stage_names(shown),
        known=STAGES,
        legend=[
            (name, words) for name, words in LEGEND if any(stage[name] for row in shown for stage in row["stages"])
        ],
        metrics={
            name: metric_column(ran, name) for name in METRICS if any(name in (row["metrics"] or {}) for row in shown)
        },
        disagree=DISAGREE,
        no_lpips=NO_LPIPS,
        maps={key for key, row in ran.items() if maps and claims.TRUTH in ran and row["metrics"]},
        remarks=remarks(list(rows.values()), claims.no_metrics(document)),
        device=document["device"],
        dtype=document["dtype"],
        weights=", ".join(document["weights"].values()),
        longest=longest,
        labelled=LABELLED_SHARE * longest,
        grow=lambda seconds: grow(seconds, longest),
        marks=marks,
    )
