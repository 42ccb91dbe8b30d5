"""Pixel upscalers: the shipped ones, and those that are downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lua_demo.catalog.upscalers import File, Upscaler
from lua_demo.models.download import download
from lua_demo.models.weights import load_swinir
from lua_demo.networks.swinir import SwinIR
from lua_demo.schema import UserError


class ByScale(nn.Module):
    """Networks with one scale each, as one upscaler."""

    def __init__(self, networks: dict[int, nn.Module]):
        super().__init__()
        self.networks = nn.ModuleDict({str(scale): network for scale, network in networks.items()})
        self.scales = tuple(networks)

    def forward(self, x: Tensor, scale: int) -> Tensor:
        if scale not in self.scales:
            raise ValueError(f"no network for scale {scale}, only for {', '.join(map(str, self.scales))}")
        return self.networks[str(scale)](x, scale)


def load_pixel_upscaler(row: Upscaler, weights: Path) -> nn.Module:
    """SwinIR as `row` has it: (image B x 3 x H x W in [0, 1], scale) -> image that many times as high and wide.

    On the CPU in float32 and eval mode: the shipped one below `weights`, or one network per published file.

    Raises:
        UserError: the folder is missing; a file cannot be downloaded, or is not exactly the network of the release.
    """
    if row.folder:
        return load_swinir(weights / row.folder)
    return ByScale({scale: _released(file, scale) for scale, file in row.files.items()}).eval()


def _released(published: File, scale: int) -> SwinIR:
    """The network in a published file, which must be SwinIR-M for `scale`."""
    file = download(published)
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in SwinIR(scales=(scale,)).state_dict().items()}
    network = load_swinir(file)
    if {name: value.shape for name, value in network.state_dict().items()} != wanted:
        raise UserError(f"{file} is another SwinIR than the classical one for x{scale}")
    return network
