"""Where weights lie and how they become networks: strictly, or with a one-line error that names the file.

A source is a folder or hub repository with config.json and model.safetensors (ours), a file in the published format,
from whose tensors the whole configuration follows, or a hub repository that is known to hold such a file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HFValidationError
from torch import Tensor, nn

from lua_demo.models.checkpoints import (
    UNREADABLE,
    foreign_kind,
    read_tensors,
    refuse_no_numbers,
    refuse_odd_config,
)
from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.networks.cnn import CNN
from lua_demo.networks.feature_lua import FeatureLUA
from lua_demo.networks.lua import LUA
from lua_demo.networks.swinir import SwinIR
from lua_demo.schema import UserError

Module = TypeVar("Module", bound=nn.Module)

PUBLISHED_FILES = {"vaskers5/LUA-FLUX": "lua_flux.pth"}
"""Hub repositories without config.json, and the file in them that is a checkpoint."""

DERIVED = (".relative_position_index", ".attn_mask")
"""Buffers that published checkpoints carry and that follow from the configuration."""

NO_CONNECTION = ("ConnectError", "ConnectTimeout", "ConnectionError")
"""Names of the errors that the hub's client raises without a connection; a slow connection raises others."""

LOADERS = {
    "LUA": "load_lua",
    "FeatureLUA": "find_lua, which puts it between layers of the space's tiny autoencoder",
    "SwinIR": "load_swinir",
    "CNN": "load_cnn",
    "Autoencoder": "load_autoencoder",
}


def load_lua(source: str | os.PathLike[str]) -> LUA:
    """LUA from a folder, a file or a hub id, on the CPU in float32 and eval mode.

    Raises:
        UserError: nothing there, not readable, of another kind, or not exactly the tensors that the network needs.
    """
    return _load((LUA,), source)


def load_any_lua(source: str | os.PathLike[str]) -> LUA | FeatureLUA:
    """As `load_lua`, or a FeatureLUA, which takes features instead of latents: see `on_latents`."""
    kinds: tuple[type[LUA | FeatureLUA], ...] = LUA, FeatureLUA
    return _load(kinds, source)


def load_swinir(source: str | os.PathLike[str]) -> SwinIR:
    """SwinIR, as `load_lua`. Of the published networks the classical ones for x2, x4 and x8 ("pixelshuffle") fit."""
    return _load((SwinIR,), source)


def load_cnn(source: str | os.PathLike[str]) -> CNN:
    """The pixel upscaler of residual blocks, as `load_lua`. There is no published format: it needs its config.json."""
    return _load((CNN,), source)


def load_autoencoder(source: str | os.PathLike[str]) -> Autoencoder:
    """The embedded autoencoder, as `load_lua`. There is no published format: it needs its config.json."""
    return _load((Autoencoder,), source)


def fingerprint(source: str | os.PathLike[str]) -> str:
    """The first 12 hex digits of the sha256 of the weights file; of all, by name, for the folder of a pipeline."""
    is_pipeline = (Path(source) / "model_index.json").is_file()
    files = sorted(Path(source).rglob("*.safetensors")) if is_pipeline else [_locate(source)[0]]
    return _digest(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))[:12]


def sha256(file: Path) -> str:
    """sha256 of the content of `file`, in hex."""
    return _digest(((file, file.stat().st_size, file.stat().st_mtime_ns),))


