"""Runs a comparison: one stream of results that the app, the CLI and the evaluation read.

1) A request becomes a job, once, and what it starts from is read. 2) What is not loaded is loaded. 3) Each method is a
chain of steps; what was computed before is taken from there. 4) Each result is measured against the truth and yielded.
"""

from __future__ import annotations

import contextlib
import platform
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import lua_demo
from lua_demo.catalog import cost
from lua_demo.catalog.compositions import RENDER, SAMPLE
from lua_demo.catalog.prompts import understand
from lua_demo.chains import Chains, Kept, Task
from lua_demo.machine.cancel import Turns, raise_if_set
from lua_demo.machine.memory import give_back, is_out_of_memory
from lua_demo.machine.placement import device_label, resolve_device, resolve_dtype
from lua_demo.machine.timing import measure
from lua_demo.models.loaded import Absent, Models
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.pictures import images, metrics
from lua_demo.pictures.latent_check import MANY_OUTSIDE, refuse_foreign
from lua_demo.request.inputs import Source, beyond, check_shape, no_truth, source_of
from lua_demo.request.job import Job, resolve, with_rows
from lua_demo.scenes import render
from lua_demo.scenes.from_prompt import scene_from
from lua_demo.schema import BaseLatent, Environment, Progress, Request, Result, Span, Stopped, UserError

LOCK_POLL_SECONDS = 0.1


