"""The latent spaces, as one table. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from lua_demo.catalog.upscalers import File

AUTOENCODER, GENERATOR, LUA = "autoencoder", "generator", "lua"
"""Roles of networks that belong to a latent space."""

DECODERS = {"kl": "full KL decoder", "small": "small KL decoder", "tiny": "tiny decoder"}
"""Decoders of published latent spaces, by the key that users choose; the first is the default."""


@dataclass(frozen=True)
class PublishedLUA:
    """A LUA that others trained, on latents as the decoder takes them: normalised / scaling_factor + shift_factor."""

    hub_id: str
    scaling_factor: float
    shift_factor: float


@dataclass(frozen=True)
class Space:
    """A latent space: what LUA is trained for, and what two models must share to share latents.

    Attributes:
        label: the models that use it.
        channels, stride: of its latents; the stride in px.
        tiny: name of its tiny autoencoder: `<tiny>_encoder.safetensors`, and the hub repository madebyollin/<tiny>.
        tiny_file: the file of it, where it is no hub repository.
        small: hub repository of a KL autoencoder whose decoder is a smaller one.
        scales: what its upscalers are trained for.
        roles: role -> folder of the weights that the space cannot do without, relative to the folder of all weights.
        lua: the published LUA of the space; None where there is none.
    """

    label: str
    channels: int
    stride: int = 8
    tiny: str | None = None
    tiny_file: File | None = None
    small: str | None = None
    scales: tuple[int, ...] = (2, 4)
    roles: dict[str, str] = field(default_factory=dict)
    lua: PublishedLUA | None = None

    @property
    def decoders(self) -> dict[str, str]:
        """Decoder -> its name for people; empty where the space's own shipped autoencoder is the only one."""
        there = {"kl": self.tiny, "small": self.small, "tiny": self.tiny}
        return {key: label for key, label in DECODERS.items() if there[key]}


SPACES: dict[str, Space] = {
    "embedded": Space(
        "the embedded autoencoder (f8, 64 channels, made for upscaling)",
        64,
        roles={role: f"embedded/{role}" for role in (AUTOENCODER, LUA, GENERATOR)},
    ),
    "sd1": Space("Stable Diffusion 1.x, 2.x", 4, tiny="taesd"),
    "sdxl": Space("SDXL", 4, tiny="taesdxl"),
    "sd3": Space("Stable Diffusion 3, 3.5", 16, tiny="taesd3"),
    "flux1": Space(
        "FLUX.1, Z-Image, Chroma, HiDream",
        16,
        tiny="taef1",
        lua=PublishedLUA("vaskers5/LUA-FLUX", scaling_factor=0.3611, shift_factor=0.1159),
    ),
    "flux2": Space(
        "FLUX.2 and ERNIE-Image, before their 2x2 patches",
        32,
        tiny="taef2",
        small="black-forest-labs/FLUX.2-small-decoder",
    ),
    "qwen": Space(
        "Qwen-Image, Wan 2.1",
        16,
        tiny="taew2_1",
        tiny_file=File(
            "https://github.com/madebyollin/taehv/raw/main/safetensors/taew2_1.safetensors",
            22_642_902,
            "04766eac0221b5390b985ae3fdcca652cbb4b1e8b82b28ea7ff89dfad1b1a93f",
        ),
    ),
}
