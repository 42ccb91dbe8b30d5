"""`python3 -m lua_demo train WHAT --images DIR --out DIR`: trains one of the embedded networks, or resumes it."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path

import torch

from lua_demo.arguments import Parser
from lua_demo.images import list_images, load_photo, to_tensor
from lua_demo.schema import UserError
from lua_demo.train import autoencoder, upscaler
from lua_demo.train.data import Crops
from lua_demo.train.loop import Settings, train
from lua_demo.weights import load_autoencoder, load_lua

WHAT = ("autoencoder", "lua", "swinir")


def parser() -> Parser:
    result = Parser(prog="lua_demo train", description=__doc__)
    result.add_argument("what", choices=WHAT)
    result.add_argument("--images", required=True, type=Path, help="folder of photos to train on")
    result.add_argument(
        "--samples", type=Path, help="folder of photos for the sample sheets (default: the first training photos)"
    )
    result.add_argument(
        "--out",
        required=True,
        type=Path,
        help="folder of the run: checkpoint, log, samples, model. The same command resumes",
    )
    result.add_argument(
        "--autoencoder",
        default=None,
        help="trained autoencoder (folder or hub id) for lua and swinir; default: the shipped one",
    )
    result.add_argument("--init", default=None, help="folder or hub id of a model of the same kind to start from")
    result.add_argument("--lua", help="LUA to go on with while training the autoencoder (default: a new one)")
    result.add_argument("--stages", help="run only these stages, by name, comma-separated")
    result.add_argument("--steps", type=int, help="total steps; the stages keep their shares")
    result.add_argument("--batch", type=int, help="crops per step in every stage")
    result.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    result.add_argument("--fp32", action="store_true", help="train in float32 instead of bfloat16 autocast")
    result.add_argument("--threads", type=int, help="CPU threads")
    result.add_argument("--seed", type=int, default=0)
    return result


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    stages = {"autoencoder": autoencoder.STAGES, "lua": upscaler.LUA_STAGES, "swinir": upscaler.SWINIR_STAGES}[
        args.what
    ]
    if args.stages:
        by_name = {stage.name: stage for stage in stages}
        for name in args.stages.split(","):
            if name not in by_name:
                raise UserError(f"{args.what} has no stage {name!r}; choose from {', '.join(by_name)}")
        stages = [by_name[name] for name in args.stages.split(",")]
    if args.steps:
        total = sum(stage.steps for stage in stages)
        stages = [dataclasses.replace(stage, steps=max(1, stage.steps * args.steps // total)) for stage in stages]
    if args.batch:
        stages = [dataclasses.replace(stage, batch=args.batch) for stage in stages]
    torch.manual_seed(args.seed)
    crops = Crops(args.images, smallest=max(stage.crop for stage in stages))
    held_out = sample_crops(args.samples or args.images)
    if args.what == "autoencoder":
        start = load_autoencoder(args.init) if args.init else None
        lua = load_lua(args.lua) if args.lua else None
        task = autoencoder.AutoencoderTask(crops, held_out, start, lua)
    else:
        task = upscaler.UpscalerTask(args.what, crops, held_out, args.autoencoder, args.init)
    device = (
        torch.cuda.get_device_name()
        if args.device.startswith("cuda")
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )
    facts = {
        "what": args.what,
        "images": len(crops.names),
        "device": device,
        "torch": torch.__version__,
        "bf16": not args.fp32,
        "seed": args.seed,
    }
    train(task, stages, Settings(args.out, args.device, not args.fp32, seed=args.seed, facts=facts))
    print(f"{args.out / 'model'} holds the model; the log is {args.out / 'log.jsonl'}")
    return 0


def sample_crops(folder: Path, size: int = 256, count: int = 4) -> torch.Tensor:
    """Centre crops of photos of `folder`, count x 3 x size x size."""
    crops = []
    for path in list_images(folder):
        photo = load_photo(path)
        if min(photo.size) >= size and len(crops) < count:
            left, top = (photo.width - size) // 2, (photo.height - size) // 2
            crops.append(to_tensor(photo.crop((left, top, left + size, top + size))))
    return torch.cat(crops)
