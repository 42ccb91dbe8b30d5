"""Quality against time, one dot per method, as SVG (`scatter.svg`)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from lua_demo.catalog.methods import METHODS
from lua_demo.report import claims
from lua_demo.report.document import Document
from lua_demo.report.html import render

WIDTH, HEIGHT = 360, 230  # units of a panel: about the px of a phone
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 24, 34
RADIUS, TEXT, LETTER = 4.5, 10, 5.4  # of a dot; height of a line and mean width of a letter
GAP = RADIUS + 3
TICKS_OF_TIME = [base * 10.0**power for power in range(-4, 5) for base in (1, 2, 5)]
STEPS_OF_QUALITY = (0.1, 0.2, 0.5, 1, 2, 5, 10)
MOST_TICKS = 6


@dataclass(frozen=True)
class Dot:
    """A method: seconds of its whole path, PSNR in dB; `kind` is "latent", "pixels" or "other"."""

    label: str
    seconds: float
    psnr: float
    kind: str = "other"


def dots_of(document: Document) -> list[Dot]:
    """The methods of a comparison that were timed and measured. What is made from the original does not compete."""
    return [
        Dot(row["label"], row["total_seconds"], psnr, kind_of([stage["name"] for stage in row["stages"]]))
        for key, row in document["methods"].items()
        if row["total_seconds"] > 0
        and (psnr := (row["metrics"] or {}).get("psnr")) is not None
        and not (key in METHODS and METHODS[key].needs_truth)
    ]


def kind_of(stages: Sequence[str]) -> str:
    """What was enlarged, by the names of the stages in order."""
    if "upscale" not in stages:
        return "other"
    return "pixels" if claims.enlarges_pixels(stages) else "latent"


def scatter(panels: Mapping[str, Sequence[Dot]], standalone: bool = False) -> Markup:
    """One panel per title, one below the other; empty where no panel has two dots.

    `standalone`: with its colours, as a file; else those of the page's `timing.css` are used.
    """
    drawn = {title: _panel(dots) for title, dots in panels.items() if len(dots) > 1}
    if not drawn:
        return Markup("")
    dots = [dot for title in drawn for dot in panels[title]]
    return render(
        "scatter.svg",
        panels=drawn,
        standalone=standalone,
        summary="; ".join(f"{dot.label} {claims.seconds(dot.seconds)}, {dot.psnr:.2f} dB" for dot in dots),
        frame={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP,
               "bottom": HEIGHT - BOTTOM, "radius": RADIUS},
    )  # fmt: skip


def _panel(dots: Sequence[Dot]) -> dict[str, object]:
    """Ticks, dots and labels in the units of the panel. The axis of time is logarithmic."""
    fast, slow = min(dot.seconds for dot in dots) / 1.4, max(dot.seconds for dot in dots) * 1.4
    low, high = _range([dot.psnr for dot in dots])
    margin = max((high - low) * 0.12, 0.05)
    low, high = low - margin, high + margin

    def x_of(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(seconds / fast) / math.log(slow / fast)

    def y_of(psnr: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - psnr) / (high - low)

    step = next((s for s in STEPS_OF_QUALITY if (high - low) / s <= MOST_TICKS), STEPS_OF_QUALITY[-1])
    levels = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    # What lies far below the others is drawn at the lower edge, with its value.
    places = [
        (x_of(dot.seconds), y_of(dot.psnr), dot)
        if dot.psnr >= low
        else (x_of(dot.seconds), HEIGHT - BOTTOM - RADIUS, replace(dot, label=f"{dot.label} ↓ {dot.psnr:.1f}"))
        for dot in dots
    ]
    return {
        "across": [(x_of(time), f"{time:g}") for time in TICKS_OF_TIME if fast <= time <= slow],
        "up": [(y_of(level), f"{level:.{1 if step < 1 else 0}f}") for level in levels],
        "dots": places,
        "labels": _labels(places),
    }


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value to draw: not what is further below the median than twice what the best is above it."""
    middle, high = statistics.median(values), max(values)
    least = middle - 2 * (high - middle) - 0.5
    return min(value for value in values if value >= least), high


def _labels(places: Sequence[tuple[float, float, Dot]]) -> list[tuple[float, float, str, str]]:
    """(x, y of the middle, anchor, text) beside each dot, where no other dot or label is, as far as there is room."""
    taken = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y, _ in places]
    labels = []
    for x, y, dot in places:
        wide = LETTER * len(dot.label)
        options = [(x + GAP + shift, y + down, "start", x + GAP + shift) for shift, down in ((0, 0), (-2, -9), (-2, 9))]
        options += [
            (x - GAP + shift, y + down, "end", x - GAP + shift - wide) for shift, down in ((0, 0), (2, -9), (2, 9))
        ]
        options += [(x, y + down, "middle", x - wide / 2) for down in (-13, 13, -24, 24)]
        boxes = [(left, at - TEXT / 2, left + wide, at + TEXT / 2) for _, at, _, left in options]
        costs = [_outside(box) + sum(_overlap(box, other) for other in taken) for box in boxes]
        best = min(range(len(options)), key=costs.__getitem__)
        taken.append(boxes[best])
        labels.append((*options[best][:3], dot.label))
    return labels


def _outside(box: tuple[float, float, float, float]) -> float:
    """Area beyond the panel."""
    left, top, right, bottom = box
    wide = max(0.0, min(right, WIDTH) - max(left, LEFT))
    high = max(0.0, min(bottom, HEIGHT - BOTTOM + 2) - max(top, TOP))
    return (right - left) * (bottom - top) - wide * high


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)
