"""The decode of diffusers' AutoencoderKL (Stable Diffusion, SDXL, SD 3, FLUX), computed another way: same numbers.

Channels-last; GroupNorm and SiLU on the way into the convolution, strip by strip; enlargement and its convolution in
one; value and output projection of the attention in one, its scores in blocks of queries; no division by 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks import onednn, strips
from lua_demo.schema import UserError

SCORES = {"cpu": 2**22, "cuda": 2**27, "mps": 2**28, "meta": 2**30}
"""Largest number of attention scores in memory at once, by type of device; one query at least. Autocast takes their
softmax in float32: on CUDA 2^27 of them are 1.3 GB then, less than the last block of a 1024 px decode."""


def fast_decode(vae: Any) -> Any:
    """Make `vae.decode` of a diffusers AutoencoderKL fast, in place, for inference; returns `vae`.

    The decoder's weights are shared or folded: `vae` can be moved and converted, but no longer saved or trained.

    Raises:
        UserError: the decoder is not one of AutoencoderKL's, or has parts that are not known here.
    """
    if isinstance(vae.decoder, Decoder):
        return vae
    vae.decoder = Decoder(vae.decoder).eval().requires_grad_(False)
    vae.decoder.to(memory_format=torch.channels_last)
    return vae


class Frame(nn.Module):
    """A causal convolution of a video of one frame, B x C x 1 x h x w: all frames before it are zeros."""

    def __init__(self, conv: nn.Conv3d):
        super().__init__()
        self.padding = conv.kernel_size[1] // 2
        self.weight = nn.Parameter(conv.weight.detach()[:, :, -1].clone(), requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x[:, :, 0], self.weight, self.bias, padding=self.padding)[:, :, None]


def one_frame(vae: nn.Module) -> None:
    """Make a diffusers AutoencoderKLQwenImage fast for videos of one frame, in place, for inference.

    Its convolutions see two frames before each. Here these are zeros, so that a third of the products is left. Its
    encoder and decoder are to be called themselves: `encode` and `decode` keep frames for the next ones.
    """
    for name, child in vae.named_children():
        if isinstance(child, nn.Conv3d):
            setattr(vae, name, Frame(child))
        else:
            one_frame(child)


def _known(condition: bool, what: str) -> None:
    if not condition:
        raise UserError(f"this decoder cannot be made fast: {what}; use it as it is")


def product(x: Tensor, y: Tensor) -> Tensor:
    """x y^T of matrices."""
    return onednn.linear(x, y) if onednn.takes(x, y) else x @ y.T


def attend(queries: Tensor, keys: Tensor, values: Tensor, limit: int) -> Tensor:
    """softmax(queries keys^T) values^T, in blocks of queries, with at most `limit` scores at once (or one row).

    queries: M x C, already scaled. keys: N x C. values: C x N, transposed. Gives M x C.
    """
    out = torch.empty_like(queries)
    rows = max(limit // len(keys), 1)
    for start in range(0, len(queries), rows):
        scores = product(queries[start : start + rows], keys)
        out[start : start + rows] = product(scores.softmax(dim=-1), values)
    return out


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution of x where the width changes."""

    def __init__(self, block: Any):
        super().__init__()
        _known(block.output_scale_factor == 1 and block.time_emb_proj is None, "a residual block that is scaled")
        _known(block.upsample is None and block.downsample is None, "a residual block that changes the size")
        _known(isinstance(block.nonlinearity, nn.SiLU), f"{type(block.nonlinearity).__name__} for SiLU")
        self.norm1, self.conv1, self.norm2, self.conv2 = block.norm1, block.conv1, block.norm2, block.conv2
        self.shortcut: nn.Conv2d | None = block.conv_shortcut

    def forward(self, x: Tensor, limit: int) -> Tensor:
        y = strips.convolve(x, self.conv1, limit, strips.group_norm_silu(x, self.norm1, limit))
        plus = x if self.shortcut is None else _shortened(x, self.shortcut, limit)
        return strips.convolve(y, self.conv2, limit, strips.group_norm_silu(y, self.norm2, limit), plus)


