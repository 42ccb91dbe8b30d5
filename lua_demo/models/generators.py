"""What a base latent comes from: a photo that is encoded, or a prompt that is sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lua_demo.catalog.families import FAMILIES, Family, Given, Pipeline, Refiner
from lua_demo.models.checkpoints import UNREADABLE, refuse_no_numbers
from lua_demo.models.vaes import VAE
from lua_demo.schema import UserError

STRIDE = 8


@dataclass(frozen=True)
class Start:
    """What to sample on from.

    Attributes:
        latent: normalised, 1 x C x h x w of the size that is sampled. Noise is added to it.
        kept: number of the sampler's last steps that run.
    """

    latent: Tensor
    kept: int


def from_photo(vae: VAE, image: Tensor) -> Tensor:
    """Photo as an image B x 3 x H x W in [0, 1] -> normalised latent B x C x ceil(H / stride) x ceil(W / stride)."""
    return vae.encode(image)


def sample(
    pipeline: Pipeline,
    family: Family,
    given: Given,
    size: tuple[int, int],
    steps: int,
    guidance: float,
    seed: int,
    told: Callable[[int], None] = lambda step: None,
    start: Start | None = None,
) -> Tensor:
    """Run a diffusers pipeline, from noise or on from `start` -> normalised latent 1 x C x height/8 x width/8, float32.

    Args:
        given: what `family.encode` made of the prompt.
        size: (width, height) of the picture in pixels, multiples of `family.multiple`.
        guidance: 1 is off.
        seed: of the noise, which is drawn on the CPU: the same on every machine.
        told: called after each step with the number of steps that are done.
    """
    latents = None
    asked: dict[str, object] = {"height": size[1], "width": size[0]}
    if start is not None:
        assert family.refiner is not None  # methods that refine are left out without it
        pipeline = _image_to_image(pipeline, family.refiner, channels=start.latent.shape[1])
        asked = {"image": start.latent.clone(), **family.refiner.asked(start.kept, steps, size)}

    def at_step_end(_, step, time, tensors):
        nonlocal latents
        latents = tensors["latents"]
        told(step + 1)
        return tensors

    pipeline.set_progress_bar_config(disable=True)
    pipeline(
        **given,
        **asked,
        num_inference_steps=steps,
        **family.guidance(guidance),
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        callback_on_step_end=at_step_end,
    )
    assert latents is not None  # a pipeline ends every step with the callback
    return family.to_ours(latents.float(), size[1] // STRIDE, size[0] // STRIDE)


def _image_to_image(pipeline: Pipeline, row: Refiner, channels: int) -> Pipeline:
    """The pipeline of `row`, made of the components of `pipeline`."""
    if row.pipeline is None:
        return pipeline
    import diffusers  # noqa: PLC0415  takes seconds

    made = getattr(diffusers, row.pipeline)(**pipeline.components, **row.settings)
    # By this number of channels it recognises latents; pictures it would resize and shift. Not all classes set it.
    made.image_processor.register_to_config(vae_latent_channels=channels)
    return made


class PromptToLatent(nn.Module):
    """A small diffusers pipeline as one network. Gradients are for the caller to switch off."""

    def __init__(self, pipeline: Pipeline, family: str = "embedded"):
        super().__init__()
        self.pipeline, self.family = pipeline, FAMILIES[family]
        self.parts = nn.ModuleList(part for part in pipeline.components.values() if isinstance(part, nn.Module))

    def forward(
        self,
        prompt: str,
        size: tuple[int, int],
        steps: int,
        guidance: float,
        seed: int,
        told: Callable[[int], None] = lambda step: None,
        start: Start | None = None,
    ) -> Tensor:
        """Prompt -> normalised latent, as `sample`."""
        given = self.family.encode(self.pipeline, prompt, guidance > 1, self.pipeline.device)
        return sample(self.pipeline, self.family, given, size, steps, guidance, seed, told, start)


def load_generator(source: str | Path) -> PromptToLatent:
    """The embedded text-to-latent model from its folder. UserError for a folder that holds none, or a damaged one."""
    from lua_demo.models.embedded import EmbeddedPipeline  # noqa: PLC0415  diffusers takes seconds to import

    try:
        made = PromptToLatent(EmbeddedPipeline.from_pretrained(source))
    except (*UNREADABLE, NotImplementedError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{source} does not load as the generator ({line}): restore it") from error
    for part in made.parts:
        refuse_no_numbers(part.state_dict(), Path(source))
    return made
