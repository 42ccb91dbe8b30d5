"""Cost and memory against size, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from lua_demo.bench.clock import interleaved
from lua_demo.networks.fast import accelerate
from lua_demo.networks.swin import SwinUpscaler

SIZES, BATCHES, SCALES = (32, 48, 64, 96, 128, 192, 256, 384, 512), (1, 2, 4, 8, 16), (2, 4)
LONGEST = {"cpu": 20.0, "cuda": 5.0, "mps": 20.0}
"""Seconds: where one run takes longer, larger ones are left out."""
COLOURS = {2: "#1668b8", 4: "#c2410c"}
INK, LINES = "#222222", "#dddddd"


@dataclass(frozen=True)
class Point:
    """One size: latents of side x side, a batch of them, the scale; seconds and peak bytes of one forward."""

    side: int
    batch: int
    scale: int
    seconds: float
    peak_bytes: int

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@torch.no_grad()
def measure(network: SwinUpscaler, device: torch.device, dtype: torch.dtype) -> tuple[list[Point], list[Point]]:
    """(by side at batch 1, by batch at 64 x 64), as far as time and memory allow."""
    fast = accelerate(network.to(device), dtype)
    by_side: list[Point] = []
    by_batch: list[Point] = []
    for scale in SCALES:
        for points, sizes in ((by_side, [(side, 1) for side in SIZES]), (by_batch, [(64, batch) for batch in BATCHES])):
            for side, batch in sizes:
                point = _point(fast, side, batch, scale, device, dtype)
                if point is None:
                    break
                points.append(point)
                if point.seconds > LONGEST[device.type]:
                    break
    return by_side, by_batch


def _point(fast, side: int, batch: int, scale: int, device: torch.device, dtype: torch.dtype) -> Point | None:
    """Seconds and peak bytes; None where memory ran out."""
    x = torch.randn(batch, fast.in_chans, side, side, device=device, dtype=dtype)
    try:
        timing = interleaved({"": lambda: fast(x, scale)}, 1, device)[""]
    except (MemoryError, torch.OutOfMemoryError):
        return None
    return Point(side, batch, scale, timing.seconds, timing.peak_bytes)


def draw(by_side: Sequence[Point], by_batch: Sequence[Point], title: str, path: Path) -> None:
    """Four panels: seconds and memory, against the side and against the batch."""
    image = Image.new("RGB", (1500, 1060), "white")
    pen, font, large = ImageDraw.Draw(image), ImageFont.load_default(20), ImageFont.load_default(26)
    pen.text((40, 22), title, INK, large)
    for scale, left in ((2, 1200), (4, 1330)):
        pen.line((left, 40, left + 40, 40), COLOURS[scale], 5)
        pen.text((left + 50, 28), f"x{scale}", INK, font)
    panels = (
        (by_side, "side", "seconds", "Seconds, by side of the latent (batch 1)"),
        (by_batch, "batch", "seconds", "Seconds, by batch (64 x 64)"),
        (by_side, "side", "peak_bytes", "Peak memory in GiB, by side of the latent (batch 1)"),
        (by_batch, "batch", "peak_bytes", "Peak memory in GiB, by batch (64 x 64)"),
    )
    for number, (points, across, up, label) in enumerate(panels):
        box = (100 + 740 * (number % 2), 130 + 480 * (number // 2), 700 + 740 * (number % 2), 520 + 480 * (number // 2))
        pen.text((box[0], box[1] - 40), label, INK, font)
        unit = 2**30 if up == "peak_bytes" else 1
        series = {s: [(getattr(p, across), getattr(p, up) / unit) for p in points if p.scale == s] for s in SCALES}
        _panel(pen, box, series, font)
    image.save(path)


def _panel(pen, box: tuple[int, int, int, int], series: dict[int, list[tuple[float, float]]], font) -> None:
    """Both axes logarithmic."""
    left, top, right, bottom = box
    values = [value for points in series.values() for _, value in points]
    places = sorted({place for points in series.values() for place, _ in points})
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def x_of(place: float) -> float:
        span = math.log(places[-1] / places[0]) or 1.0
        return left + (right - left) * math.log(place / places[0]) / span

    def y_of(value: float) -> float:
        return bottom - (bottom - top) * (math.log10(value) - low) / (high - low)

    for power in range(low, high + 1):
        y = y_of(10.0**power)
        pen.line((left, y, right, y), LINES, 1)
        pen.text((left - 12, y), f"{10.0**power:g}", INK, font, anchor="rm")
    for place in places:
        pen.line((x_of(place), bottom, x_of(place), bottom + 6), INK, 1)
        pen.text((x_of(place), bottom + 10), str(place), INK, font, anchor="mt")
    pen.line((left, bottom, right, bottom), INK, 2)
    for scale, points in series.items():
        dots = [(x_of(place), y_of(value)) for place, value in points]
        pen.line(dots, COLOURS[scale], 4)
        for x, y in dots:
            pen.ellipse((x - 6, y - 6, x + 6, y + 6), COLOURS[scale])
