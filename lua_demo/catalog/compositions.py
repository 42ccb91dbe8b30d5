"""The three operations and their compositions: every compared method is one line at the end of this file. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Output(NamedTuple):
    """What an operation made: a latent or an image, and notes on how, for people."""

    x: Tensor
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kit:
    """The three operations, bound to what one comparison works on.

    Attributes:
        generate: (factor, what the step before made, from which a sampler goes on; None at first) -> latent for an
            image of `factor` times the base size.
        upscale: (latent or image, factor) -> the same, exactly `factor` times as large.
        decode: latent -> image.
        size: (width, height) of the base image in pixels.
    """

    generate: Callable[[int, Tensor | None], Output]
    upscale: Callable[[Tensor, int], Output]
    decode: Callable[[Tensor], Output]
    size: tuple[int, int]


def _generate(kit: Kit, start: Tensor | None, factor: int) -> Output:
    return kit.generate(factor, start)


def _upscale(kit: Kit, x: Tensor | None, factor: int) -> Output:
    assert x is not None  # never the first step
    return kit.upscale(x, factor)


def _decode(kit: Kit, latent: Tensor | None, factor: int) -> Output:
    assert latent is not None  # never the first step
    image, notes = kit.decode(latent)
    # The latent of a size that is no multiple of the stride was padded at the right and bottom.
    return Output(image[..., : kit.size[1] * factor, : kit.size[0] * factor], notes)


@dataclass(frozen=True)
class Step:
    """One operation of a composition.

    Attributes:
        name: what spans and progress lines call it.
        run: (kit, tensor of the step before, factor of this step's output) -> output.
        enlarges: from this step on the factor is the scale of the request, before it is 1.
    """

    name: str
    run: Callable[[Kit, Tensor | None, int], Output]
    enlarges: bool = False


# Two ways to a latent, with one operation behind them: a photo is encoded, a prompt is sampled.
ENCODE, ENCODE_LARGE = Step("encode", _generate), Step("encode", _generate, enlarges=True)
SAMPLE, SAMPLE_LARGE = Step("generate", _generate), Step("generate", _generate, enlarges=True)
RENDER = Step("generate", _generate)
"""A scene, rendered once at the target size: all that is compared starts from it, as from a photo of that size."""
REFINE = Step("refine", _generate, enlarges=True)
"""The last steps of the sampler once more, from what the step before made, with noise."""
UPSCALE = Step("upscale", _upscale, enlarges=True)
DECODE = Step("decode", _decode)

BASE = (ENCODE, DECODE)
LATENT_UPSCALE = (ENCODE, UPSCALE, DECODE)
REFINED = (ENCODE, UPSCALE, REFINE, DECODE)
PIXEL_UPSCALE = (ENCODE, DECODE, UPSCALE)
LARGE = (ENCODE_LARGE, DECODE)
ORIGINAL = ()  # the photo itself


def from_prompt(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same composition with a sampled latent in place of an encoded one."""
    return tuple({ENCODE: SAMPLE, ENCODE_LARGE: SAMPLE_LARGE}.get(step, step) for step in steps)


def from_scene(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same composition of a photo, with the time to render it."""
    return (RENDER, *steps)
