"""The embedded autoencoder: f8, 64 channels, made so that its latents can be upscaled.

Encoder and decoder are each the sum of a linear map (a lapped 8x8 block transform, started at the PCA of image
patches) and a convolutional correction. The linear part keeps the decoder close to linear, so that the decode of an
averaged latent is close to the average of the decodes: a property that published latent spaces lack and that an
upscaler of latents needs. Almost all of the correction's operations are spent at 1/8 resolution. No normalisation
layer: the result for a pixel does not depend on the image size.

The last channels, the detail, have an encoder of their own: they were added to a space on which a generator had been
trained, whose channels stay what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.machine.cancel import check_stopped
from lua_demo.networks.linear import zero
from lua_demo.networks.strips import StripConv2d


class ResBlock(nn.Module):
    """x + conv(silu(conv(x))), 3x3, without normalisation; starts as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = StripConv2d(width, width, 3, padding=1)
        self.conv2 = StripConv2d(width, width, 3, padding=1)
        zero(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(x)))


class Encoder(nn.Module):
    """Image in [-1, 1], B x 3 x H x W -> B x C x H/8 x W/8."""

    def __init__(self, channels: int, fine: int, coarse: int, blocks: Sequence[int]):
        super().__init__()
        self.linear = nn.Conv2d(3 * 64, channels, 3, padding=1, padding_mode="replicate")
        self.correction = nn.Sequential(
            nn.PixelUnshuffle(4),
            StripConv2d(3 * 16, fine, 3, padding=1),
            *(ResBlock(fine) for _ in range(blocks[0])),
            nn.PixelUnshuffle(2),
            StripConv2d(4 * fine, coarse, 3, padding=1),
            *(ResBlock(coarse) for _ in range(blocks[1])),
            nn.SiLU(),
            StripConv2d(coarse, channels, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(F.pixel_unshuffle(image, 8)) + self.correction(image)


class Decoder(nn.Module):
    """B x C x h x w -> image around [-1, 1], B x 3 x 8h x 8w."""

    def __init__(self, channels: int, fine: int, coarse: int, blocks: Sequence[int]):
        super().__init__()
        self.linear = nn.Conv2d(channels, 3 * 64, 3, padding=1, padding_mode="replicate")
        self.correction = nn.Sequential(
            StripConv2d(channels, coarse, 3, padding=1),
            *(ResBlock(coarse) for _ in range(blocks[1])),
            nn.SiLU(),
            StripConv2d(coarse, 4 * fine, 3, padding=1),
            nn.PixelShuffle(2),
            *(ResBlock(fine) for _ in range(blocks[0])),
            nn.SiLU(),
            StripConv2d(fine, 3 * 16, 3, padding=1),
            nn.PixelShuffle(4),
        )

    def forward(self, latent: Tensor) -> Tensor:
        correction = self.correction(latent)
        check_stopped()
        return F.pixel_shuffle(self.linear(latent), 8) + correction


class Autoencoder(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="lua_demo",
    tags=["autoencoder", "latent-upscaling"],
    license="apache-2.0",
):
    """The embedded latent space.

    Args:
        latent_channels: channels of the latent, the detail among them.
        detail_channels: how many of them, the last ones, the detail encoder makes.
        fine, coarse: widths at 1/4 and 1/8 resolution, of the decoder; the encoder uses `encoder_coarse` at 1/8.
        encoder_blocks, decoder_blocks: residual blocks at 1/4 and at 1/8 resolution.
        scaling_factor, shift_factor: normalised latent = (raw - shift_factor) * scaling_factor, as in diffusers'
            AutoencoderKL.
    """

    stride = 8

    def __init__(
        self,
        latent_channels: int = 16,
        fine: int = 64,
        coarse: int = 160,
        encoder_coarse: int = 128,
        encoder_blocks: Sequence[int] = (2, 4),
        decoder_blocks: Sequence[int] = (2, 6),
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        detail_channels: int = 0,
    ):
        super().__init__()
        self.latent_channels, self.detail_channels = latent_channels, detail_channels
        self.scaling_factor, self.shift_factor = scaling_factor, shift_factor
        self.encoder = Encoder(latent_channels - detail_channels, fine, encoder_coarse, encoder_blocks)
        if detail_channels:
            self.detail = Encoder(detail_channels, fine, encoder_coarse, encoder_blocks)
        self.decoder = Decoder(latent_channels, fine, coarse, decoder_blocks)

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **kwargs: Any) -> Self:
        # The mixin's default is not strict: it would leave weights that are missing from the file at random values.
        return super()._from_pretrained(strict=strict, **kwargs)

    @property
    def encoders(self) -> list[Encoder]:
        """In the order of the channels that they make."""
        return [self.encoder, self.detail] if self.detail_channels else [self.encoder]

    def encode(self, image: Tensor) -> Tensor:
        """Image B x 3 x H x W in [0, 1], H and W multiples of 8 -> normalised latent B x C x H/8 x W/8."""
        height, width = image.shape[-2:]
        if height % self.stride or width % self.stride:
            raise ValueError(
                f"the image is {width} x {height}; both sides must be multiples of {self.stride}: pad it first"
            )
        raw = torch.cat([encoder(image * 2 - 1) for encoder in self.encoders], dim=1)
        return (raw - self.shift_factor) * self.scaling_factor

    def decode(self, latent: Tensor) -> Tensor:
        """Normalised latent B x C x h x w -> image B x 3 x 8h x 8w, nominally in [0, 1] but not clamped."""
        image = self.decoder(latent / self.scaling_factor + self.shift_factor)
        check_stopped()
        return (image + 1) / 2

    def normalise(self, mean: float, std: float) -> None:
        """Make `encode` give latents of mean 0 and standard deviation 1, given the current latents' mean and std.

        The decoded images do not change. Recorded in the saved configuration.
        """
        self.shift_factor += mean / self.scaling_factor
        self.scaling_factor /= std
        config = self._hub_mixin_config
        assert isinstance(config, dict)  # as the arguments of a call are recorded
        config.update(scaling_factor=self.scaling_factor, shift_factor=self.shift_factor)

    @torch.no_grad()
    def start_from_pca(self, images: Tensor, tempering: float = 0.5) -> None:
        """Set both linear maps to the PCA of the 8x8 patches of `images` (B x 3 x H x W in [0, 1]) and zero the
        corrections' last layers.

        `tempering` divides each component by its standard deviation to that power: 0 keeps the orthonormal transform,
        in which the mean colour has twenty times the scale of the finest component, 1 whitens.
        """
        patches = F.pixel_unshuffle(images * 2 - 1, 8).movedim(1, -1).flatten(0, -2).double()
        mean = patches.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
        keep = values.argsort(descending=True)[: self.latent_channels]
        scale = values[keep].clamp_min(1e-8).sqrt() ** tempering
        analysis, synthesis = vectors[:, keep].T / scale[:, None], vectors[:, keep] * scale
        shares = analysis.split([encoder.linear.out_channels for encoder in self.encoders])
        maps = [(encoder.linear, share, -share @ mean) for encoder, share in zip(self.encoders, shares, strict=True)]
        for conv, weight, bias in (*maps, (self.decoder.linear, synthesis, mean)):
            conv.weight.zero_()
            conv.weight[:, :, 1, 1] = weight.float()
            if conv.bias is not None:
                conv.bias.copy_(bias.float())
        lasts = [encoder.correction[-1] for encoder in self.encoders]
        for last in (*lasts, [m for m in self.decoder.correction if isinstance(m, nn.Conv2d)][-1]):
            zero(last)
