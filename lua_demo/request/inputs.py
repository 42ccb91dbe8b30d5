"""What a comparison starts from: a photo cut to size, a latent from a file, or the size of what is to be sampled."""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as brief

from lua_demo.catalog.methods import ASPECTS, MAX_SIZE, MIN_SIZE, Method
from lua_demo.pictures import images
from lua_demo.pictures.latents import load_latent
from lua_demo.request.job import Job
from lua_demo.schema import BaseLatent, UserError

Source = images.Fitted | BaseLatent | tuple[int, int]
"""A photo, a latent, or (width, height) in px of what is to be sampled or rendered."""


def source_of(job: Job) -> Source:
    """What `job` starts from. UserError for a file that cannot be used."""
    request = job.request
    if request.prompt:
        return picture_size(request.size, ASPECTS[request.aspect], job.family.multiple)
    return _latent_of(job) if request.latent else images.fit(images.load_photo(request.image), request.size)


def picture_size(size: int, ratio: float, multiple: int) -> tuple[int, int]:
    """(width, height) of about `ratio` = width / height, the longer `size` px or just below, in steps of `multiple`."""
    longer = max(multiple, size // multiple * multiple)
    shorter = max(multiple, round(longer * min(ratio, 1 / ratio) / multiple) * multiple)
    return (longer, shorter) if ratio >= 1 else (shorter, longer)


def _latent_of(job: Job) -> BaseLatent:
    latent, name, space = load_latent(job.request.latent), Path(job.request.latent).name, job.base.space
    if latent.space != space:
        raise UserError(f"{name} is a latent of the space {brief(latent.space)}, not {space}; give one of its own")
    if not (min(latent.size) >= 1 and MIN_SIZE <= max(latent.size) <= MAX_SIZE):
        size = " x ".join(map(brief, latent.size))
        raise UserError(f"{name} is of an image of {size}; the longest side may be {MIN_SIZE} to {MAX_SIZE} pixels")
    return latent


def check_shape(latent: BaseLatent, channels: int, stride: int, name: str) -> None:
    """UserError unless `latent` has the shape that a VAE of `channels` and `stride` gives an image of its size."""
    width, height = latent.size
    fitting = (channels, -(-height // stride), -(-width // stride))
    if latent.values.shape != fitting:
        raise UserError(
            f"{name} has shape {latent.values.shape}; an image of {width} x {height} in the space "
            f"{latent.space} has {fitting}: save the latent again"
        )


def no_truth(row: Method, source: Source, scale: int) -> str:
    """Why there is no ground truth at `scale` times the base size."""
    if isinstance(source, BaseLatent):
        return f"the base is a latent; {row.label} needs a photo"
    assert isinstance(source, images.Fitted)  # what is sampled has no method that needs one
    width, height = source.photo.size
    needed = " x ".join(str(side * scale) for side in source.size)
    largest = max(width, height) // scale
    way_out = f" or a base size of at most {largest}" if largest >= MIN_SIZE else ""
    return f"the photo is {width} x {height}; {row.label} needs at least {needed}: use a larger photo{way_out}"


def beyond(job: Job, target: tuple[int, int], refines: bool = False) -> tuple[str, ...]:
    """A note for sampling at `target` px (width, height), from noise or on from a latent (`refines`), where the base
    was not made for that.
    """
    if max(target) <= job.base.largest:
        return ()
    what = "small subjects" if refines else "subjects and a composition that falls apart"
    return (
        f"{job.base.label} was made for up to {job.base.largest} px: at {target[0]} x {target[1]} expect repeated "
        f"{what}",
    )
