"""The linear part of an upscaler of latents, found by least squares."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.linear import zero


@torch.no_grad()
def least_squares(pairs: Iterable[tuple[Tensor, Tensor]], padding_mode: str = "replicate") -> tuple[Tensor, Tensor]:
    """Weight K x C x 3 x 3 and bias K of the convolution, its input's border repeated or with `padding_mode`
    "constant" zero, that comes closest to the targets: over batches of (input B x C x h x w, target B x K x h x w).
    """
    moments = products = torch.zeros((), dtype=torch.float64)
    for x, target in pairs:
        patches = F.unfold(F.pad(x.double(), (1, 1, 1, 1), mode=padding_mode), 3)
        patches = torch.cat([patches, torch.ones_like(patches[:, :1])], dim=1).movedim(1, -1).flatten(0, -2)
        wanted = target.double().movedim(1, -1).flatten(0, -2)
        moments, products = moments + patches.T @ patches, products + patches.T @ wanted
    ridge = 1e-6 * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
    solution = torch.linalg.solve(moments + ridge, products).T.float()
    return solution[:, :-1].unflatten(1, (-1, 3, 3)), solution[:, -1]


class LinearSkip(nn.Module):
    """B x channels x h x w -> B x channels x (scale * h) x (scale * w), linear; starts as the repetition of each pixel.

    A latent is no picture: its channels describe what varies *within* a block of pixels, so that its bicubic
    interpolation decodes badly. The best linear map from the 3x3 neighbourhood, by contrast, nearly decodes to the
    bicubically enlarged picture, and least squares find it (`fit`) before training begins.
    """

    def __init__(self, channels: int, scale: int):
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(channels, channels * scale**2, 3, padding=1, padding_mode="replicate")
        zero(self.conv)
        with torch.no_grad():
            for channel in range(channels):
                self.conv.weight[channel * scale**2 : (channel + 1) * scale**2, channel, 1, 1] = 1

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), self.scale)

    @torch.no_grad()
    def fit(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the map to the least-squares solution over batches of (input, `scale` times larger target)."""
        weight, bias = least_squares((x, F.pixel_unshuffle(target, self.scale)) for x, target in pairs)
        for parameter, value in zip(self.conv.parameters(), (weight, bias), strict=True):
            parameter.copy_(value)
