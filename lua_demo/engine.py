"""Runs a comparison: one stream of results that the app, the CLI and the evaluation read."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import platform
import queue
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as brief

import numpy as np
import torch
from torch import Tensor, nn

import lua_demo
from lua_demo import generators, images, metrics
from lua_demo.cancel import raise_if_set, stops_on
from lua_demo.catalog import (
    ASPECTS,
    AUTOENCODER,
    GENERATOR,
    LATENT_SPACES,
    LOADERS,
    MAX_SIZE,
    METHODS_BY_KIND,
    MIN_SIZE,
    WEIGHTLESS,
    Method,
)
from lua_demo.latents import load_latent
from lua_demo.methods import ENCODE, SAMPLE, SAMPLE_LARGE, UPSCALE, Kit, Step
from lua_demo.placement import device_label, resolve_device, resolve_dtype
from lua_demo.prompts import understand
from lua_demo.schema import BaseLatent, Environment, Progress, Request, Result, Span, Stopped, UserError
from lua_demo.timing import Measurement, measure
from lua_demo.validate import validated
from lua_demo.weights import WEIGHTS_DIR, fingerprint

KEPT_BASES = 8
LOCK_POLL_SECONDS = 0.1

# A photo cut to size, a latent from a file, or the (width, height) of what is to be sampled.
Source = images.Fitted | BaseLatent | tuple[int, int]

# What was computed before anything was enlarged, by the steps that led there.
Kept = dict[tuple[Step, ...], tuple[Tensor, Span]]


@dataclass(frozen=True)
class _Task:
    """One running comparison.

    Attributes:
        size: (width, height) of the base image.
        small: the photo at that size, H x W x 3 uint8; None where there is no photo.
        truth: the photo at the target size; None where there is none, or where it is too small.
        latent: the base latent, 1 x C x h x w on the device, where it was given.
    """

    request: Request
    size: tuple[int, int]
    small: np.ndarray | None
    truth: np.ndarray | None
    latent: Tensor | None
    kept: Kept
    stop: threading.Event | None

    def progress(self, method: str, stage: str, step: int = 0, steps: int = 0) -> Progress:
        return Progress(method, stage, self.request.methods.index(method), len(self.request.methods), step, steps)


class _Told(queue.SimpleQueue):
    """Steps told by a thread that samples; raises there once nobody listens any more."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Event()

    def __call__(self, step: int) -> None:
        raise_if_set(self.closed)
        self.put(step)


