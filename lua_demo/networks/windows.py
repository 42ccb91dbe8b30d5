"""Attention inside windows: which pixels share a window, what lies between two positions in it, and padding.

SwinIR shifts the windows of every second block by rolling the image and masks the scores between pixels that came
together from opposite borders. Masking out is the same as not computing: the windows at the borders are cut into their
unmasked parts here, smaller windows of an image that was never rolled. So there is no mask and no roll.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.linear import Linear

RASTER = None
"""Key of `Layout.moves` for the order of the pixels in the image, row by row."""


@dataclass(frozen=True)
class Group:
    """Windows of one size, height x width tokens each: tokens `start` to `stop` of a piece."""

    height: int
    width: int
    start: int
    stop: int


@dataclass(frozen=True)
class Piece:
    """Tokens `start` to `stop` of the flat order: whole windows, computed at once, from first norm to last sum."""

    start: int
    stop: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Layout:
    """How the tokens of B x H x W pixels lie, as (B * H * W) x C, so that each window is a block of its own.

    Attributes:
        pieces: shift -> the windows, largest first.
        moves: (from, to) -> permutation of the tokens, int32; from and to are shifts or `RASTER`.
    """

    pieces: dict[int, tuple[Piece, ...]]
    moves: dict[tuple[int | None, int | None], Tensor]

    def move(self, source: int | None, target: int | None) -> Move:
        """What `moved` takes to bring tokens of the order `source` into the order `target`."""
        return None if source == target else (self.moves[source, target], self.moves[target, source])


Move = tuple[Tensor, Tensor] | None
"""Where the tokens of a new order lie in the old one, and the inverse; None where nothing moves."""


def moved(x: Tensor, move: Move) -> Tensor:
    """Tokens (B * H * W) x C in another order."""
    return x if move is None else _Permute.apply(x, *move)


class _Permute(torch.autograd.Function):
    """Rows in another order. Its gradient is a permutation too, where that of index_select adds up, row by row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


