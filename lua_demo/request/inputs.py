"""What a comparison starts from: a photo cut to size, a latent from a file, or the size of what is to be sampled."""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as brief

from torch import nn

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.families import FAMILIES
from lua_demo.catalog.methods import ASPECTS, MAX_SIZE, MIN_SIZE, Method
from lua_demo.models import generators
from lua_demo.pictures import images
from lua_demo.pictures.latents import load_latent
from lua_demo.schema import BaseLatent, Request, UserError

Source = images.Fitted | BaseLatent | tuple[int, int]


def source_of(request: Request) -> Source:
    """What `request` starts from. UserError for a file that cannot be used."""
    if request.prompt:
        multiple = FAMILIES[BASES[request.base].family].multiple
        return generators.picture_size(request.size, ASPECTS[request.aspect], multiple)
    return _latent_of(request) if request.latent else images.fit(images.load_photo(request.image), request.size)


def _latent_of(request: Request) -> BaseLatent:
    latent, name = load_latent(request.latent), Path(request.latent).name
    space = BASES[request.base].space
    if latent.space != space:
        raise UserError(f"{name} is a latent of the space {brief(latent.space)}, not {space}; give one of its own")
    if not (min(latent.size) >= 1 and MIN_SIZE <= max(latent.size) <= MAX_SIZE):
        size = " x ".join(map(brief, latent.size))
        raise UserError(f"{name} is of an image of {size}; the longest side may be {MIN_SIZE} to {MAX_SIZE} pixels")
    return latent


def check_shape(latent: BaseLatent, vae: nn.Module, request: Request) -> None:
    """UserError unless `latent` has the shape that `vae` gives an image of its size."""
    width, height = latent.size
    fitting = (vae.latent_channels, -(-height // vae.stride), -(-width // vae.stride))
    if latent.values.shape != fitting:
        raise UserError(
            f"{Path(request.latent).name} has shape {latent.values.shape}; an image of {width} x {height} in the space "
            f"{latent.space} has {fitting}: save the latent again"
        )


def no_truth(row: Method, source: Source, request: Request) -> str:
    """Why there is no ground truth at the target size."""
    if isinstance(source, BaseLatent):
        return f"the base is a latent; {row.label} needs a photo"
    width, height = source.photo.size
    needed = " x ".join(str(side * request.scale) for side in source.size)
    largest = max(width, height) // request.scale
    way_out = f" or a base size of at most {largest}" if largest >= MIN_SIZE else ""
    return f"the photo is {width} x {height}; {row.label} needs at least {needed}: use a larger photo{way_out}"


def beyond(request: Request, target: tuple[int, int]) -> tuple[str, ...]:
    """A note for sampling at `target` px (width, height), where the base was not made for that."""
    row = BASES[request.base]
    if max(target) <= row.largest:
        return ()
    return (
        f"{row.label} was made for up to {row.largest} px: at {target[0]} x {target[1]} expect repeated subjects and a "
        "composition that falls apart",
    )
