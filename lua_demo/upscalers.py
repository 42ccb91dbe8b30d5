"""Upscalers: callables (tensor, scale) -> a tensor exactly `scale` times as high and wide, in the same currency.

LUA takes latents; SwinIR takes images; both are the networks themselves. Bicubic takes either.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

Upscaler = Callable[[Tensor, int], Tensor]


def bicubic(x: Tensor, scale: int) -> Tensor:
    """B x C x h x w -> B x C x scale*h x scale*w, without antialiasing (there is nothing to alias when enlarging)."""
    return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
