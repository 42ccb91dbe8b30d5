"""Pictures kept apart from training: a network's gain on them over bicubic, at intervals during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lua_demo.networks.kinds import Codec
from lua_demo.train.data import shrink


class HeldOut:
    """`images`, N x 3 x H x W, made smaller by each scale, encoded and decoded once; sides as for `pairs.encoded`."""

    @torch.no_grad()
    def __init__(self, network: Codec, images: Tensor, scales: Sequence[int]):
        self.images = images
        self.latents = {scale: network.encode(shrink(images, scale)) for scale in scales}
        self.bases = {scale: network.decode(latent).clamp(0, 1) for scale, latent in self.latents.items()}
        self.bicubic = {
            scale: self._psnr(F.interpolate(base, scale_factor=scale, mode="bicubic", align_corners=False))
            for scale, base in self.bases.items()
        }

    @torch.no_grad()
    def gains(self, enlarge: Callable[[Tensor, Tensor, int], Tensor]) -> dict[str, float]:
        """For each scale the PSNR of `enlarge(base, latent, scale)` minus that of the bicubic picture, in dB, averaged
        over the pictures.
        """
        return {
            f"gain_x{scale}": round(self._psnr(enlarge(base, self.latents[scale], scale)) - self.bicubic[scale], 4)
            for scale, base in self.bases.items()
        }

    def _psnr(self, pictures: Tensor) -> float:
        """Mean over the pictures, in dB."""
        errors = (pictures.clamp(0, 1) - self.images).square().flatten(1).mean(1)
        return (-10 * errors.log10()).mean().item()
