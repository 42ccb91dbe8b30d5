"""SwinIR for classical super-resolution (arXiv 2108.10257), the pixel-space baseline; one trunk, one head per scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lua_demo.networks.swin import SwinUpscaler

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K; subtracted before the network and added after it, as published."""


class SwinIR(
    SwinUpscaler,
    library_name="lua_demo",
    tags=["swinir", "super-resolution"],
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2108.10257",
):
    """Image B x 3 x H x W in [0, 1] -> B x 3 x (scale * H) x (scale * W), nominally in [0, 1] but not clamped.

    The arguments are those of `SwinUpscaler`; the defaults are the published SwinIR-M x2, which has a single head
    (11.8 M parameters).
    """

    def __init__(
        self,
        embed_dim: int = 180,
        depths: Sequence[int] = (6,) * 6,
        num_heads: Sequence[int] = (6,) * 6,
        window_size: int = 8,
        mlp_ratio: float = 2,
        head_num_feat: int = 64,
        scales: Sequence[int] = (2,),
        shift: bool = True,
        residual: str | None = None,
        stem: int = 0,
        unshuffle: int = 1,
    ):
        super().__init__(
            3, embed_dim, depths, num_heads, window_size, mlp_ratio, head_num_feat, scales, shift, residual,
            stem=stem, unshuffle=unshuffle,
        )  # fmt: skip
        self.mean: Tensor
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward_scales(self, x: Tensor, scales: Iterable[int]) -> dict[int, Tensor]:
        scales = tuple(scales)
        self._check(x, scales)
        return {scale: out + self.mean for scale, out in super().forward_scales(x - self.mean, scales).items()}
