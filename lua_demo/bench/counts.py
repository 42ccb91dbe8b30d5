"""Counts of a forward pass: operations, lower bound of its time, copies from the host, attention kernels that ran."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from lua_demo.bench.ceilings import Ceiling
from lua_demo.networks.kinds import Network

MADE = {"arange", "tensor", "lift_fresh", "meshgrid", "argsort"}
HOST = {"_local_scalar_dense"}
MOVED = {"_to_copy", "copy_"}
ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu": "flash (CPU)",
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_efficient_attention": "memory-efficient",
    "_scaled_dot_product_cudnn_attention": "cuDNN",
    "_scaled_dot_product_attention_math": "math",
    "_softmax": "math",
}


@dataclass(frozen=True)
class Count:
    """Attributes:
    operations: that the dispatcher saw, views included.
    built: tensors that were created and not computed, such as masks and indices.
    host: copies between devices, and values read on the host.
    largest: elements of the largest tensor.
    attention: names of the kernels.
    """

    operations: int
    built: int
    host: int
    largest: int
    attention: tuple[str, ...]


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = self.built = self.host = self.largest = 0
        self.attention: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        given = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, Tensor)]
        self.operations += 1
        self.built += name in MADE
        moved = name in MOVED and len({t.device.type for t in made + given}) > 1
        self.host += moved or name in HOST
        self.largest = max([self.largest, *(t.numel() for t in made)])
        if name in ATTENTION:
            self.attention.add(ATTENTION[name])
        return out


@torch.no_grad()  # inference mode would hide what composite operations do
def count(run: Callable[[], object]) -> Count:
    with _Counter() as seen:
        run()
    return Count(seen.operations, seen.built, seen.host, seen.largest, tuple(sorted(seen.attention)))


Counted = TypeVar("Counted", bound=Network)


class _Floor(TorchDispatchMode):
    """Sums up, over all products, convolutions and attentions, the longer of computing and moving."""

    def __init__(self, ceiling: Ceiling, element_size: int):
        super().__init__()
        self.ceiling, self.element_size, self.seconds = ceiling, element_size, 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            flops = flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
            traffic = sum(t.numel() for t in tensors) * self.element_size
            peak = self.ceiling.conv if "conv" in func.__name__ else self.ceiling.gemm
            self.seconds += max(flops / peak, traffic / self.ceiling.copy)
        return out


@torch.no_grad()
def work(
    network: Counted, run: Callable[[Counted, Tensor], object], shape: tuple[int, ...], ceiling: Ceiling, size: int
) -> tuple[int, float]:
    """(FLOP, seconds that `ceiling` allows) of run(network, x); counted without computing, `size` bytes per number."""
    shadow = copy.deepcopy(network).to("meta", torch.float32)
    x = torch.empty(shape, device="meta")
    with FlopCounterMode(display=False) as flops:
        run(shadow, x)
    with _Floor(ceiling, size) as floor:
        run(shadow, x)
    return flops.get_total_flops(), floor.seconds
