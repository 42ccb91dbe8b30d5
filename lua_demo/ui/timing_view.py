"""Where the seconds went, and how close each picture came: bars and a table, as escaped HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lua_demo.report import METRICS, format_metric
from lua_demo.schema import Environment, Result, Span

# In the order of legend and columns. Each has its colour in page.css; any other stage comes last and is drawn in grey.
STAGES = ("encode", "upscale", "decode")
LABELLED_SHARE = 0.09  # a bar segment narrower than this share of the scale has no room for its number


def merge(spans: Sequence[Span]) -> dict[str, Span]:
    """Spans of one method by stage name, in order; repeated stages are added up."""
    stages: dict[str, Span] = {}
    for span in spans:
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


def stage_names(results: Sequence[Result]) -> list[str]:
    names = dict.fromkeys(span.name for result in results for span in result.spans)
    return sorted(names, key=lambda name: STAGES.index(name) if name in STAGES else len(STAGES))


def grow(seconds: float, longest: float) -> str:
    # Flex factors that add up to less than 1 do not fill their line, so the scale is parts of 1000.
    return f"{1000 * max(seconds, 0.0) / longest:.3f}"


def bar(result: Result, longest: float) -> str:
    segments = []
    for span in merge(result.spans).values():
        words = ", ".join([f"{span.name} {span.seconds:.3f} s", *marks(span)])
        classes = ["seg", stage_class(span.name), *(["shared"] if span.shared else [])]
        number = f"{span.seconds:.2f}" if span.seconds >= LABELLED_SHARE * longest else ""
        segments.append(
            f'<span class="{" ".join(classes)}" title="{escape(words)}" '
            f'style="flex-grow:{grow(span.seconds, longest)}">{number}</span>'
        )
    rest = grow(longest - result.seconds, longest)
    segments.append(f'<span class="rest" style="flex-grow:{rest}"></span>')
    return (
        f'<div class="row"><span class="name">{escape(result.label)}</span>'
        f'<span class="track">{"".join(segments)}</span><span class="sum">{result.seconds:.2f} s</span></div>'
    )


def legend(results: Sequence[Result]) -> str:
    keys = "".join(
        f'<span class="key"><i class="seg {stage_class(name)}"></i>{escape(name)}</span>'
        for name in stage_names(results)
    )
    if any(span.shared for result in results for span in result.spans):
        keys += '<span class="key"><i class="seg other shared"></i>computed once, charged to all that need it</span>'
    return f'<div class="legend">{keys}</div>'


def seconds_cell(span: Span | None) -> str:
    if span is None:
        return '<td class="none">·</td>'
    notes = ", ".join(marks(span))
    return f"<td>{span.seconds:.3f}{f'<small>{notes}</small>' if notes else ''}</td>"


def metric_cell(result: Result, name: str) -> str:
    value = (result.metrics or {}).get(name)
    return '<td class="none">·</td>' if value is None else f"<td>{escape(format_metric(name, value))}</td>"


def table(results: Sequence[Result]) -> str:
    stages = stage_names(results)
    metrics = [name for name in METRICS if any(name in (result.metrics or {}) for result in results)]
    heads = ["Size", *[f"{stage}, s" for stage in stages], "Total, s", "Peak memory"]
    heads += [METRICS[name][0] for name in metrics]
    rows = []
    for result in results:
        height, width = result.image.shape[:2]
        spans = merge(result.spans)
        peak = max((span.peak_bytes for span in result.spans), default=0)
        cells = "".join(
            [
                f"<td>{width} × {height}</td>",
                *[seconds_cell(spans.get(stage)) for stage in stages],
                f"<td><b>{result.seconds:.3f}</b></td>" if spans else '<td class="none">·</td>',
                f"<td>{peak / 2**20:.0f} MiB</td>" if peak else '<td class="none">·</td>',
                *[metric_cell(result, name) for name in metrics],
            ]
        )
        rows.append(f'<tr><th scope="row">{escape(result.label)}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ["Method", *heads])
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Seconds, memory and quality per method">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def remarks(results: Sequence[Result]) -> str:
    lines = [f"{result.label}: left out: {result.skipped}" for result in results if result.skipped]
    lines += [f"{result.label}: {note}" for result in results for note in result.notes]
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def timing_html(results: Sequence[Result], environment: Environment) -> str:
    """Bars on one scale, table, remarks and the machine they were measured on; empty without results."""
    if not results:
        return ""
    ran = [result for result in results if result.image is not None]
    longest = max((result.seconds for result in ran), default=0.0) or 1.0
    weights = ", ".join(environment.weights.values())
    machine = f"Measured on {environment.device} in {environment.dtype}, without loading weights or encoding files."
    bars = "".join(bar(result, longest) for result in ran if result.spans)
    return (
        '<section class="timing" aria-label="Time per stage"><h2>Time per stage</h2>'
        f"{legend(ran)}{bars}{table(ran) if ran else ''}{remarks(results)}"
        f'<p class="machine">{escape(machine)}{f" Weights: {escape(weights)}." if weights else ""}</p></section>'
    )
