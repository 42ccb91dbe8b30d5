"""Averages over a folder of photos: centre crops are shrunk, sent through every method and compared with the crop.

It reads the engine's own stream, so the numbers are those that the page and `compare` show.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from tqdm import tqdm

from lua_demo import images, metrics
from lua_demo.catalog import METHODS
from lua_demo.engine import Engine
from lua_demo.report import METRICS, format_metric, markdown_table
from lua_demo.schema import Request, Result, UserError
from lua_demo.validate import validated

ORDER = ("roundtrip", "base", "bicubic", "swinir", "lua")
LABELS = {"base": "Base, then bicubic (pixels)"}
DIFFERENCES = [("lua", "base"), ("lua", "bicubic"), ("lua", "swinir")]


@dataclass
class Evaluation:
    """`values[scale][method][image]` holds the metrics and `seconds`; `skipped` says why an image took no part."""

    crop: int
    images: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    values: dict[int, dict[str, dict[str, dict[str, float | None]]]] = field(default_factory=dict)

    def mean(self, scale: int, method: str, name: str) -> float | None:
        """Average over the images; None where a value is missing for any of them."""
        values = [entry.get(name) for entry in self.values[scale].get(method, {}).values()]
        return fmean(values) if values and None not in values else None

    def to_json(self) -> dict[str, Any]:
        names = [*METRICS, "seconds"]
        return {
            "crop": self.crop,
            "images": self.images,
            "skipped": self.skipped,
            "averages": {
                scale: {method: {name: self.mean(scale, method, name) for name in names} for method in methods}
                for scale, methods in self.values.items()
            },
            "per_image": self.values,
        }


def evaluate(
    engine: Engine,
    folder: str | Path,
    scales: Sequence[int] = (2, 4),
    crop: int = 512,
    methods: Sequence[str] = ORDER,
    with_vif: bool = False,
) -> Evaluation:
    """Centre-crop every photo of `folder` to crop x crop, compare at a base of crop / scale.

    Raises:
        UserError: no folder, no photo of that size, a scale or method that does not exist, a crop that is no
            multiple of a scale.
    """
    files = images.list_images(folder)
    for scale in scales:
        if scale < 1 or crop % scale:
            raise UserError(f"crop {crop} is not a multiple of scale {scale}; choose a crop such as 512")
        validated(Request(str(files[0]), scale, crop // scale, tuple(methods)))
    result = Evaluation(crop, values={scale: defaultdict(dict) for scale in scales})
    bar = tqdm(total=len(files) * len(scales), unit="run", disable=None)
    with tempfile.TemporaryDirectory(prefix="lua_demo_") as temporary, bar:
        for path in files:
            try:
                truth = centre_crop(path, crop)
            except UserError as error:
                result.skipped[path.name] = str(error)
                bar.update(len(scales))
                continue
            source = Path(temporary) / f"{path.stem}.png"
            images.save_png(truth, source)
            for scale in scales:
                bar.set_postfix(image=path.name, scale=scale)
                request = Request(str(source), scale, crop // scale, tuple(methods))
                for event in engine.compare(request):
                    if isinstance(event, Result) and event.image is not None and event.metrics is not None:
                        entry = {**event.metrics, "seconds": event.seconds}
                        if with_vif:
                            entry["vif"] = metrics.vif(images.enlarge(event.image, (crop, crop)), truth)
                        result.values[scale][event.method][path.name] = entry
                bar.update()
            result.images.append(path.name)
    if not result.images:
        reason = next(iter(result.skipped.values()))
        raise UserError(f"no photo in {folder} could be used ({reason}); choose a smaller --crop")
    return result


def centre_crop(path: Path, crop: int) -> np.ndarray:
    """crop x crop x 3 uint8 from the middle of the photo; UserError when it is smaller."""
    photo = images.load_photo(path)
    left, top = (photo.width - crop) // 2, (photo.height - crop) // 2
    if left < 0 or top < 0:
        raise UserError(f"{path.name} is {photo.width} x {photo.height}, smaller than the crop of {crop} x {crop}")
    return np.asarray(photo.crop((left, top, left + crop, top + crop)))


def to_markdown(result: Evaluation) -> str:
    """One table of averages, then the differences that matter, then what was skipped."""
    names = [name for name in METRICS if any(name in entry for entry in _entries(result))]
    table = [["scale", "method", *(METRICS[name][0] for name in names), "s"]]
    for scale, methods in result.values.items():
        for method in sorted(methods, key=lambda key: ORDER.index(key) if key in ORDER else len(ORDER)):
            values = [format_metric(name, result.mean(scale, method, name)) for name in names]
            label = LABELS.get(method, METHODS[method].label)
            table.append([f"x{scale}", label, *values, f"{result.mean(scale, method, 'seconds'):.3f}"])
    lines = [f"{len(result.images)} images, {result.crop} x {result.crop} centre crops", "", markdown_table(table), ""]
    for scale, methods in result.values.items():
        for one, other in DIFFERENCES:
            if one in methods and other in methods:
                parts = []
                for name in names:
                    values = [result.mean(scale, method, name) for method in (one, other)]
                    if None not in values:
                        parts.append(f"{METRICS[name][0]} {'+' if values[0] >= values[1] else '-'}"
                                     f"{format_metric(name, abs(values[0] - values[1]))}")  # fmt: skip
                other_label = LABELS.get(other, METHODS[other].label)
                lines.append(f"- x{scale}, {METHODS[one].label} minus {other_label}: {', '.join(parts)}")
    lines += [f"- skipped: {reason}" for reason in result.skipped.values()]
    return "\n".join(lines)


def _entries(result: Evaluation) -> list[dict[str, float | None]]:
    return [entry for methods in result.values.values() for by_image in methods.values() for entry in by_image.values()]
