"""Random crops from a folder of photos, held in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from lua_demo.pictures.images import list_images, load_photos, to_tensor
from lua_demo.schema import UserError
from lua_demo.train.duplicates import thumbnail

REDUCTIONS = (1.0, 1.5, 2.0, 3.0)


class Crops:
    """Random square crops of photos.

    Every photo is kept at several reductions (large photos have much flat, soft area at full size and much detail at
    a half or a third). Photos with a long side over 1000 px and the others are drawn equally often, whatever their
    numbers. `names` and `thumbnails` are those of the photos that are large enough to be used.
    """

    def __init__(self, folder: str | Path, smallest: int = 256):
        self.smallest = smallest
        self.names: list[str] = []
        self.thumbnails: list[np.ndarray] = []
        self.large: list[np.ndarray] = []
        self.small: list[np.ndarray] = []
        for path, photo in load_photos(tqdm(list_images(folder), desc="photos", unit="file")):
            levels = self.large if max(photo.size) > 1000 else self.small
            for reduction in REDUCTIONS:
                width, height = (round(side / reduction) for side in photo.size)
                if min(width, height) < smallest:
                    break
                levels.append(
                    np.asarray(photo if reduction == 1 else photo.resize((width, height), Image.Resampling.LANCZOS))
                )
            if min(photo.size) >= smallest:
                self.names.append(path.name)
                self.thumbnails.append(thumbnail(photo))
        self.groups = [group for group in (self.large, self.small) if group]
        if not self.groups:
            raise UserError(
                f"no photo in {folder} has both sides >= {smallest} px; the crops of this training need that"
            )

    def batch(self, count: int, size: int, rng: np.random.Generator) -> Tensor:
        """count x 3 x size x size in [0, 1], flipped at random."""
        crops = []
        for _ in range(count):
            group = self.groups[rng.integers(len(self.groups))]
            image = group[rng.integers(len(group))]
            top, left = (rng.integers(side - size + 1) for side in image.shape[:2])
            crop = image[top : top + size, left : left + size]
            if rng.random() < 0.5:
                crop = crop[:, ::-1]
            if rng.random() < 0.25:
                crop = crop.swapaxes(0, 1)
            crops.append(torch.from_numpy(np.ascontiguousarray(crop)))
        return torch.stack(crops).permute(0, 3, 1, 2).float() / 255


def shrink(image: Tensor, factor: int) -> Tensor:
    """Bicubic antialiased downsampling by `factor` (the same filter as Pillow's BICUBIC), clamped to [0, 1]: the low
    resolution input.
    """
    return F.interpolate(image, scale_factor=1 / factor, mode="bicubic", antialias=True, align_corners=False).clamp(
        0, 1
    )


def sample_crops(folder: Path, size: int = 256, count: int = 4) -> torch.Tensor:
    """Centre crops of photos of `folder`, count x 3 x size x size."""
    crops: list[torch.Tensor] = []
    for _, photo in load_photos(list_images(folder)):
        if min(photo.size) >= size and len(crops) < count:
            left, top = (photo.width - size) // 2, (photo.height - size) // 2
            crops.append(to_tensor(photo.crop((left, top, left + size, top + size))))
    if not crops:
        raise UserError(f"no photo of {folder} has both sides of {size} px, for the sample sheets: give --samples")
    return torch.cat(crops)
