"""oneDNN's fused linear layer on a CPU: product, bias, GELU and sum in one pass over memory.

PyTorch has it under private names only, `torch.ops.mkldnn._linear_pointwise`. They are used in this module alone, were
tried on torch 2.13, and are tested once per process: where they are missing or fail, `takes` is false and callers use
`torch.nn.functional.linear`.
"""

from __future__ import annotations

import functools
from types import ModuleType

import torch
from torch import Tensor

TRIED_ON = "2.13"
"""Version of torch."""


@functools.cache
def available() -> bool:
    """Whether this build of torch has the private operations, and they compute what they should."""
    if not torch.backends.mkldnn.is_available():
        return False
    x = torch.tensor([[1.0, 2.0]])
    try:
        with torch.inference_mode(), torch.device("cpu"):
            made = (linear(x, x), linear(x, x, torch.ones(1), gelu=True), linear(x, x, residual=torch.ones(1, 1)))
            _ops()._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError, TypeError):  # missing, or called in another way
        return False
    return [round(y.item(), 3) for y in made] == [5.0, 6.0, 6.0]


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear` computes this product; gradients, autocast and other devices need PyTorch's own way."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.bfloat16)
        and available()
        and (x.dtype == torch.float32 or _ops()._is_mkldnn_bf16_supported())
    )


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False, residual: Tensor | None = None
) -> Tensor:
    """T x inputs -> T x outputs: residual + x W^T + b, or gelu(x W^T + b), where `takes` says so."""
    if residual is not None:
        return _ops()._linear_pointwise.binary(x, residual, weight, bias, "add")
    activation: tuple[str, list[object], str] = ("gelu", [], "none") if gelu else ("none", [], "")
    return _ops()._linear_pointwise(x, weight, bias, *activation)


def _ops() -> ModuleType:
    return torch.ops.mkldnn
