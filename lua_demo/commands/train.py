"""`python3 -m lua_demo train WHAT --images DIR --out DIR`: trains one of the networks, or resumes it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import platform
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lua_demo.machine.devices import Devices, join
from lua_demo.models.vaes import SPACES, load_network, load_tiny, name_of
from lua_demo.models.weights import load_any_lua, load_autoencoder, load_cnn, load_lua, load_swinir
from lua_demo.networks.cnn import CNN
from lua_demo.networks.feature_lua import FeatureLUA
from lua_demo.networks.kinds import Codec
from lua_demo.networks.lua import LUA
from lua_demo.networks.swinir import SwinIR
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.schema import UserError
from lua_demo.train import autoencoder, duplicates, pixels, stems, upscaler
from lua_demo.train.data import Crops, sample_crops
from lua_demo.train.decoded import DecodedPhotos
from lua_demo.train.held_out import HeldOut
from lua_demo.train.loop import Settings, Stage, train, with_steps
from lua_demo.train.options import parser
from lua_demo.train.pairs import CachedPairs, FreshPairs, Pairs

if TYPE_CHECKING:
    from lua_demo.train.generator import GeneratorTask

PIXELS = ("swinir", "cnn")


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    stages = chosen_stages(args)
    devices = join(args.device)
    torch.manual_seed(args.seed)
    facts = {
        "what": args.what,
        "space": args.space,
        "device": _device_name(devices),
        "torch": torch.__version__,
        "bf16": not args.fp32,
        "optimiser": args.optimiser,
        "seed": args.seed,
    }
    make = generator_task if args.what == "generator" else network_task
    task = make(args, stages, devices, facts)
    if devices.is_first:
        print(f"{args.what}, space {args.space}, {facts['start']}; {facts['device']}", flush=True)
    train(task, stages, Settings(args.out, devices, not args.fp32, args.optimiser, seed=args.seed, facts=facts))
    if devices.is_first:
        print(f"{args.out / 'model'} holds the model; the log is {args.out / 'log.jsonl'}")
    return 0


def network_task(
    args: Namespace, stages: Sequence[Stage], devices: Devices, facts: dict[str, object]
) -> autoencoder.AutoencoderTask | pixels.PixelTask | upscaler.UpscalerTask:
    """The task of the autoencoder, of LUA or of SwinIR; what is known of it is added to `facts`."""
    if args.init and args.width:
        raise UserError(f"--width {args.width} is for a new model, but --init gives one: leave one of them out")
    if args.keep_latents and not (args.what == "autoencoder" and args.init):
        raise UserError("--keep-latents is for a trained autoencoder: train autoencoder, with --init to name it")
    if args.channels and args.what != "autoencoder":
        raise UserError(f"--channels is for the autoencoder; {args.what} has those of its latents: leave it out")
    largest = max(upscaler.SCALES) if args.what in PIXELS else 1
    crops = Crops(args.images, smallest=max(stage.crop for stage in stages) * largest)
    tests = [*args.test_images, *([args.held_out] if args.held_out else [])]
    facts["near_duplicates"] = check_duplicates(crops, tests) if devices.is_first else None
    facts["images"] = len(crops.names)
    samples = sample_crops(args.samples or args.images)
    if args.what == "autoencoder":
        start = load_autoencoder(args.init) if args.init else None
        lua = load_lua(args.lua) if args.lua else None
        origin = f"from {name_of(args.init)}" if args.init else "new"
        facts |= {"start": origin, "keep_latents": args.keep_latents}
        if args.channels and start:
            start = autoencoder.widened(start, args.channels, crops)
            lua = lua and autoencoder.widened_lua(lua, start, crops)
            facts["start"] = f"{origin}, widened to {args.channels} channels"
        return autoencoder.AutoencoderTask(crops, samples, start, lua, args.keep_latents, args.channels)
    network = load_network(args.space, args.vae).to(devices.device, memory_format=torch.channels_last)
    facts["vae"] = name_of(args.vae or "default")
    held_out = None
    if args.held_out:
        held_out = HeldOut(network, sample_crops(args.held_out, count=8).to(devices.device), upscaler.SCALES)
    if args.what in PIXELS:
        pixel_model, facts["start"] = start_pixels(args)
        if not devices.is_first:
            devices.wait()
        photos = DecodedPhotos(args.cache or args.out / "cache", network, crops, pixel_model.scales)
        if args.stem_from:
            assert isinstance(pixel_model, SwinIR)  # `start_pixels` refuses it for a CNN
            stems.start_from_cnn(pixel_model, load_cnn(args.stem_from), photos, stages[0].crop)
        if devices.is_first:
            devices.wait()
        shown = HeldOut(network, samples.to(devices.device), pixel_model.scales)
        pixel_model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
        return pixels.PixelTask(pixel_model, photos, shown, held_out)
    tiny = tiny_of(args, network)
    model, facts["start"] = start_model(args, network, tiny, crops)
    if args.back_project:
        model = upscaler.with_back_projection(model, args.back_project)
    pairs = make_pairs(args, stages, model.scales, network, crops, devices)
    facts["cached"] = args.cached
    return upscaler.UpscalerTask(model, network, pairs, samples, tiny, held_out)


def generator_task(
    args: Namespace, stages: Sequence[Stage], devices: Devices, facts: dict[str, object]
) -> GeneratorTask:
    """The task of the text-to-latent model."""
    from lua_demo.train.generator import Corpus, GeneratorTask  # noqa: PLC0415  diffusers takes seconds to import

    if args.space != "embedded":
        raise UserError(f"the generator is made for the embedded space, not {args.space}; leave --space out")
    corpus = Corpus(args.images, args.vae or WEIGHTS_DIR / "embedded" / "autoencoder", args.cache or args.out / "cache")
    if not devices.is_first:
        devices.wait()
    for size in {stage.crop for stage in stages}:
        corpus.at(size)
    if devices.is_first:
        devices.wait()
    facts |= {"images": len(corpus.files), "start": f"from {name_of(args.init)}" if args.init else "new"}
    return GeneratorTask(corpus, args.init)


def chosen_stages(args: Namespace) -> list[Stage]:
    plans = {
        "autoencoder": autoencoder.STAGES, "lua": upscaler.LUA_STAGES, "swinir": pixels.SWINIR_STAGES,
        "cnn": pixels.CNN_STAGES,
    }  # fmt: skip
    stages = plans[args.what] if args.what in plans else importlib.import_module("lua_demo.train.generator").STAGES
    if args.stages:
        by_name = {stage.name: stage for stage in stages}
        if args.what == "lua":
            by_name |= {stage.name: stage for stage in upscaler.MORE_LUA_STAGES}
        for name in args.stages.split(","):
            if name not in by_name:
                raise UserError(f"{args.what} has no stage {name!r}; choose from {', '.join(by_name)}")
        stages = [by_name[name] for name in args.stages.split(",")]
    if args.steps:
        stages = with_steps(stages, args.steps)
    changes = {name: value for name in ("batch", "crop", "lr") if (value := getattr(args, name))}
    return [dataclasses.replace(stage, **changes) for stage in stages]


def check_duplicates(crops: Crops, folders: Sequence[Path]) -> dict | None:
    """Refuse training pictures that are test pictures; gives what was compared, None without test pictures."""
    if not folders:
        print("no --test-images: not checked whether test pictures are trained on", flush=True)
        return None
    found = duplicates.check(crops.names, crops.thumbnails, folders)
    print(
        f"no test picture is trained on: {found['training_images']} training and {found['test_images']} test pictures "
        f"compared in {found['compared']} pairs of views",
        flush=True,
    )
    return found


def tiny_of(args: Namespace, network: Codec) -> TinyAutoencoder | None:
    """The tiny autoencoder whose layers LUA is trained between; None where it works on the latents themselves."""
    row = SPACES[args.space]
    if args.what != "lua" or args.plain or not row.tiny or row.tiny_file:
        if args.tiny:
            raise UserError("--tiny is for a LUA of a published space, without --plain: leave it out")
        return None
    if args.tiny or not isinstance(network, TinyAutoencoder):
        return load_tiny(args.space, args.tiny).to(next(network.parameters()).device)
    return network


def start_model(
    args: Namespace, network: Codec, tiny: TinyAutoencoder | None, crops: Crops
) -> tuple[LUA | FeatureLUA, str]:
    """What training of a LUA starts from, and a phrase that says so."""
    channels = None if tiny else network.latent_channels
    if args.init:
        given, space = load_any_lua(args.init), space_of(args.init)
        if space == args.space and isinstance(given, FeatureLUA if tiny else LUA):
            return stems.with_stem(given, args.stem), f"from {name_of(args.init)}"
        model = upscaler.adapted(given, channels)
        how = f"trunk of {name_of(args.init)}, adapted from {space or 'an unknown space'}"
    else:
        model, how = upscaler.new_lua_for(channels, width=args.width), "new"
    model = stems.with_stem(model, args.stem)
    upscaler.fit_skips(model, network, crops, tiny)
    return model, how


def start_pixels(args: Namespace) -> tuple[SwinIR | CNN, str]:
    """What training of a pixel upscaler starts from, and a phrase that says so."""
    if args.what == "cnn":
        if args.stem or args.stem_from:
            raise UserError("--stem and --stem-from are for lua and swinir; a CNN is all convolutions: leave them out")
        return (load_cnn(args.init), f"from {name_of(args.init)}") if args.init else (pixels.new_cnn(args.width), "new")
    if args.init:
        if args.stem_from:
            raise UserError("--stem-from is for a new swinir, but --init gives one: leave one of them out")
        return stems.with_stem(load_swinir(args.init), args.stem), f"from {name_of(args.init)}"
    model = upscaler.new_swinir(width=args.width, stem=args.stem)
    return model, f"new, stem of {name_of(args.stem_from)}" if args.stem_from else "new"


def space_of(source: str) -> str | None:
    """The latent space that the training.json of a model folder names; None for a model that has no such file."""
    file = Path(source).expanduser() / "training.json"
    # Models older than the field are of the embedded space.
    return json.loads(file.read_text()).get("space", "embedded") if file.is_file() else None


def make_pairs(
    args: Namespace, stages: Sequence[Stage], scales: Sequence[int], network: Codec, crops: Crops, devices: Devices
) -> Pairs:
    if not args.cached:
        return FreshPairs(network, crops, scales, upscaler.has_latents(stages))
    sizes = {stage.crop for stage in stages}
    if len(sizes) > 1:
        raise UserError(f"the stages have crops of {sorted(sizes)} px, but a cache holds one size: give --crop")
    if not devices.is_first:
        devices.wait()
    with torch.autocast(devices.device.split(":")[0], torch.bfloat16, enabled=not args.fp32):
        folder = args.cache or args.out / "cache"
        pairs = CachedPairs(folder, network, crops, scales, sizes.pop(), args.cached, upscaler.has_pixels(stages))
    if devices.is_first:
        devices.wait()
    return pairs


def _device_name(devices: Devices) -> str:
    count = f"{devices.count} x " if devices.count > 1 else ""
    if devices.device.startswith("cuda"):
        return count + torch.cuda.get_device_name(devices.device)
    return f"{count}{platform.machine()} CPU, {torch.get_num_threads()} threads"
