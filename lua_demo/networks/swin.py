"""The SwinIR body with one or more upsampling heads: what LUA (latents) and SwinIR (pixels) share.

Source: SwinIR (arXiv 2108.10257) and LUA (arXiv 2511.10629); parameter names are those of the published checkpoints.
Tokens stay channels-last from the first convolution to the last: a convolution gets a view, not a copy. Between the
convolutions of a group they lie window by window, so that from block to block there is one copy, from order to order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Self, cast

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lua_demo.networks.cnn import ConvBlock
from lua_demo.networks.linear import Linear, zero
from lua_demo.networks.skip import LinearSkip
from lua_demo.networks.strips import strips
from lua_demo.networks.windows import (
    RASTER,
    Group,
    Layout,
    Move,
    Piece,
    WindowAttention,
    layout,
    moved,
    pad_by_reflection,
    reflection,
    relative_position_index,
)
from lua_demo.schema import UserError

KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Attention kernels on CUDA, in order of preference. On Hopper and later PyTorch would choose cuDNN's for a bias, which
makes a plan for each of the nine shapes of a comparison: seconds when cold."""


def attention_on(device: torch.device) -> contextlib.AbstractContextManager:
    """Within the block attention on `device` takes `KERNELS`, on CUDA."""
    return sdpa_kernel(KERNELS) if device.type == "cuda" else contextlib.nullcontext()


CACHED_TOKENS = 4096
"""Tokens that a CPU computes at once in a block, so that everything the block makes of them stays in the caches."""


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.fc2(self.fc1(x, gelu=True), residual=residual)


class SwinBlock(nn.Module):
    """Window attention, then MLP, each after a LayerNorm and with a residual around; windows are cut at `shift`."""

    def __init__(self, dim: int, num_heads: int, window: int, shift: int, mlp_ratio: float):
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, round(dim * mlp_ratio))

    def _piece(self, x: Tensor, groups: Sequence[Group]) -> Tensor:
        x = self.attn(self.norm1(x), groups, residual=x)
        return self.mlp(self.norm2(x), residual=x)

    def forward(self, x: Tensor, move: Move, pieces: Sequence[Piece]) -> Tensor:
        """T x C tokens, which `move` brings into the order of `pieces`, window by window -> the same, in that order.

        Moved here, where a compiler makes the copy a part of the first norm.
        """
        x = moved(x, move)
        if len(pieces) == 1:
            return self._piece(x, pieces[0].groups)
        out = torch.empty_like(x)
        for piece in pieces:
            out[piece.start : piece.stop] = self._piece(x[piece.start : piece.stop], piece.groups)
        return out


