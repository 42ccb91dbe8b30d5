"""What a base latent comes from: a photo that is encoded, or a prompt that is sampled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lua_demo.vaes import VAE

STRIDE = 8


def from_photo(vae: VAE, image: Tensor) -> Tensor:
    """Photo as an image B x 3 x H x W in [0, 1] -> normalised latent B x C x ceil(H / stride) x ceil(W / stride)."""
    return vae.encode(image)


class PromptToLatent(nn.Module):
    """A diffusers pipeline with `output_type="latent"` as one network. Carries no gradient policy of its own."""

    def __init__(self, pipeline):
        super().__init__()
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline
        self.parts = nn.ModuleList(part for part in pipeline.components.values() if isinstance(part, nn.Module))

    def forward(
        self,
        prompt: str,
        size: tuple[int, int],
        steps: int,
        guidance: float,
        seed: int,
        told: Callable[[int], None] = lambda step: None,
    ) -> Tensor:
        """Prompt -> normalised latent 1 x C x height/8 x width/8.

        Args:
            size: (width, height) of the picture in pixels, multiples of 8.
            seed: of the noise, which is drawn on the CPU: the same on every machine.
            told: called after each step with the number of steps that are done.
        """

        def at_step_end(_, step, time, tensors):
            told(step + 1)
            return tensors

        return self.pipeline(
            prompt,
            height=size[1],
            width=size[0],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
            callback_on_step_end=at_step_end,
        ).images


def load_generator(source: str | Path) -> PromptToLatent:
    """The embedded text-to-latent model from its folder."""
    from lua_demo.pipeline import EmbeddedPipeline  # noqa: PLC0415  diffusers takes seconds to import

    return PromptToLatent(EmbeddedPipeline.from_pretrained(source))


def picture_size(size: int, ratio: float) -> tuple[int, int]:
    """(width, height) of about `ratio` = width / height, the longer `size` px or just below; multiples of 8."""
    longer = max(STRIDE, size // STRIDE * STRIDE)
    shorter = max(STRIDE, round(longer * min(ratio, 1 / ratio) / STRIDE) * STRIDE)
    return (longer, shorter) if ratio >= 1 else (shorter, longer)
