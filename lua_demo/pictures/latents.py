"""Base latents as files: safetensors with what is needed to decode them again. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from lua_demo.pictures.files import read_regular
from lua_demo.schema import BaseLatent, UserError

TENSOR = "latent"
CONVENTION = "normalised"  # as the denoiser leaves it: no VAE scale or shift, no packing
VERSION = "1"
MAX_BYTES = 64 << 20
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


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
    """Read what `save_latent` wrote, in float32, float16 or bfloat16.

    Raises:
        UserError: not there, too large, no safetensors file, another convention, no plain 1 x C x h x w tensor, a value
            that is no number.
    """
    name = Path(path).name
    content = read_regular(path, "a latent", MAX_BYTES)
    try:
        tensors = dict(deserialize(content))  # checks the header against the content
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, RecursionError) as error:
        raise UserError(f"{name} is not a readable safetensors file; give a latent.safetensors") from error
    metadata = header.get("__metadata__") or {}
    if metadata.get("convention") != CONVENTION or metadata.get("version") != VERSION:
        raise UserError(
            f"{name} does not say that it holds a {CONVENTION} latent of version {VERSION}; "
            "give a latent.safetensors that lua_demo wrote"
        )
    if TENSOR not in tensors:
        raise UserError(f'{name} has no tensor "{TENSOR}"; give a latent.safetensors that lua_demo wrote')
    dtype, shape = tensors[TENSOR]["dtype"], tuple(tensors[TENSOR]["shape"])
    if dtype not in DTYPES or len(shape) != 4 or shape[0] != 1 or 0 in shape:
        raise UserError(f"{name} holds {dtype} of shape {shape}; a latent is float32 (F32), 1 x C x h x w")
    values = np.frombuffer(tensors[TENSOR]["data"], DTYPES[dtype]).reshape(shape)
    if dtype == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{name} holds values that are no numbers (NaN or infinity); save the latent again")
    try:
        width, height = int(metadata["width"]), int(metadata["height"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{name} does not say the width and height of its image; save the latent again") from error
    return BaseLatent(values[0].astype(np.float32), metadata.get("space", ""), (width, height))
