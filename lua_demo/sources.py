"""Upscalers by what they are for: our own LUA of a latent space, or the published one; SwinIR's official release."""

from __future__ import annotations

import os
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from huggingface_hub.utils import WeakFileLock
from torch import Tensor, nn
from tqdm import tqdm

from lua_demo.networks.feature_lua import FeatureLUA, OnFeatures, on_latents
from lua_demo.networks.swinir import SwinIR
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.schema import UserError
from lua_demo.vaes import load_tiny
from lua_demo.weights import WEIGHTS_DIR, load_any_lua, load_lua, load_swinir

SWINIR_RELEASE = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0"
SWINIR_FILES = {
    "DF2K": "001_classicalSR_DF2K_s64w8_SwinIR-M_x{scale}.pth",
    "DIV2K": "001_classicalSR_DIV2K_s48w8_SwinIR-M_x{scale}.pth",
}
"""Classical super-resolution (arXiv 2108.10257), by training set: the first is the paper's best."""

SWINIR_MB = 67
"""Of one file of the release, in megabytes; there is one for each scale."""

SCALES = (2, 4)
TIMEOUT_SECONDS = 30
BLOCK = 1 << 20


@dataclass(frozen=True)
class Published:
    """A LUA that others trained, on latents as the decoder takes them: normalised / scaling_factor + shift_factor."""

    hub_id: str
    scaling_factor: float
    shift_factor: float


PUBLISHED_LUA = {"flux1": Published("vaskers5/LUA-FLUX", scaling_factor=0.3611, shift_factor=0.1159)}
STAND_IN = "lua-small"
"""Folder, below a space's, of our own LUA where others published a better one: for who cannot have that."""

SHIPPED_NOTE = "our own LUA, small and briefly trained on two CPU cores: softer than one trained on GPUs would be"
PROJECTED_NOTE = "; its time includes two decodes and two encodings by the tiny autoencoder, for shading and colours"
"""Of those that we ship for published spaces."""


@dataclass(frozen=True)
class Found:
    """An upscaler, where it came from (a folder or a hub id), and what a reader of its pictures must know."""

    network: nn.Module
    source: str | Path = ""
    note: str = ""


class DecoderReady(nn.Module):
    """Normalised latents through a LUA that takes and gives decoder-ready ones, in float32 or bfloat16."""

    def __init__(self, network: nn.Module, scaling_factor: float, shift_factor: float):
        super().__init__()
        self.network = network
        self.scaling_factor, self.shift_factor = scaling_factor, shift_factor
        self.in_chans, self.scales = network.in_chans, network.scales

    def forward(self, latent: Tensor, scale: int) -> Tensor:
        """Latent B x C x h x w -> B x C x (scale * h) x (scale * w), in the dtype of `latent`."""
        ready = latent.float() / self.scaling_factor + self.shift_factor
        larger = self.network(ready.to(next(self.network.parameters()).dtype), scale).float()
        return ((larger - self.shift_factor) * self.scaling_factor).to(latent.dtype)


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


def lua_source(space: str, weights: Path = WEIGHTS_DIR) -> str | Path:
    """Where the LUA of `space` comes from: the folder `weights`/`space`/lua, else the hub id of the published one.

    Raises:
        UserError: there is neither.
    """
    folder = Path(weights) / space / "lua"
    if folder.is_dir():
        return folder
    if space in PUBLISHED_LUA:
        return PUBLISHED_LUA[space].hub_id
    raise UserError(
        f"there is no LUA for the latent space {space}: train one (python3 -m lua_demo train lua --space {space} "
        f"--images PHOTOS --out RUN) and copy RUN/model to {folder}"
    )


def lua_from(
    source: str | os.PathLike[str], space: str, weights: Path = WEIGHTS_DIR, tiny: TinyAutoencoder | None = None
) -> nn.Module:
    """The LUA of ours at `source`, for normalised latents of `space`; as `find_lua` gives it.

    A FeatureLUA gets layers of `tiny`, the tiny autoencoder of the space; None: of that at `tiny_source`.

    Raises:
        UserError: it is not exactly a LUA, or that autoencoder cannot be had.
    """
    network = load_any_lua(source)
    if isinstance(network, FeatureLUA) and tiny is None:
        tiny = load_tiny(space, weights=weights)
    return on_latents(network, tiny).eval()


def find_lua(space: str, weights: Path = WEIGHTS_DIR) -> Found:
    """The LUA of `space`: (normalised latent B x C x h x w, 2 or 4) -> latent that many times as high and wide.

    On the CPU in float32 and eval mode. Where the published one of `lua_source` cannot be had, the one in
    `weights`/`space`/`STAND_IN`, and a note that says so.

    Raises:
        UserError: there is none; it cannot be downloaded, and nothing stands in; the file is not exactly a LUA.
    """
    source = lua_source(space, weights)
    if isinstance(source, Path):
        network = lua_from(source, space, weights)
        is_ours = isinstance(network, OnFeatures) and Path(weights) == WEIGHTS_DIR
        return Found(network, source, SHIPPED_NOTE + _projected_note(network) if is_ours else "")
    row, stand_in = PUBLISHED_LUA[space], Path(weights) / space / STAND_IN
    try:
        network = load_lua(source)
    except UserError as error:
        if not stand_in.is_dir():
            raise
        try:
            network = lua_from(stand_in, space, weights)
        except UserError as second:
            raise UserError(f"{error}; nor can our own small one be used: {second}") from second
        note = f"the published LUA is not used, but our own small one, which is weaker{_projected_note(network)}"
        return Found(network, stand_in, f"{note}: {error}")
    return Found(DecoderReady(network, row.scaling_factor, row.shift_factor).eval(), source)


def _projected_note(network: nn.Module) -> str:
    return PROJECTED_NOTE if isinstance(network, OnFeatures) and network.back_project else ""


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


def cache_folder() -> Path:
    """Where downloaded files are kept: ~/.cache/lua_demo/weights, below XDG_CACHE_HOME where that is set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lua_demo" / "weights"


def download(url: str, folder: Path) -> Path:
    """The file at `url`, kept in `folder` under its own name. A download that broke off goes on where it stopped.

    Raises:
        UserError: it cannot be had, or it breaks off again.
    """
    file = folder / url.rsplit("/", 1)[1]
    part = file.with_name(f"{file.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(file.with_name(f"{file.name}.lock")):
            if file.is_file():
                return file
            total = _fetch(url, part)
            size = part.stat().st_size
            if size == total:
                return part.replace(file)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url} could not be had ({reason}); go online and try again, or put it at {file}") from error
    if size < total:
        raise UserError(f"{url} broke off after {size} of {total} bytes; try again: the rest is added")
    part.unlink()
    raise UserError(f"{url} gave {size} bytes instead of {total}; what came was removed, try again")


def _fetch(url: str, part: Path) -> int:
    """Append to `part` what it lacks; returns how many bytes the whole file has."""
    start = part.stat().st_size if part.is_file() else 0
    try:
        response = urlopen(Request(url, headers={"Range": f"bytes={start}-"}), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        part.unlink()  # it holds the whole file, or more: not known which
        return _fetch(url, part)
    with response, part.open("ab") as out:
        if response.status != HTTPStatus.PARTIAL_CONTENT:  # the server gives the whole file
            out.truncate(start := 0)
        if response.headers["Content-Length"] is None:
            raise OSError("the server does not say how long it is")
        total = start + int(response.headers["Content-Length"])
        with tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar:
            while block := response.read(BLOCK):
                out.write(block)
                bar.update(len(block))
    return total
