"""Encoders and decoders in the project's two currencies. Padding, value ranges and clamping are hidden here."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.autoencoder import Autoencoder


class EmbeddedVAE(nn.Module):
    """The embedded autoencoder for images of any size. Carries no gradient policy."""

    def __init__(self, network: Autoencoder):
        super().__init__()
        self.network = network
        self.stride, self.latent_channels = network.stride, network.latent_channels

    def encode(self, image: Tensor) -> Tensor:
        """Image B x 3 x H x W in [0, 1], any size -> normalised latent B x C x ceil(H / 8) x ceil(W / 8).

        The last row and column are repeated at the bottom and right up to a multiple of the stride.
        """
        height, width = image.shape[-2:]
        padding = (0, -width % self.stride, 0, -height % self.stride)
        return self.network.encode(F.pad(image, padding, mode="replicate") if any(padding) else image)

    def decode(self, latent: Tensor) -> Tensor:
        """Normalised latent B x C x h x w -> image B x 3 x 8h x 8w, clamped to [0, 1]."""
        return self.network.decode(latent).clamp(0, 1)
