"""SesquiLSR (MIT, github.com/LoganBooker/SesquiLSR): a published convolutional latent upscaler for scales from 1 to 2.

Written from a description of the network; parameter names are those of the published files.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6
GATE = 8
"""Consecutive values that share a gate."""

RANK, TAPS, EMBEDDING, FREQUENCIES = 2, 4, 8, 4
LIFT_WIDTH = 64


def _conv(inputs: int, outputs: int, side: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2, padding_mode="reflect", bias=bias)


class Scale(nn.Module):
    """A weight per channel. It only holds the weight, under the name that it has in the published files."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))


class Block(nn.Module):
    """x -> x + deviation of x * mix(down(gated(up(x / deviation)))), with one mean and deviation per picture.

    Args:
        channels: of input and output.
        expand: values of the hidden layer and their gates, as a multiple of `channels`.
        shrink: channels between the hidden layer and the last convolution, likewise.
    """

    def __init__(self, channels: int, expand: float, shrink: float):
        super().__init__()
        gates = GATE * math.ceil(math.ceil(expand * channels / (GATE + 1)) / GATE)
        self.values, middle = GATE * gates, math.ceil(channels * shrink)
        self.norm = Scale(channels)
        self.up = nn.Conv2d(channels, self.values + gates, 1, bias=False)
        self.down = nn.Conv2d(self.values, middle, 1, bias=False)
        self.mix = _conv(middle, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
        deviation = (variance + EPSILON).sqrt()
        hidden = self.up((x - mean) / deviation * self.norm.weight[:, None, None])
        values, gates = hidden[:, : self.values], hidden[:, self.values :]
        values = F.mish(values) * torch.tanh(gates / 2).repeat_interleave(GATE, dim=1)
        return x + self.mix(self.down(values)) * deviation


class Frequencies(nn.Module):
    """sin and cos of a position times frequencies in units of pi, which come with the weights."""

    freqs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.arange(1.0, FREQUENCIES + 1))

    def forward(self, position: Tensor) -> Tensor:
        angle = position[:, None] * self.freqs * math.pi
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class Upsample(nn.Module):
    """B x width x h x w -> B x width x any size: to twice the size by pixel shuffles, then a learned resampling.

    The resampling is separable, of rank 2, with four taps per output position, channel and axis, which depend on where
    between two input positions the output lies and on the ratio of the sizes.
    """

    def __init__(self, width: int):
        super().__init__()
        lift = min(LIFT_WIDTH, width // 2)
        self.ps_expand = nn.Conv2d(width, 4 * width, 1)
        self.lift_expand = nn.Conv2d(width, 4 * lift, 1, bias=False)
        self.lift_mix = _conv(lift, width, 3)
        self.refine = Block(width, expand=2, shrink=1)
        self.base_taps = nn.Parameter(torch.zeros(RANK, 2, width, TAPS))
        self.rank_gain = nn.Parameter(torch.zeros(RANK))
        self.pe = Frequencies()
        self.axis_emb, self.rank_emb = nn.Embedding(2, EMBEDDING), nn.Embedding(RANK, EMBEDDING)
        features = 2 * FREQUENCIES + 1 + 2 * EMBEDDING
        self.filter_net = nn.Sequential(nn.Linear(features, 64), nn.Mish(), nn.Linear(64, width * TAPS))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        lifted = self.lift_mix(F.pixel_shuffle(self.lift_expand(x), 2))
        x = self.refine(F.pixel_shuffle(self.ps_expand(x), 2) + lifted)
        made = [
            gain * self._resample(self._resample(x, rank, 0, size[0]), rank, 1, size[1])
            for rank, gain in enumerate(torch.sigmoid(self.rank_gain))
        ]
        return torch.stack(made).sum(0)

    def _resample(self, x: Tensor, rank: int, axis: int, length: int) -> Tensor:
        """Along height (axis 0) or width (1) to `length`."""
        before = x.shape[2 + axis]
        position = (torch.arange(length, device=x.device) + 0.5) * before / length - 0.5
        base = position.floor().clamp(0, before - 1)
        weights = self._taps(position - base, before / length, rank, axis).to(x.dtype)  # length x channels x taps
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for tap in range(TAPS):
            at = (base.long() + tap - 1).clamp(0, before - 1)
            weight = weights[..., tap].T
            weight = weight[:, :, None] if axis == 0 else weight[:, None, :]
            total = total + x.index_select(2 + axis, at) * weight
        return total

    def _taps(self, fraction: Tensor, ratio: float, rank: int, axis: int) -> Tensor:
        known = [torch.full_like(fraction[:, None], math.log2(max(ratio, 0.01)))]
        known += [
            table.weight[index].expand(len(fraction), -1)
            for table, index in ((self.axis_emb, axis), (self.rank_emb, rank))
        ]
        dtype = self.base_taps.dtype
        features = torch.cat([self.pe(fraction.to(dtype)), *(part.to(dtype) for part in known)], dim=1)
        change = 0.2 * torch.tanh(self.filter_net(features).unflatten(1, (-1, TAPS)))
        return self.base_taps[rank, axis] + change - change.mean(-1, keepdim=True)


class Sesqui(nn.Module):
    """Latent B x in_chans x h x w, h and w at least 3 -> the same, `scale` times as high and wide; scale 1 to 2.

    The defaults are the published networks: 3.07 M parameters for 4 channels, 3.09 M for 16.
    """

    scales = (2,)

    def __init__(self, in_chans: int = 4, width: int = 128, in_depth: int = 8, out_depth: int = 6):
        super().__init__()
        self.in_chans = in_chans
        self.head_conv = nn.Sequential(
            _conv(in_chans, width // 2, 3), nn.Mish(), _conv(width // 2, width, 3, bias=True)
        )
        self.in_blocks = nn.Sequential(*(Block(width, expand=1.5, shrink=0.75) for _ in range(in_depth)))
        self.upsample = Upsample(width)
        self.out_blocks = nn.Sequential(*(Block(width, expand=2, shrink=1) for _ in range(out_depth)))
        self.tail_conv = nn.Sequential(
            nn.Conv2d(width, width // 2, 1, bias=False), nn.Mish(), _conv(width // 2, in_chans, 3, bias=True)
        )
        self.skip_conv = _conv(in_chans, in_chans, 5)

    def forward(self, latent: Tensor, scale: float) -> Tensor:
        if not 1 <= scale <= 2:
            raise ValueError(f"SesquiLSR enlarges by 1 to 2, not by {scale}")
        height, width = latent.shape[-2:]
        return self.to_size(latent, (round(height * scale), round(width * scale)))

    def to_size(self, latent: Tensor, size: tuple[int, int]) -> Tensor:
        """As `forward`, to a height and width."""
        x = self.out_blocks(self.upsample(self.in_blocks(self.head_conv(latent)), size))
        enlarged = F.interpolate(latent, size=size, mode="bicubic", align_corners=False)
        return self.tail_conv(x) + self.skip_conv(enlarged)
