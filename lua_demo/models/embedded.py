"""The embedded text-to-latent model as a diffusers pipeline: used like any other base model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn import functional as F

from lua_demo.catalog.prompts import WORDS, meaning
from lua_demo.networks.denoiser import CaptionEncoder, Denoiser, Detail
from lua_demo.schema import UserError

STRIDE = 8
MARGIN = 2  # latent pixels by which a latent is continued before its detail is drawn: no padding is seen in training
Generators = torch.Generator | list[torch.Generator] | None
StepEnd = Callable[["EmbeddedPipeline", int, int, dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class LatentOutput(BaseOutput):
    """`images`: normalised latents B x C x h x w. `ignored`: per prompt the words that meant nothing to the model."""

    images: Tensor
    ignored: list[tuple[str, ...]]


class EmbeddedPipeline(DiffusionPipeline):
    """Prompt -> normalised latent of the embedded autoencoder, by rectified flow with classifier-free guidance.

    The denoiser samples the first channels of the latent; `detail` corrects them and draws the others in one step.
    """

    model_cpu_offload_seq = "text_encoder->transformer->detail"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self,
        text_encoder: CaptionEncoder,
        transformer: Denoiser,
        scheduler: FlowMatchEulerDiscreteScheduler,
        detail: Detail,
    ):
        super().__init__()
        self.register_modules(text_encoder=text_encoder, transformer=transformer, scheduler=scheduler, detail=detail)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> EmbeddedPipeline:
        """Load from a folder that `save_pretrained` wrote.

        diffusers finds components in its own modules and in those of transformers only; ours are named here.
        """
        for name, component in (("text_encoder", CaptionEncoder), ("transformer", Denoiser), ("detail", Detail)):
            if name not in kwargs:
                kwargs[name] = component.from_pretrained(folder, subfolder=name)
        return super().from_pretrained(folder, **kwargs)

    def encode_prompt(self, prompts: list[str]) -> tuple[Tensor, list[tuple[str, ...]]]:
        """Prompts -> B x places x width, and the ignored words of each. UserError for one without any known word."""
        understood = [meaning(prompt) for prompt in prompts]
        ids = self.text_encoder.tokenize([list(prompt.words) for prompt in understood])
        return self.text_encoder(ids), [prompt.ignored for prompt in understood]

    @torch.no_grad()
    def complete(self, latents: Tensor, generator: Generators = None) -> Tensor:
        """B x channels of the denoiser x h x w -> B x C x h x w: corrected, and with the detail channels after them."""
        wider = F.pad(latents, (MARGIN,) * 4, mode="replicate")
        shape = (len(wider), self.detail.config.noise, *wider.shape[-2:])
        noise = randn_tensor(shape, generator, wider.device, self.detail.dtype)
        return self.detail(wider.to(self.detail.dtype), noise)[..., MARGIN:-MARGIN, MARGIN:-MARGIN].to(latents.dtype)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        height: int = 512,
        width: int = 512,
        num_inference_steps: int = 16,
        guidance_scale: float = 3.0,
        generator: Generators = None,
        output_type: str = "latent",
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",),
        image: Tensor | None = None,
        strength: float = 1.0,
    ) -> LatentOutput:
        """Sample latents, from noise or on from given ones.

        Args:
            prompt: free text, or one per picture.
            height, width: of the picture in pixels, multiples of 8.
            guidance_scale: 1 turns guidance off.
            generator: a CPU generator gives the same noise on every machine.
            output_type: "latent"; decoding is the caller's.
            callback_on_step_end: (pipeline, step, timestep, {"latents": ...}) -> dict that may replace the latents,
                which have no detail before the last step.
            image: latents B x C x height/8 x width/8 to sample on from, as in diffusers' image-to-image pipelines.
            strength: share of the steps that run from there, over 0 and up to 1; 1 leaves nothing of `image`.
        Raises:
            UserError: a prompt without a known word; a size, number of steps or output type that cannot be.
        """
        if output_type != "latent":
            raise UserError(f'output_type {output_type!r} does not exist; "latent" is the only one: decode it yourself')
        if height < STRIDE or width < STRIDE or height % STRIDE or width % STRIDE:
            raise UserError(f"size {width} x {height} cannot be generated; both sides must be multiples of {STRIDE}")
        if num_inference_steps < 1:
            raise UserError(f"{num_inference_steps} steps make no picture; give 1 or more")
        if not 0 < strength <= 1:
            raise UserError(f"strength {strength} is no share of the steps; give one over 0 and up to 1")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        text, ignored = self.encode_prompt(prompts)
        guided = guidance_scale != 1
        if guided:
            nothing = self.text_encoder(self.text_encoder.tokenize([[]])).expand(len(prompts), -1, -1)
            text = torch.cat([nothing, text])
        shape = (len(prompts), self.transformer.config.channels, height // STRIDE, width // STRIDE)
        latents = randn_tensor(shape, generator, self.transformer.device, self.transformer.dtype)
        self.scheduler.set_timesteps(num_inference_steps, device=self.transformer.device)
        begin = 0 if image is None else num_inference_steps - math.ceil(num_inference_steps * strength)
        timesteps = self.scheduler.timesteps[begin:]
        if image is not None:
            if len(image) != len(prompts) or image.shape[-2:] != shape[-2:]:
                raise UserError(
                    f"the latents to sample on from are {tuple(image.shape)}; {len(prompts)} of {width} x {height} px "
                    f"are {len(prompts)} x C x {shape[2]} x {shape[3]}"
                )
            self.scheduler.set_begin_index(begin)
            latents = self.scheduler.scale_noise(image[:, : shape[1]].to(latents), timesteps[:1], latents)
        for step, time in enumerate(self.progress_bar(timesteps)):
            times = (time / self.scheduler.config.num_train_timesteps).expand(len(text))
            velocity = self.transformer(torch.cat([latents, latents]) if guided else latents, times, text)
            if guided:
                without, given = velocity.chunk(2)
                velocity = without + guidance_scale * (given - without)
            latents = self.scheduler.step(velocity, time, latents).prev_sample
            if step + 1 == len(timesteps):
                latents = self.complete(latents, generator)
            if callback_on_step_end:
                offered = {name: latents for name in callback_on_step_end_tensor_inputs if name == "latents"}
                latents = callback_on_step_end(self, step, int(time), offered).get("latents", latents)
        self.maybe_free_model_hooks()
        return LatentOutput(images=latents, ignored=ignored)


def new_pipeline(detail: dict[str, int] | None = None, **sizes: int) -> EmbeddedPipeline:
    """An untrained pipeline. `sizes` go to `Denoiser`, those of `detail` to `Detail`."""
    encoder = CaptionEncoder(list(WORDS))
    transformer = Denoiser(text_width=encoder.config.width, **sizes)
    completing = Detail(transformer.config.channels, **(detail or {}))
    return EmbeddedPipeline(encoder, transformer, FlowMatchEulerDiscreteScheduler(shift=3.0), completing)
