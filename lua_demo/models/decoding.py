"""One decode, in one piece where that fits and else in blended tiles, in fp32 where half precision overflows."""

from __future__ import annotations

import torch
from torch import Tensor

from lua_demo.catalog.spaces import DECODERS
from lua_demo.machine.memory import MARGIN, free_bytes, give_back, is_out_of_memory
from lua_demo.models.vaes import VAE

ELEMENTS_PER_PIXEL = {"kl": 800, "tiny": 200, "": 200}
"""Values alive at once per pixel of the picture, by decoder: 1.6 GB of bf16 for a KL decode of 1024 px."""

TILES = (256, 192, 128, 96, 64, 48, 32)
"""Sides of tiles, in latent pixels."""

OVERLAP = 4  # a quarter of the tile


def decode(vae: VAE, latent: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Normalised latent B x C x h x w -> image B x 3 x 8h x 8w in [0, 1], and notes on how it was decoded.

    Tiles are normalised one by one, so that their tones may differ a little; their overlaps are blended.
    """
    notes = []
    side = _fitting_side(vae, latent)
    image = None
    if side is None:
        try:
            image = vae.network.decode(latent)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
    if image is None:
        give_back(latent.device)
        side = side or min(TILES[-2], max(latent.shape[-2:]))
        image = _tiled(vae, latent, side)
    how = "in one piece" if side is None else f"in blended tiles of {side * vae.stride} px"
    if vae.decoder or side is not None:
        notes.append(f"{DECODERS.get(vae.decoder, 'decoded')}, {how}")
    if not image.isfinite().all():
        with torch.autocast(latent.device.type, enabled=False):
            whole = side is None
            image = vae.network.decode(latent.float()) if whole else _tiled(vae, latent.float(), side)
        notes.append("the decoder overflowed in half precision and was run again in fp32")
    return image.clamp(0, 1), tuple(notes)


def _fitting_side(vae: VAE, latent: Tensor) -> int | None:
    """The side of the largest tile that fits into the free memory; None where the whole latent does."""
    kind = latent.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else latent.dtype
    per_cell = ELEMENTS_PER_PIXEL[vae.decoder] * vae.stride**2 * dtype.itemsize * MARGIN
    cells = free_bytes(latent.device) / per_cell
    height, width = latent.shape[-2:]
    if len(latent) * height * width <= cells:
        return None
    return next((side for side in TILES if len(latent) * side**2 <= cells), TILES[-1])


def _tiled(vae: VAE, latent: Tensor, side: int) -> Tensor:
    """Decode tiles of `side` latent pixels that overlap by a quarter; where they do, they fade into each other."""
    stride, overlap = vae.stride, side // OVERLAP
    height, width = latent.shape[-2:]
    total = latent.new_zeros(len(latent), 3, height * stride, width * stride, dtype=torch.float32)
    weights = latent.new_zeros(1, 1, *total.shape[-2:], dtype=torch.float32)
    for top in _starts(height, side, overlap):
        for left in _starts(width, side, overlap):
            tile = latent[..., top : top + side, left : left + side]
            weight = _fade(tile.shape[-2], overlap, stride, latent.device)[:, None]
            weight = weight * _fade(tile.shape[-1], overlap, stride, latent.device)
            high, wide = (slice(at * stride, (at + side) * stride) for at in (top, left))
            total[..., high, wide] += vae.network.decode(tile).float() * weight
            weights[..., high, wide] += weight
    return total / weights


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin along a side; the last one ends with the latent."""
    last = max(0, length - side)
    return [*range(0, last, side - overlap), last]


def _fade(cells: int, overlap: int, stride: int, device: torch.device) -> Tensor:
    """Weights along one side of a tile: rising over the overlap, then 1, then falling; never 0."""
    position = torch.arange(cells * stride, device=device) + 0.5
    nearest = torch.minimum(position, position.flip(0))
    return (nearest / (overlap * stride)).clamp(max=1)
