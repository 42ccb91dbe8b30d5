"""The families of base models: how a diffusers pipeline is asked, and how its latents become ours and back.

The latents are taken as the last step of the denoiser leaves them, from `callback_on_step_end`: what a pipeline returns
for `output_type="latent"` differs (FLUX.2 gives patches, FLUX.2 [klein] what its autoencoder decodes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PATCH = 2

Pipeline: TypeAlias = Any
"""A pipeline of diffusers, or an image-to-image one made of it: no base class there has what is used here."""

Given = dict[str, object]
"""What the call of a pipeline takes in place of the prompt."""


def pack(latent: Tensor) -> Tensor:
    """B x C x h x w, both sides even -> B x (h/2 * w/2) x 4C: one token per 2 x 2 patch, as in FLUX.1 and FLUX.2."""
    batch, channels, height, width = latent.shape
    patches = latent.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH**2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pack` for a latent of `height` x `width`."""
    batch, _, channels = tokens.shape
    patches = tokens.reshape(batch, height // PATCH, width // PATCH, channels // PATCH**2, PATCH, PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, -1, height, width)


def unpatch(latent: Tensor, *size: int) -> Tensor:
    """B x 4C x h/2 x w/2, one pixel per 2 x 2 patch, as in ERNIE-Image -> B x C x h x w."""
    batch, _, height, width = latent.shape
    patches = latent.reshape(batch, -1, PATCH, PATCH, height, width)
    return patches.permute(0, 1, 4, 2, 5, 3).reshape(batch, -1, height * PATCH, width * PATCH)


def _as_it_is(latent: Tensor, *_: int) -> Tensor:
    return latent


def _text(pipeline: Pipeline, prompt: str, guided: bool, device: torch.device) -> Given:
    return {"prompt": prompt}


Encode = Callable[[Pipeline, str, bool, "torch.device"], Given]
EMBEDS = "prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"


def _guided(**more: object) -> Encode:
    """For the pipelines that encode the negative prompt too: SD 1, SDXL, SD 3, Z-Image. `more`: what they insist on."""

    def encode(pipeline: Pipeline, prompt: str, guided: bool, device: torch.device) -> Given:
        made = pipeline.encode_prompt(prompt, device=device, do_classifier_free_guidance=guided, **more)
        return dict(zip(EMBEDS, made, strict=False))  # SD 1 and Z-Image have no pooled ones

    return encode


def _flux1(pipeline: Pipeline, prompt: str, guided: bool, device: torch.device) -> Given:
    embeds, pooled, _ = pipeline.encode_prompt(prompt, None, device=device)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


def _flux2(pipeline: Pipeline, prompt: str, guided: bool, device: torch.device) -> Given:
    return {"prompt_embeds": pipeline.encode_prompt(prompt, device=device)[0]}


def _klein(pipeline: Pipeline, prompt: str, guided: bool, device: torch.device) -> Given:
    made = _flux2(pipeline, prompt, guided, device)
    if guided and not pipeline.config.is_distilled:
        made["negative_prompt_embeds"] = pipeline.encode_prompt("", device=device)[0]
    return made


def _ernie(pipeline: Pipeline, prompt: str, guided: bool, device: torch.device) -> Given:
    made = {"prompt_embeds": pipeline.encode_prompt(prompt, device)}
    if guided:
        made["negative_prompt_embeds"] = pipeline.encode_prompt("", device)
    return made


def _qwen(pipeline: Pipeline, prompt: str, guided: bool, device: torch.device) -> Given:
    made = {}
    for prefix, text in (("", prompt), ("negative_", " "))[: 2 if guided else 1]:
        embeds, mask = pipeline.encode_prompt(text, device=device)
        made[f"{prefix}prompt_embeds"] = embeds
        made[f"{prefix}prompt_embeds_mask"] = embeds.new_ones(embeds.shape[:2]) if mask is None else mask
    return made


def _guidance(value: float) -> dict[str, float]:
    return {"guidance_scale": value}


@dataclass(frozen=True)
class Refiner:
    """The image-to-image pipeline of a family: it adds noise to a latent and runs the last steps of the sampler.

    Attributes:
        pipeline: its class in diffusers. It is made of the components of the base's own pipeline. None where that one
            takes `image` and `strength` itself.
        asked: (steps to run, steps of the whole sampler, (width, height) in px) -> what its call takes for that.
        settings: what its constructor takes beside the components.
    """

    pipeline: str | None
    asked: Callable[[int, int, tuple[int, int]], dict[str, float]]
    settings: Mapping[str, object] = field(default_factory=dict)


def _flow_strength(kept: int, steps: int, size: tuple[int, int]) -> dict[str, float]:
    # These round the steps up, SDXL's rounds them down: half a step keeps both away from rounding errors.
    return {"strength": (kept - 0.5) / steps, "width": size[0], "height": size[1]}


def _sdxl_strength(kept: int, steps: int, size: tuple[int, int]) -> dict[str, float]:
    return {"strength": min(1.0, (kept + 0.5) / steps)}


@dataclass(frozen=True)
class Family:
    """One kind of pipeline.

    Attributes:
        pipeline: its class in diffusers.
        encode: (pipeline, prompt, guided, device that computes) -> what the call takes in place of the prompt: the
            whole work of the text encoders.
        to_ours: (the denoiser's latents, height, width of our latent) -> normalised latent B x C x h x w.
        multiple: of which both sides of the picture must be, in px.
        denoiser: the component that samples.
        guidance: our guidance, where 1 is off, -> what the pipeline's call takes for it.
        without: components that nothing here needs.
        refiner: its image-to-image pipeline, if it has one that takes latents.
    """

    pipeline: str
    encode: Encode
    to_ours: Callable[[Tensor, int, int], Tensor] = _as_it_is
    multiple: int = 16
    denoiser: str = "transformer"
    guidance: Callable[[float], dict[str, float]] = _guidance
    without: tuple[str, ...] = ()
    refiner: Refiner | None = None


FAMILIES: dict[str, Family] = {
    "scene": Family("", _text, multiple=8),  # no pipeline: see `Base.renders`
    "embedded": Family("EmbeddedPipeline", _text, multiple=8, refiner=Refiner(None, _flow_strength)),
    "sd1": Family(
        "StableDiffusionPipeline",
        _guided(num_images_per_prompt=1),
        multiple=8,
        denoiser="unet",
        without=("safety_checker", "feature_extractor"),
    ),
    "sdxl": Family(
        "StableDiffusionXLPipeline",
        _guided(),
        multiple=8,
        denoiser="unet",
        # It would put its watermark on the latent.
        refiner=Refiner("StableDiffusionXLImg2ImgPipeline", _sdxl_strength, {"add_watermarker": False}),
    ),
    "sd3": Family(
        "StableDiffusion3Pipeline",
        _guided(prompt_2=None, prompt_3=None),
        refiner=Refiner("StableDiffusion3Img2ImgPipeline", _flow_strength),
    ),
    "flux1": Family("FluxPipeline", _flux1, unpack, refiner=Refiner("FluxImg2ImgPipeline", _flow_strength)),
    "flux2": Family("Flux2Pipeline", _flux2, unpack),
    "flux2-klein": Family("Flux2KleinPipeline", _klein, unpack),
    # Without its second language model, which rewrites prompts: all columns get the words of the prompt itself.
    "ernie-image": Family("ErnieImagePipeline", _ernie, unpatch, without=("pe", "pe_tokenizer")),
    "qwen-image": Family("QwenImagePipeline", _qwen, unpack, guidance=lambda value: {"true_cfg_scale": value}),
    # Its w counts from 0: it adds w times the difference to the guided prediction.
    "z-image": Family(
        "ZImagePipeline",
        _guided(),
        guidance=lambda value: {"guidance_scale": value - 1},
        refiner=Refiner("ZImageImg2ImgPipeline", _flow_strength),
    ),
}
