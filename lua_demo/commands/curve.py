"""`python3 -m lua_demo curve LOG ... --out FILE`: what a training gained on pictures kept apart, against its time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lua_demo.bench.plot import COLOURS, INK, LINES
from lua_demo.machine.arguments import Parser
from lua_demo.schema import UserError

SIZE, BOX = (900, 520), (90, 80, 860, 450)
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
"""Distances between grid lines that are tried, in dB or minutes."""


@dataclass(frozen=True)
class Point:
    """After `seconds` and `pixels` of training: the gain over decode-then-bicubic in dB, by scale."""

    seconds: float
    pixels: int
    gains: dict[int, float]


def parser() -> Parser:
    result = Parser(prog="lua_demo curve", description="Plot the gains that `train --held-out` logged.")
    result.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="log.jsonl of a run, and of those after it")
    result.add_argument("--title", default="")
    result.add_argument("--out", type=Path, required=True, help="PNG file to write")
    return result


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    points = joined([read(path) for path in args.logs])
    draw(points, args.title, args.out)
    for quarter in range(1, 5):
        point = next(p for p in points if p.seconds >= points[-1].seconds * quarter / 4)
        gains = ", ".join(f"x{scale} {gain:+.2f} dB" for scale, gain in point.gains.items())
        print(f"{point.seconds / 60:.0f} minutes, {point.pixels / 1e6:.0f} million pixels: {gains}")
    return 0


def read(path: Path) -> list[Point]:
    """The points of one log; of steps that were run twice, as a run was cut off, the later ones.

    Raises:
        UserError: no log, or one of a training without --held-out.
    """
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no log of a training; give OUT/log.jsonl") from error
    found: dict[int, Point] = {}
    for entry in entries:
        gains = {int(name.removeprefix("gain_x")): gain for name, gain in entry.items() if name.startswith("gain_x")}
        if gains:
            found = {step: point for step, point in found.items() if step < entry["step"]}
            found[entry["step"]] = Point(entry["seconds"], entry["pixels"], gains)
    if not found:
        raise UserError(f"{path} has no gains on pictures kept apart: train with --held-out")
    return list(found.values())


def joined(runs: Sequence[list[Point]]) -> list[Point]:
    """Runs one after another: each goes on where the one before ended."""
    points: list[Point] = []
    for run in runs:
        seconds, pixels = (points[-1].seconds, points[-1].pixels) if points else (0.0, 0)
        points += [Point(seconds + p.seconds, pixels + p.pixels, p.gains) for p in run]
    return points


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Gain in dB, both scales, against minutes; both axes linear."""
    image = Image.new("RGB", SIZE, "white")
    pen, font, large = ImageDraw.Draw(image), ImageFont.load_default(18), ImageFont.load_default(22)
    left, top, right, bottom = BOX
    longest = points[-1].seconds / 60 or 1.0
    values = [gain for point in points for gain in point.gains.values()]
    low, high = min(0.0, *values), max(0.1, *values) * 1.05

    def place(minutes: float, gain: float) -> tuple[float, float]:
        return left + (right - left) * minutes / longest, bottom - (bottom - top) * (gain - low) / (high - low)

    pen.text((left, 20), title, INK, large)
    pen.text((left, 50), "dB over decode-then-bicubic, pictures kept apart", INK, font)
    for value in _lines(low, high):
        y = place(0, value)[1]
        pen.line((left, y, right, y), LINES, 1)
        pen.text((left - 12, y), f"{value:g}", INK, font, anchor="rm")
    for value in _lines(0, longest):
        x = place(value, low)[0]
        pen.line((x, bottom, x, bottom + 6), INK, 1)
        pen.text((x, bottom + 10), f"{value:g}", INK, font, anchor="mt")
    pen.line((left, bottom, right, bottom), INK, 2)
    pen.text((right, bottom + 40), "minutes of training", INK, font, anchor="rt")
    for scale in points[-1].gains:
        dots = [place(point.seconds / 60, point.gains[scale]) for point in points if scale in point.gains]
        pen.line(dots, COLOURS[scale], 3)
        pen.text((dots[-1][0], dots[-1][1] + 8), f"x{scale}", COLOURS[scale], font, anchor="rt")
    image.save(path)


def _lines(low: float, high: float) -> list[float]:
    """About six round numbers between `low` and `high`."""
    step = next((step for step in STEPS if (high - low) / step <= 8), STEPS[-1])
    first = int(low // step)
    return [round(step * i, 3) for i in range(first, first + 20) if low <= step * i <= high]
