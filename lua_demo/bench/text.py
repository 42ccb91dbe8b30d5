"""The benchmark for people: Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lua_demo.bench.app import AGREEMENT, App
from lua_demo.bench.ceilings import Ceiling
from lua_demo.bench.clock import Timing
from lua_demo.bench.goals import Row
from lua_demo.bench.paths import Path
from lua_demo.bench.rehearsal import Rehearsal


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def of_ceilings(ceilings: Mapping[str, Ceiling]) -> str:
    head = ("dtype", "product GFLOP/s", "by", "3x3 convolution GFLOP/s", "copy GB/s")
    return table(
        head,
        [
            (name, f"{c.gemm / 1e9:.0f}", c.gemm_by, f"{c.conv / 1e9:.0f}", f"{c.copy / 1e9:.1f}")
            for name, c in ceilings.items()
        ],
    )


def of_row(row: Row) -> str:
    """One line, as soon as the row is there."""
    value = "" if row.value is None else f" {row.value:.2f}{row.goal.unit}"
    return f"{row.key} {row.goal.what}:{value} {row.verdict}{f' ({row.note})' if row.note else ''}"


def of_rows(rows: Sequence[Row]) -> str:
    def bound(row: Row, value: float | None) -> str:
        return "" if value is None else f"{'<=' if row.goal.most else '>='} {value:g}{row.goal.unit}"

    return table(
        ("", "what", "measured", "must", "target", "", "note"),
        [
            (
                row.key, row.goal.what, "" if row.value is None else f"**{row.value:.2f}{row.goal.unit}**",
                bound(row, row.goal.must), bound(row, row.goal.target), row.verdict, row.note,
            )
            for row in rows
        ],
    )  # fmt: skip


def of_timings(timings: Mapping[str, Timing], work: Mapping[str, tuple[int, float]]) -> str:
    body = []
    for name, timing in timings.items():
        flops, floor = work.get(name, (0, 0.0))
        body.append(
            (
                name, f"{timing.seconds * 1e3:,.1f}", f"{timing.spread:.1%}", f"{timing.peak_bytes / 2**20:,.0f}",
                f"{flops / 1e9:,.1f}" if flops else "", f"{flops / timing.seconds / 1e9:,.0f}" if flops else "",
                f"{timing.seconds / floor:.2f}" if floor else "",
            )
        )  # fmt: skip
    head = ("what ran", "ms (median)", "spread", "peak MiB", "GFLOP", "GFLOP/s", "time / floor")
    return table(head, body)


def of_paths(paths: Sequence[Path]) -> str:
    head = ("decoder", "networks", "px", "LUA path s", "pixel path s", "native decode s", "pixels / LUA")
    return table(
        head,
        [
            (
                path.decoder, path.pair, f"{path.base} -> {path.target}", f"{path.lua:.3f}", f"{path.pixels:.3f}",
                f"{path.native:.3f}", f"**{path.ratio:.2f}x**",
            )
            for path in paths
        ],
    )  # fmt: skip


def of_app(app: App) -> str:
    stages = table(
        ("method", "stage", "app s", "benchmark s", "difference", ""),
        [
            (s.method, s.stage, f"{s.app:.3f}", f"{s.bench:.3f}", f"{s.difference:.1%}",
             "agrees" if s.difference <= AGREEMENT else f"MORE THAN {AGREEMENT:.0%}")
            for s in app.stages
        ],
    )  # fmt: skip
    arrivals = table(
        ("seconds until the result of", *app.arrivals["cold"]),
        [(state, *(f"{seconds:.2f}" for seconds in arrived.values())) for state, arrived in app.arrivals.items()],
    )
    return f"{stages}\n\n{arrivals}\n\nPeak memory: {app.peak_bytes / 2**20:,.0f} MiB"


def of_rehearsal(done: Rehearsal) -> str:
    body = [
        (
            stage.method, stage.name, f"{stage.seconds:.2f}{' (first run)' if stage.cold else ''}",
            f"{stage.peak_bytes / 2**30:.1f}",
        )
        for stage in done.stages
    ]  # fmt: skip
    title = f"{done.base}, {done.size} -> {done.target} px, {done.steps} steps, {done.dtype}"
    skipped = (f"{method} left out: {why}" for method, why in done.skipped.items())
    notes = [f"- {note}" for note in (*done.notes, *skipped)]
    return "\n".join([title, "", table(("method", "stage", "s", "peak GiB"), body), "", *notes, ""])
