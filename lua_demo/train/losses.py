"""Loss terms. Each takes (output, target), tensors of one shape B x C x H x W, and gives a scalar."""

from __future__ import annotations

import torch
from torch import Tensor


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (output - target).abs().mean()


def l2(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference: what PSNR measures."""
    return (output - target).square().mean()


def gradient_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the horizontal and vertical first differences: edges, and block borders, count."""
    difference = output - target
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def fft_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the magnitudes of the orthonormal 2D Fourier transform, in float32 (LUA stages I to
    III).
    """
    spectra = (torch.fft.rfft2(x.float(), norm="ortho").abs() for x in (output, target))
    return l1(*spectra)
