"""`python3 -m lua_demo upscale in.safetensors --scale 2 out.safetensors`: a latent on disk through LUA."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as brief

import numpy as np
import torch
from torch import Tensor

from lua_demo.catalog.spaces import SPACES
from lua_demo.machine.arguments import Parser, machine
from lua_demo.machine.finite import check_finite
from lua_demo.machine.placement import resolve_device, resolve_dtype
from lua_demo.models.lua import find_lua
from lua_demo.models.upscalers import fast
from lua_demo.networks.kinds import LatentUpscaler
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.pictures import images
from lua_demo.pictures.latent_check import check_size, outside, refuse_foreign, soft_bound
from lua_demo.pictures.latents import load_latent, save_latent
from lua_demo.runs.outputs import refuse_to_overwrite, writing
from lua_demo.schema import BaseLatent, UserError


def parser() -> Parser:
    result = Parser(prog="lua_demo upscale", description=__doc__, parents=[machine()])
    result.add_argument("source", type=Path, help="the latent: a latent.safetensors, which says its space and version")
    result.add_argument("out", type=Path, help="gets the larger latent")
    result.add_argument("--scale", type=int, default=2, help="2 or 4 (default: %(default)s)")
    result.add_argument(
        "--space", choices=SPACES, help="refuse a latent of another space (default: what the file says)"
    )
    result.add_argument("--bound", action="store_true", help="bend what is outside the range of the space towards it")
    result.add_argument("--map", type=Path, metavar="PNG", help="gets a picture of where values are outside the range")
    return result


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    latent, name = load_latent(args.source), args.source.name
    space = args.space or latent.space
    if space not in SPACES:
        raise UserError(f"{name} is a latent of an unknown space {brief(space)}; known are {', '.join(SPACES)}")
    refuse_foreign(latent, space, name)
    check_size(latent, name)
    refuse_to_overwrite([path for path in (args.out, args.map) if path], args.source)
    if args.map and args.map.resolve() == args.out.resolve():
        raise UserError(f"{args.map} would be the latent and its map at once; give --map another name")
    found = find_lua(space, args.weights or WEIGHTS_DIR)
    values = upscaled(latent, args.scale, found.network, args.device, args.dtype)
    check_finite(values, f"LUA x{args.scale}")
    width, height = (side * args.scale for side in latent.size)
    # The padding of an image that is no multiple of the stride grows with it.
    values = values[..., : -(-height // SPACES[space].stride), : -(-width // SPACES[space].stride)]
    before, after = outside(torch.from_numpy(latent.values)[None], space), outside(values, space)
    kept = soft_bound(values, space) if args.bound else values
    with writing(args.out):
        source = {"sha256": hashlib.sha256(args.source.read_bytes()).hexdigest()}
        save_latent(args.out, BaseLatent(kept[0].contiguous().numpy(), space, (width, height)), source)
    if args.map:
        with writing(args.map):
            images.save_png((after[0, ..., None].numpy() * 255).round().astype(np.uint8).repeat(3, 2), args.map)
    if found.note:
        print(found.note)
    bent = ", bent towards it" if args.bound else ""
    print(
        f"{args.out}: {space}, {' x '.join(map(str, kept.shape[1:]))}, for an image of {width} x {height}; "
        f"{after.mean():.2%} of its values outside the range of the space{bent} (in {name}: {before.mean():.2%})"
    )
    return 0


def upscaled(latent: BaseLatent, scale: int, network: LatentUpscaler, device_name: str, dtype_name: str) -> Tensor:
    """`latent` through `network`, the LUA of its space: 1 x C x (scale * h) x (scale * w), float32, on the CPU.

    Raises:
        UserError: no such device or dtype; a scale that the network was not made for.
    """
    device = resolve_device(device_name)
    dtype = resolve_dtype(dtype_name, device)
    if scale not in network.scales:
        raise UserError(f"scale {scale} does not exist for the space {latent.space}; choose {_choices(network.scales)}")
    quick = fast(network, dtype).to(device, memory_format=torch.channels_last)
    narrow = torch.autocast(device.type, dtype) if dtype != torch.float32 else contextlib.nullcontext()
    with torch.inference_mode(), narrow:
        return quick(torch.from_numpy(latent.values)[None].to(device), scale).float().cpu()


def _choices(scales: Sequence[int]) -> str:
    return " or ".join(map(str, scales))
