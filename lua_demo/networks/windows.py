"""Attention inside windows: the windows, what lies between two positions in them, and padding to whole ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def relative_position_index(window: int) -> Tensor:
    """N x N (N = window^2): for query i and key j the row of the (2 * window - 1)^2 relative position biases."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y + window - 1) * (2 * window - 1) + x[:, None] - x + window - 1


def shift_masks(window: int, shift: int) -> Tensor:
    """2 x 2 x N x N, indexed [in the last row of windows, in the last column]: to add to the scores of a rolled image.

    Rolling brings pixels from opposite borders together in the last row and column of windows, where they must not see
    each other. An image of any size has only these four kinds of windows, so nothing has to be built per size.
    """
    wrapped = torch.arange(window) >= window - shift
    row, column = wrapped.repeat_interleave(window), wrapped.repeat(window)
    apart_y, apart_x = row[:, None] != row, column[:, None] != column
    nowhere = torch.zeros_like(apart_y)
    apart = torch.stack([torch.stack([y | x for x in (nowhere, apart_x)]) for y in (nowhere, apart_y)])
    return apart * -100.0


def pad_by_reflection(x: Tensor, multiple: int) -> Tensor:
    """Extend B x C x H x W at the bottom and right to multiples of `multiple`, reflecting without repeating the border.

    Where the extension is longer than the side, the reflection bounces back and forth; a side of 1 repeats its value.
    """
    for dim in (-2, -1):
        side = x.shape[dim]
        if side % multiple:
            period = max(2 * (side - 1), 1)
            at = torch.arange(-(-side // multiple) * multiple, device=x.device) % period
            x = x.index_select(dim, torch.minimum(at, period - at) if side > 1 else at)
    return x


class WindowAttention(nn.Module):
    """Multi-head attention inside each square window of B x H x W x C tokens, with a learned relative position bias."""

    def __init__(self, dim: int, num_heads: int, window: int):
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def bias(self, index: Tensor) -> Tensor:
        """`relative_position_index` -> heads x N x N, to add to the scores.

        Not cached: it takes less than 1 % of a forward, and a cache would outlive weights that are changed in place.
        """
        table = self.relative_position_bias_table
        return table.t().index_select(1, index.flatten()).view(-1, *index.shape)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`x` may be any part of an image that is made of whole windows; `bias`: heads x N x N."""
        batch, height, width, dim = x.shape
        rows, columns, tokens = height // self.window, width // self.window, self.window**2
        x = x.view(batch, rows, self.window, columns, self.window, dim).transpose(2, 3)
        qkv = self.qkv(x.reshape(-1, tokens, dim)).view(-1, tokens, 3, self.num_heads, dim // self.num_heads)
        # Views, and of 4 dimensions: the fused kernels need no contiguous copies, and take nothing else.
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        out = self.proj(out.transpose(1, 2).reshape(-1, tokens, dim))
        out = out.view(batch, rows, columns, self.window, self.window, dim).transpose(2, 3)
        return out.reshape(batch, height, width, dim)
