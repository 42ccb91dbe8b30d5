"""A base model at its real architecture, with random weights and no download, through the app's own whole path.

That shows what fits, which dtypes and shapes work and what each stage takes on this machine; not how pictures look.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from lua_demo.bench import architectures
from lua_demo.catalog.bases import BASES, Base
from lua_demo.catalog.spaces import SPACES
from lua_demo.engine import Engine
from lua_demo.machine import memory
from lua_demo.machine.placement import DTYPES
from lua_demo.models.base_model import BaseModel
from lua_demo.networks.lua import LUA
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.networks.taehv import TinyVideoAutoencoder
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.schema import Progress, Request, Result, UserError

PROMPT = "a lake at night, snow on the mountains"
SIZES = 512, 1024
SCALE = 2
METHODS = "base", "lua", "swinir", "native"
POOLED = ("flux2",)
"""Spaces whose tiny autoencoder has pooling blocks."""


@dataclass(frozen=True)
class Stage:
    """One stage of one method: `peak_bytes` as in `Span`; `cold`: the first of its size in the process."""

    method: str
    name: str
    seconds: float
    peak_bytes: int
    cold: bool


@dataclass(frozen=True)
class Rehearsal:
    """One base at one size, in px. `skipped`: method -> why it was left out; `notes`: how it was placed and decoded."""

    base: str
    size: int
    target: int
    steps: int
    dtype: str
    stages: tuple[Stage, ...]
    skipped: dict[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def sizes_of(row: Base) -> tuple[int, ...]:
    """The sizes out of `SIZES` that `row` is offered at."""
    return tuple(size for size in SIZES if size in row.sizes)


def refusal(base: str, size: int, device: torch.device, dtype: torch.dtype, folder: Path) -> str:
    """Why `base` cannot be rehearsed in `folder` and on `device`; empty where it can."""
    row = BASES[base]
    on_disk, free = memory.GIB * row.gib, shutil.disk_usage(folder).free
    if on_disk * memory.MARGIN > free:
        return (
            f"{row.label} takes {row.gib:.1f} GiB in {folder}, where {free / memory.GIB:.1f} GiB are free; "
            "let TMPDIR name a larger disk"
        )
    model = BaseModel(row, row.hub_id, device, _dtype(row, dtype))
    side = size, size
    return "" if model.plans(side) else model.refusal(side)


def rehearse(
    base: str, sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype, steps: int | None = None,
    rounds: int = 1, tell: Callable[[str], None] = print,
) -> Iterator[Rehearsal]:  # fmt: skip
    """One `Rehearsal` per size, of the last of `rounds`, each with another seed.

    Raises:
        UserError: it does not fit on the disk or in memory.
    """
    row = BASES[base]
    with tempfile.TemporaryDirectory(prefix="lua_demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        for size in sizes:
            if why := refusal(base, size, device, dtype, folder):
                raise UserError(why)
        tell(f"{row.label}: random weights, {row.gib:.1f} GiB, are written to {folder}")
        write(base, folder)
        engine = Engine(str(device), _name(dtype), folder)
        for size in sizes:
            taken = steps or row.steps
            request = Request(
                prompt=PROMPT, base=base, steps=taken, guidance=row.guidance, scale=SCALE, size=size, methods=METHODS
            )
            for number in range(rounds):
                results = _run(engine, replace(request, seed=number), tell)
            yield _summary(base, size, taken, _dtype(row, dtype), results)


def write(base: str, folder: Path) -> None:
    """All that the app needs of `base` below `folder`, which then is a folder of weights: the pipeline and the tiny
    autoencoder random, SwinIR as shipped, LUA as shipped for the space, or random where others publish it.
    """
    space = BASES[base].space
    architectures.write(base, folder / "bases" / base)
    row = SPACES[space]
    shutil.copytree(WEIGHTS_DIR / "embedded" / "swinir", folder / "embedded" / "swinir")
    (folder / space / "tiny").mkdir(parents=True)
    if row.tiny_file:
        video = architectures.seeded(lambda: TinyVideoAutoencoder(row.channels))
        save_file(video.state_dict(), folder / space / "tiny" / row.tiny_file.name)
    else:
        tiny = architectures.seeded(lambda: TinyAutoencoder(row.channels, pool=space in POOLED))
        for half in ("encoder", "decoder"):
            tensors = {name: value.contiguous() for name, value in getattr(tiny, half).state_dict().items()}
            save_file(tensors, folder / space / "tiny" / f"{row.tiny}_{half}.safetensors")
    shipped = WEIGHTS_DIR / space / "lua"
    if shipped.is_dir():
        shutil.copytree(shipped, folder / space / "lua")
    else:
        architectures.seeded(lambda: LUA(in_chans=row.channels)).save_pretrained(folder / space / "lua")


def _run(engine: Engine, request: Request, tell: Callable[[str], None]) -> list[Result]:
    results, last = [], ""
    with contextlib.closing(engine.compare(request)) as events:
        for event in events:
            if not isinstance(event, Progress):
                results.append(event)
            elif (stage := f"{event.method}: {event.stage}") != last:
                last = stage
                tell(f"  {request.size} px, {stage}")
    return results


def _summary(base: str, size: int, steps: int, dtype: torch.dtype, results: list[Result]) -> Rehearsal:
    stages = tuple(
        Stage(result.method, span.name, span.seconds, span.peak_bytes, span.cold)
        for result in results
        for span in result.spans
        if not span.shared or result.method == METHODS[0]
    )
    return Rehearsal(
        base, size, size * SCALE, steps, _name(dtype), stages,
        {result.method: result.skipped for result in results if result.skipped},
        tuple(dict.fromkeys(note for result in results for note in result.notes)),
    )  # fmt: skip


def _dtype(row: Base, dtype: torch.dtype) -> torch.dtype:
    """Dtype of the weights of `row`, chosen as in `Models.base`."""
    return dtype if dtype == torch.float32 else DTYPES[row.dtype]


def _name(dtype: torch.dtype) -> str:
    return next(name for name, value in DTYPES.items() if value == dtype)
