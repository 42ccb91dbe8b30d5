"""The table of a batch: one row per item and method, as CSV. No gradio."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lua_demo.report.document import Document, Row
from lua_demo.report.timing import STAGES, merge
from lua_demo.schema import Request

BEFORE = ("item", "source", "seed", "scale", "method", "width", "height")
MEASURED = ("psnr", "ssim", "ms_ssim", "flip", "lpips", "colour_shift")
AFTER = ("total_s", "peak_mib", *MEASURED, "file", "skipped", "error")


def rows(
    name: str, source: str, request: Request, document: Document | None, error: str = ""
) -> list[dict[str, object]]:
    """Rows for one item: one per method of its document, and one with the error where there is one.

    Their keys are BEFORE, "<stage>_s" for every stage that ran, and AFTER: pixels, seconds, MiB, and the metrics in
    their own units. What is not there is empty in the file.
    """
    common: dict[str, object] = {"item": name, "source": source, "seed": request.seed, "scale": request.scale}
    found = {} if document is None else document["methods"]
    made = [common | {"method": method} | _entries(name, row) for method, row in found.items()]
    return [*made, common | {"error": error}] if error else made


def _entries(folder: str, row: Row) -> dict[str, object]:
    metrics = row["metrics"] or {}
    return {
        "width": row["width"],
        "height": row["height"],
        "skipped": row["skipped"],
        **{f"{stage}_s": round(span.seconds, 6) for stage, span in merge(row).items()},
        "total_s": round(row["total_seconds"], 6) if row["stages"] else None,
        "peak_mib": row["peak_bytes"] and round(row["peak_bytes"] / 2**20, 1),
        **{metric: metrics.get(metric) for metric in MEASURED},
        "file": row["file"] and f"{folder}/{row['file']}",
    }


class Table:
    """A CSV file that grows by the rows of one item after another: a reader finds whole rows, whenever it looks.

    Written anew only when rows bring a column that was not there: else each item would cost as much as all before it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[Mapping[str, object]] = []
        self.columns: list[str] = []

    def add(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Append `rows`. What is no Unicode in them (bytes of file names) is written out."""
        self.rows += rows
        stages = [f"{stage}_s" for stage in STAGES]
        usual = {*BEFORE, *stages, *AFTER, *self.columns}
        others = dict.fromkeys([*self.columns, *(key for row in rows for key in row if key not in usual)])
        columns = [*BEFORE, *stages, *(key for key in others if key not in (*BEFORE, *stages, *AFTER)), *AFTER]
        if columns == self.columns:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_csv(columns, rows))
            return
        self.columns = columns
        temporary = self.path.with_name(f".{self.path.name}")
        head = dict(zip(columns, columns, strict=True))
        temporary.write_bytes(_csv(columns, [head, *self.rows]).encode())
        os.replace(temporary, self.path)


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace").decode()
