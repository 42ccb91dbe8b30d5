"""A linear layer whose bias, GELU and residual cost no pass over memory on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def onednn_takes(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes this product, all in one; gradients, autocast and other devices go PyTorch's way."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and x.dtype == weight.dtype
        and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


class Linear(nn.Linear):
    """T x inputs -> T x outputs: gelu(x W + b) or residual + x W + b.

    In fp32 on a CPU with AVX-512, PyTorch's own way takes up to twice as long: MKL keeps to AVX2 on AMD's, and bias,
    GELU and sum each read and write everything again.
    """

    def forward(self, x: Tensor, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        if onednn_takes(x, self.weight):
            if residual is not None:
                return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
            activation = ("gelu", [], "none") if gelu else ("none", [], "")
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *activation)
        y = F.linear(x, self.weight, self.bias)
        if residual is not None:
            return residual + y
        return F.gelu(y) if gelu else y