def bands(side: int, window: int, shift: int) -> list[tuple[int, int, int]]:
    """The cuts of one side, a multiple of `window`: (length, first pixel, how many) for each length of piece.

    Without shift all pieces are `window` long; with it the first is `shift` and the last `window - shift`.
    """
    whole = (window, shift, (side - shift) // window)
    ends = [(shift, 0, 1), (window - shift, side - window + shift, 1)] if shift else []
    return [whole, *ends] if whole[2] else ends


def _windows(
    batch: int, height: int, width: int, window: int, shift: int, device: torch.device
) -> tuple[tuple[Group, ...], Tensor]:
    """The groups, and for each token in their order its number among all pixels (B, then rows, then columns)."""
    parts: dict[tuple[int, int], list[Tensor]] = {}
    images = torch.arange(batch, device=device)[:, None] * height * width
    for rows, top, down in bands(height, window, shift):
        y = torch.arange(top, top + rows * down, device=device).view(1, down, 1, rows, 1)
        for columns, left, across in bands(width, window, shift):
            x = torch.arange(left, left + columns * across, device=device).view(1, 1, across, 1, columns)
            parts.setdefault((rows, columns), []).append((images + (y * width + x).flatten()).flatten())
    groups, start = [], 0
    for (rows, columns), orders in parts.items():
        stop = start + sum(len(order) for order in orders)
        groups.append(Group(rows, columns, start, stop))
        start = stop
    return tuple(groups), torch.cat([order for orders in parts.values() for order in orders])


def _cut(groups: Sequence[Group], most: int) -> Iterator[Piece]:
    """Pieces of at most `most` tokens, but at least one window."""
    together: list[Group] = []
    for group in groups:
        window = group.height * group.width
        step = max(most // window, 1) * window
        for start in range(group.start, group.stop, step):
            part = Group(group.height, group.width, start, min(start + step, group.stop))
            if together and part.stop - together[0].start > most:
                yield _piece(together)
                together = []
            together.append(part)
    yield _piece(together)


def _piece(parts: Sequence[Group]) -> Piece:
    """A piece made of consecutive groups; their tokens are counted from the start of the piece."""
    first, last = parts[0].start, parts[-1].stop
    return Piece(first, last, tuple(replace(part, start=part.start - first, stop=part.stop - first) for part in parts))


@functools.lru_cache(maxsize=8)
def layout(
    batch: int, height: int, width: int, window: int, shift: int, device: torch.device, most: int | None = None
) -> Layout:
    """For images of whole windows; the last 8 are kept.

    Args:
        shift: of the shifted blocks, 0 where there are none.
        most: tokens per piece; None for one piece.
    """
    with torch.inference_mode(False):  # kept, and perhaps used by a training step later
        pieces: dict[int, tuple[Piece, ...]] = {}
        orders: dict[int | None, Tensor] = {RASTER: torch.arange(batch * height * width, device=device)}
        for step in {0, shift}:
            groups, orders[step] = _windows(batch, height, width, window, step, device)
            pieces[step] = tuple(_cut(groups, most)) if most else (Piece(0, len(orders[step]), groups),)
        places = {key: torch.argsort(order) for key, order in orders.items()}
        moves = {(a, b): places[a][orders[b]].int() for a in orders for b in orders if a != b}
    return Layout(pieces, moves)


@functools.lru_cache(maxsize=16)
def relative_position_index(window: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """N * N (N = rows * columns, at most window^2): for query i and key j the row of the biases, which are (2 * window
    - 1)^2: a smaller window is any part of a whole one, as only the distance counts."""
    with torch.inference_mode(False):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        y, x = y.flatten(), x.flatten()
        index = (y[:, None] - y + window - 1) * (2 * window - 1) + x[:, None] - x + window - 1
        return index.flatten().to(device)


@functools.lru_cache(maxsize=16)
def reflection(side: int, multiple: int, device: torch.device) -> Tensor:
    """For each place of a side that was extended to a multiple: the index of the value that stands there."""
    with torch.inference_mode(False):
        period = max(2 * (side - 1), 1)
        at = torch.arange(-(-side // multiple) * multiple, device=device) % period
        return torch.minimum(at, period - at) if side > 1 else at


def pad_by_reflection(x: Tensor, multiple: int) -> Tensor:
    """Extend B x C x H x W at the bottom and right to multiples of `multiple`, reflecting without repeating the border.

    Where the extension is longer than the side, the reflection bounces back and forth; a side of 1 repeats its value.
    """
    for dim in (-2, -1):
        if x.shape[dim] % multiple:
            x = x.index_select(dim, reflection(x.shape[dim], multiple, x.device))
    return x


class WindowAttention(nn.Module):
    """Multi-head attention inside each window of T x C tokens, with a learned relative position bias."""

    def __init__(self, dim: int, num_heads: int, window: int):
        super().__init__()
        self.num_heads, self.window, self.scale = num_heads, window, (dim // num_heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def bias(self, rows: int, columns: int) -> Tensor:
        """1 x heads x N x N (N = rows * columns), to add to the scores of windows of that size.

        Not kept: it takes less than 1 % of a forward, and would outlive weights that are changed in place.
        `fast.accelerate` keeps it, for weights that stay as they are.
        """
        kept = getattr(self, f"bias_{rows}x{columns}", None)
        if kept is not None:
            return kept[None]
        table, tokens = self.relative_position_bias_table, rows * columns
        index = relative_position_index(self.window, rows, columns, table.device)
        return table.t().index_select(1, index).view(1, -1, tokens, tokens)

    def forward(self, x: Tensor, groups: Sequence[Group], residual: Tensor) -> Tensor:
        """T x C, the windows of `groups` one after the other -> residual + attention, T x C."""
        return self.proj(self.mix(self.qkv(x), groups), residual=residual)

    def mix(self, qkv: Tensor, groups: Sequence[Group]) -> Tensor:
        """The attention between the projections: T x 3C, queries, keys and values of all heads -> T x C."""
        # Views, and of 4 dimensions: the fused kernels need no contiguous copies, and take nothing else.
        qkv, parts = qkv.view(len(qkv), 3, self.num_heads, -1), []
        for group in groups:
            windows = qkv[group.start : group.stop].unflatten(0, (-1, group.height * group.width))
            q, k, v = windows.permute(2, 0, 3, 1, 4)
            bias = self.bias(group.height, group.width)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
            parts.append(out.transpose(1, 2).reshape(group.stop - group.start, -1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)