class Engine:
    """Loads weights once and runs one comparison at a time.

    The only state is the loaded networks and, for the last few photos, prompts and latents, the base latent with its
    decode: a second comparison from the same base starts from there.

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

    def provide(self, space: str, role: str, network: nn.Module) -> None:
        """Use `network` as `role` of `space`, whatever weights lie in the folder."""
        network = network.eval().requires_grad_(False)
        self._networks[space, role] = network.to(self.device, memory_format=torch.channels_last)

    def compare(self, request: Request, stop: threading.Event | None = None) -> Iterator[Progress | Result]:
        """Run the methods of `request` in order; each result comes as soon as it is there.

        Progress precedes every stage that is computed: "load" (weights), a stage of the method, "measure" (metrics), or
        "wait" while another comparison runs; and it follows every step of the sampler. A stage that is re-used keeps
        the seconds it took when it was computed. The first result carries the notes on the photo or the prompt. A
        method that runs out of memory is left out; the others go on.

        Raises:
            UserError: a bad request or photo, at once; missing or wrong weights, before anything is computed.
            Stopped: `stop` was set; the memory of the interrupted stage is given back.
        """
        request = validated(request)
        return self._one_at_a_time(request, _source(request), stop)

    def _one_at_a_time(
        self, request: Request, source: Source, stop: threading.Event | None
    ) -> Iterator[Progress | Result]:
        if not self._lock.acquire(blocking=False):
            yield Progress(request.methods[0], "wait", 0, len(request.methods))
            while not self._lock.acquire(timeout=LOCK_POLL_SECONDS):
                raise_if_set(stop)
        finished = stopped = False
        try:
            yield from self._run(request, source, stop)
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

    def _run(self, request: Request, source: Source, stop: threading.Event | None) -> Iterator[Progress | Result]:
        rows = METHODS_BY_KIND[request.kind]
        sampler = [GENERATOR] if request.prompt else []
        roles = dict.fromkeys([AUTOENCODER, *sampler, *(rows[key].upscaler for key in request.methods)])
        missing = [role for role in roles if role in LOADERS and (request.space, role) not in self._networks]
        if missing:
            yield Progress(request.methods[0], "load", 0, len(request.methods))
        for role in missing:
            raise_if_set(stop)
            self._load(request.space, role)

        task, notes = self._task(request, source, stop)
        for key in request.methods:
            row = rows[key]
            if row.needs_truth and task.truth is None:
                yield Result(key, row.label, None, skipped=_no_truth(row, source, request), notes=notes)
            else:
                yield (yield from self._method(task, key, notes))
            notes = ()

    def _task(self, request: Request, source: Source, stop: threading.Event | None) -> tuple[_Task, tuple[str, ...]]:
        """What the methods work on, and the notes on its source."""
        space = request.space
        if isinstance(source, tuple):
            kept = self._kept_for(space, (request.prompt, source, request.seed, request.steps, request.guidance))
            ignored = understand(request.prompt).ignored
            notes = (f"words that the model does not know, ignored: {', '.join(ignored)}",) if ignored else ()
            return _Task(request, source, None, None, None, kept, stop), notes
        if isinstance(source, BaseLatent):
            _check_shape(source, self._networks[space, AUTOENCODER], request)
            latent = torch.from_numpy(source.values)[None].to(self.device)
            kept = self._kept_for(space, source.values.shape, source.values.tobytes())
            return _Task(request, source.size, None, None, latent, kept, stop), ()
        small = np.asarray(source.at(1))
        truth = np.asarray(source.at(request.scale)) if source.holds(request.scale) else None
        # The base picture stands for the photo, its crop and its size at once.
        kept = self._kept_for(space, small.shape, small.tobytes())
        return _Task(request, source.size, small, truth, None, kept, stop), source.photo.info.get("notes", ())

    def _method(self, task: _Task, key: str, notes: tuple[str, ...]) -> Generator[Progress, None, Result]:
        row, truth = METHODS_BY_KIND[task.request.kind][key], task.truth
        try:
            image, spans, latent = (yield from self._chain(task, key)) if row.steps else (truth, (), None)
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
            return Result(key, row.label, image, tuple(spans), scores, notes=notes, latent=latent)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        self._give_back_memory()
        reason = f"out of memory on {self.device}; choose a smaller size than {task.request.size} or a smaller scale"
        return Result(key, row.label, None, skipped=reason, notes=notes)

    def _chain(
        self, task: _Task, key: str
    ) -> Generator[Progress, None, tuple[np.ndarray, list[Span], BaseLatent | None]]:
        """Run the steps of a method, or take what is kept; gives its picture, its spans and its base latent."""
        request, scale, space = task.request, task.request.scale, task.request.space
        row, vae, told = METHODS_BY_KIND[request.kind][key], self._networks[space, AUTOENCODER], _Told()
        kit = Kit(
            generate=lambda factor: self._generate(task, vae, factor, told),
            upscale=WEIGHTLESS.get(row.upscaler) or self._networks.get((space, row.upscaler)),
            decode=vae.decode,
            size=task.size,
        )
        x, factor, spans, base = None, 1, [], None
        for index, step in enumerate(row.steps):
            chain = row.steps[: index + 1]
            factor = scale if step.enlarges else factor
            if step is ENCODE and task.latent is not None:
                x = base = task.latent  # given, so nobody is charged for it
                continue
            if chain in task.kept:
                x, span = task.kept[chain]
                spans.append(replace(span, shared=True))
                base = x if step in (ENCODE, SAMPLE) else base
                continue
            if step in (SAMPLE, SAMPLE_LARGE):
                x, measured = yield from self._sample(task, key, step, kit, factor, told)
            else:
                yield task.progress(key, step.name)
                x, measured = self._execute(step, kit, x, factor, task.stop)
            work = (space, step, row.upscaler if step is UPSCALE else None, kit.size, factor)
            spans.append(Span(step.name, measured.seconds, measured.peak_bytes, cold=work not in self._warm))
            self._warm.add(work)
            base = x if step in (ENCODE, SAMPLE) else base
            if factor == 1:
                task.kept[chain] = x, spans[-1]
        latent = None if base is None else BaseLatent(base[0].cpu().numpy(), space, task.size)
        return images.to_array(x), spans, latent

    def _generate(self, task: _Task, vae: nn.Module, factor: int, told: _Told) -> Tensor:
        request = task.request
        if not request.prompt:
            photo = images.to_tensor(task.small if factor == 1 else task.truth).to(self.device)
            return generators.from_photo(vae, photo)
        size = task.size[0] * factor, task.size[1] * factor
        sampler = self._networks[request.space, GENERATOR]
        return sampler(request.prompt, size, request.steps, request.guidance, request.seed, told)

    def _sample(
        self, task: _Task, key: str, step: Step, kit: Kit, factor: int, told: _Told
    ) -> Generator[Progress, None, tuple[Tensor, Measurement]]:
        """As `_execute`, on a thread of its own, so that every step of the sampler can be told while it runs."""
        steps = task.request.steps
        yield task.progress(key, step.name, 0, steps)

        def work() -> None:
            try:
                told.put(self._execute(step, kit, None, factor, task.stop))
            except BaseException as error:
                told.put(error)

        thread = threading.Thread(target=work, name="sampler", daemon=True)
        thread.start()
        try:
            while isinstance(answer := told.get(), int):
                yield task.progress(key, step.name, answer, steps)
        finally:
            told.closed.set()
            thread.join()
        if isinstance(answer, BaseException):
            raise answer
        return answer

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

    def _kept_for(self, space: str, parameters: tuple, data: bytes = b"") -> Kept:
        key = hashlib.sha256(repr(parameters).encode() + data).hexdigest(), space
        kept = self._kept.setdefault(key, {})
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_BASES:
            self._kept.popitem(last=False)
        return kept

    def _load(self, space: str, role: str) -> None:
        source = self.weights / LATENT_SPACES[space].roles[role]
        if not source.is_dir():
            way_out = "train one (lua_demo train generator)" if role == GENERATOR else "restore it"
            raise UserError(
                f"the weights of {role} are missing: there is no {source}; {way_out} or give another folder"
            )
        self.provide(space, role, LOADERS[role](source))

    def _give_back_memory(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _source(request: Request) -> Source:
    if request.prompt:
        return generators.picture_size(request.size, ASPECTS[request.aspect])
    return _latent_of(request) if request.latent else images.fit(images.load_photo(request.image), request.size)


def _latent_of(request: Request) -> BaseLatent:
    latent, name = load_latent(request.latent), Path(request.latent).name
    if latent.space != request.space:
        raise UserError(
            f"{name} is a latent of the space {brief(latent.space)}, not {request.space}; give one of its own"
        )
    if not (min(latent.size) >= 1 and MIN_SIZE <= max(latent.size) <= MAX_SIZE):
        size = " x ".join(map(brief, latent.size))
        raise UserError(f"{name} is of an image of {size}; the longest side may be {MIN_SIZE} to {MAX_SIZE} pixels")
    return latent


def _check_shape(latent: BaseLatent, vae: nn.Module, request: Request) -> None:
    width, height = latent.size
    fitting = (vae.latent_channels, -(-height // vae.stride), -(-width // vae.stride))
    if latent.values.shape != fitting:
        raise UserError(
            f"{Path(request.latent).name} has shape {latent.values.shape}; an image of {width} x {height} in the space "
            f"{request.space} has {fitting}: save the latent again"
        )


def _no_truth(row: Method, source: Source, request: Request) -> str:
    if isinstance(source, BaseLatent):
        return f"the base is a latent; {row.label} needs a photo"
    width, height = source.photo.size
    needed = " x ".join(str(side * request.scale) for side in source.size)
    largest = max(width, height) // request.scale
    way_out = f" or a base size of at most {largest}" if largest >= MIN_SIZE else ""
    return f"the photo is {width} x {height}; {row.label} needs at least {needed}: use a larger photo{way_out}"


def _is_out_of_memory(error: BaseException) -> bool:
    """CPU allocations fail with a plain RuntimeError that only its text tells apart."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
