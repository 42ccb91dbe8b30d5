"""The app's own times against the benchmark's, for the same work: they must agree to 10 %."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from statistics import median

import torch

from lua_demo.bench.clock import interleaved
from lua_demo.engine import Engine
from lua_demo.models import decoding
from lua_demo.models.upscalers import bicubic, fast
from lua_demo.models.vaes import VAE
from lua_demo.models.weights import load_autoencoder, load_lua, load_swinir
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.pictures import images, metrics
from lua_demo.schema import Progress, Request, Result

AGREEMENT = 0.10
SHORTEST = 0.01
"""Seconds: stages that take less are not compared."""
EXAMPLES = WEIGHTS_DIR.parent / "examples"
# The first is the cold run. All have the same size, so that the others find the app warm, but nothing kept.
PHOTOS = ("mountain-lake.jpg", "dunes.jpg", "alpine-meadow.jpg", "islands.jpg", "milky-way.jpg")
WANTED = ("base", "lua", "swinir", "bicubic")


@dataclass(frozen=True)
class Stage:
    """Seconds of one stage as the app reports it, and as the benchmark has it."""

    method: str
    stage: str
    app: float
    bench: float

    @property
    def difference(self) -> float:
        return abs(self.app / self.bench - 1)


@dataclass(frozen=True)
class App:
    """`stages` of the warm requests, medians; `arrivals`: seconds from the request to the result of each method, in a
    fresh engine (weights are loaded) and in a warm one; `peak_bytes`: the most that any stage reported."""

    stages: list[Stage]
    arrivals: dict[str, dict[str, float]]
    peak_bytes: int


def measure(device: str = "auto", dtype: str = "auto", scale: int = 2) -> App:
    """Examples at 512 px, all of `WANTED`, in turn with the same stages called directly."""
    metrics.prepare()  # as the page does when it is opened
    engine = Engine(device, dtype)
    arrivals, peak = {}, 0
    reported: dict[tuple[str, str], list[float]] = {}
    measured: dict[tuple[str, str], list[float]] = {}
    work = _work(engine, scale)
    for number, name in enumerate(PHOTOS):
        arrived, results = _run(engine, Request(image=str(EXAMPLES / name), scale=scale, methods=WANTED))
        arrivals["warm" if number else "cold"] = arrived
        peak = max([peak, *(span.peak_bytes for result in results for span in result.spans)])
        if number:
            for result in results:
                for span in result.spans:
                    if not span.shared:
                        reported.setdefault((result.method, span.name), []).append(span.seconds)
            with torch.inference_mode(), _autocast(engine):
                direct = interleaved(work, 1, engine.device, warm_up=0)
            for key, timing in direct.items():
                measured.setdefault(key, []).extend(timing.samples)  # type: ignore[arg-type]  # keyed as `work` is
    pairs = [Stage(key[0], key[1], median(reported[key]), median(measured[key])) for key in measured]
    return App([pair for pair in pairs if pair.bench >= SHORTEST], arrivals, peak)


def _run(engine: Engine, request: Request) -> tuple[dict[str, float], list[Result]]:
    start, arrivals, results = time.perf_counter(), {}, []
    with contextlib.closing(engine.compare(request)) as events:
        for event in events:
            if not isinstance(event, Progress):
                arrivals[event.method] = time.perf_counter() - start
                results.append(event)
    return arrivals, results


def _work(engine: Engine, scale: int):
    """(method, stage) -> the same work as in the app, called directly."""

    def ready(network):
        return network.eval().requires_grad_(False).to(engine.device, memory_format=torch.channels_last)

    vae = ready(VAE(load_autoencoder(WEIGHTS_DIR / "embedded" / "autoencoder")))
    lua, swinir = (
        fast(ready(load(WEIGHTS_DIR / "embedded" / name)), engine.dtype)
        for load, name in ((load_lua, "lua"), (load_swinir, "swinir"))
    )
    small = images.fit(images.load_photo(str(EXAMPLES / PHOTOS[0])), 512).at(1)
    photo = images.to_tensor(small).to(engine.device)
    with torch.inference_mode(), _autocast(engine):
        latent = vae.encode(photo).float()
        base, large = vae.decode(latent).float(), lua(latent, scale).float()

    def decode(x: torch.Tensor):
        return lambda: decoding.decode(vae, x)[0].float()

    return {
        ("base", "encode"): lambda: vae.encode(photo).float(),
        ("base", "decode"): decode(latent),
        ("lua", "upscale"): lambda: lua(latent, scale).float(),
        ("lua", "decode"): decode(large),
        ("swinir", "upscale"): lambda: swinir(base, scale).float(),
        ("bicubic", "upscale"): lambda: bicubic(latent, scale).float(),
        ("bicubic", "decode"): decode(large),
    }


def _autocast(engine: Engine):
    narrow = engine.dtype != torch.float32
    return torch.autocast(engine.device.type, engine.dtype) if narrow else contextlib.nullcontext()
