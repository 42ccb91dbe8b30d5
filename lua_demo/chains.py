"""Runs the chain of steps that makes a picture. What was computed before is taken from there."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lua_demo.catalog.compositions import ENCODE, REFINE, SAMPLE, SAMPLE_LARGE, UPSCALE, Kit, Output, Step
from lua_demo.machine.cancel import check_stopped, stops_on, unless_stopped
from lua_demo.machine.finite import check_finite
from lua_demo.machine.memory import is_out_of_memory
from lua_demo.machine.timing import Measurement, measure, synchronise
from lua_demo.models import decoding
from lua_demo.models.generators import Start, from_photo
from lua_demo.models.loaded import Models
from lua_demo.models.upscalers import enlarge
from lua_demo.pictures import images
from lua_demo.pictures.latent_check import share_outside
from lua_demo.request.job import Job
from lua_demo.sampling import Pace, Report, steps_of
from lua_demo.schema import Progress, Span

KEPT_BASES = 8
T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """The tensor that a step made before anything was enlarged, with its span and the notes on it."""

    x: Tensor
    span: Span
    notes: tuple[str, ...]


Shelf = dict[tuple[Step, ...], Kept]
"""What was computed from one base before anything was enlarged, by the steps that led there."""


@dataclass(frozen=True)
class Task:
    """One running comparison.

    Attributes:
        size: (width, height) of the base image.
        small: the photo or rendered scene at that size, H x W x 3 uint8; None where there is none.
        truth: the same at the target size; None where there is none, or where the photo is too small.
        latent: the base latent, 1 x C x h x w on the device, where it was given.
    """

    job: Job
    size: tuple[int, int]
    kept: Shelf
    stop: threading.Event | None
    small: np.ndarray | None = None
    truth: np.ndarray | None = None
    latent: Tensor | None = None

    @property
    def target(self) -> tuple[int, int]:
        """(width, height) of the enlarged image."""
        return self.scaled(self.job.request.scale)

    def scaled(self, factor: int) -> tuple[int, int]:
        return self.size[0] * factor, self.size[1] * factor


@dataclass(frozen=True)
class Made:
    """What a chain of steps made.

    Attributes:
        x: the last tensor. base: the base latent that it came from, 1 x C x h x w; None where it came from elsewhere.
        outside: as in `Result`.
    """

    x: Tensor
    spans: tuple[Span, ...]
    base: Tensor | None
    outside: float | None
    notes: tuple[str, ...]


class Chains:
    """Runs chains of steps on one device and keeps, for the last few bases, what was made before anything was enlarged.

    Attributes:
        pace: base model -> size (width, height) in px at which it sampled last, and seconds per step there.
        loading: what goes on although whoever asked for it was stopped.
    """

    def __init__(self, models: Models, device: torch.device, dtype: torch.dtype):
        self.models, self.device, self.dtype = models, device, dtype
        self.pace: dict[str, tuple[tuple[int, int], float]] = {}
        self.loading: list[Future] = []
        self._kept: OrderedDict[str, Shelf] = OrderedDict()
        self._done: set[tuple] = set()

    def load(self, work: Callable[[], T], stop: threading.Event | None) -> T:
        """What `work` gives, which loads weights or a picture; Stopped as soon as `stop` is set, though it goes on."""
        return unless_stopped(work, stop, self.loading.append)

    def is_first(self, *work: object) -> bool:
        """Whether such work was not asked about before: its run includes one-time set-up."""
        first = work not in self._done
        self._done.add(work)
        return first

    def shelf(self, job: Job, parameters: tuple, data: bytes = b"") -> Shelf:
        """What is kept of this base, for this base model and decoder; the oldest of `KEPT_BASES` gives way."""
        models = job.request.base, job.decoder
        key = hashlib.sha256(repr((models, parameters)).encode() + data).hexdigest()
        kept = self._kept.setdefault(key, {})
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_BASES:
            self._kept.popitem(last=False)
        return kept

    def run(self, task: Task, key: str, steps: tuple[Step, ...]) -> Generator[Progress, None, Made]:
        """Run steps, or take what is kept."""
        job, kit = task.job, self._kit(task, key)
        x: Tensor | None = None
        base: Tensor | None = None
        spans: list[Span] = []
        notes: list[str] = []
        factor, outside = 1, None
        for index, step in enumerate(steps):
            chain = steps[: index + 1]
            factor = job.request.scale if step.enlarges else factor
            if step is ENCODE and task.latent is not None:
                x = base = task.latent  # the latent was given: no method is charged for it
                continue
            if kept := task.kept.get(chain):
                x, span, said = kept.x, replace(kept.span, shared=True), kept.notes
            else:
                source = x
                if step in (SAMPLE, SAMPLE_LARGE, REFINE):
                    output, measured = yield from self._sample(task, key, step, kit, source, factor)
                else:
                    yield job.progress(key, step.name)
                    output, measured = self._execute_with_room(step, kit, source, factor, task.stop)
                x, said = output
                by = key if step is UPSCALE else None
                cold = self.is_first(job.request.base, job.decoder, step, by, task.size, factor)
                span = Span(step.name, measured.seconds, measured.peak_bytes, cold)
                if step is UPSCALE and source is base:
                    outside = share_outside(x, job.base.space)
                if factor == 1:
                    task.kept[chain] = Kept(x, span, said)
            if step in (ENCODE, SAMPLE):
                base = x
            spans.append(span)
            notes += said
        assert x is not None  # a chain has steps
        return Made(x, tuple(spans), base, outside, tuple(dict.fromkeys(notes)))

    def _kit(self, task: Task, key: str) -> Kit:
        """The three operations of one method; sampling, which reports its steps, is bound in `_sample`."""
        vae, upscaler = self.models.vae(task.job), self.models.upscaler(task.job, key)

        def generate(factor: int, _: Tensor | None) -> Output:
            photo = task.small if factor == 1 else task.truth
            assert photo is not None  # methods that need the truth are left out without it
            return Output(from_photo(vae, images.to_tensor(photo).to(self.device)))

        def upscale(x: Tensor, factor: int) -> Output:
            assert upscaler is not None  # only methods with an upscaler have this step
            return enlarge(upscaler, x, factor)

        return Kit(
            generate=generate,
            upscale=upscale,
            decode=lambda latent: decoding.decode(vae, latent),
            size=task.size,
        )

    def _sample(
        self, task: Task, key: str, step: Step, kit: Kit, start: Tensor | None, factor: int
    ) -> Generator[Progress, None, tuple[Output, Measurement]]:
        """As `_execute`, step by step on a thread; after an out-of-memory with the next plan that asks less."""
        job, request, size = task.job, task.job.request, task.scaled(factor)
        base, notes = self.models.base(job), []
        while True:
            if base:
                if base.plan is None:  # it had to give back other models' memory
                    yield job.progress(key, "load")
                self.load(partial(base.place, size), task.stop)
            yield job.progress(key, step.name, 0, job.steps_of(step))
            try:
                output, measured, pace = yield from self._sample_once(task, key, step, kit, start, factor)
                break
            except (MemoryError, RuntimeError) as error:
                if not (base and is_out_of_memory(error)):
                    raise
                message, plan = str(error), base.plan_label
            # Out of the handler: the traceback held tensors.
            yield job.progress(key, "load")
            if not self.load(partial(base.step_down, size), task.stop):
                raise torch.OutOfMemoryError(message)
            notes.append(f"out of memory with this: {plan}; sampled again with less")
        if base:
            notes.append(f"{base.row.label}: {base.plan_label}")
        if step is REFINE:
            notes.append(
                f"the last {job.steps_of(step)} of {request.steps} steps ran again at {size[0]} x {size[1]}, from the "
                "enlarged latent with noise: texture, letters and small objects may be invented"
            )
        self.pace[request.base] = size, pace
        return Output(output.x, (*notes, *output.notes)), measured

    def _sample_once(
        self, task: Task, key: str, step: Step, kit: Kit, start: Tensor | None, factor: int
    ) -> Generator[Progress, None, tuple[Output, Measurement, float]]:
        """What the sampler made, how long it took, and seconds per step."""
        job, request, sampler = task.job, task.job.request, self.models.sampler(task.job)
        asked = request.prompt, task.scaled(factor), request.steps, request.guidance, request.seed
        count = job.steps_of(step)

        def work(report: Report, closed: threading.Event) -> tuple[Output, Measurement, float]:
            pace = Pace(report, partial(synchronise, self.device))

            def generate(factor: int, x: Tensor | None) -> Output:
                return Output(sampler(*asked, pace, None if x is None else Start(x, count)))

            sampling = replace(kit, generate=generate)
            output, measured = self._execute(step, sampling, start, factor, task.stop, closed)
            return output, measured, pace.seconds_per_step(measured.seconds)

        steps = steps_of(work)
        with contextlib.closing(steps):
            try:
                while True:
                    yield job.progress(key, step.name, next(steps), count)
            except StopIteration as end:
                return end.value

    def _execute_with_room(
        self, step: Step, kit: Kit, x: Tensor | None, factor: int, stop: threading.Event | None
    ) -> tuple[Output, Measurement]:
        """As `_execute`; where memory runs out, once more without the base model on the device."""
        try:
            return self._execute(step, kit, x, factor, stop)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            message = str(error)
        if not self.models.make_room():
            raise torch.OutOfMemoryError(message)
        output, measured = self._execute(step, kit, x, factor, stop)
        note = "out of memory: the base model gave back its own, and this was run again"
        return Output(output.x, (note, *output.notes)), measured

    # Decorated, no with block around a yield: the flag belongs to the thread, and each next() may run on another one.
    @torch.inference_mode()
    def _execute(
        self, step: Step, kit: Kit, x: Tensor | None, factor: int, *stops: threading.Event | None
    ) -> tuple[Output, Measurement]:
        narrow = self.dtype != torch.float32
        autocast = torch.autocast(self.device.type, self.dtype) if narrow else contextlib.nullcontext()
        with stops_on(*stops, left=self.loading.append), autocast, measure(self.device) as measured:
            made, notes = step.run(kit, x, factor)
            check_stopped()
            made = check_finite(made.float(), f"the stage {step.name}")
        return Output(made, notes), measured
