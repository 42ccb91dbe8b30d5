"""Residual blocks of convolutions put before an existing trunk, or taken from a trained CNN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.cnn import CNN, UNSHUFFLE
from lua_demo.networks.feature_lua import FeatureLUA
from lua_demo.networks.skip import least_squares
from lua_demo.networks.swin import Head, SwinUpscaler
from lua_demo.networks.swinir import SwinIR
from lua_demo.schema import UserError
from lua_demo.train.decoded import DecodedPhotos
from lua_demo.train.upscaler import configuration

Upscaler = TypeVar("Upscaler", bound=SwinUpscaler)


def with_stem(model: Upscaler, blocks: int | None) -> Upscaler:
    """`model` with a stem of `blocks` residual blocks, new ones after those it has: the same function, as new blocks
    add nothing at first. None: as it is.

    Raises:
        UserError: a FeatureLUA, which has no stem; fewer blocks than there are.
    """
    if not blocks:
        return model
    if isinstance(model, FeatureLUA):
        raise UserError("--stem is for a LUA of latents, not one between layers of a tiny autoencoder: leave it out")
    if blocks < len(model.stem):
        raise UserError(f"--stem {blocks}, but the model has {len(model.stem)} blocks: give as many, or leave it out")
    result = type(model)(**{**configuration(model), "stem": blocks})
    absent, unexpected = result.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("stem.") for name in absent)
    return result


@torch.no_grad()
def start_from_cnn(
    model: SwinIR, cnn: CNN, photos: DecodedPhotos, side: int = 48, batches: int = 8, count: int = 12
) -> None:
    """Give `model` the first convolution and the first blocks of `cnn`, narrower or as wide. Where these are all its
    blocks, `model` gets its heads too and starts as the same function; else heads that make the best of the blocks,
    found by least squares on crops of `side` px of bases. Channels that `cnn` has not are random and count for nothing
    at first; nor does the trunk, as its last convolution is zero.

    Raises:
        UserError: another unshuffle or other heads, a wider CNN, fewer blocks than the stem has.
    """
    width, wide = cnn.conv_first.out_channels, model.conv_first.out_channels
    direct = all(isinstance(head.shuffle, nn.PixelShuffle) for head in model.heads.values())
    if model.unshuffle != UNSHUFFLE or not direct:
        raise UserError("a SwinIR starts from a CNN where both have the same unshuffle, and heads of one convolution")
    if width > wide or len(model.stem) > len(cnn.blocks):
        raise UserError(
            f"a stem of {len(model.stem)} blocks of {wide} channels cannot start from {len(cnn.blocks)} blocks "
            f"of {width}: give a smaller --stem or a larger --width"
        )
    # A CNN subtracts 0.5, a SwinIR the mean colour: the first bias makes up for the difference inside the picture.
    (weight, bias), (given, given_bias) = _values(model.conv_first), _values(cnn.conv_first)
    weight[:width] = given
    shift = (model.mean.flatten() - 0.5).repeat_interleave(UNSHUFFLE**2)
    bias[:width] = given_bias + (given.sum((2, 3)) * shift).sum(1)
    for block, source in zip(model.stem, cnn.blocks, strict=False):
        for name in ("conv1", "conv2"):
            (weight, bias), (given, given_bias) = _values(getattr(block, name)), _values(getattr(source, name))
            weight[:width] = 0
            weight[:width, :width] = given
            bias[:width] = given_bias
    for parameter in model.conv_after_body.parameters():
        parameter.zero_()
    whole = len(model.stem) == len(cnn.blocks)
    for scale in model.scales:
        if whole and scale in cnn.scales:
            (weight, bias), (given, given_bias) = _last(model, scale), _values(cnn.heads[f"x{scale}"])
            weight.zero_()
            weight[:, :width] = given
            bias.copy_(given_bias)
        else:
            fit_head(model, photos, scale, side, batches, count)


@torch.no_grad()
def fit_head(model: SwinIR, photos: DecodedPhotos, scale: int, side: int, batches: int, count: int) -> None:
    """Set the one convolution of a head to the least-squares map from the trunk's features to what bicubic lacks."""

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(batches):
            base, target = photos.batch(count, side, scale, np.random.default_rng((scale, number)))
            larger = F.interpolate(base, scale_factor=scale, mode="bicubic", align_corners=False)
            features = model._trunk(base - model.mean)
            yield features, F.pixel_unshuffle(target - larger, scale * model.unshuffle)

    for parameter, found in zip(_last(model, scale), least_squares(pairs(), "constant"), strict=True):
        parameter.copy_(found)


def _last(model: SwinIR, scale: int) -> tuple[Tensor, Tensor]:
    """As `_values`, of the last convolution of a head."""
    head = model.heads[f"x{scale}"]
    assert isinstance(head, Head)
    return _values(head.conv_last)


def _values(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that has both."""
    assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
    return convolution.weight, convolution.bias
