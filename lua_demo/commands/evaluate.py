"""Averages over a folder of photos: centre crops are shrunk, sent through every method and compared with the crop.

It reads the engine's own stream, so the numbers are those that the page and `compare` show.
"""

from __future__ import annotations

import contextlib
import tempfile
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from tqdm import tqdm

from lua_demo.catalog.bases import first_base
from lua_demo.catalog.compositions import DECODE
from lua_demo.catalog.methods import METHODS, Method
from lua_demo.catalog.spaces import AUTOENCODER, LUA, SPACES
from lua_demo.engine import Engine
from lua_demo.machine.devices import ALONE, Devices
from lua_demo.models.lua import lua_from, lua_source
from lua_demo.models.vaes import VAE, load_network, name_of, tiny_source
from lua_demo.models.weights import fingerprint, load_swinir
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.pictures import images, metrics
from lua_demo.report.measures import METRICS, format_metric
from lua_demo.report.records import markdown_table
from lua_demo.report.scatter import Dot, kind_of, scatter
from lua_demo.request.validate import validated
from lua_demo.scenes.corpus import scenes, write_picture
from lua_demo.schema import Request, Result, UserError

ORDER = ("roundtrip", "base", "bicubic", "swinir", "cnn", "lua")
LABELS = {"base": "Base, then bicubic (pixels)"}
DIFFERENCES = [("lua", "base"), ("lua", "bicubic"), ("lua", "swinir"), ("lua", "cnn")]
SCENE_BASE, SCENE_SEED = 512, 512_000_001  # px; no corpus is made from that seed
STRIDE = 8
"""Pixels per latent cell, of all spaces."""


@dataclass
class Evaluation:
    """`values[scale][method][image]` holds the metrics and `seconds`; `skipped` says why an image took no part.

    `crop` is the side of the ground truth in px; None where it is `SCENE_BASE` times the scale.
    """

    crop: int | None
    images: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    values: dict[int, dict[str, dict[str, dict[str, float | None]]]] = field(default_factory=dict)

    def mean(self, scale: int, method: str, name: str) -> float | None:
        """Average over the images; None where a value is missing for any of them."""
        values = [entry.get(name) for entry in self.values[scale].get(method, {}).values()]
        known = [value for value in values if value is not None]
        return fmean(known) if known and len(known) == len(values) else None

    def difference(self, scale: int, one: str, other: str, name: str) -> float | None:
        """Average of `one` minus that of `other`; None where either is missing."""
        first, second = (self.mean(scale, method, name) for method in (one, other))
        return None if first is None or second is None else first - second

    def to_json(self) -> dict[str, object]:
        names = [*measured(self), "seconds"]
        return {
            "crop": self.crop,
            "images": self.images,
            "skipped": self.skipped,
            "averages": {
                scale: {method: {name: self.mean(scale, method, name) for name in names} for method in methods}
                for scale, methods in self.values.items()
            },
            "differences": {
                scale: {
                    f"{one} - {other}": {name: self.difference(scale, one, other, name) for name in names}
                    for one, other in DIFFERENCES
                    if one in methods and other in methods
                }
                for scale, methods in self.values.items()
            },
            "per_image": self.values,
        }


def evaluate(
    engine: Engine,
    folder: str | Path,
    scales: Sequence[int] = (2, 4),
    crop: int = 512,
    methods: Sequence[str] = ORDER,
    space: str = "embedded",
    devices: Devices = ALONE,
) -> Evaluation:
    """Centre-crop every photo of `folder` to crop x crop, compare at a base of crop / scale.

    Args:
        devices: the processes that share the photos; each returns the same averages over all of them.
    Raises:
        UserError: no folder, no photo of that size, a scale or method that does not exist, a crop that is no
            multiple of a scale.
    """
    files = images.list_images(folder)
    for scale in scales:
        if scale < 1 or crop % scale:
            raise UserError(f"crop {crop} is not a multiple of scale {scale}; choose a crop such as 512")
        validated(_request(space, files[0], scale, crop, methods))
    part = Evaluation(crop, values={scale: defaultdict(dict) for scale in scales})
    mine = devices.share_of(files)
    bar = tqdm(total=len(mine) * len(scales), unit="run", disable=None if devices.is_first else True)
    with tempfile.TemporaryDirectory(prefix="lua_demo_") as temporary, bar:
        for path in mine:
            name = path.relative_to(folder).as_posix()
            try:
                truth = centre_crop(path, crop)
            except UserError as error:
                part.skipped[name] = str(error)
                bar.update(len(scales))
                continue
            source = Path(temporary) / "crop.png"  # the name of a photo may be any bytes
            images.save_png(truth, source)
            for scale in scales:
                bar.set_postfix(image=name, scale=scale)
                request = _request(space, source, scale, crop, methods)
                for method, entry in _measured(engine, request, truth).items():
                    part.values[scale][method][name] = entry
                bar.update()
            part.images.append(name)
    result = joined(devices.gather(part))
    if not result.images:
        reason = next(iter(result.skipped.values()))
        raise UserError(f"no photo in {folder} could be used ({reason}); choose a smaller --crop")
    return result


