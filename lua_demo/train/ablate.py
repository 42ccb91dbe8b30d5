"""`python3 -m lua_demo ablate --images DIR --test-images DIR --out DIR --steps N`: the paper's ablations, small.

Every cell is trained with the same seed, crops and number of steps, and tested on the centre crops of the test
pictures; the table stands beside the paper's Table 3 (curriculum) and Table 4 (heads). Cells that are finished are
kept: the same command goes on where it was stopped.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from lua_demo.machine.arguments import Parser
from lua_demo.machine.devices import Devices
from lua_demo.models.vaes import SPACES, load_network, name_of
from lua_demo.models.weights import load_autoencoder, load_lua
from lua_demo.networks.kinds import Codec
from lua_demo.networks.lua import LUA
from lua_demo.pictures import metrics
from lua_demo.pictures.images import list_images, load_photos, to_array, to_tensor
from lua_demo.schema import UserError
from lua_demo.train import autoencoder, duplicates, upscaler
from lua_demo.train.data import Crops, sample_crops, shrink
from lua_demo.train.loop import Settings, train, with_steps
from lua_demo.train.pairs import CachedPairs

ALL = ("I", "II", "III")


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        row: the row of the table it belongs to.
        stages: of `upscaler.LUA_STAGES`, by name; they share the steps as there.
        scales: the heads.
        latents: "given" (--space and --vae), or an autoencoder trained here: "plain", to reconstruct; "joint", half of
            the steps together with LUA, which makes its latents scale-equivariant.
    """

    row: str
    stages: tuple[str, ...] = ALL
    scales: tuple[int, ...] = upscaler.SCALES
    latents: str = "given"


CELLS: dict[str, Cell] = {
    "latent-l1": Cell("latent L1 only", ("I",)),
    "I+II": Cell("I + II", ("I", "II")),
    "I+III": Cell("I + III", ("I", "III")),
    "II+III": Cell("II + III", ("II", "III")),
    "I+II+III": Cell("I + II + III, joint heads"),
    "only-x2": Cell("separate models", scales=(2,)),
    "only-x4": Cell("separate models", scales=(4,)),
    "plain-latents": Cell("latents of an autoencoder trained to reconstruct", latents="plain"),
    "joint-latents": Cell("latents of one trained together with LUA (scale-equivariant)", latents="joint"),
}
PAPER = {
    "latent L1 only": (28.53, 26.16),
    "I + II": (28.96, 26.67),
    "I + III": (31.05, 27.10),
    "II + III": (31.60, 27.40),
    "I + II + III, joint heads": (32.54, 27.94),
    "separate models": (31.92, 27.71),
}
"""PSNR in dB at x2 and x4: Table 3, and for separate models Table 4."""


def stages_of(name: str, args: Namespace) -> list[upscaler.Stage]:
    """The stages of cell `name`, with --steps steps in all."""
    chosen = [stage for stage in upscaler.LUA_STAGES if stage.name in CELLS[name].stages]
    if name == "latent-l1":
        chosen = [replace(stage, weights={"latent_l1": 1.0}) for stage in chosen]
    return [replace(stage, crop=args.crop, batch=args.batch) for stage in with_steps(chosen, args.steps)]


def network_of(cell: Cell, args: Namespace, crops: Crops, held_out: torch.Tensor) -> Codec:
    """The autoencoder of `cell`, trained first where it has to be."""
    if cell.latents == "given":
        return load_network(args.space, args.vae).to(args.device)
    out = args.out / f"autoencoder-{cell.latents}"
    reconstruct, joint = autoencoder.STAGES
    stages = [reconstruct]
    if cell.latents == "joint":
        stages.append(replace(joint, steps=reconstruct.steps))
    torch.manual_seed(args.seed)
    task = autoencoder.AutoencoderTask(crops, held_out)
    train(task, with_steps(stages, args.steps), settings(args, out))
    return load_autoencoder(out / "model").to(args.device)


def settings(args: Namespace, out: Path) -> Settings:
    return Settings(out, Devices(args.device), not args.fp32, seed=args.seed, sample_every=10**9)


