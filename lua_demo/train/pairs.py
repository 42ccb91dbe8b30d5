"""What an upscaler is trained on: latents of crops and of the same crops made smaller, encoded anew or cached once."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor
from tqdm import tqdm

from lua_demo.networks.kinds import Codec
from lua_demo.train.data import REDUCTIONS, Crops, shrink

ENCODED_AT_ONCE = 16


@dataclass(frozen=True)
class Batch:
    """Crops and their latents.

    Attributes:
        image: B x 3 x H x W in [0, 1]; None where the cache was made without.
        target: B x C x h x w, its latent; None where no loss asks for it.
        inputs: scale -> B x C x (h / scale) x (w / scale), the latent of the image made smaller.
    """

    image: Tensor | None
    target: Tensor | None
    inputs: dict[int, Tensor]


class Pairs(Protocol):
    def batch(self, count: int, size: int, rng: np.random.Generator, device: torch.device) -> Batch:
        """`count` random crops of `size` x `size`."""


@torch.no_grad()
def encoded(network: Codec, image: Tensor, scales: Sequence[int], target: bool = True) -> Batch:
    """The latents of `image`, B x 3 x H x W; H and W are multiples of the stride times every scale."""
    inputs = {scale: network.encode(shrink(image, scale)) for scale in scales}
    return Batch(image, network.encode(image) if target else None, inputs)


class FreshPairs:
    """Other crops at every step, encoded in it; with `target` the large ones too."""

    def __init__(self, network: Codec, crops: Crops, scales: Sequence[int], target: bool = True):
        self.network, self.crops, self.scales, self.target = network, crops, scales, target

    def batch(self, count: int, size: int, rng: np.random.Generator, device: torch.device) -> Batch:
        self.network.to(device)
        image = self.crops.batch(count, size, rng).to(device, memory_format=torch.channels_last)
        return encoded(self.network, image, self.scales, self.target)


class CachedPairs:
    """Crops encoded once and read from disk: a step costs no encoder and no photo.

    Below `folder` lies a folder per fingerprint of autoencoder, photos and settings with memory-mapped arrays:
    target.npy and x2.npy, x4.npy (float16 latents), image.npy (uint8) where pictures are wanted, and cache.json, which
    is written last: without it the cache is made anew.
    """

    def __init__(
        self,
        folder: Path,
        network: Codec,
        crops: Crops,
        scales: Sequence[int],
        size: int,
        count: int,
        pixels: bool,
    ):
        self.scales, self.size, self.count, self.pixels = tuple(scales), size, count, pixels
        self.device = next(network.parameters()).device.type
        self.folder = folder / self._fingerprint(network, crops)
        if not (self.folder / "cache.json").is_file():
            self._build(network, crops)
        names = ["target", *(f"x{scale}" for scale in self.scales), *(["image"] if pixels else [])]
        self.arrays = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in names}

    def batch(self, count: int, size: int, rng: np.random.Generator, device: torch.device) -> Batch:
        if size != self.size:
            raise ValueError(f"the cache holds crops of {self.size} px, not of {size}")
        # In the order of the file: neighbours on disk are read together.
        rows = np.sort(rng.integers(self.count, size=count))
        read = {name: torch.from_numpy(array[rows]).to(device).float() for name, array in self.arrays.items()}
        image = read["image"].div(255).to(memory_format=torch.channels_last) if self.pixels else None
        return Batch(image, read["target"], {scale: read[f"x{scale}"] for scale in self.scales})

    def _settings(self) -> dict:
        names = "count", "size", "scales", "pixels"
        bf16 = torch.is_autocast_enabled(self.device)
        return {name: getattr(self, name) for name in names} | {"reductions": REDUCTIONS, "bf16": bf16}

    def _fingerprint(self, network: Codec, crops: Crops) -> str:
        digest = hashlib.sha256(json.dumps([self._settings(), crops.names]).encode())
        for picture in crops.thumbnails:
            digest.update(picture.tobytes())
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    @torch.no_grad()
    def _build(self, network: Codec, crops: Crops) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        device = next(network.parameters()).device
        arrays: dict[str, np.memmap] = {}
        for start in tqdm(range(0, self.count, ENCODED_AT_ONCE), desc="latents", unit="batch"):
            rng = np.random.default_rng((0, start))
            image = crops.batch(min(ENCODED_AT_ONCE, self.count - start), self.size, rng).to(device)
            batch = encoded(network, image, self.scales)
            assert batch.target is not None
            latents = {"target": batch.target, **{f"x{scale}": latent for scale, latent in batch.inputs.items()}}
            rows = {name: latent.half().cpu().numpy() for name, latent in latents.items()}
            if self.pixels:
                rows["image"] = (image * 255).round().byte().cpu().contiguous().numpy()
            for name, values in rows.items():
                if name not in arrays:
                    shape = (self.count, *values.shape[1:])
                    arrays[name] = open_memmap(self.folder / f"{name}.npy", "w+", values.dtype, shape)
                arrays[name][start : start + len(values)] = values
        for array in arrays.values():
            array.flush()
        (self.folder / "cache.json").write_text(json.dumps(self._settings(), indent=1) + "\n")
