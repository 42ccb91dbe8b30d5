"""The tiny autoencoders of real latent spaces: TAESD and its family (MIT, github.com/madebyollin/taesd).

Distilled from the VAE of Stable Diffusion, SDXL, SD 3 or FLUX: 2.4 million parameters that encode and decode that
model's latents. Parameter names are those of the published files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.strips import doubling

WIDTH = 64
HALF, QUARTER = 16, 7
"""Number of layers: of the decoder up to half of the picture's resolution, of the encoder up to a quarter of it."""


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


class Doubling(nn.Conv2d):
    """Nearest-neighbour enlargement by 2 and then this 3x3 convolution, in one."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, doubling(self.weight), self.bias, stride=2, padding=1)


class Bound(nn.Module):
    """Softly bounds the latent to (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    """relu(x + conv(relu(conv(relu(conv(x)))))); with `pool` a normalised 1x1 branch is added to x first."""

    def __init__(self, pool: bool):
        super().__init__()
        self.conv = nn.Sequential(
            _conv(WIDTH, WIDTH), nn.ReLU(inplace=True), _conv(WIDTH, WIDTH), nn.ReLU(inplace=True), _conv(WIDTH, WIDTH)
        )
        self.pool: nn.Sequential | None = None
        if pool:
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False),
                nn.GroupNorm(4, 4 * WIDTH),
                nn.ReLU(inplace=True),
                nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return self.conv(x).add_(x).relu_()


class TinyAutoencoder(nn.Module):
    """TAESD (4 channels, also of SDXL), TAESD3 and TAEF1 (16), TAEF2 (32 and `pool`).

    Args:
        latent_channels: channels of the latent.
        pool: the three blocks at the lowest resolution of encoder and decoder have a pool branch.
    """

    stride = 8

    def __init__(self, latent_channels: int, pool: bool = False):
        super().__init__()
        self.latent_channels = latent_channels
        down = [
            [_conv(WIDTH, WIDTH, stride=2, bias=False), *(Block(pool and i == 2) for _ in range(3))] for i in range(3)
        ]
        self.encoder = nn.Sequential(
            _conv(3, WIDTH), Block(False), *(layer for group in down for layer in group), _conv(WIDTH, latent_channels)
        )
        up = [
            [*(Block(pool and i == 0) for _ in range(3)), nn.Identity(), Doubling(WIDTH, WIDTH, 3, bias=False)]
            for i in range(3)
        ]  # the identity has the number of the published enlargement
        self.decoder = nn.Sequential(
            Bound(), _conv(latent_channels, WIDTH), nn.ReLU(inplace=True),
            *(layer for group in up for layer in group),
            Block(False), _conv(WIDTH, 3),
        )  # fmt: skip

    @property
    def read(self) -> nn.Module:
        """Normalised latent B x C x h x w -> features B x 64 x 4h x 4w: the decoder, up to half of its resolution."""
        return self.decoder[:HALF]

    @property
    def look(self) -> nn.Module:
        """Image B x 3 x H x W in [0, 1] -> features B x 64 x H/4 x W/4: the encoder, up to what `write` takes."""
        return self.encoder[:QUARTER]

    @property
    def write(self) -> nn.Module:
        """Features B x 64 x 2h x 2w, of `look`, -> normalised latent B x C x h x w: the rest of the encoder."""
        return self.encoder[QUARTER:]

    def encode(self, image: Tensor) -> Tensor:
        """Image B x 3 x H x W in [0, 1], H and W multiples of 8 -> normalised latent B x C x H/8 x W/8."""
        return self.encoder(image)

    def decode(self, latent: Tensor) -> Tensor:
        """Normalised latent B x C x h x w -> image B x 3 x 8h x 8w, nominally in [0, 1] but not clamped."""
        return self.decoder(latent)