class ResidualGroup(nn.Module):
    """RSTB: Swin blocks, every second one shifted, then a 3x3 convolution, with a residual around all."""

    def __init__(self, dim: int, depth: int, num_heads: int, window: int, shift: int, mlp_ratio: float):
        super().__init__()
        blocks = [SwinBlock(dim, num_heads, window, shift if i % 2 else 0, mlp_ratio) for i in range(depth)]
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    @property
    def blocks(self) -> Sequence[SwinBlock]:
        """In order; `residual_group` is the name of the published checkpoints."""
        return cast("Sequence[SwinBlock]", self.residual_group["blocks"])

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        y, order = x.flatten(0, 2), RASTER
        for block in self.blocks:
            y, order = block(y, layout.move(order, block.shift), layout.pieces[block.shift]), block.shift
        y = moved(y, layout.move(order, RASTER)).view_as(x)
        return x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Head(nn.Module):
    """Trunk features B x dim x h x w -> B x channels x (scale * h) x (scale * w), scale a power of two.

    In steps of two with `features` channels, as published; with 0 in a single convolution and a pixel shuffle
    ("pixelshuffledirect" of the lightweight SwinIR).

    Without gradients a large image is made strip by strip of rows, with as many rows around each as the convolutions
    see: the same numbers, without all features of the large image at once.
    """

    AROUND = 3  # rows of the input: 1 + 1 + 1/2 + 1/4 + ... are seen
    ELEMENTS = 2**25  # features of a strip at the output's size, at most, unless it is a single row

    def __init__(self, dim: int, features: int, channels: int, scale: int):
        super().__init__()
        self.scale, self.channels = scale, channels
        before, steps = [], []
        if features:
            before = [nn.Conv2d(dim, features, 3, padding=1), nn.LeakyReLU()]
            for _ in range(scale.bit_length() - 1):
                steps += [nn.Conv2d(features, 4 * features, 3, padding=1), nn.PixelShuffle(2)]
        self.conv_before, self.upsample = nn.Sequential(*before), nn.Sequential(*steps)
        self.shuffle = nn.Identity() if features else nn.PixelShuffle(scale)
        self.conv_last = nn.Conv2d(features or dim, channels if features else channels * scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, scale = x.shape[2], self.scale
        row = len(x) * self.conv_last.in_channels * scale**2 * x.shape[3]
        cuts = list(strips(height, row, self.ELEMENTS))
        if torch.is_grad_enabled() or len(cuts) == 1:
            return self._whole(x)
        size = len(x), self.channels, height * scale, x.shape[3] * scale
        out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for top, bottom in cuts:
            above, below = max(top - self.AROUND, 0), min(bottom + self.AROUND, height)
            made = self._whole(x[:, :, above:below])
            out[:, :, top * scale : bottom * scale] = made[:, :, (top - above) * scale : (bottom - above) * scale]
        return out

    def _whole(self, x: Tensor) -> Tensor:
        return self.shuffle(self.conv_last(self.upsample(self.conv_before(x))))


class PatchEmbed(nn.Module):
    """Only a LayerNorm, as a patch is one pixel; a module because the published name is `patch_embed.norm`."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class SwinUpscaler(nn.Module, PyTorchModelHubMixin):
    """One Swin trunk at the input's resolution and one upsampling head per scale.

    Args:
        in_chans: channels of input and, unless `out_chans` says otherwise, output.
        embed_dim: channels of the trunk, a multiple of every entry of `num_heads`.
        depths, num_heads: Swin blocks and attention heads of each residual group.
        window_size: side of the attention windows.
        mlp_ratio: hidden width of the MLPs / embed_dim.
        head_num_feat: channels of the heads; 0: heads of a single convolution.
        scales: factors that get a head, powers of two.
        shift: move the windows of every second block by half a window. Published networks that were made with
            `img_size <= window_size` do not.
        residual: what is added to the head's output, and what training starts from, as the heads' last convolutions are
            then zero: "bicubic", the input enlarged bicubically; "linear", the input enlarged by a learned 3x3
            convolution (`LinearSkip`); None, as published, nothing.
        out_chans: channels of the output where they are not those of the input; goes with a `residual` of None.
        finer: what the heads enlarge by beside the scale, a power of two; likewise.
        stem: residual blocks of convolutions before the trunk: a trunk alone learns slowly at first (arXiv 2106.14881).
        unshuffle: side of the squares of the input that become one position of the trunk, a power of two.

    Raises:
        UserError: a scale that is not a power of two; an unknown `residual`; heads that do not divide `embed_dim`.
    """

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        mlp_ratio: float,
        head_num_feat: int,
        scales: Sequence[int],
        shift: bool,
        residual: str | None,
        out_chans: int | None = None,
        finer: int = 1,
        stem: int = 0,
        unshuffle: int = 1,
    ):
        super().__init__()
        self.in_chans, self.window_size, self.scales, self.residual = in_chans, window_size, tuple(scales), residual
        if residual not in (None, "bicubic", "linear"):
            raise UserError(f'residual is {residual!r}; use None, "bicubic" or "linear"')
        if any(embed_dim % heads for heads in num_heads):
            raise UserError(f"embed_dim {embed_dim} is no multiple of num_heads {list(num_heads)}; change one of them")
        for scale in self.scales:
            if scale < 2 or scale & (scale - 1):
                raise UserError(f"a head for scale {scale} cannot be built; scales are powers of two, such as 2 and 4")
        offset = window_size // 2 if shift else 0
        self.shift, self.finer, self.unshuffle = offset, finer, unshuffle
        self.conv_first = nn.Conv2d(in_chans * unshuffle**2, embed_dim, 3, padding=1)
        self.stem = nn.Sequential(*(ConvBlock(embed_dim) for _ in range(stem)))
        self.patch_embed = PatchEmbed(embed_dim)
        self.layers = nn.ModuleList(
            ResidualGroup(embed_dim, depth, heads, window_size, offset, mlp_ratio)
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.heads = nn.ModuleDict(
            {f"x{s}": Head(embed_dim, head_num_feat, out_chans or in_chans, s * finer * unshuffle) for s in self.scales}
        )
        if residual == "linear":
            self.skips = nn.ModuleDict({f"x{s}": LinearSkip(in_chans, s) for s in self.scales})
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if residual:
            self.start_heads_at_zero()

    def start_heads_at_zero(self) -> None:
        """Let the heads add nothing until they are trained."""
        for head in self.heads.values():
            assert isinstance(head, Head)
            zero(head.conv_last)

    @classmethod
    def _from_pretrained(cls, *, strict: bool = True, **kwargs: Any) -> Self:
        # The mixin's default is not strict: it would leave weights that are missing from the file at random values.
        return super()._from_pretrained(strict=strict, **kwargs)

    def _check(self, x: Tensor, scales: Iterable[int]) -> None:
        name = type(self).__name__
        for scale in scales:
            if scale not in self.scales:
                have = " or ".join(map(str, self.scales))
                raise UserError(f"this {name} has no head for scale {scale}: choose {have}")
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            shape = " x ".join(map(str, x.shape))
            raise UserError(
                f"this {name} takes B x {self.in_chans} x h x w, but the input is {shape}: "
                f"{self.in_chans} channels are needed, or other weights"
            )

    def _trunk(self, x: Tensor) -> Tensor:
        """B x in_chans x H x W, sides multiples of window x unshuffle -> features of each position."""
        shallow = self.stem(self.conv_first(F.pixel_unshuffle(x, self.unshuffle) if self.unshuffle > 1 else x))
        tokens = self.patch_embed(shallow.permute(0, 2, 3, 1).contiguous())
        batch, height, width = tokens.shape[:3]
        windows = self._layout(batch, height, width, tokens.device)
        with attention_on(x.device):
            for layer in self.layers:
                tokens = layer(tokens, windows)
        return self.conv_after_body(self.norm(tokens).permute(0, 3, 1, 2)) + shallow

    def _layout(self, batch: int, height: int, width: int, device: torch.device) -> Layout:
        most = CACHED_TOKENS if device.type == "cpu" and not torch.is_grad_enabled() else None
        return layout(batch, height, width, self.window_size, self.shift, device, most)

    def indices(self, x: Tensor) -> tuple[object, ...]:
        """What a forward of `x` reads beside weights and buffers: index tensors, as they are kept for its size.

        They are kept for the last sizes only: hold these as long as a CUDA graph of that forward may be replayed.
        """
        multiple, sides = self.window_size * self.unshuffle, x.shape[-2:]
        reflections = [reflection(side, multiple, x.device) for side in sides if side % multiple]
        height, width = (-(-side // multiple) * self.window_size for side in sides)
        windows = self._layout(len(x), height, width, x.device)
        sizes = {
            (group.height, group.width)
            for pieces in windows.pieces.values()
            for piece in pieces
            for group in piece.groups
        }
        biases = [relative_position_index(self.window_size, *size, x.device) for size in sorted(sizes)]
        return windows, *reflections, *biases

    def forward_scales(self, x: Tensor, scales: Iterable[int]) -> dict[int, Tensor]:
        """Several scales from one pass through the trunk: scale -> the same as `forward(x, scale)`."""
        scales = tuple(scales)
        self._check(x, scales)
        height, width = x.shape[-2:]
        features = self._trunk(pad_by_reflection(x, self.window_size * self.unshuffle))
        outputs = {}
        for scale in scales:
            factor = scale * self.finer
            out = self.heads[f"x{scale}"](features)[..., : height * factor, : width * factor]
            if self.residual == "bicubic":
                out = out + F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
            elif self.residual == "linear":
                out = out + self.skips[f"x{scale}"](x)
            outputs[scale] = out
        return outputs

    def forward(self, x: Tensor, scale: int) -> Tensor:
        """B x in_chans x h x w with any h, w >= 1 -> B x in_chans x (scale * h) x (scale * w).

        Raises:
            UserError: no head for `scale`, or another number of channels.
        """
        return self.forward_scales(x, (scale,))[scale]
