"""SesquiLSR on normalised latents: what its published networks take, and reading them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lua_demo.models.checkpoints import UNREADABLE
from lua_demo.networks.sesqui import Sesqui
from lua_demo.paths import FLUX2_NORMALISATION
from lua_demo.schema import UserError

PATCH = 2
"""Side of FLUX.2's patches, in latent pixels."""


class OnRawFlux2(nn.Module):
    """Normalised FLUX.2 latents through a network that takes and gives them as the autoencoder does."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        known = json.loads(FLUX2_NORMALISATION.read_text(encoding="utf-8"))
        mean, variance = (torch.tensor(known[name]).unflatten(0, (-1, PATCH, PATCH)) for name in ("mean", "variance"))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", (variance + known["eps"]).sqrt(), persistent=False)

    def forward(self, latent: Tensor, scale: int) -> Tensor:
        mean, deviation = (_tiled(values, latent) for values in (self.mean, self.deviation))
        larger = self.network(latent.float() * deviation + mean, scale).float()
        mean, deviation = (_tiled(values, larger) for values in (self.mean, self.deviation))
        return (larger - mean) / deviation


def _tiled(values: Tensor, latent: Tensor) -> Tensor:
    """Values per channel and place in a patch, C x 2 x 2, for every place of `latent`; its sides may be odd."""
    height, width = latent.shape[-2:]
    return values.repeat(1, -(-height // PATCH), -(-width // PATCH))[:, :height, :width]


def load_sesqui(file: Path, space: str, channels: int) -> nn.Module:
    """The network for latents of `space`, normalised as the denoiser leaves them; on the CPU, in float32 and eval mode.

    The networks of SDXL and FLUX.1 were trained on such latents, as the newest of their author's adaptors has it; that
    of FLUX.2 on those of the autoencoder itself, before the batch norm.

    Raises:
        UserError: `file` is not exactly the published network.
    """
    network = Sesqui(channels)
    try:
        network.load_state_dict(load_file(file))
    except UNREADABLE as error:
        raise UserError(
            f"{file} is not SesquiLSR for {channels} channels: remove it, the next run downloads it"
        ) from error
    return (OnRawFlux2(network) if space == "flux2" else network).eval()
