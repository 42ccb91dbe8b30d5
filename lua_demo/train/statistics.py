"""`python3 -m lua_demo.train.statistics --images DIR --vae DIR`: what latents of each space look like, for the checks.

Writes `latent_check.STATISTICS`. A crop of every photo is encoded by the autoencoder of every space.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lua_demo.machine.arguments import Parser
from lua_demo.models.vaes import SPACES, load_network
from lua_demo.networks.kinds import Codec
from lua_demo.paths import STATISTICS
from lua_demo.pictures.images import list_images, load_photos, to_tensor
from lua_demo.pictures.latent_check import Statistics, save_statistics
from lua_demo.schema import UserError

CROP = 128
LONGEST = 768
"""Photos are shrunk to this side first: what the demo encodes is 512 to 1024 px."""

BATCH = 8


def main(argv: Sequence[str]) -> int:
    """Statistics of all spaces, or of those named; the others stay as they are in the file."""
    parser = Parser(prog="lua_demo.train.statistics", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, action="append", help="folder of photos; repeatable")
    parser.add_argument("--vae", type=Path, help="folder of the tiny autoencoders (default: from the hub)")
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--out", type=Path, default=STATISTICS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    photos = crops([path for folder in args.images for path in list_images(folder)], args.seed)
    for space in args.spaces:
        network = load_network(space, args.vae if SPACES[space].tiny else None)
        save_statistics({space: Statistics.of(encoded(network, photos, space))}, args.out)
    print(f"{args.out}: {', '.join(args.spaces)}, from {len(photos)} photos")
    return 0


def crops(files: Sequence[Path], seed: int = 0) -> Tensor:
    """A random crop of each photo that is large enough: B x 3 x CROP x CROP in [0, 1]."""
    rng, made = np.random.default_rng(seed), []
    for _, photo in load_photos(files):
        photo.thumbnail((LONGEST, LONGEST), Image.Resampling.BICUBIC)
        if min(photo.size) >= CROP:
            left, top = (int(rng.integers(side - CROP + 1)) for side in photo.size)
            made.append(to_tensor(photo.crop((left, top, left + CROP, top + CROP))))
    if not made:
        raise UserError(f"no photo with both sides of at least {CROP} px; give another folder as --images")
    return torch.cat(made)


@torch.inference_mode()
def encoded(network: Codec, images: Tensor, space: str) -> Tensor:
    """Images B x 3 x H x W in [0, 1] -> normalised latents B x C x H/8 x W/8."""
    network = network.to(memory_format=torch.channels_last)  # faster on a CPU
    batches = tqdm(images.split(BATCH), desc=space, disable=None)
    return torch.cat([network.encode(batch) for batch in batches])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