def run_cell(name: str, args: Namespace, crops: Crops, held_out: torch.Tensor, truths: Sequence[np.ndarray]) -> dict:
    """Train and test one cell, or read its result."""
    cell, out = CELLS[name], args.out / name
    asked = {"steps": args.steps, "batch": args.batch, "crop": args.crop, "cached": args.cached, "seed": args.seed,
             "space": args.space, "vae": name_of(args.vae or "default"), "test_images": len(truths)}  # fmt: skip
    file = out / "result.json"
    if file.is_file():
        result = json.loads(file.read_text())
        if result["settings"] != asked:
            raise UserError(f"{file} was made with other settings; choose another --out or delete that folder")
        return result
    network = network_of(cell, args, crops, held_out)
    stages = stages_of(name, args)
    torch.manual_seed(args.seed)
    model = upscaler.new_lua(network.latent_channels, cell.scales)
    upscaler.fit_skips(model, network, crops)
    # All with pictures, so that all share one cache.
    pairs = CachedPairs(args.out / "cache", network, crops, upscaler.SCALES, args.crop, args.cached, pixels=True)
    train(upscaler.UpscalerTask(model, network, pairs, held_out), stages, settings(args, out))
    result = {"cell": name, "psnr": score(load_lua(out / "model"), network, truths), "settings": asked}
    file.write_text(json.dumps(result, indent=1) + "\n")
    return result


@torch.no_grad()
def score(lua: LUA, network: Codec, truths: Sequence[np.ndarray]) -> dict[str, float]:
    """Scale -> PSNR in dB against `truths` (H x W x 3 uint8), averaged, of what `lua` makes of them made smaller."""
    device = next(network.parameters()).device
    lua.to(device)
    found = {}
    for scale in lua.scales:
        values = []
        for truth in truths:
            latent = network.encode(shrink(to_tensor(truth).to(device), scale))
            values.append(metrics.psnr(to_array(network.decode(lua(latent, scale))), truth))
        found[f"x{scale}"] = fmean(values)
    return found


def centre_crops(folder: Path, crop: int) -> list[np.ndarray]:
    """The centre crops of the photos of `folder` that hold one."""
    found = []
    for _, photo in load_photos(list_images(folder)):
        left, top = (photo.width - crop) // 2, (photo.height - crop) // 2
        if left >= 0 and top >= 0:
            found.append(np.asarray(photo.crop((left, top, left + crop, top + crop))))
    if not found:
        raise UserError(f"no photo in {folder} has both sides >= {crop} px; choose a smaller --test-crop")
    return found


def to_markdown(results: Sequence[dict]) -> str:
    """One line per row of the table, with the paper's numbers where it has some."""
    rows: dict[str, dict[str, float]] = {}
    for result in results:
        rows.setdefault(CELLS[result["cell"]].row, {}).update(result["psnr"])
    lines = ["| | x2, PSNR dB | x4, PSNR dB | paper x2 | paper x4 |", "|---|---|---|---|---|"]
    for row, values in rows.items():
        ours = [f"{values[scale]:.2f}" if scale in values else "-" for scale in ("x2", "x4")]
        paper = [f"{value:.2f}" for value in PAPER[row]] if row in PAPER else ["-", "-"]
        lines.append(f"| {' | '.join([row, *ours, *paper])} |")
    return "\n".join(lines)


def parser() -> Parser:
    result = Parser(prog="lua_demo ablate", description=__doc__)
    result.add_argument("--images", required=True, type=Path, help="folder of photos to train on")
    result.add_argument("--test-images", required=True, type=Path, help="folder of photos to test on")
    result.add_argument("--out", required=True, type=Path, help="a folder per cell, table.md. The same command resumes")
    result.add_argument("--steps", required=True, type=int, help="optimiser steps of every training")
    result.add_argument("--cells", default=",".join(CELLS), help="only these (default: %(default)s)")
    result.add_argument("--space", default="embedded", choices=SPACES)
    result.add_argument("--vae", help="autoencoder of that space, as in train")
    result.add_argument("--batch", type=int, default=4, help="crops per step (default: %(default)s)")
    result.add_argument("--crop", type=int, default=256, help="side of the crops in px (default: %(default)s)")
    result.add_argument("--test-crop", type=int, default=512, help="of the test pictures (default: %(default)s)")
    result.add_argument("--cached", type=int, default=2048, help="crops encoded once (default: %(default)s)")
    result.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    result.add_argument("--fp32", action="store_true", help="train in float32 instead of bfloat16 autocast")
    result.add_argument("--threads", type=int, help="CPU threads")
    result.add_argument("--seed", type=int, default=0)
    return result


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    names = args.cells.split(",")
    for name in names:
        if name not in CELLS:
            raise UserError(f"there is no cell {name!r}; choose from {', '.join(CELLS)}")
    truths = centre_crops(args.test_images, args.test_crop)
    crops = Crops(args.images, smallest=max(args.crop, *(stage.crop for stage in autoencoder.STAGES)))
    duplicates.check(crops.names, crops.thumbnails, [args.test_images])
    held_out = sample_crops(args.images)
    results = [run_cell(name, args, crops, held_out, truths) for name in names]
    table = to_markdown(results)
    (args.out / "table.md").write_text(table + "\n")
    print(f"\n{args.steps} steps each, batch {args.batch}, seed {args.seed}; {len(truths)} test pictures\n\n{table}")
    return 0
