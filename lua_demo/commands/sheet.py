"""`python3 -m lua_demo sheet --images DIR --out DIR`: contact sheets of 1:1 details, one per scale.

A row is a photo; its columns are the methods and, last, the reference. The detail is where the reference has the most
of it, so that no method chooses what is shown. The PSNR above it is that of the whole crop.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

from lua_demo.catalog.methods import METHODS
from lua_demo.commands.evaluate import LABELS, add_space_arguments, centre_crop, in_space, use_space
from lua_demo.engine import Engine
from lua_demo.machine.arguments import Parser, machine
from lua_demo.pictures import images
from lua_demo.schema import Result, UserError

COLUMNS = ("base", "bicubic", "lua", "swinir", "native")
GAP, HEADER = 6, 22
FINEST = 8  # px: the raster on which details are looked for


def busiest(truth: np.ndarray, side: int) -> tuple[int, int]:
    """(top, left) of the `side` x `side` part of H x W x 3 uint8 with the most gradient energy, on a raster of 8 px."""
    luma = images.to_tensor(truth).mean(1, keepdim=True)
    energy = F.pad(luma.diff(dim=-1).square(), (0, 1)) + F.pad(luma.diff(dim=-2).square(), (0, 0, 0, 1))
    sums = F.avg_pool2d(energy, side, stride=FINEST)[0, 0]
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return row * FINEST, column * FINEST


def sheets(
    engine: Engine,
    folder: str | Path,
    out: Path,
    scales: Sequence[int] = (2, 4),
    crop: int = 512,
    side: int = 192,
    count: int = 6,
    space: str = "embedded",
) -> list[Path]:
    """Write `out`/x<scale>.png for the first `count` photos of `folder` that hold a centre crop of crop x crop.

    Raises:
        UserError: no such photo; a detail larger than the crop; a crop that is no multiple of a scale.
    """
    if not FINEST <= side <= crop or any(crop % scale for scale in scales):
        raise UserError(f"a detail of {side} px of a crop of {crop} px cannot be cut at {scales}; use 192 of 512")
    truths: dict[Path, np.ndarray] = {}
    for path in images.list_images(folder):
        if len(truths) < count:
            try:
                truths[path] = centre_crop(path, crop)
            except UserError:
                continue
    if not truths:
        raise UserError(f"no photo in {folder} has both sides >= {crop} px; choose a smaller --crop")
    written = []
    with tempfile.TemporaryDirectory(prefix="lua_demo_") as temporary:
        for scale in scales:
            rows = []
            for number, truth in enumerate(truths.values()):
                source = Path(temporary) / f"{number}.png"
                images.save_png(truth, source)
                request = replace(in_space(space), image=str(source), scale=scale, size=crop // scale, methods=COLUMNS)
                with contextlib.closing(engine.compare(request)) as events:
                    made = [event for event in events if isinstance(event, Result)]
                rows.append([_detail(result, truth, side) for result in made if result.image is not None])
            written.append(out / f"x{scale}.png")
            images.save_png(_assembled(rows, side), written[-1])
    return written


def _detail(result: Result, truth: np.ndarray, side: int) -> tuple[str, np.ndarray]:
    """What is written above the detail, and the detail."""
    assert result.image is not None  # those without a picture are not shown
    top, left = busiest(truth, side)
    shown = images.enlarge(result.image, (truth.shape[1], truth.shape[0]))
    label = "Reference" if METHODS[result.method].is_truth else LABELS.get(result.method, result.label)
    score = f"  {result.metrics['psnr']:.2f} dB" if result.metrics else ""
    return label + score, shown[top : top + side, left : left + side]


def _assembled(rows: Sequence[Sequence[tuple[str, np.ndarray]]], side: int) -> np.ndarray:
    """H x W x 3 uint8: every detail at its own pixels, below its label."""
    step = side + GAP
    sheet = Image.new("RGB", (GAP + step * len(rows[0]), GAP + (step + HEADER) * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, row in enumerate(rows):
        for j, (label, detail) in enumerate(row):
            left, top = GAP + j * step, GAP + i * (step + HEADER)
            pen.text((left, top + 4), label, fill="black", font=font)
            sheet.paste(Image.fromarray(detail), (left, top + HEADER))
    return np.asarray(sheet)


def parser() -> Parser:
    result = Parser(prog="lua_demo sheet", description=__doc__, parents=[machine()])
    result.add_argument("--images", required=True, metavar="DIR", help="folder of photos")
    result.add_argument("--out", required=True, type=Path, metavar="DIR", help="gets x2.png and x4.png")
    result.add_argument("--scales", type=int, nargs="+", default=[2, 4])
    result.add_argument("--crop", type=int, default=512, help="side of the centre crops (default: %(default)s)")
    result.add_argument("--side", type=int, default=192, help="side of the details (default: %(default)s)")
    result.add_argument("--count", type=int, default=6, help="photos (default: %(default)s)")
    add_space_arguments(result)
    return result


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    engine = Engine(args.device, args.dtype, args.weights)
    use_space(engine, args)
    for path in sheets(engine, args.images, args.out, args.scales, args.crop, args.side, args.count, args.space):
        print(path)
    return 0
