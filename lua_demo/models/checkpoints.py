"""Files of weights as others write them: the tensors in them, and what they are of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from reprlib import repr as brief

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lua_demo.schema import UserError

UNREADABLE = (SafetensorError, UnpicklingError, EOFError, OSError, RuntimeError, ValueError, LookupError, TypeError,
              AttributeError, ArithmeticError, AssertionError, MemoryError)  # fmt: skip
"""What the readers of safetensors and of torch.save files raise when given something else, and networks when they are
built of odd numbers."""

WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "net_g", "model")
"""Keys under which checkpoints keep the weights, the better ones first."""

PREFIXES = ("module.", "_orig_mod.", "net_g.", "model.")
"""Prefixes that all parameter names share if the network was wrapped when it was saved; they are removed."""

DEEPEST = 3  # most wrappers inside one another

FOREIGN = (
    (r"(^|\.)conv_up1\.", "SwinIR for real-world pictures (nearest+conv)"),
    (r"\.cpb_mlp\.|\.logit_scale$", "Swin2SR"),
    (r"\.overlap_attn\.", "HAT"),
    (r"\.rdb1\.|RRDB_trunk|\.RDB1\.", "ESRGAN"),
    (r"(encoder|decoder)\.(down|up)_blocks\.|(encoder|decoder)\.(down|up)\.\d", "a KL autoencoder of diffusion models"),
    (r"(^|\.)(down_blocks|input_blocks|single_transformer_blocks|joint_blocks|double_blocks)\.", "a diffusion model"),
    (r"\.lora_(down|up|A|B)\.", "a LoRA"),
    (r"(^|\.)text_model\.", "a text encoder"),
)
"""Marks of networks that are no LUA, SwinIR or Autoencoder of ours: pattern of a name -> what it is."""


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The state dict in `file`, out of what wraps it. No code in the file is run.

    Raises:
        UserError: not readable, or no dict of tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return _unprefixed(load_file(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UserError(f"{file} is not readable as weights (empty, cut off, another format): get it again") from error
    for _ in range(DEEPEST):
        inner = next((content[k] for k in WRAPPERS if isinstance(content, dict) and _is_dict(content.get(k))), None)
        content = content if inner is None else inner
    if not _is_dict(content) or not all(isinstance(key, str) and _is_plain(v) for key, v in content.items()):
        keys = ", ".join(map('"{}"'.format, WRAPPERS))
        raise UserError(f"{file} holds no weights: expected a dict of named tensors, or one under one of {keys}")
    return _unprefixed(content)


def _is_dict(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized


def _unprefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def foreign_kind(tensors: Mapping[str, Tensor]) -> str:
    """What `tensors` are of, where that is none of our networks; empty where it is, or is not known."""
    for pattern, kind in FOREIGN:
        if any(re.search(pattern, name) for name in tensors):
            return kind
    is_swin = any(".residual_group.blocks." in name for name in tensors)
    if is_swin and not any(name.startswith(("heads.", "conv_before_upsample.")) for name in tensors):
        if any(name.startswith("upsample.") for name in tensors):
            return "SwinIR, lightweight (pixelshuffledirect)"
        if any(name.startswith("conv_last.") for name in tensors):
            return "SwinIR for noise or JPEG artifacts, which does not enlarge"
    return ""


def refuse_odd_config(config: Mapping[str, object], tensors: Mapping[str, Tensor], file: Path) -> None:
    """UserError for a configuration that describes more layers, or wider ones, than a file of `tensors` can hold."""
    largest = max((value.numel() for value in tensors.values()), default=0)
    for key, value in config.items():
        numbers = value if isinstance(value, list) else [value]
        for number in numbers:
            if isinstance(number, (int, float)) and not -largest - 1 <= number <= largest + 1:
                raise UserError(
                    f"{file} is damaged: {key} is {brief(number)}, beyond what its weights hold; get both again"
                )
        if key in ("depths", "encoder_blocks", "decoder_blocks") and len(tensors) < sum(
            number for number in numbers if isinstance(number, int)
        ):
            raise UserError(f"{file} is damaged: {key} has more blocks than there are weights; get both again")


def refuse_no_numbers(tensors: Mapping[str, Tensor], file: Path) -> None:
    """UserError where a weight is NaN or infinite."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{file} holds values that are no numbers (NaN or infinity), as in {name}: get it again")
