"""What fits where: how a base model is placed, from numbers alone, and how much memory there is."""

from __future__ import annotations

import errno
import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError

from lua_demo.catalog.bases import Base

GIB = 2**30  # bytes
MARGIN = 1.1
"""Factor on every estimated number of bytes. 10 % are left for fragmentation and for buffers that are not counted."""

ACTIVATION_GIB = 1.6
"""Working memory of sampling one megapixel, in GiB at two bytes per value: a rule of thumb, not a measurement."""

STREAMED_GIB = 1.0
"""Weights on the device at a time with sequential offload, in GiB: the largest layer of the bases."""


OUT_OF_MEMORY = re.compile(
    r"out of memory|can(no|')t allocate memory|not enough memory|(unable|failed) to allocate|bad.alloc(ation)?"
    r"|could not create a (primitive|memory object)|STATUS_ALLOC_FAILED|OUT_OF_(DEVICE|HOST)_MEMORY"
    r"|invalid buffer size|CUBLAS_STATUS_NOT_INITIALIZED|can.t start new thread|failed to map segment",
    re.IGNORECASE,
)
"""Matches the message of every out-of-memory error, whichever library raises it."""

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Need:
    """Bytes that sampling takes: weights of text encoders, denoiser and autoencoder, and working memory."""

    encoders: int
    denoiser: int
    vae: int
    working: int

    @property
    def weights(self) -> int:
        return self.encoders + self.denoiser + self.vae


@dataclass(frozen=True)
class Plan:
    """A way to place a base model.

    Attributes:
        key, label: for records and for people.
        device, host: bytes of a `Need` that must be free on the device, and in the machine's memory beside it.
    """

    key: str
    label: str
    device: Callable[[Need], int]
    host: Callable[[Need], int]


def _streamed(_: Need) -> int:
    return round(STREAMED_GIB * GIB)


# What stays on the device is read straight onto it where the memory beside it is short.
RESIDENT = Plan("resident", "all weights stay on the device", lambda n: n.weights + n.working, _streamed)
MODEL_OFFLOAD = Plan(
    "model-offload",
    "model offload: one of text encoders, denoiser and autoencoder on the device at a time",
    lambda n: max(n.encoders, n.denoiser, n.vae) + n.working,
    lambda n: n.weights,
)
DROP_ENCODERS = Plan(
    "drop-encoders",
    "the text encoders are dropped once the prompt is encoded, and loaded again for the next prompt",
    lambda n: max(n.encoders, n.denoiser + n.vae) + n.working,
    _streamed,
)
SEQUENTIAL_OFFLOAD = Plan(
    "sequential-offload",
    "sequential offload: layer by layer on the device, slow",
    lambda n: _streamed(n) + n.working,
    lambda n: n.weights,
)
PLANS = (RESIDENT, MODEL_OFFLOAD, DROP_ENCODERS, SEQUENTIAL_OFFLOAD)
"""Fastest first. Dropping reads gigabytes from disk for every new prompt; offloading moves them over the bus."""


def need(row: Base, width: int, height: int, bytes_per_weight: int = 2) -> Need:
    """What sampling a picture of `width` x `height` px with `row` takes; the table counts two bytes per weight."""
    scale = GIB * bytes_per_weight / 2
    megapixels = width * height / 2**20
    parts = row.encoder_gib, row.denoiser_gib, row.vae_gib, ACTIVATION_GIB * megapixels
    return Need(*(round(part * scale) for part in parts))


def fitting(needed: Need, device_bytes: int, host_bytes: int | None) -> tuple[Plan, ...]:
    """The plans that fit, fastest first.

    Args:
        device_bytes: free on the device, with what the model itself holds there already.
        host_bytes: free in the machine's memory, likewise; None where that is the device's own (a CPU, unified memory),
            where there is nowhere to offload to.
    """
    if host_bytes is None:
        return tuple(plan for plan in (RESIDENT, DROP_ENCODERS) if plan.device(needed) * MARGIN <= device_bytes)
    return tuple(
        plan
        for plan in PLANS
        if plan.device(needed) * MARGIN <= device_bytes and plan.host(needed) * MARGIN <= host_bytes
    )


def slower(plan: Plan, needed: Need, host_bytes: int | None) -> tuple[Plan, ...]:
    """The plans that ask less of the device than `plan` and fit into the memory beside it, fastest first.

    `host_bytes`: as in `fitting`.
    """
    if host_bytes is None:
        return tuple(other for other in (DROP_ENCODERS,) if other.device(needed) < plan.device(needed))
    return tuple(
        other
        for other in PLANS
        if other.device(needed) < plan.device(needed) and other.host(needed) * MARGIN <= host_bytes
    )


def refusal(label: str, needed: Need, device_bytes: int, host_bytes: int | None) -> str:
    """Why nothing fits: too little memory on the device, or too little of the machine's beside it."""
    plans = (DROP_ENCODERS,) if host_bytes is None else (SEQUENTIAL_OFFLOAD, DROP_ENCODERS)
    least = min(plan.device(needed) for plan in plans) * MARGIN
    on_device = (
        f"{label} needs at least {least / GIB:.1f} GiB on the device here, of which {device_bytes / GIB:.1f} GiB are "
        "free"
    )
    if least > device_bytes or host_bytes is None:
        return on_device
    beside = min(plan.host(needed) for plan in PLANS if plan.device(needed) * MARGIN <= device_bytes) * MARGIN
    return (
        f"{label} needs at least {beside / GIB:.1f} GiB of the machine's memory beside the device, of which "
        f"{host_bytes / GIB:.1f} GiB are free: the {device_bytes / GIB:.1f} GiB of the device do not hold its weights"
    )


def free_bytes(device: torch.device) -> int:
    """Free bytes of `device`, those that torch's allocator keeps in reserve included; for a CPU, of the machine."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return available_bytes()


def available_bytes() -> int:
    """Free bytes of the machine, or of the container that this runs in, whichever are fewer."""
    free = psutil.virtual_memory().available
    try:
        # Version 2 only, and only the innermost group, which is what a container sees as its root.
        most, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        kept = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return max(0, min(free, most - used + int(kept["inactive_file"])))
    except (OSError, ValueError, KeyError):
        return free  # no limit: "max" is no number


def host_bytes(device: torch.device) -> int | None:
    """Free bytes of the machine beside `device`; None where the device has no memory of its own."""
    return available_bytes() if device.type == "cuda" else None


def give_back(device: torch.device) -> None:
    """Return unused memory to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or what it was raised from, says that memory ran out.

    Only CUDA's allocator has an exception of its own. All others, of the CPU, of oneDNN, of cuBLAS, of MPS, are plain
    errors that only their text identifies.
    """
    while error is not None:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        # Not of a UserError: its text may quote a file name. What it was raised from may still say so.
        # An ImportError, where a library is first needed and cannot be mapped.
        known = (RuntimeError, OSError, ImportError, SafetensorError)
        if isinstance(error, known) and OUT_OF_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False
