"""The networks that are timed. Random weights where none are shipped: time does not depend on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from lua_demo.models.vaes import KLAutoencoder, load_network
from lua_demo.models.weights import load_lua, load_swinir
from lua_demo.networks.kinds import Codec
from lua_demo.networks.kl import fast_decode
from lua_demo.networks.lua import LUA
from lua_demo.networks.swinir import SwinIR
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.paths import WEIGHTS_DIR

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny, FluxTransformer2DModel

Module = TypeVar("Module", bound=nn.Module)

TRUNKS: dict[str, dict[str, object]] = {
    "S": dict(embed_dim=96, depths=(4,) * 4, num_heads=(3,) * 4, window_size=8, head_num_feat=64),
    "light": dict(embed_dim=60, depths=(6,) * 4, num_heads=(6,) * 4, window_size=8, head_num_feat=16),
    "M": dict(embed_dim=180, depths=(6,) * 6, num_heads=(6,) * 6, window_size=8, head_num_feat=64),
}


def seeded(make: Callable[..., Module], *args: object, **options: object) -> Module:
    torch.manual_seed(0)
    return make(*args, **options).eval().requires_grad_(False)


def lua(name: str, channels: int = 4) -> LUA:
    """ "full" (as published for FLUX.1, 16 channels), "shipped" or a key of `TRUNKS`."""
    if name == "shipped":
        return load_lua(WEIGHTS_DIR / "embedded" / "lua").requires_grad_(False)
    return seeded(LUA) if name == "full" else seeded(LUA, in_chans=channels, **TRUNKS[name])


def swinir(name: str, scale: int = 2) -> SwinIR:
    """ "shipped" or a key of `TRUNKS`."""
    if name == "shipped":
        return load_swinir(WEIGHTS_DIR / "embedded" / "swinir").requires_grad_(False)
    return seeded(SwinIR, scales=(scale,), **TRUNKS[name])


def decoder(name: str, fast: bool = True) -> Codec:
    """ "embedded" (64 channels), "tiny" (16) or "KL" (16, as of SD 3 and FLUX.1); not `fast`: as its makers run it."""
    if name == "embedded":
        network: Codec = load_network("embedded").requires_grad_(False)
    elif name == "tiny":
        network = seeded(TinyAutoencoder, 16)
    else:
        kl = seeded(_kl)
        if fast:
            fast_decode(kl.model)
        network = kl
    return network.to(memory_format=torch.channels_last) if fast else network


def plain_tiny() -> AutoencoderTiny:
    """diffusers' AutoencoderTiny of 4 channels, as it comes."""
    from diffusers import AutoencoderTiny  # noqa: PLC0415

    return seeded(AutoencoderTiny)


def _kl() -> KLAutoencoder:
    from diffusers import AutoencoderKL  # noqa: PLC0415

    kinds = dict(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    model = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, use_quant_conv=False,
        use_post_quant_conv=False, **kinds,
    )  # fmt: skip
    return KLAutoencoder(model)


def flux(device: torch.device, dtype: torch.dtype, **smaller: object) -> FluxTransformer2DModel:
    """The transformer of FLUX.1-dev with random weights, 24 GB in bf16; `smaller`: config in place of its own."""
    from diffusers import FluxTransformer2DModel  # noqa: PLC0415

    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            network = FluxTransformer2DModel(**{"guidance_embeds": True, **smaller})
    finally:
        torch.set_default_dtype(kept)
    return network.eval().requires_grad_(False)


def flux_step(network: FluxTransformer2DModel, side: int, words: int = 512) -> Callable[[], Tensor]:
    """One sampling step of `flux` for a picture of side x side pixels: its latent in patches of 2 x 2, and `words`."""
    device, dtype, config = network.device, network.dtype, network.config
    rows = torch.arange(side // 16)
    places = torch.stack(torch.meshgrid(torch.zeros_like(rows[:1]), rows, rows, indexing="ij"), dim=-1).flatten(0, 2)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype)

    inputs = dict(
        hidden_states=random(1, len(places), config.in_channels),
        img_ids=places.to(device, dtype),
        encoder_hidden_states=random(1, words, config.joint_attention_dim),
        txt_ids=torch.zeros(words, 3, device=device, dtype=dtype),
        pooled_projections=random(1, config.pooled_projection_dim),
        timestep=torch.ones(1, device=device, dtype=dtype),
        guidance=torch.full((1,), 3.5, device=device, dtype=dtype),
    )
    return lambda: network(**inputs).sample
