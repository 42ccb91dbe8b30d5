"""Base latents as files: safetensors with what is needed to decode them again. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lua_demo.schema import BaseLatent, UserError

TENSOR = "latent"
CONVENTION = "normalised"  # as the denoiser leaves it: no VAE scale or shift, no packing
VERSION = "1"
MAX_BYTES = 64 << 20
DTYPES = (np.float32, np.float16)


def save_latent(path: str | Path, latent: BaseLatent, source: Mapping[str, object] | None = None) -> Path:
    """Write `latent`, and the sha256 of the file that it was made from, where there was one. Returns `path`."""
    width, height = latent.size
    metadata = {
        "format": "lua_demo latent",
        "version": VERSION,
        "space": latent.space,
        "convention": CONVENTION,
        "width": str(width),
        "height": str(height),
        "source_sha256": str((source or {}).get("sha256", "")),
    }
    content = save({TENSOR: np.ascontiguousarray(latent.values, np.float32)[None]}, metadata)
    Path(path).write_bytes(content)
    return Path(path)


def load_latent(path: str | Path) -> BaseLatent:
    """Read what `save_latent` wrote, in float32 or float16.

    Raises:
        UserError: not there, too large, no safetensors file, another convention, no plain 1 x C x h x w tensor, a value
            that is no number.
    """
    name = Path(path).name
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise UserError(f"{name} has {size >> 20} MiB; the limit for a latent is {MAX_BYTES >> 20} MiB")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("convention") != CONVENTION or metadata.get("version") != VERSION:
                raise UserError(
                    f"{name} does not say that it holds a {CONVENTION} latent of version {VERSION}; "
                    "give a latent.safetensors that lua_demo wrote"
                )
            if TENSOR not in file.keys():  # noqa: SIM118  not a dict
                raise UserError(f'{name} has no tensor "{TENSOR}"; give a latent.safetensors that lua_demo wrote')
            values = file.get_tensor(TENSOR)
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise UserError(f"{name} is not a readable safetensors file; give a latent.safetensors") from error
    if values.dtype not in DTYPES or values.ndim != 4 or values.shape[0] != 1 or 0 in values.shape:
        raise UserError(f"{name} holds {values.dtype} of shape {values.shape}; a latent is float32, 1 x C x h x w")
    if not np.isfinite(values).all():
        raise UserError(f"{name} holds values that are no numbers (NaN or infinity); save the latent again")
    try:
        width, height = int(metadata["width"]), int(metadata["height"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{name} does not say the width and height of its image; save the latent again") from error
    return BaseLatent(values[0].astype(np.float32), metadata.get("space", ""), (width, height))
