"""What a base latent comes from. So far: a photo."""

from __future__ import annotations

from torch import Tensor

from lua_demo.vaes import EmbeddedVAE


def from_photo(vae: EmbeddedVAE, image: Tensor) -> Tensor:
    """Photo as an image B x 3 x H x W in [0, 1] -> normalised latent B x C x ceil(H / stride) x ceil(W / stride)."""
    return vae.encode(image)
