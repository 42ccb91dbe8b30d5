"""Runs a comparison: one stream of results that the app, the CLI and the evaluation read."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import lua_demo
from lua_demo.catalog import cost
from lua_demo.catalog.bases import BASES
from lua_demo.catalog.compositions import ENCODE, SAMPLE, SAMPLE_LARGE, UPSCALE, Kit, Step
from lua_demo.catalog.methods import METHODS_BY_KIND
from lua_demo.catalog.prompts import understand
from lua_demo.machine.cancel import raise_if_set, stops_on
from lua_demo.machine.memory import give_back, is_out_of_memory
from lua_demo.machine.placement import device_label, resolve_device, resolve_dtype
from lua_demo.machine.timing import Measurement, measure
from lua_demo.models import decoding, generators
from lua_demo.models.loaded import Absent, Models, decoder_role
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.pictures import images, metrics
from lua_demo.pictures.latent_check import MANY_OUTSIDE, refuse_foreign, share_outside
from lua_demo.request.inputs import Source, beyond, check_shape, no_truth, source_of
from lua_demo.request.validate import validated
from lua_demo.schema import BaseLatent, Environment, Progress, Request, Result, Span, Stopped, UserError

KEPT_BASES = 8
LOCK_POLL_SECONDS = 0.1

# What was computed before anything was enlarged, by the steps that led there, with the notes on it.
Kept = dict[tuple[Step, ...], tuple[Tensor, Span, tuple[str, ...]]]


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

    @property
    def target(self) -> tuple[int, int]:
        """(width, height) of the enlarged image."""
        return self.size[0] * self.request.scale, self.size[1] * self.request.scale

    def progress(self, method: str, stage: str, step: int = 0, steps: int = 0) -> Progress:
        return Progress(method, stage, self.request.methods.index(method), len(self.request.methods), step, steps)


class _Told(queue.SimpleQueue):
    """Steps told by a thread that samples; raises there once nobody listens any more."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Event()
        self.times: list[float] = []

    def __call__(self, step: int) -> None:
        raise_if_set(self.closed)
        self.times.append(time.perf_counter())
        self.put(step)

    def pace(self, seconds: float) -> float:
        """Seconds per step: between the first and the last, or all `seconds` of sampling where there is only one."""
        steps = len(self.times) - 1
        return (self.times[-1] - self.times[0]) / steps if steps else seconds


