"""Upscalers: callables (tensor, scale) -> a tensor exactly `scale` times as high and wide, in the same currency.

LUA takes latents, SwinIR takes images, bicubic takes either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.catalog.compositions import Output
from lua_demo.models.tiles import within_memory
from lua_demo.models.upscaler_files import FileUpscaler
from lua_demo.networks.fast import accelerate
from lua_demo.networks.kinds import Network
from lua_demo.networks.swin import SwinUpscaler
from lua_demo.networks.swinir import SwinIR

Upscale = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Found:
    """A network or function, its source (a folder, file or hub id), and the notes that belong beside its pictures."""

    network: Any
    source: str | Path = ""
    note: str = ""


def bicubic(x: Tensor, scale: int) -> Tensor:
    """B x C x h x w -> B x C x scale*h x scale*w, without antialiasing (there is nothing to alias when enlarging)."""
    return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)


SWINIR_VALUES = {"cpu": 8, "cuda": 16}
"""Values alive at once per pixel of the input and channel of the trunk, with a margin. Measured on a CPU: 5 at 512 px
for 128 channels; a GPU takes all windows at once."""


class Fast(nn.Module):
    """A LUA or SwinIR as fast as its device allows, frozen, called with any dtype.

    Args:
        dtype: to compute in. bfloat16 throughout, where autocast would cast at every step; float16, in which a sum can
            overflow, is left to autocast.
        compiled: as in `accelerate`.
    """

    def __init__(self, network: SwinUpscaler, dtype: torch.dtype, compiled: bool | None = False):
        super().__init__()
        self.network = accelerate(network, torch.float32 if dtype == torch.float16 else dtype, compiled)
        self.dtype = dtype

    def forward(self, x: Tensor, scale: int) -> Tensor:
        if self.dtype == torch.float16:
            return self.network(x, scale)
        with torch.autocast(x.device.type, enabled=False):
            return self.network(x.to(self.dtype), scale)


def enlarge(upscaler: Upscale, x: Tensor, scale: int) -> Output:
    """What `upscaler` makes of `x`, with its notes on how, where it has any.

    Raises:
        torch.OutOfMemoryError: SwinIR does not even fit tile by tile.
    """
    if isinstance(upscaler, FileUpscaler):
        return Output(*upscaler.enlarge(x, scale))
    modules = upscaler.modules() if isinstance(upscaler, nn.Module) else ()
    swinir = next((module for module in modules if isinstance(module, SwinIR)), None)
    if swinir is None:
        return Output(upscaler(x, scale))
    values = SWINIR_VALUES.get(x.device.type, SWINIR_VALUES["cuda"]) * swinir.conv_first.out_channels
    made, side = within_memory(lambda tile: upscaler(tile, scale), x, scale, values, swinir.window_size)
    return Output(made, (f"in blended tiles of {side} px, for want of memory",) if side else ())


def fast(network: Network, dtype: torch.dtype) -> Network:
    """`network` with every LUA and SwinIR in it, or itself, made `Fast`; an upscaler from a file in `dtype`."""
    if isinstance(network, FileUpscaler):
        return network.set_dtype(dtype)
    if isinstance(network, SwinUpscaler):
        return Fast(network, dtype)
    for name, child in list(network.named_children()):
        setattr(network, name, fast(child, dtype))
    return network
