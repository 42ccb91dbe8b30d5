"""A plain residual CNN that enlarges pictures: what a pixel upscaler of few operations reaches; one head per scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.machine.cancel import check_stopped
from lua_demo.networks.linear import zero
from lua_demo.networks.strips import StripConv2d
from lua_demo.schema import UserError

UNSHUFFLE = 2
"""Pixels per side that are folded into channels in front: a quarter of the operations at twice the field of view."""


class ConvBlock(nn.Module):
    """x + conv(ReLU(conv(x))), both 3 x 3, without normalisation (EDSR, arXiv 1707.02921); at first it is x."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = StripConv2d(width, width, 3, padding=1)
        self.conv2 = StripConv2d(width, width, 3, padding=1)
        zero(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class CNN(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="lua_demo",
    tags=["super-resolution"],
    license="apache-2.0",
):
    """Image B x 3 x H x W in [0, 1] -> B x 3 x (scale * H) x (scale * W), nominally in [0, 1] but not clamped.

    The bicubic picture plus a correction, made of residual blocks at half the resolution of the input. Training starts
    from the bicubic picture: the last convolutions are zero.

    Args:
        width: channels.
        conv_blocks: residual blocks, shared by all scales.
        scales: factors that get a head.

    Raises:
        UserError: a scale below 2.
    """

    def __init__(self, width: int = 96, conv_blocks: int = 10, scales: Sequence[int] = (2, 4)):
        super().__init__()
        self.scales = tuple(scales)
        if any(scale < 2 for scale in self.scales):
            raise UserError(f"a head for scale {min(self.scales)} cannot be built; scales are 2 or more")
        self.conv_first = StripConv2d(3 * UNSHUFFLE**2, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ConvBlock(width) for _ in range(conv_blocks)))
        self.heads = nn.ModuleDict(
            {f"x{scale}": StripConv2d(width, 3 * (scale * UNSHUFFLE) ** 2, 3, padding=1) for scale in self.scales}
        )
        for head in self.heads.values():
            zero(head)

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **kwargs: Any) -> Self:
        # The mixin's default is not strict: it would leave weights that are missing from the file at random values.
        return super()._from_pretrained(strict=strict, **kwargs)

    def forward_scales(self, x: Tensor, scales: Iterable[int]) -> dict[int, Tensor]:
        """Several scales from one pass through the blocks: scale -> the same as `forward(x, scale)`."""
        scales = tuple(scales)
        for scale in scales:
            if scale not in self.scales:
                have = " or ".join(map(str, self.scales))
                raise UserError(f"this CNN has no head for scale {scale}: choose {have}")
        if x.ndim != 4 or x.shape[1] != 3:
            shape = " x ".join(map(str, x.shape))
            raise UserError(f"this CNN takes B x 3 x H x W, but the input is {shape}: give RGB pictures")
        height, width = x.shape[-2:]
        padding = (0, -width % UNSHUFFLE, 0, -height % UNSHUFFLE)
        padded = F.pad(x, padding, mode="replicate") if any(padding) else x
        folded = F.pixel_unshuffle(padded - 0.5, UNSHUFFLE).contiguous(memory_format=torch.channels_last)
        features = self.blocks(self.conv_first(folded))
        outputs = {}
        for scale in scales:
            correction = F.pixel_shuffle(self.heads[f"x{scale}"](features), scale * UNSHUFFLE)
            check_stopped()
            larger = F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
            outputs[scale] = larger + correction[..., : height * scale, : width * scale]
        return outputs

    def forward(self, x: Tensor, scale: int) -> Tensor:
        """Any H, W >= 1.

        Raises:
            UserError: no head for `scale`, or not RGB.
        """
        return self.forward_scales(x, (scale,))[scale]