@functools.lru_cache(maxsize=32)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """sha256 of files, each with size and time of its last change, so that a changed one is read again."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def hub_file(repository: str, name: str) -> Path:
    """The file `name` of a hub repository, from the hub's cache where it is there and the hub cannot be reached.

    A hub to which there is no connection is asked once: `hf_hub_download` would ask six more times, for half a minute.

    Raises:
        OSError, HFValidationError: it cannot be downloaded; raised by `hf_hub_download`.
    """
    reached = True
    try:
        get_hf_file_metadata(hf_hub_url(repository, name))
    except Exception as error:  # from httpx2, httpx or requests, depending on the version of huggingface_hub
        reached = type(error).__name__ not in NO_CONNECTION
    return Path(hf_hub_download(repository, name, local_files_only=not reached))


def _load(networks: tuple[type[Module], ...], source: str | os.PathLike[str]) -> Module:
    """One of `networks`, the one whose weights these are; an error names the first."""
    file, config_file = _locate(source)
    tensors = read_tensors(file)
    config = _read_config(config_file) if config_file else None
    kind = _kind(tensors, config)
    network = next((network for network in networks if network.__name__ == kind), None)
    if network is None:
        foreign = foreign_kind(tensors)
        way_out = f"it holds {kind}: use {LOADERS[kind]}" if kind else "it holds nothing known: give another file"
        way_out = f"it is {foreign}: give another file" if foreign else way_out
        raise UserError(f"{file} does not hold {networks[0].__name__} weights; {way_out}")
    if config is None:
        if kind == "SwinIR":
            tensors = published_swinir_names(tensors)
        config = published_config(tensors, file)
        if kind == "SwinIR" and config.pop("in_chans") != 3:
            raise UserError(f"{file} is a SwinIR for grey images; give one for RGB")
    refuse_odd_config(config, tensors, config_file or file)
    try:
        model = network(**config)
    except UNREADABLE as error:
        what = f"{config_file or file} describes no {kind} that can be built"
        raise UserError(f"{what} ({first_line(error)}): get it again") from error
    _fill(model, {name: value for name, value in tensors.items() if not name.endswith(DERIVED)}, file)
    return model.eval()


def _locate(source: str | os.PathLike[str]) -> tuple[Path, Path | None]:
    """The weights file of `source` and its config.json, or None where the file is in the published format."""
    path = Path(source).expanduser()
    if path.is_dir():
        for name in ("model.safetensors", "config.json"):
            if not (path / name).is_file():
                raise UserError(f"the folder {path} has no {name}; give a folder that save_pretrained wrote, or a file")
        return path / "model.safetensors", path / "config.json"
    if path.is_file():
        beside = path.with_name("config.json")
        return path, beside if path.suffix == ".safetensors" and beside.is_file() else None
    repository = os.fspath(source)
    if path.suffix in (".safetensors", ".pth", ".pt") or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository):
        raise UserError(f"{source} does not exist; give a folder, a .safetensors or .pth file, or a hub id owner/name")
    try:
        if repository in PUBLISHED_FILES:
            return hub_file(repository, PUBLISHED_FILES[repository]), None
        config_file = hub_file(repository, "config.json")
        return hub_file(repository, "model.safetensors"), config_file
    except (OSError, HFValidationError) as error:
        raise UserError(
            f"{source} is not a path here and could not be downloaded from the Hugging Face hub "
            f"({type(error).__name__}); check the name, go online, or give a path"
        ) from error


def _read_config(file: Path) -> dict:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not readable JSON ({first_line(error)}): get it again") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is not a JSON object: get it again")
    return config


def _kind(tensors: dict[str, Tensor], config: dict | None) -> str | None:
    """Whose weights these are: a key of LOADERS, or None."""
    if config is not None:
        marks = {
            "latent_channels": "Autoencoder", "conv_blocks": "CNN", "feature_chans": "FeatureLUA", "in_chans": "LUA",
            "embed_dim": "SwinIR",
        }  # fmt: skip
        return next((kind for key, kind in marks.items() if key in config), None)
    if foreign_kind(tensors):
        return None
    marks = {"heads.": "LUA", "conv_before_upsample.": "SwinIR", "encoder.": "Autoencoder"}
    return next((kind for prefix, kind in marks.items() if any(name.startswith(prefix) for name in tensors)), None)


def published_swinir_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of a published SwinIR, which has one unnamed head, in our terms: the head is `heads.x{scale}`."""
    scale = 2 ** sum(re.fullmatch(r"upsample\.\d+\.weight", name) is not None for name in tensors)
    new = {"conv_before_upsample.": "conv_before.", "upsample.": "upsample.", "conv_last.": "conv_last."}
    renamed = {}
    for name, value in tensors.items():
        prefix = next((prefix for prefix in new if name.startswith(prefix)), None)
        renamed[f"heads.x{scale}.{new[prefix]}{name.removeprefix(prefix)}" if prefix else name] = value
    return renamed


def published_config(tensors: dict[str, Tensor], file: Path) -> dict:
    """All arguments of the network whose published checkpoint `tensors` is, head names as in LUA.

    Whether blocks are shifted follows from the mask buffers, which only shifted blocks have.
    """

    def shape(name: str, dimensions: int) -> torch.Size:
        if name not in tensors or tensors[name].ndim != dimensions:
            raise UserError(f"{file} has no usable tensor {name}: it is damaged, or of an unsupported architecture")
        return tensors[name].shape

    if not any(name.endswith(".relative_position_index") for name in tensors):
        raise UserError(f"{file} needs its config.json beside it: its tensors alone do not determine the configuration")
    matches = (re.match(r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\.", name) for name in tensors)
    blocks = {(int(m[1]), int(m[2])) for m in matches if m}
    depths = [sum(layer == i for layer, _ in blocks) for i in range(len({layer for layer, _ in blocks}))]
    scales = sorted({int(m[1]) for m in (re.match(r"heads\.x(\d+)\.", name) for name in tensors) if m})
    first = [f"layers.{i}.residual_group.blocks.0" for i in range(len(depths))]
    if not scales:
        raise UserError(f"{file} has no heads named heads.x2, heads.x4 and so on: it is of an unsupported architecture")
    tables = [shape(f"{block}.attn.relative_position_bias_table", 2) for block in first]
    embed_dim, in_chans = shape("conv_first.weight", 4)[:2]
    return {
        "in_chans": in_chans,
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": [heads for _, heads in tables],
        "window_size": (math.isqrt(tables[0][0]) + 1) // 2,
        "mlp_ratio": shape("layers.0.residual_group.blocks.0.mlp.fc1.weight", 2)[0] / embed_dim,
        "head_num_feat": shape(f"heads.x{scales[0]}.conv_before.0.weight", 4)[0],
        "scales": scales,
        "shift": any(name.endswith(".attn_mask") for name in tensors),
        "residual": None,
    }


def _fill(model: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    """Copy `tensors` into `model`; every name and shape must be the model's."""
    wanted = model.state_dict()
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "of another shape": sorted(n for n in wanted.keys() & tensors.keys() if wanted[n].shape != tensors[n].shape),
    }
    told = [f"{len(names)} {what}, as {names[0]}" for what, names in problems.items() if names]
    if told:
        name = type(model).__name__
        raise UserError(f"{file} does not fit its {name} configuration: tensors {'; '.join(told)}: get both again")
    refuse_no_numbers(tensors, file)
    try:
        model.load_state_dict(tensors)
    except UNREADABLE as error:
        raise UserError(
            f"{file} holds tensors of a kind that weights are not ({first_line(error)}): get it again"
        ) from error


def first_line(error: Exception) -> str:
    """The first line of its message, or the name of its class if there is none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
