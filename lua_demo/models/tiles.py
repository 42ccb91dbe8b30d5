"""Networks whose memory grows with their input, run in one piece where that fits and else in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lua_demo.machine.memory import GIB, MARGIN, free_bytes, give_back, is_out_of_memory

SIDES = (1024, 768, 512, 384, 256, 192, 128, 64)
"""Sides of tiles that are tried, in pixels of the input, largest first."""

OVERLAP = 4
"""Neighbouring tiles overlap by their side divided by this."""


def within_memory(
    run: Callable[[Tensor], Tensor],
    x: Tensor,
    factor: int,
    elements_per_pixel: float,
    multiple: int = 1,
    sides: tuple[int, ...] = SIDES,
) -> tuple[Tensor, int | None]:
    """`run(x)`, and the side of the tiles it was made of; None for one piece.

    Tried first is what the estimate says will fit; what runs out of memory is run again with smaller tiles.

    Args:
        run: B x C x h x w -> B x D x (factor * h) x (factor * w).
        x: B x C x H x W.
        elements_per_pixel: values alive at once for every pixel of the input.
        multiple: tiles begin at multiples of this: the side of the network's windows.
        sides: of tiles, largest first.
    Raises:
        torch.OutOfMemoryError: even the smallest tile does not fit.
    """
    side = fitting_side(x, elements_per_pixel, sides)
    while True:
        try:
            return (run(x) if side is None else tiled(run, x, side, factor, multiple)), side
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        give_back(x.device)
        smaller = [other for other in sides if other < min(side or max(x.shape[-2:]), max(x.shape[-2:]))]
        if not smaller:
            raise torch.OutOfMemoryError(message)
        side = smaller[0]


def fitting_side(x: Tensor, elements_per_pixel: float, sides: tuple[int, ...] = SIDES) -> int | None:
    """The side of the largest tile that fits into the free memory; None where all of `x`, B x C x H x W, does.

    Raises:
        torch.OutOfMemoryError: even the smallest does not.
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    per_pixel = elements_per_pixel * dtype.itemsize * MARGIN * len(x)
    free = free_bytes(x.device)
    height, width = x.shape[-2:]
    if height * width * per_pixel <= free:
        return None
    for side in sides:
        if min(side, height) * min(side, width) * per_pixel <= free:
            return side
    raise torch.OutOfMemoryError(
        f"a tile of {sides[-1]} px needs {sides[-1] ** 2 * per_pixel / GIB:.1f} GiB, {free / GIB:.1f} GiB are free"
    )


def tiled(run: Callable[[Tensor], Tensor], x: Tensor, side: int, factor: int, multiple: int = 1) -> Tensor:
    """`run` on tiles of `side` pixels that overlap by a quarter; where they do, they fade into each other.

    As `within_memory`; the result is float32. A tile sees nothing beyond its border, so that a network that sees far
    gives other values than in one piece.
    """
    overlap = side // OVERLAP
    height, width = x.shape[-2:]
    tops, lefts = (_starts(length, side, overlap, multiple) for length in (height, width))
    total, down, across = None, torch.zeros(height * factor), torch.zeros(width * factor)
    for top, bottom in tops:
        vertical = _fade(bottom - top, overlap, factor)
        down[top * factor : bottom * factor] += vertical
        for left, right in lefts:
            horizontal = _fade(right - left, overlap, factor)
            if top == 0:
                across[left * factor : right * factor] += horizontal
            made = run(x[..., top:bottom, left:right]).float()
            if total is None:
                total = made.new_zeros(*made.shape[:2], height * factor, width * factor)
            rows, columns = slice(top * factor, bottom * factor), slice(left * factor, right * factor)
            total[..., rows, columns] += made * vertical.to(made.device)[:, None] * horizontal.to(made.device)
    assert total is not None  # there is a tile
    return total.div_(down.to(total.device)[:, None]).div_(across.to(total.device))


def _starts(length: int, side: int, overlap: int, multiple: int) -> list[tuple[int, int]]:
    """First and last pixel (exclusive) of tiles along a side; the last one ends with the picture."""
    step = max((side - overlap) // multiple, 1) * multiple
    last = max(0, length - side) // multiple * multiple
    return [*((start, start + side) for start in range(0, last, step)), (last, length)]


def _fade(pixels: int, overlap: int, factor: int) -> Tensor:
    """Weights along one side of a tile: rising over the overlap, then 1, then falling; never 0."""
    position = torch.arange(pixels * factor) + 0.5
    nearest = torch.minimum(position, position.flip(0))
    return (nearest / max(overlap * factor, 1)).clamp(max=1)
