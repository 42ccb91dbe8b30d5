"""Convolutions and GroupNorm of channels-last images, strip by strip of rows: exact, and never a large copy.

A strip gets the row above and the row below it, so that a convolution of 3x3 sees what it would see in the whole
image. On a CPU the strips stay in the caches. On a GPU they keep every kernel below 2^31 elements, beyond which some
fail: a 4096 px image has 2^32 in the last block of a KL decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.machine.cancel import check_stopped

ELEMENTS = {"cpu": 2**21, "cuda": 2**30, "mps": 2**28, "meta": 2**30}
"""Largest number of elements of a strip, by type of device; one row at least."""

LARGE = 2**25
"""Elements of the input or output of a `StripConv2d` above which it works by strips."""

STATISTICS = 2**26
"""Elements of a strip at most whose sums are taken: they are copied to float32 for it, twice, 0.5 GB."""

Filled = Callable[[Tensor], Tensor]


def strips(height: int, row_elements: int, limit: int) -> Iterator[tuple[int, int]]:
    """First and last row (exclusive) of each strip."""
    rows = max(limit // row_elements, 1)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def group_norm_silu(x: Tensor, norm: nn.GroupNorm, limit: int) -> Filled:
    """SiLU(GroupNorm(x)) as a function of a strip of x: the statistics of the whole image are taken at once, here.

    Sums are taken in float32 of what differs from the mean of the first row, and added up in float64: no cancellation.
    """
    batch, channels, height, width = x.shape
    pivot = x[:, :, :1].float().mean(dim=(2, 3), keepdim=True)
    total = squares = torch.zeros(batch, channels, dtype=torch.float64, device=x.device)
    for top, bottom in strips(height, batch * channels * width, min(limit, STATISTICS)):
        y = (x[:, :, top:bottom].float() - pivot).permute(0, 2, 3, 1).flatten(1, 2)
        total = total + y.sum(1)
        squares = squares + y.square_().sum(1)
    mean = total / (height * width)
    spread = squares / (height * width) - mean.square()
    mean = (mean + pivot.flatten(1)).unflatten(1, (norm.num_groups, -1))
    group_mean = mean.mean(-1, keepdim=True)
    variance = spread.view_as(mean).mean(-1, keepdim=True) + (mean - group_mean).square().mean(-1, keepdim=True)
    scale = norm.weight.view(1, norm.num_groups, -1) / (variance + norm.eps).sqrt()
    shift = norm.bias.view(1, norm.num_groups, -1) - group_mean * scale
    scale, shift = (t.reshape(batch, channels, 1, 1).to(x.dtype) for t in (scale, shift))
    return lambda strip: F.silu(torch.addcmul(shift, strip, scale), inplace=True)


def _with_neighbours(x: Tensor, top: int, bottom: int, fill: Filled | None) -> Tensor:
    """Rows top - 1 to bottom of x, after `fill`; zeros beyond the image, as convolutions pad."""
    above, below = max(top - 1, 0), min(bottom + 1, x.shape[2])
    strip = x[:, :, above:below]
    strip = fill(strip) if fill else strip
    beyond = (0, 0, above - (top - 1), bottom + 1 - below)
    return F.pad(strip, beyond) if any(beyond) else strip


def convolve(
    x: Tensor, conv: nn.Conv2d | nn.ConvTranspose2d, limit: int, fill: Filled | None = None, plus: Tensor | None = None
) -> Tensor:
    """conv(fill(x)) + plus, for a 3x3 convolution that keeps the size or a transposed one of `upsampling` that doubles.

    Args:
        x: B x C x H x W, best channels-last.
        limit: elements of the input and output of a strip, at most.
        fill: of `group_norm_silu`; applied to each strip. `plus`: as large as the result.
    """
    doubles = isinstance(conv, nn.ConvTranspose2d)
    batch, channels, height, width = x.shape
    factor = 2 if doubles else 1
    size = batch, conv.out_channels, height * factor, width * factor
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    row = batch * width * max(channels, conv.out_channels * factor**2)
    for top, bottom in strips(height, row, limit):
        check_stopped()
        strip = _with_neighbours(x, top, bottom, fill)
        if doubles:
            made = F.conv_transpose2d(strip, conv.weight, conv.bias, stride=2, padding=(3, 1))
        else:
            made = F.conv2d(strip, conv.weight, conv.bias, padding=(0, 1))
        rows = slice(top * factor, bottom * factor)
        out[:, :, rows] = made if plus is None else made.add_(plus[:, :, rows])
    return out


class StripConv2d(nn.Conv2d):
    """A 3x3 convolution that keeps the size. What is large on a CPU, where nobody trains, is convolved strip by strip:
    the same numbers, and a stop need not wait for the whole.
    """

    def forward(self, x: Tensor) -> Tensor:
        values = x.numel() // self.in_channels * max(self.in_channels, self.out_channels)
        if x.device.type != "cpu" or torch.is_grad_enabled() or values < LARGE:
            return super().forward(x)
        if torch.is_autocast_enabled("cpu"):  # the result has the dtype that the whole would have
            x = x.to(torch.get_autocast_dtype("cpu"))
        return convolve(x, self, 2 * ELEMENTS["cpu"])


def doubling(weight: Tensor) -> Tensor:
    """O x I x 3 x 3 -> I x O x 4 x 4: of the transposed convolution, stride 2 and padding 1, that equals enlargement by
    2 (nearest neighbour) and then the convolution, with 4/9 of its products.

    Two of the three taps of each side fall on the same small pixel, so their weights can be summed beforehand.
    """
    weight = weight.transpose(0, 1)
    for dim in (2, 3):
        first, middle, last = weight.unbind(dim)
        weight = torch.stack([last, middle + last, first + middle, first], dim)
    return weight


def upsampling(conv: nn.Conv2d) -> nn.ConvTranspose2d:
    """Nearest-neighbour enlargement by 2 and then `conv`, of 3x3, as one convolution: see `doubling`."""
    with torch.device("meta"):
        result = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 4, stride=2, padding=1)
    weight = doubling(conv.weight.detach().double()).to(conv.weight.dtype)
    result.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
    if conv.bias is not None:
        result.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
    return result
