"""The base models, as one table: what makes the latent that is upscaled. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from lua_demo.catalog.spaces import SPACES

HUB = "https://huggingface.co"
SCENE = "scene"
"""The family of the bases that render, and the first of them."""
VAE_GIB = 0.16


@dataclass(frozen=True)
class Base:
    """A base model.

    Attributes:
        label: its name for people.
        family: key of `families.FAMILIES`: how it is called and how its latent is packed.
        space: key of `spaces.SPACES`.
        hub_id: its repository; empty for what needs none.
        licence: of the weights.
        gated: the licence must be accepted on the hub first.
        steps, guidance: what its makers advise; guidance 1 is off.
        sizes: longest sides that it is offered at, in px; the first is the default.
        largest: longest side in px that it was made for.
        dtype: of its weights on a GPU, a key of `placement.DTYPES`.
        variant: of its files on the hub that are in that dtype, where there are several.
        encoder_gib, denoiser_gib, vae_gib: weights of the text encoders together, of the denoiser and of the KL
            autoencoder, in GiB in that dtype.
        step_tflop: (a, b, c) with a + b A + c A^2 TFLOP per forward of the denoiser at A megapixels (1024 x 1024 is 1),
            counted at 512, 1024 and 2048 px on the real architecture.
        unverified: fields of this row that were not checked against the model's own card.
    """

    label: str
    family: str
    space: str
    hub_id: str = ""
    licence: str = "Apache-2.0"
    gated: bool = False
    steps: int = 16
    guidance: float = 3.0
    sizes: tuple[int, ...] = (512, 768, 1024)
    largest: int = 1024
    dtype: str = "bf16"
    variant: str | None = None
    encoder_gib: float = 0.0
    denoiser_gib: float = 0.0
    vae_gib: float = VAE_GIB
    step_tflop: tuple[float, float, float] = (0.0, 1.0, 0.0)
    unverified: tuple[str, ...] = ()

    @property
    def renders(self) -> bool:
        """Whether prompts become scenes that are rendered and encoded, and no diffusion model samples them."""
        return self.family == SCENE

    @property
    def gib(self) -> float:
        """All weights, with the KL autoencoder."""
        return round(self.encoder_gib + self.denoiser_gib + (self.vae_gib if self.hub_id else 0), 2)

    @property
    def access(self) -> str:
        """What a user must do before the weights can be downloaded; empty where nothing is needed."""
        if not self.gated:
            return ""
        return f"accept its licence ({self.licence}) at {HUB}/{self.hub_id}, then run: hf auth login"


FLUX1_TEXT, SD3_TEXT = 9.10, 10.4  # CLIP-L and T5-XXL; CLIP-L, CLIP-G and T5-XXL
FLUX_DEV_LICENCE = "FLUX [dev] Non-Commercial License"
STABILITY_LICENCE = "Stability AI Community License"

BASES: dict[str, Base] = {
    SCENE: Base("Rendered scene", SCENE, "embedded", steps=1, guidance=1.0),
    "embedded": Base(
        "Embedded (landscapes)", "embedded", "embedded", sizes=(512,), largest=512, step_tflop=(0.0003, 0.025, 0.0107)
    ),
    "sd15": Base(
        "Stable Diffusion 1.5", "sd1", "sd1", "stable-diffusion-v1-5/stable-diffusion-v1-5", "CreativeML OpenRAIL-M",
        steps=30, guidance=7.5, sizes=(512, 768), largest=768, dtype="fp16", variant="fp16",
        encoder_gib=0.23, denoiser_gib=1.60,
        step_tflop=(0.0, 2.71, 1.96),
    ),
    "sdxl": Base(
        "SDXL base 1.0", "sdxl", "sdxl", "stabilityai/stable-diffusion-xl-base-1.0", "CreativeML OpenRAIL++-M",
        steps=30, guidance=5.0, dtype="fp16", variant="fp16", encoder_gib=1.52, denoiser_gib=4.78,
        step_tflop=(0.05, 5.96, 0.75),
    ),
    "sdxl-turbo": Base(
        "SDXL-Turbo", "sdxl", "sdxl", "stabilityai/sdxl-turbo", "Stability AI Non-Commercial Research License",
        steps=4, guidance=1.0, sizes=(512,), largest=512, dtype="fp16", variant="fp16",
        encoder_gib=1.52, denoiser_gib=4.78,
        step_tflop=(0.05, 5.96, 0.75),
    ),
    "sd35-medium": Base(
        "Stable Diffusion 3.5 medium", "sd3", "sd3", "stabilityai/stable-diffusion-3.5-medium", STABILITY_LICENCE, True,
        steps=40, guidance=4.5, largest=1440, encoder_gib=SD3_TEXT, denoiser_gib=4.6,
        step_tflop=(0.46, 6.98, 3.81),
    ),
    "sd35-large": Base(
        "Stable Diffusion 3.5 large", "sd3", "sd3", "stabilityai/stable-diffusion-3.5-large", STABILITY_LICENCE, True,
        steps=28, guidance=3.5, encoder_gib=SD3_TEXT, denoiser_gib=15.2,
        step_tflop=(1.81, 23.11, 6.20),
    ),
    "flux1-schnell": Base(
        "FLUX.1 [schnell]", "flux1", "flux1", "black-forest-labs/FLUX.1-schnell", gated=True,
        steps=4, guidance=1.0, largest=2048, encoder_gib=FLUX1_TEXT, denoiser_gib=22.15,
        step_tflop=(6.81, 55.82, 11.75),
    ),
    "flux1-dev": Base(
        "FLUX.1 [dev]", "flux1", "flux1", "black-forest-labs/FLUX.1-dev", FLUX_DEV_LICENCE, True,
        steps=28, guidance=3.5, largest=2048, encoder_gib=FLUX1_TEXT, denoiser_gib=22.17,
        step_tflop=(6.81, 55.82, 11.75),
    ),
    "flux1-krea-dev": Base(
        "FLUX.1 Krea [dev]", "flux1", "flux1", "black-forest-labs/FLUX.1-Krea-dev", FLUX_DEV_LICENCE, True,
        steps=28, guidance=4.5, largest=2048, encoder_gib=FLUX1_TEXT, denoiser_gib=22.17,
        step_tflop=(6.81, 55.82, 11.75),
    ),
    "z-image-turbo": Base(
        "Z-Image-Turbo", "z-image", "flux1", "Tongyi-MAI/Z-Image-Turbo",
        # Older diffusers and many texts call these 8 steps 9: the last one did nothing (diffusers #13730).
        steps=8, guidance=1.0, largest=1536, encoder_gib=7.49, denoiser_gib=11.46,
        step_tflop=(1.0, 50.0, 8.8),
    ),
    "z-image": Base(
        "Z-Image", "z-image", "flux1", "Tongyi-MAI/Z-Image",
        steps=50, guidance=5.0, largest=1536, encoder_gib=7.49, denoiser_gib=11.46,
        step_tflop=(1.0, 50.0, 8.8), unverified=("steps", "guidance", "largest"),
    ),
    "flux2-klein": Base(
        "FLUX.2 [klein] 4B", "flux2-klein", "flux2", "black-forest-labs/FLUX.2-klein-4B",
        steps=4, guidance=1.0, largest=2048, encoder_gib=7.49, denoiser_gib=7.22,
        step_tflop=(3.25, 26.42, 5.15),
    ),
    "ernie-image-turbo": Base(
        "ERNIE-Image-Turbo", "ernie-image", "flux2", "baidu/ERNIE-Image-Turbo",
        steps=8, guidance=1.0, encoder_gib=7.17, denoiser_gib=14.96,
        step_tflop=(1.01, 64.64, 9.9), unverified=("guidance",),
    ),
    "qwen-image": Base(
        "Qwen-Image", "qwen-image", "qwen", "Qwen/Qwen-Image",
        steps=50, guidance=4.0, largest=1328, encoder_gib=15.45, denoiser_gib=38.05, vae_gib=0.24,
        step_tflop=(0.89, 56.05, 12.37), unverified=("steps", "guidance", "largest"),
    ),
    "flux2-dev": Base(
        "FLUX.2 [dev]", "flux2", "flux2", "black-forest-labs/FLUX.2-dev", FLUX_DEV_LICENCE, True,
        steps=28, guidance=4.0, largest=2048, encoder_gib=44.7, denoiser_gib=60.02,
        step_tflop=(28.6, 230.91, 23.09),
    ),
}  # fmt: skip
# Rendered scenes in every other latent space that there is a base of.
BASES |= {
    f"{SCENE}-{space}": Base(f"Rendered scene, latent of {label}", SCENE, space, steps=1, guidance=1.0)
    for space, label in {row.space: SPACES[row.space].label.partition(",")[0] for row in BASES.values()}.items()
    if space != BASES[SCENE].space
}


REAL = "z-image-turbo"
"""What a page on a GPU opens with: open to everybody, few steps, and in the space of the published LUA."""


def first_base(space: str) -> str:
    """The first base model of a latent space: what stands for it where only the space matters. None that renders."""
    return next(key for key, row in BASES.items() if row.space == space and not row.renders)
