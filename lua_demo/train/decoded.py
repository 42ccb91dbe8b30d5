"""What pixel upscalers are trained on: photos, and what the autoencoder makes of them when they are small.

Every photo is made small, encoded and decoded once, as a whole, and kept on disk in 8 bits: a step of training costs
no autoencoder, and any crop of any photo can be drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lua_demo.networks.kinds import Codec
from lua_demo.train.data import REDUCTIONS, Crops, shrink


class DecodedPhotos:
    """The photos of `crops` at all their reductions, and their bases: made `scale` times smaller, encoded, decoded.

    Below `folder` lies a folder per fingerprint of autoencoder, photos and settings. It has one flat, memory-mapped
    array of uint8 per kind (image.npy; x2.npy, x4.npy) and index.json, the side lengths, which is written last: without
    it the arrays are made anew.
    """

    def __init__(self, folder: Path, network: Codec, crops: Crops, scales: Sequence[int]):
        self.scales = tuple(scales)
        self.network, self.step = network, network.stride * math.lcm(*scales)
        self.groups = [self._shapes(group) for group in crops.groups]
        self.folder = folder / self._fingerprint(crops)
        if not (self.folder / "index.json").is_file():
            self._build(crops)
        names = ("image", *(f"x{scale}" for scale in self.scales))
        self.arrays = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in names}
        # Of every photo its number of pixels before it, by group: they lie one after another in the arrays.
        sizes = [height * width for group in self.groups for height, width in group]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        cuts = np.cumsum([0, *map(len, self.groups)])
        self.starts = [starts[cuts[i] : cuts[i + 1]] for i in range(len(self.groups))]

    def batch(self, count: int, side: int, scale: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Bases count x 3 x side x side and the photos' own crops, `scale` times larger, in [0, 1]; the same random
        flips and rotations for both.
        """
        bases: list[Tensor] = []
        targets: list[Tensor] = []
        for _ in range(count):
            group = int(rng.integers(len(self.groups)))
            number = int(rng.integers(len(self.groups[group])))
            small, large = (self._picture(name, group, number, by) for name, by in ((f"x{scale}", scale), ("image", 1)))
            top, left = (int(rng.integers(max(length - side, 0) + 1)) for length in small.shape[:2])
            turns, flip = int(rng.integers(4)), rng.integers(2)
            for picture, by, crops in ((small, 1, bases), (large, scale, targets)):
                crop = picture[top * by : (top + side) * by, left * by : (left + side) * by]
                crop = np.rot90(crop[:, ::-1] if flip else crop, turns)
                crops.append(torch.from_numpy(crop.copy()))
        base, target = (torch.stack(crops).permute(0, 3, 1, 2).float() / 255 for crops in (bases, targets))
        return base, target

    def _picture(self, name: str, group: int, number: int, by: int) -> np.ndarray:
        """Height x width x 3 of one photo in the array `name`, whose pictures are `by` times smaller than photos."""
        height, width = (length // by for length in self.groups[group][number])
        start = 3 * self.starts[group][number] // by**2
        return self.arrays[name][start : start + 3 * height * width].reshape(height, width, 3)

    def _shapes(self, photos: Sequence[np.ndarray]) -> list[tuple[int, int]]:
        return [
            (height // self.step * self.step, width // self.step * self.step)
            for height, width, _ in map(np.shape, photos)
        ]

    def _fingerprint(self, crops: Crops) -> str:
        settings = [self.scales, crops.smallest, REDUCTIONS, crops.names]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for picture in crops.thumbnails:
            digest.update(picture.tobytes())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    @torch.no_grad()
    def _build(self, crops: Crops) -> None:
        """In float32 whatever the training's autocast, as the demo decodes: in 8 bits the difference shows."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        device = next(self.network.parameters()).device
        total = 3 * sum(height * width for group in self.groups for height, width in group)
        lengths = {"image": total} | {f"x{scale}": total // scale**2 for scale in self.scales}
        arrays = {
            name: np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", np.uint8, (length,))
            for name, length in lengths.items()
        }
        filled = dict.fromkeys(arrays, 0)
        photos = [photo for group in crops.groups for photo in group]
        shapes = [shape for group in self.groups for shape in group]
        for photo, (height, width) in zip(tqdm(photos, desc="bases", unit="photo"), shapes, strict=True):
            pixels = photo[:height, :width].copy()
            image = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].float() / 255
            pictures = {"image": pixels}
            for scale in self.scales:
                base = self.network.decode(self.network.encode(shrink(image, scale))).clamp(0, 1)
                pictures[f"x{scale}"] = (base[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            for name, picture in pictures.items():
                arrays[name][filled[name] : filled[name] + picture.size] = picture.ravel()
                filled[name] += picture.size
        for array in arrays.values():
            array.flush()
        (self.folder / "index.json").write_text(json.dumps({"photos": shapes, "scales": self.scales}) + "\n")