class Engine:
    """Loads weights once and runs one comparison at a time.

    The only state is the loaded networks and, for the last few photos, prompts and latents, the base latent with its
    decode: a second comparison from the same base starts from there.

    Args:
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" (bf16 on CUDA, else fp32), "fp32" or "bf16" (autocast; for LUA and SwinIR `upscalers.Fast`).
        weights: folder that replaces the shipped weights; the layout below it is that of `spaces.SPACES`.
    Raises:
        UserError: a device, dtype or folder that is not there.
    """

    def __init__(self, device: str = "auto", dtype: str = "auto", weights: str | Path | None = None):
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.weights = Path(weights) if weights else WEIGHTS_DIR
        if weights and not self.weights.is_dir():
            raise UserError(f"weights folder {self.weights} is not there; give one that holds embedded/lua and so on")
        self.models = Models(self.device, self.dtype, self.weights)
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._warm: set[tuple] = set()
        self._pace: dict[str, tuple[tuple[int, int], float]] = {}  # base -> size in px, seconds per step there
        # Not an RLock: the generator may be closed on another thread than the one that advanced it.
        self._lock = threading.Lock()

    def environment(self, request: Request | None = None) -> Environment:
        """Device, dtype, versions; and what `request` uses, as far as its weights are there: role -> "source (sha256)".

        The source of weights from the hub is their id.
        """
        return Environment(
            device=device_label(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            weights=self.models.names(request or Request()),
            versions={
                "lua_demo": lua_demo.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        )

    def provide(self, space: str, role: str, network: nn.Module) -> None:
        """As `Models.provide`."""
        self.models.provide(space, role, network)

    def compare(self, request: Request, stop: threading.Event | None = None) -> Iterator[Progress | Result]:
        """Run the methods of `request` in order; each result comes as soon as it is there.

        Progress precedes every stage that is computed: "load" (weights), a stage of the method, "measure" (metrics), or
        "wait" while another comparison runs; and it follows every step of the sampler. A stage that is re-used keeps
        the seconds it took when it was computed. The first result carries the notes on the photo or the prompt. A
        stage that runs out of memory is run again in a way that takes less, where there is one, and its results say so;
        else the method is left out and the others go on. So is a native column that would take too long.

        Raises:
            UserError: a bad request or photo, at once; missing or wrong weights, before anything is computed.
            Stopped: `stop` was set; the memory of the interrupted stage is given back.
        """
        request = validated(request)
        return self._one_at_a_time(request, source_of(request), stop)

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
                give_back(self.device)
            self._lock.release()
        if stopped:
            # Raised anew: the traceback of the first one would keep the tensors of the interrupted stage alive.
            raise Stopped("stopped on request")

    def _run(self, request: Request, source: Source, stop: threading.Event | None) -> Iterator[Progress | Result]:
        rows = METHODS_BY_KIND[request.kind]
        absent = {}
        missing = self.models.wanted(request)
        base = self.models.base(request.base) if request.prompt else None
        if missing or (base and base.plan is None):
            yield Progress(request.methods[0], "load", 0, len(request.methods))
        for role in missing:
            raise_if_set(stop)
            try:
                self.models.load(request, role)
            except Absent as error:
                absent[role] = str(error)
        if base:
            base.place(source)

        task, notes = self._task(request, source, stop)
        for key in request.methods:
            row = rows[key]
            reason = absent.get(row.upscaler)
            if row.needs_truth and task.truth is None:
                reason = no_truth(row, source, request)
            if reason:
                yield Result(key, row.label, None, skipped=reason, notes=notes)
            else:
                yield (yield from self._method(task, key, notes))
            notes = ()

    def _task(self, request: Request, source: Source, stop: threading.Event | None) -> tuple[_Task, tuple[str, ...]]:
        """What the methods work on, and the notes on its source."""
        models = request.base, decoder_role(request)
        if isinstance(source, tuple):
            kept = self._kept_for(models, (request.prompt, source, request.seed, request.steps, request.guidance))
            ignored = understand(request.prompt).ignored if request.base == "embedded" else ()
            notes = (f"words that the model does not know, ignored: {', '.join(ignored)}",) if ignored else ()
            return _Task(request, source, None, None, None, kept, stop), notes
        if isinstance(source, BaseLatent):
            check_shape(source, self.models.vae(request), request)
            refuse_foreign(source, BASES[request.base].space, Path(request.latent).name)
            latent = torch.from_numpy(source.values)[None].to(self.device)
            kept = self._kept_for(models, source.values.shape, source.values.tobytes())
            return _Task(request, source.size, None, None, latent, kept, stop), ()
        small = np.asarray(source.at(1))
        truth = np.asarray(source.at(request.scale)) if source.holds(request.scale) else None
        # The base picture stands for the photo, its crop and its size at once.
        kept = self._kept_for(models, small.shape, small.tobytes())
        return _Task(request, source.size, small, truth, None, kept, stop), source.photo.info.get("notes", ())

    def _method(self, task: _Task, key: str, notes: tuple[str, ...]) -> Generator[Progress, None, Result]:
        row, truth = METHODS_BY_KIND[task.request.kind][key], task.truth
        try:
            if row.steps[:1] == (SAMPLE_LARGE,):
                reason = yield from self._too_much(task, key)
                if reason:
                    return Result(key, row.label, None, skipped=reason, notes=notes)
                notes = (*notes, *beyond(task.request, task.target))
            image, spans, latent, outside = truth, (), None, None
            if row.steps:
                x, spans, latent, outside, said = yield from self._chain(task, key, row.steps)
                remark = self.models.note(task.request, row.upscaler)
                image, notes = images.to_array(x), (*notes, *said, *([remark] if remark else []))
                if outside is not None and outside > MANY_OUTSIDE:
                    notes += (f"{outside:.1%} of the enlarged latent is outside the range of photos; look closely",)
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
            return Result(key, row.label, image, tuple(spans), scores, notes=notes, latent=latent, outside=outside)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        give_back(self.device)
        reason = f"out of memory on {self.device}; choose a smaller size than {task.request.size} or a smaller scale"
        return Result(key, row.label, None, skipped=reason, notes=notes)

    def _too_much(self, task: _Task, key: str) -> Generator[Progress, None, str | None]:
        """Why the native column is left out: it does not fit or, judged by the pace of the base size, takes long."""
        request, row = task.request, BASES[task.request.base]
        if request.force_native:
            return None
        target, force = task.target, "or force it (--force-native)"
        base = self.models.base(request.base)
        if base and not base.plans(target):
            return f"{base.refusal(target)}; choose a smaller size or scale, {force}"
        if request.base not in self._pace:
            yield from self._chain(task, key, (SAMPLE,))
        size, pace = self._pace[request.base]
        seconds = cost.native_seconds(row, request.steps, size, target, pace)
        if seconds <= cost.LONGEST_SECONDS:
            return None
        return (
            f"it would take about {cost.duration(seconds)}: {request.steps} steps at {target[0]} x {target[1]}, judged "
            f"by {pace:.2g} s for one at {size[0]} x {size[1]}; choose a smaller size or scale or fewer steps, {force}"
        )

    def _chain(
        self, task: _Task, key: str, steps: tuple[Step, ...]
    ) -> Generator[Progress, None, tuple[Tensor, list[Span], BaseLatent | None, float | None, tuple[str, ...]]]:
        """Run steps, or take what is kept; gives what they make, the spans, the base latent, `Result.outside` and
        notes on how.
        """
        request, scale, space = task.request, task.request.scale, BASES[task.request.base].space
        row, vae = METHODS_BY_KIND[request.kind][key], self.models.vae(request)
        said: list[str] = []
        kit = Kit(
            generate=lambda factor: self._encode(task, vae, factor),
            upscale=self.models.upscaler(request, row.upscaler),
            decode=lambda latent: _noting(decoding.decode(vae, latent), said),
            size=task.size,
        )
        x, factor, spans, notes, base, outside = None, 1, [], [], None, None
        for index, step in enumerate(steps):
            chain = steps[: index + 1]
            factor = scale if step.enlarges else factor
            if step is ENCODE and task.latent is not None:
                x = base = task.latent  # given, so nobody is charged for it
                continue
            if chain in task.kept:
                x, span, before = task.kept[chain]
                spans.append(replace(span, shared=True))
                notes += before
                base = x if step in (ENCODE, SAMPLE) else base
                continue
            of_latent = step is UPSCALE and x is base
            if step in (SAMPLE, SAMPLE_LARGE):
                x, measured = yield from self._sample(task, key, step, kit, factor, said)
            else:
                yield task.progress(key, step.name)
                x, measured = self._execute_with_room(step, kit, x, factor, task.stop, said)
            work = (
                request.base,
                decoder_role(request),
                step,
                row.upscaler if step is UPSCALE else None,
                kit.size,
                factor,
            )
            spans.append(Span(step.name, measured.seconds, measured.peak_bytes, cold=work not in self._warm))
            self._warm.add(work)
            outside = share_outside(x, space) if of_latent else outside
            base = x if step in (ENCODE, SAMPLE) else base
            if factor == 1:
                task.kept[chain] = x, spans[-1], tuple(said)
            notes += said
            said.clear()
        latent = None if base is None else BaseLatent(base[0].cpu().numpy(), space, task.size)
        return x, spans, latent, outside, tuple(dict.fromkeys(notes))

    def _encode(self, task: _Task, vae: nn.Module, factor: int) -> Tensor:
        photo = images.to_tensor(task.small if factor == 1 else task.truth).to(self.device)
        return generators.from_photo(vae, photo)

    def _sample(
        self, task: _Task, key: str, step: Step, kit: Kit, factor: int, said: list[str]
    ) -> Generator[Progress, None, tuple[Tensor, Measurement]]:
        """As `_execute`, on a thread of its own, so that every step of the sampler can be told while it runs."""
        request, size = task.request, (task.size[0] * factor, task.size[1] * factor)
        base = self.models.base(request.base)
        while True:
            if base:
                if base.plan is None:  # it had to make room
                    yield task.progress(key, "load")
                base.place(size)
            yield task.progress(key, step.name, 0, request.steps)
            told = _Told()
            answer = yield from self._on_a_thread(task, key, step, kit, factor, size, told)
            if not isinstance(answer, BaseException):
                break
            if not (base and is_out_of_memory(answer)):
                raise answer
            message, plan = str(answer), base.plan
            del answer  # its traceback holds tensors
            yield task.progress(key, "load")
            if not base.step_down(size):
                raise torch.OutOfMemoryError(message)
            said.append(f"out of memory with this: {plan.label}; sampled again with less")
        if base:
            said.append(f"{base.row.label}: {base.plan.label}")
        self._pace[request.base] = size, told.pace(answer[1].seconds)
        return answer

    def _on_a_thread(
        self, task: _Task, key: str, step: Step, kit: Kit, factor: int, size: tuple[int, int], told: _Told
    ) -> Generator[Progress, None, tuple[Tensor, Measurement] | BaseException]:
        request, sampler = task.request, self.models.sampler(task.request)
        kit = replace(
            kit,
            generate=lambda _: sampler(request.prompt, size, request.steps, request.guidance, request.seed, told),
        )

        def work() -> None:
            try:
                told.put(self._execute(step, kit, None, factor, task.stop))
            except BaseException as error:
                told.put(error)

        thread = threading.Thread(target=work, name="sampler", daemon=True)
        thread.start()
        try:
            while isinstance(answer := told.get(), int):
                yield task.progress(key, step.name, answer, request.steps)
        finally:
            told.closed.set()
            thread.join()
        return answer

    def _execute_with_room(
        self, step: Step, kit: Kit, x: Tensor | None, factor: int, stop: threading.Event | None, said: list[str]
    ) -> tuple[Tensor, Measurement]:
        """As `_execute`; where memory runs out, once more without the base model on the device."""
        try:
            return self._execute(step, kit, x, factor, stop)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        if not self.models.make_room():
            raise torch.OutOfMemoryError(message)
        said.append("out of memory: the base model gave back its own, and this was run again")
        return self._execute(step, kit, x, factor, stop)

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

    def _kept_for(self, models: tuple[str, str], parameters: tuple, data: bytes = b"") -> Kept:
        key = hashlib.sha256(repr((models, parameters)).encode() + data).hexdigest()
        kept = self._kept.setdefault(key, {})
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_BASES:
            self._kept.popitem(last=False)
        return kept


def _noting(decoded: tuple[Tensor, tuple[str, ...]], said: list[str]) -> Tensor:
    said += decoded[1]
    return decoded[0]
