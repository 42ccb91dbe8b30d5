"""Residual blocks of convolutions before a trunk that is there already, or from a CNN that was trained."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from lua_demo.networks.cnn import CNN, UNSHUFFLE
from lua_demo.networks.feature_lua import FeatureLUA
from lua_demo.networks.lua import LUA
from lua_demo.networks.swinir import SwinIR
from lua_demo.schema import UserError

Upscaler = TypeVar("Upscaler", LUA, SwinIR)


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
    result = type(model)(**{**model._hub_mixin_config, "stem": blocks})
    absent, unexpected = result.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("stem.") for name in absent)
    return result


@torch.no_grad()
def start_from_cnn(model: SwinIR, cnn: CNN) -> None:
    """Give `model` the first convolution, the first blocks and the heads of `cnn`, narrower or as wide. Channels that
    `cnn` has not are random and count for nothing at first; nor does the trunk, whose last convolution is zero.

    Raises:
        UserError: another unshuffle or other heads, a wider CNN, fewer blocks than the stem has.
    """
    width, wide = cnn.conv_first.out_channels, model.conv_first.out_channels
    direct = all(isinstance(head.shuffle, nn.PixelShuffle) for head in model.heads.values())
    if model.unshuffle != UNSHUFFLE or not direct or model.scales != cnn.scales:
        raise UserError("a SwinIR starts from a CNN where both have the same unshuffle, scales and kind of heads")
    if width > wide or len(model.stem) > len(cnn.blocks):
        raise UserError(
            f"a stem of {len(model.stem)} blocks of {wide} channels cannot start from {len(cnn.blocks)} blocks "
            f"of {width}: give a smaller --stem or a larger --width"
        )
    # A CNN subtracts 0.5, a SwinIR the mean colour: the first bias makes up for the difference inside the picture.
    given = cnn.conv_first
    model.conv_first.weight[:width] = given.weight
    shift = (model.mean.flatten() - 0.5).repeat_interleave(UNSHUFFLE**2)
    model.conv_first.bias[:width] = given.bias + (given.weight.sum((2, 3)) * shift).sum(1)
    for block, source in zip(model.stem, cnn.blocks, strict=False):
        for name in ("conv1", "conv2"):
            convolution, given = getattr(block, name), getattr(source, name)
            convolution.weight[:width] = 0
            convolution.weight[:width, :width] = given.weight
            convolution.bias[:width] = given.bias
    for name, head in model.heads.items():
        head.conv_last.weight.zero_()
        head.conv_last.weight[:, :width] = cnn.heads[name].weight
        head.conv_last.bias.copy_(cnn.heads[name].bias)
    for parameter in model.conv_after_body.parameters():
        parameter.zero_()