Events = Generator[Progress | Result, None, None]
"""Progress and results of one comparison, in order. Closing it stops what runs."""


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
        self.chains = Chains(self.models, self.device, self.dtype)
        # Not an RLock: the generator may be closed on another thread than the one that advanced it.
        self._lock = threading.Lock()
        self._reading = Turns()

    def environment(self, request: Request | Job | None = None) -> Environment:
        """Device, dtype, versions; and what `request` uses, as far as its weights are there: role -> "source (sha256)".

        The source of weights from the hub is their id. Settings of a request that is no job must have been checked.
        """
        job = request if isinstance(request, Job) else with_rows(request or Request())
        return Environment(
            device=device_label(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            weights=self.models.names(job),
            versions={
                "lua_demo": lua_demo.__version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        )

    def provide(self, space: str, role: str, network: nn.Module) -> None:
        """As `Models.provide`."""
        self.models.provide(space, role, network)

    def compare(self, request: Request | Job, stop: threading.Event | None = None) -> Events:
        """Run the methods of `request` in order; each result comes as soon as it is there.

        Progress precedes every stage that is computed: "load" (weights), a stage of the method, "measure" (metrics), or
        "wait" while another comparison runs; and it follows every step of the sampler. A stage that is re-used keeps
        the seconds it took when it was computed. The first result carries the notes on the photo or the prompt. A
        stage that runs out of memory is run again in a way that takes less, where there is one, and its results say so;
        else the method is left out and the others go on. So is a native column that would take too long.

        Raises:
            UserError: a bad request or photo, at once; missing or wrong weights, before anything is computed.
            Stopped: `stop` was set; at the next event. The memory of the interrupted stage is given back. Weights that
                are being loaded are loaded all the same, before another comparison begins.
        """
        job = request if isinstance(request, Job) else resolve(request)
        try:
            raise_if_set(stop)
            with _room_for_the_source(job):
                # A picture that nobody waits for is decoded to its end, before the next.
                source = source_of(job) if job.request.prompt else self._reading(partial(source_of, job), stop)
        except Stopped:
            return _stopped()
        return self._one_at_a_time(job, source, stop)

    def _one_at_a_time(self, job: Job, source: Source, stop: threading.Event | None) -> Events:
        if not self._lock.acquire(blocking=False):
            yield job.progress(next(iter(job.methods)), "wait")
            while not self._lock.acquire(timeout=LOCK_POLL_SECONDS):
                raise_if_set(stop)
        finished = stopped = False
        try:
            yield from self._run(job, source, stop)
            finished = True
        except Stopped:
            stopped = True
        finally:
            if not finished:
                give_back(self.device)
            self._release()
        if stopped:
            # Raised anew: the traceback of the first one would keep the tensors of the interrupted stage alive.
            raise Stopped("stopped on request")

    def _release(self) -> None:
        """Let the next comparison begin, at once or when what was left has ended: it would load the same."""
        loading = self.chains.loading
        if loading:
            loading.pop().add_done_callback(lambda _: self._release())
        else:
            self._lock.release()

    def _run(self, job: Job, source: Source, stop: threading.Event | None) -> Events:
        absent = yield from self._load(job, source, stop)
        with _room_for_the_source(job):
            task, notes = yield from self._task(job, source, stop)
        for key, row in job.methods.items():
            reason = absent.get(key)
            if row.needs_truth and task.truth is None:
                reason = no_truth(row, source, job.request.scale)
            if reason:
                yield Result(key, row.label, None, skipped=reason, notes=notes)
            else:
                yield (yield from self._method(task, key, notes))
            raise_if_set(stop)
            notes = ()

    def _load(
        self, job: Job, source: Source, stop: threading.Event | None
    ) -> Generator[Progress, None, Mapping[str, str]]:
        """Load what is not loaded; gives the methods whose upscaler cannot be loaded, with the reason."""
        upscalers = {key: method.upscaler for key, method in job.methods.items() if method.upscaler}
        reasons = {key: row.refusal(job.base.space, job.request.scale) for key, row in upscalers.items()}
        absent = {key: reason for key, reason in reasons.items() if reason}
        missing = [role for role in self.models.wanted(job) if role not in absent]
        base = self.chains.load(partial(self.models.base, job), stop) if job.samples else None
        if missing or (base and base.plan is None):
            yield job.progress(next(iter(job.methods)), "load")
        for role in missing:
            raise_if_set(stop)
            try:
                self.chains.load(partial(self._load_with_room, job, role), stop)
            except Absent as error:
                absent[role] = str(error)
        if base and isinstance(source, tuple):
            self.chains.load(partial(base.place, source), stop)
        return absent

    def _load_with_room(self, job: Job, role: str) -> None:
        """As `Models.load`; where memory runs out, once more without the base model; Absent where it does again."""
        for last in (False, True):
            try:
                return self.models.load(job, role)
            except (UserError, MemoryError, RuntimeError, OSError) as error:
                if not is_out_of_memory(error):
                    raise
            if last or not self.models.make_room():
                break
            give_back(self.device)
        reason = f"out of memory on {self.device} while its weights were placed; close other programs"
        raise Absent(reason) if role in job.methods else UserError(f"{role}: {reason}")

    def _task(
        self, job: Job, source: Source, stop: threading.Event | None
    ) -> Generator[Progress, None, tuple[Task, tuple[str, ...]]]:
        """What the methods work on, and the notes on its source."""
        request = job.request
        if isinstance(source, tuple):
            ignored = understand(request.prompt).ignored if not job.base.hub_id else ()
            notes = (f"words that the model does not know, ignored: {', '.join(ignored)}",) if ignored else ()
            if job.renders:
                task, said = yield from self._rendered(job, source, stop)
                return task, (*said, *notes)
            kept = self.chains.shelf(job, (request.prompt, source, request.seed, request.steps, request.guidance))
            return Task(job, source, kept, stop), notes
        if isinstance(source, BaseLatent):
            vae, name = self.models.vae(job), Path(request.latent).name
            check_shape(source, vae.latent_channels, vae.stride, name)
            refuse_foreign(source, job.base.space, name)
            latent = torch.from_numpy(source.values)[None].to(self.device)
            kept = self.chains.shelf(job, source.values.shape, source.values.tobytes())
            return Task(job, source.size, kept, stop, latent=latent), ()
        small = self.chains.load(partial(source.at, 1), stop)
        truth = self.chains.load(partial(source.at, request.scale), stop) if source.holds(request.scale) else None
        # The base picture stands for the photo, its crop and its size at once.
        kept = self.chains.shelf(job, small.shape, small.tobytes())
        return Task(job, source.size, kept, stop, small, truth), source.notes

    def _rendered(
        self, job: Job, size: tuple[int, int], stop: threading.Event | None
    ) -> Generator[Progress, None, tuple[Task, tuple[str, ...]]]:
        """The scene of the prompt at the target size, from where on it is a photo of that size, and notes on it.

        The base is that picture shrunk, as a photo is. Rendered at the base size it would not show the same: there is
        one ray per pixel, and what is finer than a pixel is left out and not averaged.
        """
        request, drawn = job.request, scene_from(job.request.prompt, job.request.seed)
        kept = self.chains.shelf(job, (request.prompt, size, request.seed, request.scale))
        task = Task(job, size, kept, stop)
        width, height = task.target
        if (RENDER,) not in kept:
            yield job.progress(next(iter(job.methods)), RENDER.name)
            try:
                with measure(self.device) as measured:
                    picture = render(drawn.scene, (width, height), lambda: raise_if_set(stop))
            except MemoryError as error:
                raise UserError(
                    f"out of memory: the scene is rendered at {width} x {height}; choose a smaller size or scale"
                ) from error
            cold = self.chains.is_first(RENDER, task.target)
            span = Span(RENDER.name, measured.seconds, measured.peak_bytes, cold)
            kept[RENDER,] = Kept(torch.from_numpy(picture), span, ())
        truth = kept[RENDER,].x.numpy()
        small = images.Fitted(Image.fromarray(truth), size, (0, 0, width, height)).at(1)
        notes = [f"a rendered scene, no diffusion model: rendered at {width} x {height}, for the base shrunk"]
        if drawn.left_out:
            words = ", ".join(drawn.left_out)
            notes.append(f"a scene has one place, ground, sky, time and light; left out: {words}")
        return replace(task, small=small, truth=truth), tuple(notes)

    def _method(self, task: Task, key: str, notes: tuple[str, ...]) -> Generator[Progress, None, Result]:
        row = task.job.methods[key]
        try:
            if row.sampled_large or row.refines:
                reason = yield from self._too_much(task, key)
                if reason:
                    return Result(key, row.label, None, skipped=reason, notes=notes)
            if row.sampled_large or row.refines:
                notes = (*notes, *beyond(task.job, task.target, row.refines))
            if row.is_truth:
                spans = [replace(task.kept[row.steps].span, shared=True)] if row.steps else []
                return Result(key, row.label, task.truth, tuple(spans), notes=notes)
            made = yield from self.chains.run(task, key, row.steps)
            remark = self.models.note(task.job, key)
            notes = (*notes, *made.notes, *([remark] if remark else []))
            if made.outside is not None and made.outside > MANY_OUTSIDE:
                notes += (f"{made.outside:.1%} of the enlarged latent is outside the range of photos; look closely",)
            image = images.to_array(made.x)
            scores, how = yield from self._measure(task, key, image)
            latent = None
            if made.base is not None:
                latent = BaseLatent(made.base[0].cpu().numpy(), task.job.base.space, task.size)
            return Result(
                key, row.label, image, made.spans, scores, notes=notes + how, latent=latent, outside=made.outside
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        give_back(self.device)
        size = task.job.request.size
        reason = f"out of memory on {self.device}; choose a smaller size than {size} or a smaller scale"
        return Result(key, row.label, None, skipped=reason, notes=notes)

    def _measure(
        self, task: Task, key: str, image: np.ndarray
    ) -> Generator[Progress, None, tuple[Mapping[str, float | None] | None, tuple[str, ...]]]:
        """Metrics against the truth, and notes on how they were taken; None without a truth."""
        truth = task.truth
        if truth is None:
            return None, ()
        raise_if_set(task.stop)
        yield task.job.progress(key, "measure")
        shown, notes = image, tuple[str, ...]()
        for device in dict.fromkeys((self.device.type if self.device.type == "cuda" else "cpu", "cpu")):
            try:
                if image.shape != truth.shape:
                    size = truth.shape[1], truth.shape[0]
                    shown = images.enlarge(image, size)
                    notes = (f"measured after bicubic enlargement to {size[0]} x {size[1]} pixels",)
                check = partial(raise_if_set, task.stop)
                return metrics.against(shown, truth, self.device if device == "cuda" else "cpu", check), notes
            except Stopped:  # the picture is whole
                return None, ("not measured: stopped",)
            except (MemoryError, RuntimeError, OSError, ImportError) as error:
                if not is_out_of_memory(error):
                    raise
            give_back(self.device)
        return None, ("not measured: out of memory",)

    def _too_much(self, task: Task, key: str) -> Generator[Progress, None, str | None]:
        """Why a column that samples at the target size is left out: it does not fit or, judged by the pace of the base
        size, takes long.
        """
        job, request = task.job, task.job.request
        if request.force_native:
            return None
        target, force = task.target, "or force it (--force-native)"
        base = self.models.base(job)
        if base and not base.plans(target):
            return f"{base.refusal(target)}; choose a smaller size or scale, {force}"
        if request.base not in self.chains.pace:
            yield from self.chains.run(task, key, (SAMPLE,))
        size, pace = self.chains.pace[request.base]
        steps = job.refine_steps if job.methods[key].refines else request.steps
        seconds = cost.native_seconds(job.base, steps, size, target, pace)
        if seconds <= cost.LONGEST_SECONDS:
            return None
        return (
            f"it would take about {cost.duration(seconds)}: {steps} steps at {target[0]} x {target[1]}, judged "
            f"by {pace:.2g} s for one at {size[0]} x {size[1]}; choose a smaller size or scale or fewer steps, {force}"
        )


def _stopped() -> Events:
    """A comparison that was stopped before it began."""
    raise Stopped("stopped on request")
    yield


@contextlib.contextmanager
def _room_for_the_source(job: Job) -> Iterator[None]:
    """Out of memory while the source is read is a UserError that asks for a smaller source."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if isinstance(error, UserError) or not is_out_of_memory(error):
            raise
        name = Path(job.request.image or job.request.latent).name or "the prompt"
        raise UserError(f"out of memory while {name} was read; use a smaller one, or close other programs") from error
