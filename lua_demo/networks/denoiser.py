"""The embedded text-to-latent model: a diffusion transformer between two thin convolutional ends, its words, and what
completes its latents.

Attention sees patches of 4 x 4 latent pixels (32 x 32 image pixels: 256 tokens for 512 px), so that a step is cheap on
a CPU; what lies inside a patch is worked out by convolutions at full latent resolution. Time and prompt modulate every
block (adaLN-single, PixArt-alpha, arXiv 2310.00426); the words of the prompt also stand in the sequence as tokens.
"""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.autoencoder import ResBlock
from lua_demo.networks.linear import zero

MODULATIONS = 6  # shift, scale and gate of the attention and of the MLP


def sinusoids(value: Tensor, width: int, longest: float = 1000.0) -> Tensor:
    """Values in [0, 1], B -> B x width."""
    frequencies = torch.exp(-math.log(longest) * torch.arange(width // 2, device=value.device) / (width // 2))
    angles = value[:, None].float() * longest * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rotations(height: int, width: int, head_dim: int, base_side: int, theta: float = 100.0) -> Tensor:
    """2D rotary position embedding of height x width tokens: (height * width) x (head_dim / 2) complex numbers.

    Half of the channel pairs turn with the row, half with the column. A picture smaller than `base_side` tokens, the
    side that the model was made for, is a small view of the same scene: its tokens stand further apart. A larger one
    goes on beyond what was seen in training.
    """
    spacing = max(1.0, base_side / min(height, width))
    frequencies = theta ** -(torch.arange(head_dim // 4) / (head_dim // 4))
    rows, columns = (torch.arange(side) * spacing for side in (height, width))
    angles = torch.cat(
        [
            (rows[:, None] * frequencies)[:, None].expand(height, width, -1),
            (columns[:, None] * frequencies)[None].expand(height, width, -1),
        ],
        dim=-1,
    )
    return torch.polar(torch.ones_like(angles), angles).flatten(0, 1)


class Attention(nn.Module):
    """Self-attention over the words and the patches; the patches know where they are."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = nn.RMSNorm(width // heads), nn.RMSNorm(width // heads)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, turns: Tensor | None, words: int) -> Tensor:
        """x: B x tokens x width, the first `words` tokens without a place. turns: of `rotations`, or None."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if turns is not None:
            q, k = (torch.cat([y[:, :, :words], turned(y[:, :, words:], turns)], dim=2) for y in (q, k))
        y = F.scaled_dot_product_attention(q, k, v.to(q.dtype))
        return self.out(y.transpose(1, 2).flatten(2))


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Multiply pairs of channels, as complex numbers, by `turns`."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)


class Block(nn.Module):
    """Attention, then MLP. Modulated blocks get (B x 6 x width); their own table is added to it."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, modulated: bool = True):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=not modulated)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=not modulated)
        self.attention = Attention(width, heads)
        hidden = round(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))
        self.table = nn.Parameter(torch.zeros(MODULATIONS, width)) if modulated else None

    def forward(
        self, x: Tensor, modulation: Tensor | None = None, turns: Tensor | None = None, words: int = 0
    ) -> Tensor:
        if self.table is None or modulation is None:
            x = x + self.attention(self.norm1(x), turns, words)
            return x + self.mlp(self.norm2(x))
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).unsqueeze(2).unbind(1)
        x = x + gate1 * self.attention(self.norm1(x) * (1 + scale1) + shift1, turns, words)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class Configured(ModelMixin, ConfigMixin):
    """A network that diffusers saves and loads with its configuration."""

    config_name = "config.json"


class CaptionEncoder(Configured):
    """Known words in order -> one vector per place. What a prompt's words are is `lua_demo.catalog.prompts`' business.

    Args:
        words: the vocabulary; a word's id is its index + 1, 0 stands for an empty place.
        width, depth, heads: of the transformer.
        places: the longest prompt in known words.
    """

    @register_to_config
    def __init__(self, words: list[str], width: int = 256, depth: int = 2, heads: int = 4, places: int = 16):
        super().__init__()
        self.ids = {word: i + 1 for i, word in enumerate(words)}
        self.embedding = nn.Embedding(len(words) + 1, width)
        self.position = nn.Parameter(torch.randn(places, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, modulated=False) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def tokenize(self, prompts: list[list[str]]) -> Tensor:
        """Lists of known words -> B x places int64; cut after the last place. KeyError for an unknown word."""
        places = self.config["places"]
        rows = [[self.ids[word] for word in words[:places]] for words in prompts]
        return torch.tensor([row + [0] * (places - len(row)) for row in rows], device=self.device)

    def forward(self, ids: Tensor) -> Tensor:
        """B x places -> B x places x width."""
        x = self.embedding(ids) + self.position
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Detail(Configured):
    """The whole latent from its first channels, which the denoiser samples: the others drawn with noise, and a
    correction of the first ones, which come with a texture that is the denoiser's own.

    Args:
        channels, detail_channels: of the latent without its detail, and of the detail.
        noise: channels of the noise.
        width, depth: channels and residual blocks of the convolutions.
    """

    @register_to_config
    def __init__(self, channels: int = 16, detail_channels: int = 48, noise: int = 8, width: int = 96, depth: int = 8):
        super().__init__()
        self.first = nn.Conv2d(channels + noise, width, 3, padding=1)
        self.body = nn.Sequential(*(ResBlock(width) for _ in range(depth)), nn.SiLU())
        self.last = nn.Conv2d(width, channels + detail_channels, 3, padding=1)
        zero(self.last)

    def forward(self, latent: Tensor, noise: Tensor) -> Tensor:
        """B x channels x h x w and B x noise x h x w -> B x (channels + detail_channels) x h x w."""
        change = self.last(self.body(self.first(torch.cat([latent, noise.to(latent.dtype)], dim=1))))
        first, detail = change.split([self.config["channels"], self.config["detail_channels"]], dim=1)
        return torch.cat([latent + first, detail], dim=1)


class Denoiser(Configured):
    """Velocity of the rectified flow from data (time 0) to noise (time 1): d latent / d time = noise - data.

    Args:
        channels: of the latent.
        patch: side of a token in latent pixels.
        base_side: side in tokens of the size that the model is made for.
        width, depth, heads: of the transformer.
        fine: channels of the convolutions at latent resolution.
        text_width: of the text encoder's vectors.
    """

    @register_to_config
    def __init__(
        self,
        channels: int = 16,
        patch: int = 4,
        base_side: int = 16,
        width: int = 256,
        depth: int = 10,
        heads: int = 4,
        fine: int = 64,
        text_width: int = 256,
    ):
        super().__init__()
        area = patch**2
        self.first = nn.Sequential(nn.Conv2d(channels, fine, 3, padding=1), ResBlock(fine))
        self.embed = nn.Linear(fine * area, width)
        self.words = nn.Linear(text_width, width)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.prompt = nn.Linear(text_width, width)
        self.modulation = nn.Linear(width, MODULATIONS * width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_modulation = nn.Linear(width, 2 * width)
        self.unembed = nn.Linear(width, fine * area)
        self.last = nn.Sequential(ResBlock(fine), ResBlock(fine), nn.SiLU(), nn.Conv2d(fine, channels, 3, padding=1))
        for layer in (self.modulation, self.norm_modulation, self.last[-1]):
            zero(layer)

    def forward(self, latent: Tensor, time: Tensor, text: Tensor) -> Tensor:
        """Velocity at `latent`.

        Args:
            latent: B x channels x h x w, any size of 1 or more; padded to whole patches inside.
            time: B, in [0, 1].
            text: B x places x text_width, of `CaptionEncoder`.
        Returns:
            B x channels x h x w.
        """
        patch, (height, width) = self.config["patch"], latent.shape[-2:]
        fine = self.first(F.pad(latent, (0, -width % patch, 0, -height % patch), mode="replicate"))
        grid = F.pixel_unshuffle(fine, patch)
        rows, columns = grid.shape[-2:]
        words = self.words(text)
        x = torch.cat([words, self.embed(grid.flatten(2).transpose(1, 2))], dim=1)
        head_dim = self.config["width"] // self.config["heads"]
        turns = rotations(rows, columns, head_dim, self.config["base_side"]).to(latent.device)
        condition = F.silu(self.time(sinusoids(time, 256).to(x.dtype)) + self.prompt(text.mean(1)))
        modulation = self.modulation(condition).unflatten(-1, (MODULATIONS, -1))
        for block in self.blocks:
            x = block(x, modulation, turns, words.shape[1])
        shift, scale = self.norm_modulation(condition)[:, None].chunk(2, dim=-1)
        x = self.unembed(self.norm(x[:, words.shape[1] :]) * (1 + scale) + shift)
        grid = F.pixel_shuffle(x.transpose(1, 2).unflatten(2, (rows, columns)), patch)
        return self.last(fine + grid)[..., :height, :width]
