"""LUA, the Latent Upscaler Adapter (arXiv 2511.10629): a Swin trunk that upscales the latent of an image by 2 or 4."""

from __future__ import annotations

from collections.abc import Sequence

from lua_demo.networks.swin import SwinUpscaler


class LUA(
    SwinUpscaler,
    library_name="lua_demo",
    tags=["lua", "latent-upscaling", "super-resolution"],
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2511.10629",
):
    """Latent B x in_chans x h x w -> B x in_chans x (scale * h) x (scale * w).

    The arguments are those of `SwinUpscaler`; the defaults are the published network for FLUX.1 (54.9 M parameters).
    That network takes what the VAE's decoder takes; networks of this project take the normalised latent.
    """

    def __init__(
        self,
        in_chans: int = 16,
        embed_dim: int = 360,
        depths: Sequence[int] = (6,) * 6,
        num_heads: Sequence[int] = (12,) * 6,
        window_size: int = 16,
        mlp_ratio: float = 2,
        head_num_feat: int = 256,
        scales: Sequence[int] = (2, 4),
        shift: bool = True,
        residual: str | None = None,
        stem: int = 0,
    ):
        super().__init__(
            in_chans, embed_dim, depths, num_heads, window_size, mlp_ratio, head_num_feat, scales, shift, residual,
            stem=stem,
        )  # fmt: skip
