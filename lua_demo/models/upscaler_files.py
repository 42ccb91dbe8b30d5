"""Pixel upscalers from files of others: whatever architecture spandrel (MIT) knows, about forty of them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.catalog.upscalers import SUFFIXES
from lua_demo.models.checkpoints import UNREADABLE
from lua_demo.models.tiles import within_memory
from lua_demo.models.weights import first_line
from lua_demo.schema import UserError

TILES = (512, 256, 128)
"""Sides of tiles in px of the input, where memory does not suffice for the whole picture."""

NEEDED = "upscalers of others are read by spandrel, which is not installed: pip install spandrel torchvision"


Descriptor: TypeAlias = Any
"""spandrel's, of a model; spandrel is optional, and its types are not known where it is not installed."""


class FileUpscaler(nn.Module):
    """Image B x 3 x H x W in [0, 1] -> the same, exactly `scale` times as high and wide.

    A model has one scale. For another one the smallest larger model is averaged down, or, where there is none, the
    largest is enlarged bicubically.

    Args:
        models: scale -> spandrel's descriptor of the model.
        dtype: to compute in, where the model supports it; else float32.
    """

    def __init__(self, models: Mapping[int, Descriptor], dtype: torch.dtype = torch.float32):
        super().__init__()
        self.models = dict(sorted(models.items()))
        self.networks = nn.ModuleDict({str(scale): model.model for scale, model in self.models.items()})
        self.set_dtype(dtype)

    @property
    def scales(self) -> tuple[int, ...]:
        return tuple(self.models)

    def set_dtype(self, dtype: torch.dtype) -> FileUpscaler:
        """Compute in `dtype` with every model that supports it, in float32 with the others."""
        for model in self.models.values():
            supported = {torch.float16: model.supports_half, torch.bfloat16: model.supports_bfloat16}
            model.model.to(dtype if supported.get(dtype) else torch.float32)
        return self

    def native_scale(self, scale: int) -> int:
        """The scale of the model that is used for `scale`."""
        return next((native for native in self.models if native >= scale), max(self.models))

    def forward(self, image: Tensor, scale: int) -> Tensor:
        return self.enlarge(image, scale)[0]

    def enlarge(self, image: Tensor, scale: int) -> tuple[Tensor, tuple[str, ...]]:
        """The larger image, and notes on it: that the model has another scale, that it was made of tiles."""
        model = self.models[self.native_scale(scale)]
        # Each picture alone: that is what a descriptor takes.
        made, notes = zip(*(self._run(model, one[None]) for one in image), strict=True)
        larger, told = torch.cat(made), dict.fromkeys(note for some in notes for note in some)
        size = image.shape[-2] * scale, image.shape[-1] * scale
        if model.scale > scale:
            larger = F.interpolate(larger, size=size, mode="area")
            told[f"a model for x{model.scale}: its picture is averaged over areas down to x{scale}"] = None
        elif model.scale < scale:
            larger = F.interpolate(larger, size=size, mode="bicubic", align_corners=False).clamp(0, 1)
            told[f"a model for x{model.scale}: its picture is enlarged to x{scale} bicubically"] = None
        return larger, tuple(told)

    @staticmethod
    def _run(model: Descriptor, image: Tensor) -> tuple[Tensor, tuple[str, ...]]:
        """`image`, 1 x 3 x H x W, by the scale of `model`. The descriptor pads it as the architecture requires."""
        tiling = _spandrel().ModelTiling
        sides = () if model.tiling is tiling.INTERNAL else TILES
        with torch.autocast(image.device.type, enabled=False):
            larger, side = within_memory(model, image.to(model.dtype).contiguous(), model.scale, 0, sides=sides)
        return larger.float(), (f"in blended tiles of {side} px, for want of memory",) if side else ()

    def to(self, *args: Any, memory_format: torch.memory_format | None = None, **kwargs: Any) -> FileUpscaler:
        """As of any module, without a memory format: some architectures take views of their activations."""
        return super().to(*args, **kwargs)


def read_upscaler(*files: str | Path) -> FileUpscaler:
    """The upscaler in `files`, one per scale, on the CPU in float32 and eval mode. No code in a file is run.

    Raises:
        UserError: spandrel is not installed; a file is missing, holds no weights, is TorchScript, or is no upscaler
            for RGB pictures that spandrel knows.
    """
    models = [_read(_spandrel(), Path(file)) for file in files]
    return FileUpscaler({model.scale: model for model in models}).eval().requires_grad_(False)


def _spandrel() -> ModuleType:
    """spandrel itself. A torchvision that does not fit torch fails with a RuntimeError when it is imported."""
    try:
        import spandrel  # noqa: PLC0415  optional, and takes a second
    except (ImportError, RuntimeError, AttributeError) as error:
        raise UserError(f"{NEEDED} ({first_line(error)})") from error
    return spandrel


def _read(spandrel: ModuleType, file: Path) -> Descriptor:
    """spandrel's descriptor of the model in `file`."""
    tensors = _tensors(file)
    try:
        model = spandrel.ModelLoader().load_from_state_dict(tensors)
    except spandrel.UnsupportedModelError as error:
        raise UserError(f"{file} is of no architecture that spandrel knows; give another upscaler") from error
    except UNREADABLE as error:
        raise UserError(f"{file} does not load as the architecture that it looks like ({first_line(error)})") from error
    if model.purpose != "SR" or model.scale < 2:
        raise UserError(f"{file} is a model for {model.purpose} at x{model.scale}; give one that enlarges any picture")
    if (model.input_channels, model.output_channels) != (3, 3):
        raise UserError(
            f"{file} takes {model.input_channels} and gives {model.output_channels} channels; give one for RGB: 3 and 3"
        )
    return model


def _tensors(file: Path) -> Mapping[str, object]:
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"{file} is not a file of weights by its name; give one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise UserError(f"{file} does not exist; give the file of an upscaler")
    if _is_torchscript(file):
        raise UserError(f"{file} is TorchScript, a program; give its weights alone (.safetensors or .pth)")
    try:
        if file.suffix.lower() == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UserError(f"{file} is not readable as weights ({first_line(error)[:120]}): get it again") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{file} holds no weights: expected a dict of tensors")
    return content


def _is_torchscript(file: Path) -> bool:
    """TorchScript archives carry code beside the tensors."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())
