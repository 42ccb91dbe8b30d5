"""Pixel upscalers of others: SwinIR's official release."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lua_demo.models.download import cache_folder, download
from lua_demo.models.weights import load_swinir
from lua_demo.networks.swinir import SwinIR
from lua_demo.schema import UserError

SWINIR_RELEASE = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0"
SWINIR_FILES = {
    "DF2K": "001_classicalSR_DF2K_s64w8_SwinIR-M_x{scale}.pth",
    "DIV2K": "001_classicalSR_DIV2K_s48w8_SwinIR-M_x{scale}.pth",
}
"""Classical super-resolution (arXiv 2108.10257), by training set: the first is the paper's best."""

SWINIR_MB = 67
"""Of one file of the release, in megabytes; there is one for each scale."""

SCALES = (2, 4)


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


def load_official_swinir(trained_on: str = "DF2K", folder: Path | None = None, release: str | None = None) -> nn.Module:
    """SwinIR as its authors released it: (image B x 3 x H x W in [0, 1], 2 or 4) -> image that many times as large.

    On the CPU in float32 and eval mode.

    Args:
        trained_on: a key of `SWINIR_FILES`.
        folder: where the files are kept; None: `cache_folder()`.
        release: URL of the folder of the release; None: `SWINIR_RELEASE`.
    Raises:
        UserError: a file cannot be downloaded, or is not exactly the network of the release; it is removed then.
    """
    if trained_on not in SWINIR_FILES:
        raise UserError(f"SwinIR was not released for {trained_on!r}; choose {' or '.join(SWINIR_FILES)}")
    folder, release = folder or cache_folder(), release or SWINIR_RELEASE
    files = {scale: SWINIR_FILES[trained_on].format(scale=scale) for scale in SCALES}
    return ByScale({s: _official(download(f"{release}/{name}", folder), s) for s, name in files.items()}).eval()


def official_swinir_files(trained_on: str = "DF2K") -> dict[int, Path]:
    """Scale -> where the file of the release is kept, be it there already or not."""
    return {scale: cache_folder() / SWINIR_FILES[trained_on].format(scale=scale) for scale in SCALES}


def _official(file: Path, scale: int) -> SwinIR:
    """The network in `file`, which must be SwinIR-M for `scale`; another file is removed."""
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in SwinIR(scales=(scale,)).state_dict().items()}
    try:
        network = load_swinir(file)
        if {name: value.shape for name, value in network.state_dict().items()} != wanted:
            raise UserError(f"{file} is another SwinIR than the classical one for x{scale}: get it again")
    except UserError as error:
        file.unlink()
        raise UserError(f"{error}; it was removed, the next run downloads it anew") from error
    return network