def _shortened(x: Tensor, shortcut: nn.Conv2d, limit: int) -> Tensor:
    """The 1x1 convolution `shortcut` of x, strip by strip."""
    batch, channels, height, width = x.shape
    size = batch, shortcut.out_channels, height, width
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for top, bottom in strips.strips(height, batch * channels * width, limit):
        out[:, :, top:bottom] = shortcut(x[:, :, top:bottom])
    return out


class Attention(nn.Module):
    """Single-head self-attention over all pixels, and its residual.

    The rows of the probabilities sum to 1, so that softmax(S) (x V) O + o = softmax(S) (x V O) + (v O + o).
    """

    def __init__(self, attention: Any):
        super().__init__()
        _known(attention.heads == 1, f"an attention of {attention.heads} heads")
        _known(attention.rescale_output_factor == 1 and attention.residual_connection, "an attention that is scaled")
        _known(attention.spatial_norm is None and attention.group_norm is not None, "a norm of its own")
        self.norm, self.scale = attention.group_norm, attention.scale
        self.query, self.key = attention.to_q, attention.to_k
        out, value = attention.to_out[0], attention.to_v
        weight = out.weight.double() @ value.weight.double()
        bias = out.weight.double() @ value.bias.double() + out.bias.double()
        self.value = nn.Parameter(weight.to(out.weight.dtype), requires_grad=False)
        self.bias = nn.Parameter(bias.to(out.weight.dtype), requires_grad=False)

    def forward(self, x: Tensor, limit: int) -> Tensor:
        channels, height, width = x.shape[1:]
        out = torch.empty_like(x, memory_format=torch.channels_last)
        for image, result in zip(x, out, strict=True):
            # The norm without SiLU; at 1/8 of the size it is small enough to be taken as a whole.
            tokens = self.norm(image[None])[0].permute(1, 2, 0).reshape(-1, channels)
            residual = image.permute(1, 2, 0).reshape(-1, channels)
            mixed = self._attend(tokens, limit).add_(residual)
            result.copy_(mixed.view(height, width, channels).permute(2, 0, 1))
        return out

    def _attend(self, tokens: Tensor, limit: int) -> Tensor:
        queries, keys = self.query(tokens).mul_(self.scale), self.key(tokens)
        return attend(queries, keys, product(self.value, tokens), limit).add_(self.bias)


class Decoder(nn.Module):
    """In place of diffusers' `Decoder`: B x C x h x w -> B x 3 x 8h x 8w.

    Attributes:
        strip_elements, score_elements: most elements of a strip and of the scores; None: as the device takes it.
    """

    def __init__(self, decoder: Any):
        super().__init__()
        for name in ("conv_in", "mid_block", "up_blocks", "conv_norm_out", "conv_act", "conv_out"):
            _known(hasattr(decoder, name), f"{type(decoder).__name__} has no {name}")
        _known(isinstance(decoder.conv_norm_out, nn.GroupNorm), "its last norm is no GroupNorm")
        self.strip_elements: int | None = None
        self.score_elements: int | None = None
        self.conv_in, self.norm_out, self.conv_out = decoder.conv_in, decoder.conv_norm_out, decoder.conv_out
        first, *others = decoder.mid_block.resnets
        layers: list[nn.Module] = [ResBlock(first)]
        for attention, block in zip(decoder.mid_block.attentions, others, strict=True):
            layers += [Attention(attention)] if attention is not None else []
            layers.append(ResBlock(block))
        for block in decoder.up_blocks:
            _known(type(block).__name__ == "UpDecoderBlock2D", f"a {type(block).__name__}")
            layers += [ResBlock(resnet) for resnet in block.resnets]
            layers += [strips.upsampling(upsampler.conv) for upsampler in block.upsamplers or ()]
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, latent_embeds: None = None) -> Tensor:
        limit = self.strip_elements or strips.ELEMENTS[x.device.type]
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        for layer in self.layers:
            if isinstance(layer, nn.ConvTranspose2d):
                x = strips.convolve(x, layer, limit)
            elif isinstance(layer, Attention):
                x = layer(x, self.score_elements or SCORES[x.device.type])
            else:
                x = layer(x, limit)
        return strips.convolve(x, self.conv_out, limit, strips.group_norm_silu(x, self.norm_out, limit))
