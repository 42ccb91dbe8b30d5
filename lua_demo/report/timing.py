"""Where the seconds went, and how close each picture came: claims, bars and a table, as escaped HTML.

They are drawn from the document of a comparison (`report.to_json`), so a stored one looks like one that just ran. A
`Row` is a method's entry in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lua_demo.report import claims
from lua_demo.report.records import METRICS, format_metric
from lua_demo.schema import Span

Row = Mapping[str, Any]

# In the order of legend and columns, with a colour in timing.css; any other stage comes last and is drawn in grey.
STAGES = ("generate", "encode", "upscale", "decode")
SHARED = "computed once, charged to all that need it"
COLD = "first run at this size: includes one-time set-up"
UNTIMED = "not timed: it is the photo itself"
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


def stage_class(name: str) -> str:
    return name if name in STAGES else "other"


def stage_names(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(stage["name"] for row in rows for stage in row["stages"])
    return sorted(names, key=lambda name: STAGES.index(name) if name in STAGES else len(STAGES))


def grow(seconds: float, longest: float) -> str:
    # Flex factors that add up to less than 1 do not fill their line, so the scale is parts of 1000.
    return f"{1000 * max(seconds, 0.0) / longest:.3f}"


def bar(row: Row, longest: float) -> str:
    if not row["stages"]:
        return line(row["label"], f'<span class="untimed">{UNTIMED}</span>', "")
    segments = []
    for span in merge(row).values():
        words = ", ".join([f"{span.name} {span.seconds:.3f} s", *marks(span)])
        classes = ["seg", stage_class(span.name), *(name for name in ("shared", "cold") if getattr(span, name))]
        number = f"{span.seconds:.2f}" if span.seconds >= LABELLED_SHARE * longest else ""
        segments.append(
            f'<span class="{" ".join(classes)}" title="{escape(words)}" '
            f'style="flex-grow:{grow(span.seconds, longest)}">{number}</span>'
        )
    rest = grow(longest - row["total_seconds"], longest)
    segments.append(f'<span class="rest" style="flex-grow:{rest}"></span>')
    return line(row["label"], f'<span class="track">{"".join(segments)}</span>', f"{row['total_seconds']:.2f} s")


def line(label: str, body: str, total: str) -> str:
    return f'<div class="row"><span class="name">{escape(label)}</span>{body}<span class="sum">{total}</span></div>'


def legend(rows: Sequence[Row]) -> str:
    keys = "".join(
        f'<span class="key"><i class="seg {stage_class(name)}"></i>{escape(name)}</span>' for name in stage_names(rows)
    )
    for name, words in (("shared", SHARED), ("cold", COLD)):
        if any(stage[name] for row in rows for stage in row["stages"]):
            keys += f'<span class="key"><i class="seg other {name}"></i>{words}</span>'
    return f'<div class="legend">{keys}</div>'


def seconds_cell(span: Span | None) -> str:
    if span is None:
        return '<td class="none">·</td>'
    notes = ", ".join(marks(span))
    return f"<td>{span.seconds:.3f}{f'<small>{notes}</small>' if notes else ''}</td>"


def metric_cell(row: Row, name: str, best: float | None) -> str:
    value = (row["metrics"] or {}).get(name)
    if value is None:
        return '<td class="none">·</td>'
    text = escape(format_metric(name, value))
    marked = best is not None and format_metric(name, best) == text
    return f"<td><b>{text}</b><small>best</small></td>" if marked else f"<td>{text}</td>"


def metric_head(name: str) -> str:
    # The name ends in its unit or not; which way is better is told by an arrow, and by a word to a screen reader.
    way = {max: ("↑", "higher is better"), min: ("↓", "lower is better")}.get(claims.BEST.get(name))
    arrow = f' <span role="img" aria-label="{way[1]}" title="{way[1]}">{way[0]}</span>' if way else ""
    return f"{escape(METRICS[name][0])}{arrow}"


def head_cell(key: str, row: Row, maps: bool) -> str:
    button = f'<button type="button" data-error-map="{escape(key)}">Error map</button>' if maps else ""
    return f'<th scope="row">{escape(row["label"])}{button}</th>'


def table(rows: Mapping[str, Row], maps: bool) -> str:
    """A line per method. `maps`: with a button for the error map of each method that was measured."""
    stages = stage_names(list(rows.values()))
    metrics = [name for name in METRICS if any(name in (row["metrics"] or {}) for row in rows.values())]
    best = {name: claims.best(rows, name) for name in metrics}
    heads = ["Method", "Size", *[escape(f"{stage}, s") for stage in stages], "Total, s", "Peak memory"]
    lines = []
    for key, row in rows.items():
        spans = merge(row)
        cells = [
            head_cell(key, row, maps and claims.TRUTH in rows and bool(row["metrics"])),
            f"<td>{row['width']} × {row['height']}</td>",
            *[seconds_cell(spans.get(stage)) for stage in stages],
            f"<td>{row['total_seconds']:.3f}</td>" if spans else '<td class="none">·</td>',
            f"<td>{row['peak_bytes'] / 2**20:.0f} MiB</td>" if row["peak_bytes"] else '<td class="none">·</td>',
            *[metric_cell(row, name, best[name]) for name in metrics],
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{text}</th>' for text in [*heads, *map(metric_head, metrics)])
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Seconds, memory and quality per method">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def speed_lines(document: Mapping[str, Any]) -> str:
    return "".join(
        f'<p class="claim"><b>{escape(claim)}</b>{f" <span>{escape(where)}</span>" if where else ""}</p>'
        for claim, where in claims.speed(document)
    )


def remarks(rows: Sequence[Row], *more: str) -> str:
    lines = [f"{row['label']}: left out: {row['skipped']}" for row in rows if row["skipped"]]
    lines += [f"{row['label']}: {note}" for row in rows for note in row["notes"]]
    lines += filter(None, more)
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def timing_html(document: Mapping[str, Any], maps: bool = True) -> str:
    """Speed, bars on one scale, table, remarks and the machine they were measured on; empty without results.

    `maps`: beside a page's viewer that can show the error maps which the table offers.
    """
    rows = document["methods"]
    if not rows:
        return ""
    ran = {key: row for key, row in rows.items() if row["file"] is not None}
    longest = max((row["total_seconds"] for row in ran.values()), default=0.0) or 1.0
    weights = ", ".join(document["weights"].values())
    machine = f"Measured on {document['device']} in {document['dtype']}, without loading weights or encoding files."
    shown = list(ran.values())
    return (
        '<section class="timing" aria-label="Time per stage"><h2>Time per stage</h2>'
        f"{speed_lines(document)}{legend(shown)}{''.join(bar(row, longest) for row in shown)}"
        f"{table(ran, maps) if ran else ''}{remarks(list(rows.values()), claims.no_metrics(document))}"
        f'<p class="machine">{escape(machine)}{f" Weights: {escape(weights)}." if weights else ""}</p></section>'
    )
