"""An engine for Spaces on ZeroGPU, where a GPU is lent for a number of seconds to a forked process.

Networks are placed in the main process, where CUDA is emulated; comparisons run in the other one. Only plain values
cross: the request goes in, progress and results (numpy arrays) come out. A stop crosses in memory that both share.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import mmap
import os
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import gradio as gr

from lua_demo.catalog.bases import BASES, REAL
from lua_demo.catalog.cost import step_tflop
from lua_demo.engine import Engine, Events
from lua_demo.machine import memory
from lua_demo.machine.cancel import Turns, raise_if_set
from lua_demo.request.job import Job, resolve, with_rows
from lua_demo.schema import Environment, Progress, Request, Result, Stopped, UserError
from lua_demo.ui.offer import ALL, SETTING, Offer

SHORTEST_S, LONGEST_S = 20, 120
"""Bounds of the GPU time that one comparison requests, in seconds. An anonymous visitor has two minutes a day, and a
request above what is left is refused."""

START_S, METHOD_S_PER_MEGAPIXEL, TFLOP_PER_S, RENDER_S_PER_MEGAPIXEL = 10.0, 1.0, 80.0, 4.0
"""Assumptions behind the requested GPU time, not measured: first use of the GPU; upscaling, decoding and metrics of one
method; speed of sampling in bf16; rendering of a scene."""


PLACED = (
    Request(),
    Request(prompt="hills", base="embedded"),
    Request(prompt="hills", base=REAL, steps=BASES[REAL].steps),
    Request(base=REAL, decoder="tiny"),
)
"""What is placed at start: the embedded networks; the base that a page on a GPU opens with, the published LUA of its
space, its full decoder and the tiny one. The front matter of README.md has the hub preload their files."""


REMEMBERED = 32
"""Number of comparisons whose environment is remembered."""


T = TypeVar("T")
THREAD = "zero-gpu"

STOPS, STOP_POLL_S, END_S = 64, 0.1, 0.5
"""Number of stop flags, more than comparisons that run at once; seconds between two looks at whether one is set;
seconds for which the end of the other process is waited for after a stop."""

WORKER, ABORTED = "ZeroGPU worker error", "GPU task aborted"
"""Title and message, as `spaces` has them, where the GPU was taken away. With this title every other message is the
name of an exception of our own; all other titles say why no GPU was lent."""


class CutShort(Stopped):
    """The GPU was taken away before the end. The message is for people; what had come is whole."""


class SharedStop(threading.Event):
    """One byte of memory that forked processes share: whoever sets it, all see it. Nothing can wait for it.

    Unlike `multiprocessing.Event` it has no lock, which a process that is killed would keep.
    """

    def __init__(self, memory: mmap.mmap, place: int):
        super().__init__()
        self._memory, self._place = memory, place

    def is_set(self) -> bool:
        return self._memory[self._place] != 0

    def set(self) -> None:
        self._memory[self._place] = 1

    def clear(self) -> None:
        self._memory[self._place] = 0


class ZeroGpuEngine(Engine):
    """An engine whose comparisons run behind `gpu`, which is `spaces.GPU`; off ZeroGPU that changes nothing.

    The other arguments are those of `Engine`.
    """

    def __init__(
        self, gpu: Callable[..., Any], device: str = "auto", dtype: str = "auto", weights: str | Path | None = None
    ):
        super().__init__(device, dtype, weights)
        self._lent = gpu(duration=lambda request, place: duration(request))(self._events)
        memory = mmap.mmap(-1, STOPS)  # made before any process is forked
        self._stops = [SharedStop(memory, place) for place in range(STOPS)]
        self._places = itertools.cycle(range(STOPS))
        self._loading = Turns()
        self._environments: OrderedDict[Request, Environment] = OrderedDict()
        self.placed: set[str] | None = None
        """Bases that sample here, the embedded one left out; None where none had to be placed at start."""

    def place(self, requests: Iterable[Request]) -> None:
        """Load the networks of `requests` before the page starts: what is on the device then moves to every lent GPU.

        So do the base models of prompts, as far as all of them fit beside each other: none is loaded later, within the
        seconds for which a GPU is lent. What cannot be loaded is printed; a network is left to the first comparison
        that needs it.
        """
        self.placed = self.placed or set()
        for request in requests:
            job = with_rows(request)
            for role in self.models.wanted(job):
                self._or_say(partial(self.models.load, job, role))
            if job.samples and job.base.hub_id:
                self._or_say(partial(self._place_base, job))

    def _or_say(self, work: Callable[[], None]) -> None:
        try:
            work()
        except UserError as error:
            print(f"not placed: {error}", flush=True)

    def _place_base(self, job: Job) -> None:
        """UserError where it does not fit beside what is placed already, or cannot be loaded."""
        request = job.request
        base, size = self.models.known_base(request.base, job.base), (request.size, request.size)
        placed = self.placed = self.placed or set()
        assert base is not None  # a published one
        # The emulated device of the main process is always empty.
        beside = sum(self.models.bases[key].need(size).weights for key in placed)
        free, needed = memory.free_bytes(self.device) - beside, base.need(size)
        if memory.RESIDENT.device(needed) * memory.MARGIN > free:
            raise UserError(
                f"{base.row.label} needs {memory.RESIDENT.device(needed) * memory.MARGIN / memory.GIB:.1f} GiB to stay "
                f"on {self.device}, of which {free / memory.GIB:.1f} GiB are left; name fewer or smaller models"
            )
        base.place_resident()
        placed.add(request.base)
        self.models.staying.add(request.base)  # the process with the GPU goes on to the next visitor

    def environment(self, request: Request | Job | None = None) -> Environment:
        """As `Engine.environment`, but of what the process with the GPU used, where `request` ran there."""
        asked = request.request if isinstance(request, Job) else request
        known = self._environments.get(asked) if asked else None
        return known or super().environment(request)

    def compare(self, request: Request | Job, stop: threading.Event | None = None) -> Events:
        """As `Engine.compare`. A GPU that is lent only after a stop is given back at once.

        Raises:
            UserError, Stopped: as there, and a UserError where no GPU was lent.
            CutShort: the GPU was taken away; all results that had come were yielded.
            RuntimeError: an error of the program in the other process.
        """
        job = request if isinstance(request, Job) else resolve(request)
        events = super().compare(job, stop)  # refuses what cannot be run, before a GPU is asked for
        return self._from_lent_gpu(job, stop) if on_zero_gpu() else events

    def _events(self, request: Request, place: int) -> Iterator[Progress | Result | Environment | Exception]:
        """What runs in the other process, until `_stops[place]` is set. Of an exception only the name would come
        across, so it is yielded.

        So is, once, what was used: networks that were loaded there are unknown here.
        """
        told = False
        try:
            with contextlib.closing(super().compare(request, self._stops[place])) as events:
                for event in events:
                    if isinstance(event, Result) and not told:
                        yield super().environment(request)
                        told = True
                    yield event
        except (UserError, Stopped) as error:
            yield type(error)(*error.args)  # without its traceback, which holds tensors
        except Exception as error:  # an error of the program, not of the GPU
            traceback.print_exc()
            yield RuntimeError(f"{type(error).__name__}: {error}")

    def _from_lent_gpu(self, job: Job, stop: threading.Event | None) -> Events:
        first = next(iter(job.methods))
        if missing := self.models.wanted(job):  # downloaded here, where no lent second passes
            yield job.progress(first, "load")
            for role in missing:
                raise_if_set(stop)
                with contextlib.suppress(UserError):  # the other process says what is missing
                    self._loading(partial(self.models.load, job, role), stop)
        yield job.progress(first, "wait")
        place = next(self._places)
        shared = self._stops[place]
        shared.clear()
        done = 0
        # The other process resolves the request anew: rows hold functions.
        events = taken_on_a_thread(self._lent(job.request, place), stop, shared)
        try:
            for event in events:
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Environment):
                    self._remember(job.request, event)
                    continue
                done += isinstance(event, Result)
                yield event
        except gr.Error as error:
            reason = f"{error.title}: {error.message}"
            if error.title == WORKER and error.message != ABORTED:
                raise RuntimeError(f"the process with the GPU ended with {error.message}; see its log") from error
            if not done:
                raise UserError(f"no GPU for this ({reason}); try again later, or with a smaller size") from error
            raise CutShort(f"The GPU was taken away ({reason}).") from error
        finally:
            events.close()

    def _remember(self, request: Request, environment: Environment) -> None:
        self._environments[request] = environment
        self._environments.move_to_end(request)
        while len(self._environments) > REMEMBERED:
            self._environments.popitem(last=False)


def taken_on_a_thread(
    events: Iterator[T], stop: threading.Event | None, shared: threading.Event
) -> Generator[T, None, None]:
    """What `events` yields and raises. `shared` is set once `stop` is, or once the generator is closed.

    `spaces` waits for a GPU, up to a minute, and for the next event without end, and cannot be interrupted. On a thread
    of its own it may go on waiting, for no longer than `END_S` of the caller's time: `shared` ends it.

    Raises:
        Stopped: `stop` is set.
    """
    came: SimpleQueue[T | None] = SimpleQueue()
    ended: Future[None] = Future()

    def take() -> None:
        try:
            for event in events:
                came.put(event)
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)
        came.put(None)

    # `spaces` finds the visitor's request in a context variable.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(take,), daemon=True, name=THREAD)
    thread.start()
    try:
        while not (ended.done() and came.empty()):
            raise_if_set(stop)
            with contextlib.suppress(Empty):
                if (event := came.get(timeout=STOP_POLL_S)) is not None:
                    yield event
        raise_if_set(stop)
        ended.result()
    finally:
        shared.set()
        thread.join(END_S)


def to_place(offer: Offer) -> tuple[Request, ...]:
    """`PLACED`, then a prompt for each base that the page's owner names. UserError where that is all of them."""
    if ALL in (offer.named or ()):
        raise UserError(
            f"{SETTING}={ALL} is for a machine of your own; on ZeroGPU, where all models are loaded before the page "
            "opens, name those to offer"
        )
    named = [key for key in BASES if key in (offer.named or ()) and BASES[key].hub_id and key != REAL]
    return (*PLACED, *(Request(prompt="hills", base=key, size=BASES[key].sizes[0]) for key in named))


def on_zero_gpu() -> bool:
    """Whether this is a Space on ZeroGPU, by the same rule as `spaces`."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def duration(request: Request) -> int:
    """Seconds of GPU time to ask for: an estimate on the safe side. More counts against the visitor, less cuts off."""
    job, target = with_rows(request), request.size * request.scale
    row = job.base
    seconds = START_S + len(request.methods) * METHOD_S_PER_MEGAPIXEL * target**2 / 2**20
    if request.prompt and row.renders:
        seconds += RENDER_S_PER_MEGAPIXEL * target**2 / 2**20
    elif request.prompt:
        runs = [(request.steps, request.size)]
        runs += [(request.steps, target)] if "native" in request.methods else []
        runs += [(job.refine_steps, target)] if "refine" in request.methods else []
        passes = 2 if request.guidance > 1 else 1
        seconds += sum(passes * steps * step_tflop(row, size, size) / TFLOP_PER_S for steps, size in runs)
    return round(min(max(seconds, SHORTEST_S), LONGEST_S))
