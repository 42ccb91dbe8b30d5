"""One decode, in one piece where that fits and else in blended tiles, in fp32 where half precision overflows."""

from __future__ import annotations

import torch
from torch import Tensor

from lua_demo.catalog.compositions import Output
from lua_demo.catalog.spaces import DECODERS
from lua_demo.machine.cancel import check_stopped
from lua_demo.models.tiles import within_memory
from lua_demo.models.vaes import VAE

ELEMENTS_PER_PIXEL = {"kl": 800, "small": 600, "tiny": 200, "": 200}
"""Values in memory at once per pixel of the picture, by decoder. For a KL decode of 1024 px in bf16 that is 1.6 GB; the
small one has three quarters of its channels.
"""

TILES = (256, 192, 128, 96, 64, 48, 32)
"""Sides of tiles, in latent pixels."""


def decode(vae: VAE, latent: Tensor) -> Output:
    """Normalised latent B x C x h x w -> image B x 3 x 8h x 8w in [0, 1], and notes on how it was decoded.

    Tiles are normalised one by one, so that their tones may differ a little; their overlaps are blended.
    """
    notes = []
    image, side = _decoded(vae, latent)
    check_stopped()
    how = "in one piece" if side is None else f"in blended tiles of {side * vae.stride} px"
    if vae.decoder or side is not None:
        notes.append(f"{DECODERS.get(vae.decoder, 'decoded')}, {how}")
    if not image.isfinite().all():
        with torch.autocast(latent.device.type, enabled=False):
            image, _ = _decoded(vae, latent.float())
        notes.append("the decoder overflowed in half precision and was run again in fp32")
    return Output(image.clamp(0, 1), tuple(notes))


def _decoded(vae: VAE, latent: Tensor) -> tuple[Tensor, int | None]:
    """The image, and the side of its tiles in latent pixels."""
    per_cell = ELEMENTS_PER_PIXEL[vae.decoder] * vae.stride**2
    return within_memory(vae.network.decode, latent, vae.stride, per_cell, sides=TILES)
