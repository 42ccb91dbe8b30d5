"""Runs a comparison: one stream of results that the app, the CLI and the evaluation read."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import platform
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import lua_demo
from lua_demo import generators, images, metrics
from lua_demo.cancel import raise_if_set, stops_on
from lua_demo.catalog import AUTOENCODER, LATENT_SPACES, LOADERS, METHODS, MIN_SIZE, WEIGHTLESS, Method
from lua_demo.methods import UPSCALE, Kit, Step
from lua_demo.placement import device_label, resolve_device, resolve_dtype
from lua_demo.schema import Environment, Progress, Request, Result, Span, Stopped, UserError
from lua_demo.timing import Measurement, measure
from lua_demo.validate import validated
from lua_demo.weights import WEIGHTS_DIR, fingerprint

KEPT_PHOTOS = 8
LOCK_POLL_SECONDS = 0.1

# What was computed before anything was enlarged, by the steps that led there.
Kept = dict[tuple[Step, ...], tuple[Tensor, Span]]


@dataclass(frozen=True)
class _Task:
    """One running comparison. `small` and `truth` are H x W x 3 uint8; `truth` is None where the photo is too small."""

    request: Request
    small: np.ndarray
    truth: np.ndarray | None
    kept: Kept
    stop: threading.Event | None

    def progress(self, method: str, stage: str) -> Progress:
        return Progress(method, stage, self.request.methods.index(method), len(self.request.methods))


class Engine:
    """Loads weights once and runs one comparison at a time.

    The only state is the loaded networks and, for the last few photos, the base latent with its decode: a second
    comparison of the same photo at the same base size starts from there.

    Args:
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" (bf16 on CUDA, else fp32), "fp32" or "bf16" (autocast).
        weights: folder that replaces the shipped weights; the layout below it is that of `catalog.LATENT_SPACES`.
    Raises:
        UserError: a device, dtype or folder that is not there.
    """

    def __init__(self, device: str = "auto", dtype: str = "auto", weights: str | Path | None = None):
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.weights = Path(weights) if weights else WEIGHTS_DIR
        if weights and not self.weights.is_dir():
            raise UserError(f"weights folder {self.weights} is not there; give one that holds embedded/lua and so on")
        self._networks: dict[tuple[str, str], nn.Module] = {}
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._warm: set[tuple] = set()
        # Not an RLock: the generator may be closed on another thread than the one that advanced it.
        self._lock = threading.Lock()

    def environment(self, space: str = "embedded") -> Environment:
        """Device, dtype, versions; per role of `space` whose weights are there "folder (start of the sha256)"."""
        roles = LATENT_SPACES[space].roles if space in LATENT_SPACES else {}
        there = {role: folder for role, folder in roles.items() if (self.weights / folder).is_dir()}
        return Environment(
            device=device_label(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            weights={role: f"{folder} ({fingerprint(self.weights / folder)})" for role, folder in there.items()},
            versions={
                "lua_demo": lua_demo.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        )

    def compare(self, request: Request, stop: threading.Event | None = None) -> Iterator[Progress | Result]:
        """Run the methods of `request` in order; each result comes as soon as it is there.

        Progress precedes every stage that is computed: "load" (weights), a stage of the method, "measure" (metrics), or
        "wait" while another comparison runs. A stage that is re-used keeps the seconds it took when it was computed.
        The first result carries the notes on the photo. A method that runs out of memory is left out; the others go on.

        Raises:
            UserError: a bad request or photo, at once; missing or wrong weights, before anything is computed.
            Stopped: `stop` was set; the memory of the interrupted stage is given back.
        """
        request = validated(request)
        fitted = images.fit(images.load_photo(request.image), request.size)
        return self._one_at_a_time(request, fitted, stop)

    def _one_at_a_time(
        self, request: Request, fitted: images.Fitted, stop: threading.Event | None
    ) -> Iterator[Progress | Result]:
        if not self._lock.acquire(blocking=False):
            yield Progress(request.methods[0], "wait", 0, len(request.methods))
            while not self._lock.acquire(timeout=LOCK_POLL_SECONDS):
                raise_if_set(stop)
        finished = stopped = False
        try:
            yield from self._run(request, fitted, stop)
            finished = True
        except Stopped:
            stopped = True
        finally:
            if not finished:
                self._give_back_memory()
            self._lock.release()
        if stopped:
            # Raised anew: the traceback of the first one would keep the tensors of the interrupted stage alive.
            raise Stopped("stopped on request")

    def _run(
        self, request: Request, fitted: images.Fitted, stop: threading.Event | None
    ) -> Iterator[Progress | Result]:
        roles = dict.fromkeys([AUTOENCODER, *(METHODS[key].upscaler for key in request.methods)])
        missing = [role for role in roles if role in LOADERS and (request.space, role) not in self._networks]
        if missing:
            yield Progress(request.methods[0], "load", 0, len(request.methods))
        for role in missing:
            raise_if_set(stop)
            self._load(request.space, role)

        small = np.asarray(fitted.at(1))
        truth = np.asarray(fitted.at(request.scale)) if fitted.holds(request.scale) else None
        task = _Task(request, small, truth, self._kept_for(small, request.space), stop)
        notes = fitted.photo.info.get("notes", ())
        for key in request.methods:
            row = METHODS[key]
            if row.needs_truth and truth is None:
                yield Result(key, row.label, None, skipped=_too_small(row, fitted, request), notes=notes)
            else:
                yield (yield from self._method(task, key, notes))
            notes = ()

    def _method(self, task: _Task, key: str, notes: tuple[str, ...]) -> Generator[Progress, None, Result]:
        row, truth = METHODS[key], task.truth
        try:
            image, spans = (yield from self._chain(task, key)) if row.steps else (truth, ())
            scores = None
            if truth is not None and not row.is_truth:
                raise_if_set(task.stop)
                yield task.progress(key, "measure")
                shown = image
                if image.shape != truth.shape:
                    size = truth.shape[1], truth.shape[0]
                    shown = images.enlarge(image, size)
                    notes = (*notes, f"measured after bicubic enlargement to {size[0]} x {size[1]} pixels")
                scores = metrics.against(shown, truth, self.device if self.device.type == "cuda" else "cpu")
            return Result(key, row.label, image, tuple(spans), scores, notes=notes)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        self._give_back_memory()
        reason = f"out of memory on {self.device}; choose a smaller size than {task.request.size} or a smaller scale"
        return Result(key, row.label, None, skipped=reason, notes=notes)

    def _chain(self, task: _Task, key: str) -> Generator[Progress, None, tuple[np.ndarray, list[Span]]]:
        """Run the steps of a method, or take what is kept; gives its picture and its spans."""
        row, scale, space = METHODS[key], task.request.scale, task.request.space
        vae = self._networks[space, AUTOENCODER]
        source = images.to_tensor(task.truth if row.steps[0].enlarges else task.small).to(self.device)
        kit = Kit(
            generate=lambda _: generators.from_photo(vae, source),
            upscale=WEIGHTLESS.get(row.upscaler) or self._networks.get((space, row.upscaler)),
            decode=vae.decode,
            size=(task.small.shape[1], task.small.shape[0]),
        )
        x, factor, spans = None, 1, []
        for index, step in enumerate(row.steps):
            chain = row.steps[: index + 1]
            factor = scale if step.enlarges else factor
            if chain in task.kept:
                x, span = task.kept[chain]
                spans.append(replace(span, shared=True))
                continue
            yield task.progress(key, step.name)
            x, measured = self._execute(step, kit, x, factor, task.stop)
            work = (space, step, row.upscaler if step is UPSCALE else None, kit.size, factor)
            spans.append(Span(step.name, measured.seconds, measured.peak_bytes, cold=work not in self._warm))
            self._warm.add(work)
            if factor == 1:
                task.kept[chain] = x, spans[-1]
        return images.to_array(x), spans

    # Decorated, no with block around a yield: the flag belongs to the thread, and each next() may run on another one.
    @torch.inference_mode()
    def _execute(
        self, step: Step, kit: Kit, x: Tensor | None, factor: int, stop: threading.Event | None
    ) -> tuple[Tensor, Measurement]:
        narrow = self.dtype != torch.float32
        autocast = torch.autocast(self.device.type, self.dtype) if narrow else contextlib.nullcontext()
        with stops_on(stop), autocast, measure(self.device) as measured:
            x = step.run(kit, x, factor).float()
        return x, measured

    def _kept_for(self, small: np.ndarray, space: str) -> Kept:
        # The base picture stands for the photo, its crop and its size at once.
        key = hashlib.sha256(repr(small.shape).encode() + small.tobytes()).hexdigest(), space
        kept = self._kept.setdefault(key, {})
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_PHOTOS:
            self._kept.popitem(last=False)
        return kept

    def _load(self, space: str, role: str) -> None:
        source = self.weights / LATENT_SPACES[space].roles[role]
        if not source.is_dir():
            raise UserError(
                f"the weights of {role} are missing: there is no {source}; restore it or give another folder"
            )
        network = LOADERS[role](source).eval().requires_grad_(False)
        self._networks[space, role] = network.to(self.device, memory_format=torch.channels_last)

    def _give_back_memory(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _too_small(row: Method, fitted: images.Fitted, request: Request) -> str:
    width, height = fitted.photo.size
    needed = " x ".join(str(side * request.scale) for side in fitted.size)
    largest = max(width, height) // request.scale
    way_out = f" or a base size of at most {largest}" if largest >= MIN_SIZE else ""
    return f"the photo is {width} x {height}; {row.label} needs at least {needed}: use a larger photo{way_out}"


def _is_out_of_memory(error: BaseException) -> bool:
    """CPU allocations fail with a plain RuntimeError that only its text tells apart."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
