"""The latent spaces, as one table. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

AUTOENCODER, GENERATOR, LUA, SWINIR = "autoencoder", "generator", "lua", "swinir"
SWINIR_OFFICIAL = "swinir-official"
"""Roles of networks."""

DECODERS = {"kl": "full KL decoder", "tiny": "tiny decoder"}
"""Decoders that a published latent space has, by the key that users choose; the first is the default."""


@dataclass(frozen=True)
class Space:
    """A latent space: what LUA is trained for, and what two models must share to share latents.

    Attributes:
        label: the models that use it.
        channels, stride: of its latents; the stride in px.
        tiny: name of its tiny autoencoder: `<tiny>_encoder.safetensors`, and the hub repository madebyollin/<tiny>.
        scales: what its upscalers are trained for.
        roles: role -> folder of the shipped weights, relative to the folder of all weights.
    """

    label: str
    channels: int
    stride: int = 8
    tiny: str | None = None
    scales: tuple[int, ...] = (2, 4)
    roles: dict[str, str] = field(default_factory=lambda: {SWINIR: "embedded/swinir"})

    @property
    def decoders(self) -> dict[str, str]:
        """Decoder -> its name for people; empty where the space's own shipped autoencoder is the only one."""
        return DECODERS if self.tiny else {}


SPACES: dict[str, Space] = {
    "embedded": Space(
        "the embedded autoencoder (f8, 64 channels, made for upscaling)",
        64,
        roles={role: f"embedded/{role}" for role in (AUTOENCODER, LUA, SWINIR, GENERATOR)},
    ),
    "sd1": Space("Stable Diffusion 1.x, 2.x", 4, tiny="taesd"),
    "sdxl": Space("SDXL", 4, tiny="taesdxl"),
    "sd3": Space("Stable Diffusion 3, 3.5", 16, tiny="taesd3"),
    "flux1": Space("FLUX.1, Z-Image, Chroma, HiDream", 16, tiny="taef1"),
    "flux2": Space("FLUX.2, before its 2x2 patches", 32, tiny="taef2"),
}
