"""Encoders and decoders in the project's two currencies. Padding, value ranges, scaling and clamping are hidden here.

A network has `encode`, `decode`, `stride` and `latent_channels`: it takes images in [0, 1] and gives the latent as the
denoiser leaves it. `VAE` makes of it what the app uses; training uses the network itself, which does not clamp.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.schema import UserError
from lua_demo.weights import WEIGHTS_DIR, load_autoencoder


@dataclass(frozen=True)
class Space:
    """A latent space that LUA can be trained for.

    Attributes:
        label: the models that use it.
        channels, stride: of its latents; the stride in px.
        tiny: name of its tiny autoencoder: `<tiny>_encoder.safetensors`, and the hub repository madebyollin/<tiny>.
    """

    label: str
    channels: int
    stride: int = 8
    tiny: str | None = None


SPACES: dict[str, Space] = {
    "embedded": Space("the embedded autoencoder", 16),
    "sd1": Space("Stable Diffusion 1.x, 2.x", 4, tiny="taesd"),
    "sdxl": Space("SDXL", 4, tiny="taesdxl"),
    "sd3": Space("Stable Diffusion 3, 3.5", 16, tiny="taesd3"),
    "flux1": Space("FLUX.1, Z-Image, Chroma, HiDream", 16, tiny="taef1"),
    "flux2": Space("FLUX.2, before its 2x2 patches", 32, tiny="taef2"),
}


def name_of(source: str | os.PathLike[str]) -> str:
    """What to call a source in records: a hub id as it is, a path by its last two parts."""
    return "/".join(Path(source).parts[-2:])


class VAE(nn.Module):
    """An autoencoder for images of any size. Carries no gradient policy."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
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
    """diffusers' AutoencoderKL: images in [-1, 1] and a latent with scale and shift become ours."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        config = model.config
        self.stride, self.latent_channels = 2 ** (len(config.block_out_channels) - 1), config.latent_channels
        self.scale, self.shift = config.scaling_factor, config.shift_factor or 0.0

    def encode(self, image: Tensor) -> Tensor:
        return (self.model.encode(image * 2 - 1).latent_dist.mean - self.shift) * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        return (self.model.decode(latent / self.scale + self.shift).sample + 1) / 2


def load_network(space: str, source: str | os.PathLike[str] | None = None) -> nn.Module:
    """The autoencoder of `space`, on the CPU in float32 and eval mode.

    Args:
        space: a key of `SPACES`.
        source: a folder with files of the TAESD family, or one of these files, with encoder and decoder side by side;
            a folder or hub id of diffusers' AutoencoderTiny or AutoencoderKL (for which diffusers must be installed).
            None: the shipped autoencoder, or the space's tiny one from the hub.
    Raises:
        UserError: no such space; nothing there; not an autoencoder of that space.
    """
    if space not in SPACES:
        raise UserError(f"latent space {space!r} does not exist; choose {', '.join(SPACES)}")
    row = SPACES[space]
    if row.tiny is None:
        network = load_autoencoder(source or WEIGHTS_DIR / "embedded" / "autoencoder")
    else:
        network = _load_foreign(row, source or f"madebyollin/{row.tiny}")
    if (network.latent_channels, network.stride) != (row.channels, row.stride):
        raise UserError(
            f"{source} has {network.latent_channels} channels at stride {network.stride}, but space {space} has "
            f"{row.channels} at {row.stride}: give an autoencoder of {row.label}"
        )
    return network.eval()


def _load_foreign(row: Space, source: str | os.PathLike[str]) -> nn.Module:
    path = Path(source).expanduser()
    if path.is_file():
        stem = re.sub(r"_(en|de)coder\.safetensors$", "", str(path))
        return _load_tiny(Path(f"{stem}_encoder.safetensors"), Path(f"{stem}_decoder.safetensors"))
    if path.is_dir():
        halves = [path / f"{row.tiny}_{half}.safetensors" for half in ("encoder", "decoder")]
        if all(half.is_file() for half in halves):
            return _load_tiny(*halves)
    config_file = _file_of(source, "config.json")
    try:
        kind = json.loads(config_file.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{config_file} is not readable as a configuration: get it again") from error
    if kind == "AutoencoderTiny":
        return _tiny(_from_diffusers(_read(_file_of(source, "diffusion_pytorch_model.safetensors"))), source)
    if kind != "AutoencoderKL":
        raise UserError(
            f"{source} holds a {kind}; give an AutoencoderTiny, an AutoencoderKL or files of TAESD's family"
        )
    try:
        from diffusers import AutoencoderKL  # noqa: PLC0415
    except ImportError as error:
        raise UserError(f"{source} needs diffusers: pip install diffusers, or give a tiny autoencoder") from error
    return KLAutoencoder(AutoencoderKL.from_pretrained(source))


def _load_tiny(encoder: Path, decoder: Path) -> TinyAutoencoder:
    parts = {"encoder": encoder, "decoder": decoder}
    tensors = {f"{part}.{name}": value for part, file in parts.items() for name, value in _read(file).items()}
    return _tiny(tensors, encoder)


def _tiny(tensors: dict[str, Tensor], source: str | os.PathLike[str]) -> TinyAutoencoder:
    """Strictly from tensors named as in TAESD's files, with `encoder.` or `decoder.` before; in float32."""
    first = tensors.get("decoder.1.weight")
    if first is None or first.ndim != 4:
        raise UserError(f"{source} is no tiny autoencoder of TAESD's family: it has no tensor decoder.1.weight")
    network = TinyAutoencoder(first.shape[1], pool=any(".pool." in name for name in tensors))
    try:
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise UserError(f"{source} is not exactly a tiny autoencoder of TAESD's family: get it again") from error
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
        return Path(hf_hub_download(os.fspath(source), name))
    except (OSError, HFValidationError) as error:
        raise UserError(
            f"{source} is not a path here and {name} could not be had from the Hugging Face hub "
            f"({type(error).__name__}); check the name, go online, or give a path"
        ) from error
