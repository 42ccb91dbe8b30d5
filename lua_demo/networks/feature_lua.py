"""LUA for the published latent spaces: between the layers with which the space's tiny autoencoder reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.skip import LinearSkip
from lua_demo.networks.swin import SwinUpscaler
from lua_demo.networks.tae import WIDTH, TinyAutoencoder
from lua_demo.schema import UserError

PLACES, FINER = 4, 2
"""Features per side of a latent cell: of the input, and of the output."""


class FeatureLUA(
    SwinUpscaler,
    library_name="lua_demo",
    tags=["lua", "latent-upscaling", "super-resolution"],
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2511.10629",
):
    """Features of a latent B x feature_chans x 4h x 4w -> of the larger one, B x feature_chans x 2sh x 2sw.

    What `TinyAutoencoder.read` makes of a latent of h x w goes in, and `TinyAutoencoder.write` makes the larger latent
    of what comes out: `OnFeatures` is the three together, and a correction. The trunk sees h x w positions, as LUA's
    does: each has the features of its 4 x 4 places. Training starts from the best linear map of features, with heads
    that add nothing.

    Why not the latent itself, as published: the latents of a VAE are far from linear, and most of the training of a
    LUA goes into reading and writing them. The tiny autoencoder of the space knows both already. Its layers are
    neither trained nor part of these weights.

    Args:
        feature_chans: channels of the features; those not named here are of `SwinUpscaler`.
        back_project: side, in px of the small picture, of the averages that `OnFeatures` corrects with a step of
            back-projection; 0: no such step. The less the tiny autoencoder loses the finer it pays: 2 px in the spaces
            of SD 3 and FLUX.2, 4 px in FLUX.1's; SDXL's loses too much.
    """

    def __init__(
        self,
        feature_chans: int = WIDTH,
        embed_dim: int = 192,
        depths: Sequence[int] = (4, 4, 4),
        num_heads: Sequence[int] = (6, 6, 6),
        window_size: int = 8,
        mlp_ratio: float = 2,
        head_num_feat: int = 64,
        scales: Sequence[int] = (2, 4),
        back_project: int = 0,
    ):
        super().__init__(
            feature_chans * PLACES**2, embed_dim, depths, num_heads, window_size, mlp_ratio, head_num_feat, scales,
            shift=True, residual=None, out_chans=feature_chans, finer=FINER,
        )  # fmt: skip
        self.feature_chans, self.back_project = feature_chans, back_project
        self.skips = nn.ModuleDict({
            f"x{scale}": LinearSkip(feature_chans, scale * FINER // PLACES) for scale in self.scales
        })  # fmt: skip
        self.start_heads_at_zero()

    def forward_scales(self, x: Tensor, scales: Iterable[int]) -> dict[int, Tensor]:
        """Several scales from one pass through the trunk: scale -> the same as `forward(x, scale)`."""
        if x.ndim != 4 or x.shape[1] != self.feature_chans or x.shape[2] % PLACES or x.shape[3] % PLACES:
            raise UserError(
                f"this FeatureLUA takes features B x {self.feature_chans} x 4h x 4w, but the input is "
                f"{' x '.join(map(str, x.shape))}: for latents use find_lua, which puts it between the layers that "
                "read and write them"
            )
        made = super().forward_scales(F.pixel_unshuffle(x, PLACES), scales)
        return {scale: out + self.skips[f"x{scale}"](x) for scale, out in made.items()}


class OnFeatures(nn.Module):
    """Normalised latents through a FeatureLUA: the first layers of `tiny`'s decoder, it, and the last of the encoder.

    With `back_project`, by default as the FeatureLUA has it, one step of back-projection follows (Irani and Peleg
    1991): `tiny` decodes both latents, what the small one shows and the large one has lost is added to the picture, and
    the latent changes by what that changes in the encoding. It holds broad shading and colours to the small picture's,
    for nine times the operations.

    `tiny` is the tiny autoencoder of the latents' space; it is shared, not copied.
    """

    def __init__(self, network: FeatureLUA, tiny: TinyAutoencoder, back_project: int | None = None):
        super().__init__()
        self.network, self.tiny = network, tiny
        self.back_project = network.back_project if back_project is None else back_project
        self.in_chans, self.scales = tiny.latent_channels, network.scales

    def forward(self, latent: Tensor, scale: int) -> Tensor:
        """Latent B x C x h x w -> B x C x (scale * h) x (scale * w), in the dtype of `latent`.

        Raises:
            UserError: no head for `scale`, or another number of channels.
        """
        if latent.ndim != 4 or latent.shape[1] != self.in_chans:
            raise UserError(
                f"this LUA takes latents B x {self.in_chans} x h x w, but the input is "
                f"{' x '.join(map(str, latent.shape))}: use that of the latent's own space"
            )
        tiny, small = self.tiny, latent.to(next(self.tiny.parameters()).dtype)
        large = tiny.write(self.network(tiny.read(small), scale))
        if self.back_project:
            picture = tiny.decode(large).clamp(0, 1)
            whole = (picture + lost(picture, tiny.decode(small), scale, self.back_project)).clamp(0, 1)
            large = large + tiny.encode(whole.to(picture.dtype)) - tiny.encode(picture)
        return large.to(latent.dtype)


def lost(picture: Tensor, small: Tensor, scale: int, side: int = 1) -> Tensor:
    """What the bicubically enlarged `small`, B x 3 x h x w, shows and `picture`, `scale` times as large, does not: of
    averages over `side` x `side` px of `small`, bicubically enlarged again. In float32.
    """
    base = F.interpolate(small.float(), scale_factor=scale, mode="bicubic").clamp(0, 1)
    difference = F.avg_pool2d(base, side * scale) - F.avg_pool2d(picture.float(), side * scale)
    return F.interpolate(difference, scale_factor=side * scale, mode="bicubic")


def on_latents(network: nn.Module, tiny: TinyAutoencoder | None, back_project: int | None = None) -> nn.Module:
    """(latent, scale) -> larger latent, by a LUA of any kind: a FeatureLUA is put between the layers of `tiny`."""
    if not isinstance(network, FeatureLUA):
        return network
    if tiny is None:
        raise ValueError("a FeatureLUA needs the tiny autoencoder of its space")
    return OnFeatures(network, tiny, back_project)
