"""The baselines: LUA and SwinIR computed as the published code does it, from the weights of our own networks.

B0 builds the mask of every block on the CPU in every forward and copies it to the device, expands the bias in every
block, rolls and cuts the image into windows with copies, and writes out all scores. B1 is B0 with masks that are kept.
B2 is B1 in bf16. S0 is B0 with SwinIR's weights. The mathematics is that of SwinIR (arXiv 2108.10257).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lua_demo.networks.swin import ResidualGroup, SwinBlock, SwinUpscaler
from lua_demo.networks.swinir import SwinIR
from lua_demo.networks.windows import WindowAttention, pad_by_reflection


def cut(x: Tensor, window: int) -> Tensor:
    """B x H x W x C -> windows x window^2 x C."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window**2, channels)


def join(windows: Tensor, height: int, width: int, window: int) -> Tensor:
    """The inverse of `cut`."""
    channels = windows.shape[-1]
    x = windows.view(-1, height // window, width // window, window, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, height, width, channels)


def build_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """windows x N x N on the CPU: -100 between pixels of different regions of the rolled image, else 0."""
    regions = torch.zeros(1, height, width, 1)
    ends = (slice(0, -window), slice(-window, -shift), slice(-shift, None)) if shift else (slice(None),)
    for number, (rows, columns) in enumerate((rows, columns) for rows in ends for columns in ends):
        regions[:, rows, columns] = number
    flat = cut(regions, window).squeeze(-1)
    different = flat[:, None, :] != flat[:, :, None]
    return torch.zeros(different.shape).masked_fill(different, -100.0)


def attention(attn: WindowAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """Windows x N x C -> the same, with all scores written out."""
    mixed = mix(attn, F.linear(x, attn.qkv.weight, attn.qkv.bias), mask)
    return F.linear(mixed, attn.proj.weight, attn.proj.bias)


def mix(attn: WindowAttention, qkv: Tensor, mask: Tensor | None) -> Tensor:
    """The attention between the projections: windows x N x 3C -> windows x N x C."""
    windows, tokens, heads = *qkv.shape[:2], attn.num_heads
    q, k, v = qkv.reshape(windows, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    scores = (q * attn.scale) @ k.transpose(-2, -1)
    scores = scores + attn.bias(attn.window, attn.window)
    if mask is not None:
        scores = scores.view(-1, len(mask), heads, tokens, tokens) + mask[None, :, None]
        scores = scores.view(-1, heads, tokens, tokens)
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(windows, tokens, -1)


class Reference:
    """B0 (or with `cached`, B1 and B2) of `network`; called as the network itself."""

    def __init__(self, network: SwinUpscaler, cached: bool = False):
        self.network = network
        self.masks: dict[tuple[object, ...], Tensor] | None = {} if cached else None

    def _mask(self, x: Tensor, shift: int) -> Tensor:
        key = (*x.shape[1:3], shift, x.dtype, x.device)
        if self.masks is not None and key in self.masks:
            return self.masks[key]
        mask = build_mask(x.shape[1], x.shape[2], self.network.window_size, shift).to(x.device).to(x.dtype)
        if self.masks is not None:
            self.masks[key] = mask
        return mask

    def _block(self, block: SwinBlock, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        window, shift = self.network.window_size, block.shift
        y = block.norm1(x)
        y = torch.roll(y, (-shift, -shift), dims=(1, 2)) if shift else y
        y = join(attention(block.attn, cut(y, window), self._mask(x, shift)), height, width, window)
        x = x + (torch.roll(y, (shift, shift), dims=(1, 2)) if shift else y)
        y = F.gelu(F.linear(block.norm2(x), block.mlp.fc1.weight, block.mlp.fc1.bias))
        return x + F.linear(y, block.mlp.fc2.weight, block.mlp.fc2.bias)

    def __call__(self, x: Tensor, scale: int) -> Tensor:
        """B x in_chans x h x w -> B x in_chans x (scale * h) x (scale * w)."""
        net, (height, width) = self.network, x.shape[-2:]
        mean = net.mean if isinstance(net, SwinIR) else torch.zeros((), dtype=x.dtype, device=x.device)
        small = x - mean
        shallow = net.conv_first(pad_by_reflection(small, net.window_size).contiguous())
        y = net.patch_embed(shallow.permute(0, 2, 3, 1).contiguous())
        for layer in net.layers:
            assert isinstance(layer, ResidualGroup)
            z = y
            for block in layer.blocks:
                z = self._block(block, z)
            y = y + layer.conv(z.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1).contiguous()
        deep = net.conv_after_body(net.norm(y).permute(0, 3, 1, 2).contiguous()) + shallow
        out = net.heads[f"x{scale}"](deep)[..., : height * scale, : width * scale]
        if net.residual == "bicubic":
            out = out + F.interpolate(small, scale_factor=scale, mode="bicubic", align_corners=False)
        elif net.residual == "linear":
            out = out + net.skips[f"x{scale}"](small)
        return out + mean