def _request(space: str, path: Path, scale: int, crop: int, methods: Sequence[str]) -> Request:
    return replace(in_space(space), image=str(path), scale=scale, size=crop // scale, methods=tuple(methods))


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """The evaluations of several processes as one, image by image in order of their names."""
    result = Evaluation(parts[0].crop, values={scale: defaultdict(dict) for scale in parts[0].values})
    owners = {name: part for part in parts for name in (*part.images, *part.skipped)}
    for name, part in sorted(owners.items()):
        if name in part.skipped:
            result.skipped[name] = part.skipped[name]
            continue
        result.images.append(name)
        for scale, methods in part.values.items():
            for method, entries in methods.items():
                if name in entries:
                    result.values[scale][method][name] = entries[name]
    return result


def evaluate_scenes(
    engine: Engine,
    count: int,
    scales: Sequence[int] = (2, 4),
    methods: Sequence[str] = ORDER,
    space: str = "embedded",
    base: int = SCENE_BASE,
    devices: Devices = ALONE,
) -> Evaluation:
    """As `evaluate`, of `count` scenes rendered at base x scale px, detail and all; every scale has its own render.

    Raises:
        UserError: no scene, a scale or method that does not exist.
    """
    if count < 1:
        raise UserError(f"{count} scenes cannot be averaged; give 1 or more")
    result = Evaluation(None)
    wanted = list(enumerate(scenes(count, SCENE_SEED)))
    for scale in scales:
        with tempfile.TemporaryDirectory(prefix="lua_demo_") as shelf:
            folder = Path(devices.gather(shelf)[0])  # rendered together, in one place
            for number, scene in tqdm(
                devices.share_of(wanted), unit="scene", disable=None if devices.is_first else True
            ):
                write_picture(scene, base * scale, folder / f"{number:06d}.png")
            devices.wait()
            part = evaluate(engine, folder, (scale,), base * scale, methods, space, devices)
            devices.wait()
        result.values |= part.values
        result.images = part.images
    return result


def _measured(engine: Engine, request: Request, truth: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Method -> the engine's metrics, those of `metrics.further`, and `seconds`."""
    with contextlib.closing(engine.compare(request)) as events:
        made = [event for event in events if isinstance(event, Result)]
    results = {event.method: event for event in made if event.image is not None}
    base = results["base"].image if "base" in results else None
    entries = {}
    for method, result in results.items():
        if result.metrics is not None and result.image is not None:
            shown = images.enlarge(result.image, (truth.shape[1], truth.shape[0]))
            more = metrics.further(shown, truth, base, seams(METHODS[method], request.scale))
            entries[method] = {**result.metrics, **more, "seconds": result.seconds}
    return entries


def seams(method: Method, scale: int) -> tuple[int, ...]:
    """Periods in px of the output at which `method` could leave lines: the latent's cells, the upscaler's windows.

    Windows count twice per side: every second block moves them by half.
    """
    on_latents = any(step.enlarges for step in method.steps[: method.steps.index(DECODE)])
    cells = STRIDE if on_latents else STRIDE * scale
    window = method.upscaler.window if method.upscaler else 0
    return (cells, window // 2 * scale * (STRIDE if on_latents else 1)) if window else (cells,)


def in_space(space: str) -> Request:
    """Settings for photos in `space`: through the tiny autoencoder, where it has one."""
    return Request(base=first_base(space), decoder="tiny" if SPACES[space].tiny else "")


def add_space_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--space", default="embedded", choices=SPACES, help="latent space (default: %(default)s)")
    parser.add_argument("--vae", help="its autoencoder: a folder, file or hub id (default: as in train)")
    parser.add_argument("--lua", help="LUA of that space: a folder, file or hub id (default: the shipped one)")
    parser.add_argument("--swinir", help="SwinIR to compare with (default: the shipped one)")


def use_space(engine: Engine, args: Namespace) -> dict[str, str]:
    """Give `engine` the networks that `args` names, as `add_space_arguments` has them; role -> "name (sha256)".

    Raises:
        UserError: a space without a LUA, and no --lua for it; weights that cannot be used.
    """
    row = SPACES[args.space]
    used, network = {}, None
    sources = {"lua": args.lua, "swinir": args.swinir}
    if not args.lua and LUA not in row.roles:
        found = lua_source(args.space, engine.weights)
        if isinstance(found, Path):
            sources["lua"] = found
        else:
            used["lua"] = found
    if args.vae or AUTOENCODER not in row.roles:
        role = in_space(args.space).decoder or AUTOENCODER
        network = load_network(args.space, args.vae, fast=True)
        engine.provide(args.space, role, VAE(network, role if row.decoders else ""))
        used[AUTOENCODER] = name_of(args.vae or tiny_source(args.space, engine.weights))
    tiny = network if isinstance(network, TinyAutoencoder) else None
    loaders = {"lua": lambda source: lua_from(source, args.space, engine.weights, tiny), "swinir": load_swinir}
    for role, source in sources.items():
        if source:
            engine.provide(args.space, role, loaders[role](source))
            used[role] = f"{name_of(source)} ({fingerprint(source)})"
    return used


def centre_crop(path: Path, crop: int) -> np.ndarray:
    """crop x crop x 3 uint8 from the middle of the photo; UserError when it is smaller."""
    photo = images.load_photo(path)
    left, top = (photo.width - crop) // 2, (photo.height - crop) // 2
    if left < 0 or top < 0:
        raise UserError(f"{path.name} is {photo.width} x {photo.height}, smaller than the crop of {crop} x {crop}")
    return np.asarray(photo.crop((left, top, left + crop, top + crop)))


def to_markdown(result: Evaluation) -> str:
    """A table of averages, a table of differences, then what was skipped."""
    names = measured(result)
    table = [["scale", "method", *(METRICS[name].head for name in names), "s"]]
    for scale, methods in result.values.items():
        for method in sorted(methods, key=lambda key: ORDER.index(key) if key in ORDER else len(ORDER)):
            values = [format_metric(name, result.mean(scale, method, name)) for name in names]
            label = LABELS.get(method, METHODS[method].label)
            table.append([f"x{scale}", label, *values, f"{result.mean(scale, method, 'seconds'):.3f}"])
    what = f"images, {result.crop} x {result.crop} centre crops"
    if result.crop is None:
        what = f"scenes, rendered at {SCENE_BASE} px times the scale"
    lines = [f"{len(result.images)} {what}", "", markdown_table(table), ""]
    for scale, methods in result.values.items():
        for one, other in DIFFERENCES:
            if one in methods and other in methods:
                parts = []
                for name in names:
                    by = result.difference(scale, one, other, name)
                    if by is not None:
                        parts.append(f"{METRICS[name].head} {'+' if by >= 0 else '-'}{format_metric(name, abs(by))}")
                other_label = LABELS.get(other, METHODS[other].label)
                lines.append(f"- x{scale}, {METHODS[one].label} minus {other_label}: {', '.join(parts)}")
    lines += [f"- skipped: {reason}" for reason in result.skipped.values()]
    return "\n".join(lines)


def measured(result: Evaluation) -> list[str]:
    """The metrics that were taken, in their order."""
    entries = _entries(result)
    return [name for name in METRICS if any(name in entry for entry in entries)]


def to_svg(result: Evaluation) -> str:
    """Average PSNR against average seconds, a panel per scale and a dot per method; empty with fewer than two."""
    return str(scatter({f"x{scale}: PSNR, dB": _dots(result, scale) for scale in result.values}, standalone=True))


def _dots(result: Evaluation, scale: int) -> list[Dot]:
    dots = []
    for method in result.values[scale]:
        row, seconds, psnr = METHODS[method], *(result.mean(scale, method, name) for name in ("seconds", "psnr"))
        if seconds and psnr is not None and not row.needs_truth:
            dots.append(Dot(LABELS.get(method, row.label), seconds, psnr, kind_of([step.name for step in row.steps])))
    return dots


def _entries(result: Evaluation) -> list[dict[str, float | None]]:
    return [entry for methods in result.values.values() for by_image in methods.values() for entry in by_image.values()]
