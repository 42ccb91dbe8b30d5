"""Work on several devices: one process each, started by `accelerate launch` or `torchrun`.

Both launchers give a process its place in the environment variables RANK, WORLD_SIZE and LOCAL_RANK. Without them
there is one process and nothing here does anything. Training averages the gradients by plain all-reduce instead of
DistributedDataParallel: a step may leave a head out, and the networks are small.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from lua_demo.machine.placement import resolve_device
from lua_demo.schema import UserError

T = TypeVar("T")

PATIENCE = timedelta(hours=6)  # timeout: the other processes wait while the first one encodes the latents


@dataclass(frozen=True)
class Devices:
    """All processes of one launch, seen from one of them.

    Attributes:
        device: where this process works: "cpu", "cuda:1".
        rank, count: which of how many processes it is; the first one, `is_first`, writes.
    """

    device: str
    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share_of(self, work: Sequence[T]) -> Sequence[T]:
        """What of `work` is for this process: every `count`-th piece."""
        return work[self.rank :: self.count]

    def gather(self, value: T) -> list[T]:
        """The `value` of every process, by rank; all get the list."""
        if self.count == 1:
            return [value]
        values: list[T] = [value] * self.count
        distributed.all_gather_object(values, value)
        return values

    def collect(self, done: Sequence[T]) -> list[T]:
        """What came of each process's `share_of` some work, in the order of that work; all get the list."""
        shares = self.gather(done)
        return [shares[i % self.count][i // self.count] for i in range(sum(map(len, shares)))]

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            distributed.barrier()

    @torch.no_grad()
    def share(self, model: nn.Module) -> None:
        """Give all processes the weights and buffers of the first."""
        if self.count > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                distributed.broadcast(tensor.data, 0)

    @torch.no_grad()
    def average(self, weights: Iterable[nn.Parameter]) -> None:
        """Average the gradients over all processes. A weight that took no part anywhere gets a gradient of zero."""
        if self.count == 1:
            return
        gradients = []
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            gradients.append(weight.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """A scalar, averaged over all processes."""
        if self.count > 1:
            value = value.detach().clone()
            distributed.all_reduce(value)
            value /= self.count
        return value


ALONE = Devices("cpu")
"""The only process, on any device."""


def join(device: str) -> Devices:
    """Meet the other processes of this launch, if there are any.

    Args:
        device: as `resolve_device` takes it; "cuda" becomes this process's own GPU.
    """
    device = str(resolve_device(device))
    count, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if count == 1:
        return Devices(device)
    if not distributed.is_available():
        raise UserError("this build of torch has no torch.distributed; start one process, or install another build")
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
        atexit.register(_leave)
    return Devices(device, rank, count)


def _leave() -> None:
    """End its threads before the interpreter ends; else the process sometimes aborts."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
