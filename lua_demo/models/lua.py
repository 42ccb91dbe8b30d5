"""The LUA of a latent space: our own, or the published one."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor, nn

from lua_demo.catalog.spaces import SPACES
from lua_demo.models.upscalers import Found
from lua_demo.models.vaes import load_tiny
from lua_demo.models.weights import load_any_lua, load_lua
from lua_demo.networks.feature_lua import FeatureLUA, OnFeatures, on_latents
from lua_demo.networks.kinds import LatentUpscaler
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.schema import UserError

STAND_IN = "lua-small"
"""Folder, below a space's, of our own LUA where others published a better one: used where that cannot be downloaded."""

SHIPPED_NOTE = "our own LUA, small and briefly trained on two CPU cores: softer than one trained on GPUs would be"
PROJECTED_NOTE = "; its time includes two decodes and two encodings by the tiny autoencoder, for shading and colours"
"""Notes on the LUAs that we ship for published spaces."""


class DecoderReady(nn.Module):
    """Normalised latents through a LUA that takes and gives decoder-ready ones, in float32 or bfloat16."""

    def __init__(self, network: LatentUpscaler, scaling_factor: float, shift_factor: float):
        super().__init__()
        self.network = network
        self.scaling_factor, self.shift_factor = scaling_factor, shift_factor
        self.in_chans, self.scales = network.in_chans, network.scales

    def forward(self, latent: Tensor, scale: int) -> Tensor:
        """Latent B x C x h x w -> B x C x (scale * h) x (scale * w), in the dtype of `latent`."""
        ready = latent.float() / self.scaling_factor + self.shift_factor
        larger = self.network(ready.to(next(self.network.parameters()).dtype), scale).float()
        return ((larger - self.shift_factor) * self.scaling_factor).to(latent.dtype)


def lua_source(space: str, weights: Path = WEIGHTS_DIR) -> str | Path:
    """Where the LUA of `space` comes from: the folder `weights`/`space`/lua, else the hub id of the published one.

    Raises:
        UserError: there is neither.
    """
    folder = Path(weights) / space / "lua"
    if folder.is_dir():
        return folder
    if published := SPACES[space].lua:
        return published.hub_id
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
        UserError: it is not exactly a LUA, or that autoencoder cannot be downloaded.
    """
    network = load_any_lua(source)
    if isinstance(network, FeatureLUA) and tiny is None:
        tiny = load_tiny(space, weights=weights)
    return on_latents(network, tiny).eval()


def find_lua(space: str, weights: Path = WEIGHTS_DIR) -> Found:
    """The LUA of `space`: (normalised latent B x C x h x w, 2 or 4) -> latent that many times as high and wide.

    On the CPU in float32 and eval mode. Where the published one of `lua_source` cannot be downloaded, the one in
    `weights`/`space`/`STAND_IN`, and a note that says so.

    Raises:
        UserError: there is none; it cannot be downloaded, and nothing stands in; the file is not exactly a LUA.
    """
    source = lua_source(space, weights)
    if isinstance(source, Path):
        network = lua_from(source, space, weights)
        is_ours = isinstance(network, OnFeatures) and Path(weights) == WEIGHTS_DIR
        return Found(network, source, SHIPPED_NOTE + _projected_note(network) if is_ours else "")
    published, stand_in = SPACES[space].lua, Path(weights) / space / STAND_IN
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
    assert published is not None  # where there is no folder, `lua_source` names the published one
    return Found(DecoderReady(network, published.scaling_factor, published.shift_factor).eval(), source)


def _projected_note(network: nn.Module) -> str:
    return PROJECTED_NOTE if isinstance(network, OnFeatures) and network.back_project else ""
