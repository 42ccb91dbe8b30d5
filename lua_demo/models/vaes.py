"""Encoders and decoders of images in [0, 1] and normalised latents: padding, value ranges and scaling are done here.

A network is a `Codec`. The app uses it through `VAE`; training uses the network itself, which does not clamp.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.catalog.spaces import SPACES, Space
from lua_demo.models.download import download
from lua_demo.models.weights import hub_file, load_autoencoder
from lua_demo.networks.kinds import Codec
from lua_demo.networks.kl import fast_decode, one_frame
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.networks.taehv import TinyVideoAutoencoder
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.schema import UserError

CLASSES = {"AutoencoderKL": fast_decode, "AutoencoderKLFlux2": fast_decode, "AutoencoderKLQwenImage": one_frame}
"""Autoencoders of diffusers that are known here, and what makes them fast."""

Tiny = TypeVar("Tiny", TinyAutoencoder, TinyVideoAutoencoder)


def name_of(source: str | os.PathLike[str]) -> str:
    """What to call a source in records: a hub id as it is, a path by its last two parts."""
    return "/".join(Path(source).parts[-2:])


class VAE(nn.Module):
    """An autoencoder for images of any size. Gradients are for the caller to switch off.

    `decoder` is the key of `spaces.DECODERS` that it was chosen by; empty for a space's own one.
    """

    def __init__(self, network: Codec, decoder: str = ""):
        super().__init__()
        self.network, self.decoder = network, decoder
        self.stride, self.latent_channels = network.stride, network.latent_channels

    def encode(self, image: Tensor) -> Tensor:
        """Image B x 3 x H x W in [0, 1], any size -> normalised latent B x C x ceil(H / 8) x ceil(W / 8).

        The last row and column are repeated at the bottom and right up to a multiple of the stride.
        """
        height, width = image.shape[-2:]
        padding = (0, -width % self.stride, 0, -height % self.stride)
        return self.network.encode(F.pad(image, padding, mode="replicate") if any(padding) else image)

    def decode(self, latent: Tensor) -> Tensor:
        """Normalised latent B x C x h x w -> image B x 3 x 8h x 8w, clamped to [0, 1]."""
        return self.network.decode(latent).clamp(0, 1)


class KLAutoencoder(nn.Module):
    """diffusers' AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage: images in [-1, 1] and raw latents become
    ours.

    What the denoiser sees is (raw - shift) * scale, with one number each; in Qwen-Image one per channel; in FLUX.2 a
    batch norm over the channels of 2 x 2 patches: one number per channel and place in the patch. Qwen-Image's is that
    of a video model: a picture is its first frame.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, model: Any):
        super().__init__()
        self.model = model
        config = model.config
        self.video = hasattr(config, "temperal_downsample")
        if self.video:
            self.stride, self.latent_channels = 2 ** len(config.temperal_downsample), config.z_dim
            mean, deviation = (torch.tensor(x).view(1, -1, 1, 1) for x in (config.latents_mean, config.latents_std))
            shift, scale = mean, 1 / deviation
        else:
            self.stride, self.latent_channels = 2 ** (len(config.block_out_channels) - 1), config.latent_channels
        if hasattr(model, "bn"):
            shift, variance = (x.unflatten(0, (-1, 2, 2))[None] for x in (model.bn.running_mean, model.bn.running_var))
            scale = (variance + model.bn.eps).rsqrt()
        elif not self.video:
            shift, scale = (torch.full((1, 1, 1, 1), x or 0.0) for x in (config.shift_factor, config.scaling_factor))
        self.register_buffer("shift", shift.clone(), persistent=False)
        self.register_buffer("scale", scale.clone(), persistent=False)

    def encode(self, image: Tensor) -> Tensor:
        image = image * 2 - 1
        if self.video:
            raw = self.model.quant_conv(self.model.encoder(image[:, :, None]))[:, : self.latent_channels, 0]
        else:
            raw = self.model.encode(image).latent_dist.mean
        shift, scale = self._statistics(raw)
        return (raw - shift) * scale

    def decode(self, latent: Tensor) -> Tensor:
        shift, scale = self._statistics(latent)
        raw = latent / scale + shift
        if self.video:
            made = self.model.decoder(self.model.post_quant_conv(raw[:, :, None]))[:, :, 0]
        else:
            made = self.model.decode(raw).sample
        return (made + 1) / 2

    def _statistics(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale for every place of `latent`; its sides may be odd."""
        height, width = latent.shape[-2:]
        repeats = 1, 1, -(-height // self.shift.shape[-2]), -(-width // self.shift.shape[-1])
        shift, scale = (x.repeat(repeats)[..., :height, :width] for x in (self.shift, self.scale))
        return shift, scale


def tiny_source(space: str, weights: Path = WEIGHTS_DIR) -> str | Path:
    """Where the tiny autoencoder of a published space comes from: folder `weights`/`space`/tiny, else its published
    file, which may have to be downloaded, or its hub id.
    """
    folder, row = Path(weights) / space / "tiny", SPACES[space]
    if folder.is_dir():
        return folder
    return row.tiny_file.path if row.tiny_file else f"madebyollin/{row.tiny}"


def load_network(
    space: str, source: str | os.PathLike[str] | None = None, subfolder: str = "", fast: bool = False
) -> Codec:
    """The autoencoder of `space`, on the CPU in float32 and eval mode.

    Args:
        space: a key of `SPACES`.
        source: a folder with files of the TAESD family, or one of these files, with encoder and decoder side by side;
            the one file of TAEHV, or its folder; a folder or hub id of a class of `CLASSES` or of AutoencoderTiny.
            None: the shipped autoencoder, or the space's tiny one from the hub.
        subfolder: of a source in diffusers' layout, where it holds more than the autoencoder.
        fast: with what `CLASSES` names where that knows the decoder: the same numbers, for inference only.
    Raises:
        UserError: no such space; nothing there; not an autoencoder of that space.
    """
    if space not in SPACES:
        raise UserError(f"latent space {space!r} does not exist; choose {', '.join(SPACES)}")
    row = SPACES[space]
    if row.tiny is None:
        network: Codec = load_autoencoder(source or WEIGHTS_DIR / "embedded" / "autoencoder")
    else:
        network = _load_foreign(row, source or tiny_source(space), subfolder, fast)
    if (network.latent_channels, network.stride) != (row.channels, row.stride):
        raise UserError(
            f"{source} has {network.latent_channels} channels at stride {network.stride}, but space {space} has "
            f"{row.channels} at {row.stride}: give an autoencoder of {row.label}"
        )
    return network.eval()


def load_tiny(space: str, source: str | os.PathLike[str] | None = None, weights: Path = WEIGHTS_DIR) -> TinyAutoencoder:
    """The tiny autoencoder of a published space, as `load_network`; without a `source` that of `tiny_source`.

    Raises:
        UserError: the space has none, or `source` gives another kind of autoencoder.
    """
    if SPACES[space].tiny is None or SPACES[space].tiny_file:
        raise UserError(
            f"{space} has no tiny autoencoder of TAESD's family, whose layers this LUA needs: give a plain LUA"
        )
    network = load_network(space, source or tiny_source(space, weights))
    if not isinstance(network, TinyAutoencoder):
        raise UserError(f"{source} is no tiny autoencoder, whose layers this LUA needs: give {tiny_source(space)}")
    return network


def _load_foreign(row: Space, source: str | os.PathLike[str], subfolder: str, fast: bool) -> Codec:
    path = Path(source).expanduser()
    if row.tiny_file and path == row.tiny_file.path:
        download(row.tiny_file)
    if row.tiny_file and (path / row.tiny_file.name).is_file():
        path = path / row.tiny_file.name
    if row.tiny_file and path.is_file():
        return _strictly(TinyVideoAutoencoder(row.channels), _read(path), path)
    if path.is_file():
        stem = re.sub(r"_(en|de)coder\.safetensors$", "", str(path))
        return _load_tiny(Path(f"{stem}_encoder.safetensors"), Path(f"{stem}_decoder.safetensors"))
    if path.is_dir():
        halves = [path / f"{row.tiny}_{half}.safetensors" for half in ("encoder", "decoder")]
        if all(half.is_file() for half in halves):
            return _load_tiny(*halves)
    prefix = f"{subfolder}/" if subfolder else ""
    config_file = _file_of(source, f"{prefix}config.json")
    try:
        kind = json.loads(config_file.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{config_file} is not readable as a configuration: get it again") from error
    if kind == "AutoencoderTiny":
        return _tiny(_from_diffusers(_read(_file_of(source, f"{prefix}diffusion_pytorch_model.safetensors"))), source)
    if kind not in CLASSES:
        raise UserError(
            f"{source} holds a {kind}; give an AutoencoderTiny, {', '.join(CLASSES)}, or files of TAESD's family"
        )
    import diffusers  # noqa: PLC0415  takes seconds

    try:
        model = getattr(diffusers, kind).from_pretrained(source, subfolder=subfolder or None)
    except (OSError, ValueError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"the {kind} of {source} could not be loaded ({line[:200]}); get it again") from error
    if fast:
        with contextlib.suppress(UserError):  # a decoder that it does not know stays as it is
            CLASSES[kind](model)
    return KLAutoencoder(model)


def _load_tiny(encoder: Path, decoder: Path) -> TinyAutoencoder:
    parts = {"encoder": encoder, "decoder": decoder}
    tensors = {f"{part}.{name}": value for part, file in parts.items() for name, value in _read(file).items()}
    return _tiny(tensors, encoder)


def _tiny(tensors: dict[str, Tensor], source: str | os.PathLike[str]) -> TinyAutoencoder:
    """Strictly from tensors named as in TAESD's files, with `encoder.` or `decoder.` before; in float32."""
    first = tensors.get("decoder.1.weight")
    if first is None or first.ndim != 4:
        raise UserError(f"{source} is no tiny autoencoder of TAESD's family: it has no tensor decoder.1.weight")
    return _strictly(TinyAutoencoder(first.shape[1], pool=any(".pool." in name for name in tensors)), tensors, source)


def _strictly(network: Tiny, tensors: dict[str, Tensor], source: str | os.PathLike[str]) -> Tiny:
    try:
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise UserError(f"{source} is not exactly a {type(network).__name__}: get it again") from error
    return network


def _from_diffusers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """AutoencoderTiny's names -> TAESD's, whose decoder counts the bound on the latent as its first layer."""
    renamed = {}
    for name, value in tensors.items():
        part, _, index, rest = name.split(".", 3)
        renamed[f"{part}.{int(index) + (part == 'decoder')}.{rest}"] = value
    return renamed


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is missing or not readable as safetensors: get it again") from error


def _file_of(source: str | os.PathLike[str], name: str) -> Path:
    """The file `name` of a folder or hub repository."""
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser() / name
    try:
        return hub_file(os.fspath(source), name)
    except (OSError, HFValidationError) as error:
        raise UserError(
            f"{source} is not a path here and {name} could not be downloaded from the Hugging Face hub "
            f"({type(error).__name__}); check the name, go online, or give a path"
        ) from error
