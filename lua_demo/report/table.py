"""The table of a batch: one row per item and method, as CSV. No gradio."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lua_demo.report.timing import STAGES, merge
from lua_demo.schema import Request

BEFORE = ("item", "source", "seed", "scale", "method", "width", "height")
MEASURED = ("psnr", "ssim", "ms_ssim", "flip", "lpips", "colour_shift")
AFTER = ("total_s", "peak_mib", *MEASURED, "file", "skipped", "error")


def rows(
    name: str, source: str, request: Request, document: Mapping[str, Any] | None, error: str = ""
) -> list[dict[str, Any]]:
    """Rows for one item: one per method, or one with the error where there is no document.

    Their keys are BEFORE, "<stage>_s" for every stage that ran, and AFTER: pixels, seconds, MiB, and the metrics in
    their own units. What is not there is empty in the file.
    """
    common = {"item": name, "source": source, "seed": request.seed, "scale": request.scale}
    if document is None:
        return [common | {"error": error}]
    return [common | {"method": method} | _entries(name, row) for method, row in document["methods"].items()]


def _entries(folder: str, row: Mapping[str, Any]) -> dict[str, Any]:
    metrics = row["metrics"] or {}
    return {
        **{key: row[key] for key in ("width", "height", "skipped")},
        **{f"{stage}_s": round(span.seconds, 6) for stage, span in merge(row).items()},
        "total_s": round(row["total_seconds"], 6) if row["stages"] else None,
        "peak_mib": row["peak_bytes"] and round(row["peak_bytes"] / 2**20, 1),
        **{metric: metrics.get(metric) for metric in MEASURED},
        "file": row["file"] and f"{folder}/{row['file']}",
    }


def write_table(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Write `table` as CSV so that a reader finds all of it or nothing."""
    temporary = path.with_name(f".{path.name}")
    stages = [f"{stage}_s" for stage in STAGES]
    others = [key for row in table for key in row if key not in (*BEFORE, *stages, *AFTER)]
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*BEFORE, *stages, *dict.fromkeys(others), *AFTER])
        writer.writeheader()
        writer.writerows(table)
    os.replace(temporary, path)
