"""The tiny autoencoder of a video model's latent space, for one picture: TAEHV (MIT, github.com/madebyollin/taehv).

`taew2_1` of that repository belongs to Wan 2.1, whose latents Qwen-Image shares: 11.3 million parameters. A picture is
a video of one frame, for which blocks with memory have no past: what then adds nothing is not computed. Parameter names
are those of the published file.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.tae import Bound

WIDTHS = 256, 128, 64, 64
"""Channels of the decoder, from the latent's resolution to the picture's."""

WIDTH = 64
"""Channels of the encoder."""


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


class Memory(nn.Module):
    """relu(x + convolutions of x and of what x was one frame before)."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(inplace=True),
            _conv(width, width), nn.ReLU(inplace=True),
            _conv(width, width),
        )  # fmt: skip

    def forward(self, x: Tensor, past: Tensor | None) -> Tensor:
        """`past`: None before the first frame, which counts as zeros."""
        first = self.conv[0]
        assert isinstance(first, nn.Conv2d)
        weight = first.weight if past is not None else first.weight[:, : x.shape[1]]
        y = F.conv2d(x if past is None else torch.cat([x, past], 1), weight, first.bias, padding=1)
        return self.conv[1:](y).add_(x).relu_()


class Join(nn.Module):
    """`count` frames become one: B x count C x h x w, their channels one after the other -> B x C x h x w."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.count = count
        self.conv = nn.Conv2d(count * width, width, 1, bias=False)

    def forward(self, frames: list[Tensor]) -> list[Tensor]:
        groups = (frames[start : start + self.count] for start in range(0, len(frames), self.count))
        return [self.conv(torch.cat(group, 1)) for group in groups]


class Split(nn.Module):
    """The inverse of `Join`: one frame becomes `count`."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.count = count
        self.conv = nn.Conv2d(width, count * width, 1, bias=False)

    def forward(self, frames: list[Tensor]) -> list[Tensor]:
        return [part for frame in frames for part in self.conv(frame).chunk(self.count, 1)]


class TinyVideoAutoencoder(nn.Module):
    """TAEHV for Wan 2.1 and Qwen-Image.

    Args:
        latent_channels: channels of the latent.
    """

    stride = 8

    def __init__(self, latent_channels: int = 16):
        super().__init__()
        self.latent_channels = latent_channels
        down = [
            [Join(WIDTH, count), _conv(WIDTH, WIDTH, stride=2, bias=False), *(Memory(WIDTH) for _ in range(3))]
            for count in (2, 2, 1)
        ]
        self.encoder = nn.Sequential(
            _conv(3, WIDTH), nn.ReLU(inplace=True), *(layer for group in down for layer in group),
            _conv(WIDTH, latent_channels),
        )  # fmt: skip
        up = [
            [
                *(Memory(width) for _ in range(3)),
                nn.Upsample(scale_factor=2),
                Split(width, count),
                _conv(width, following, bias=False),
            ]
            for width, following, count in zip(WIDTHS[:-1], WIDTHS[1:], (1, 2, 2), strict=True)
        ]
        self.decoder = nn.Sequential(
            Bound(), _conv(latent_channels, WIDTHS[0]), nn.ReLU(inplace=True),
            *(layer for group in up for layer in group),
            nn.ReLU(inplace=True), _conv(WIDTHS[-1], 3),
        )  # fmt: skip

    def encode(self, image: Tensor) -> Tensor:
        """Image B x 3 x H x W in [0, 1], H and W multiples of 8 -> normalised latent B x C x H/8 x W/8.

        As published, of four equal frames, of which all pairs are equal, too, up to the first block with memory.
        """
        layers = list(self.encoder)
        start = next(i for i, layer in enumerate(layers) if isinstance(layer, Memory))
        frame = layers[1](layers[0](image))
        (frame,) = _through(layers[2:start], [frame, frame])
        (latent,) = _through(layers[start:], [frame, frame])
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Normalised latent B x C x h x w -> image B x 3 x 8h x 8w, nominally in [0, 1] but not clamped.

        As published: the last of the four frames that one latent frame gives.
        """
        layers = list(self.decoder)
        end = max(i for i, layer in enumerate(layers) if isinstance(layer, Memory)) + 1
        return _through(layers[end:], _through(layers[:end], [latent])[-1:])[-1]


def _through(layers: list[nn.Module], frames: list[Tensor]) -> list[Tensor]:
    """Frames, each B x C x h x w, through the layers; there may be fewer or more of them at the end."""
    for layer in layers:
        if isinstance(layer, Memory):
            frames = [layer(frame, past) for frame, past in zip(frames, [None, *frames[:-1]], strict=True)]
        elif isinstance(layer, Join | Split):
            frames = layer(frames)
        else:
            frames = [layer(frame) for frame in frames]
    return frames
