"""LUA and SwinIR for inference, as fast as the device allows, with the same results. Opt-in, as the weights freeze."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from lua_demo.networks.linear import Linear
from lua_demo.networks.swin import ResidualGroup, SwinUpscaler
from lua_demo.networks.windows import WindowAttention, bands

HEAD_MULTIPLE = 8
"""Head widths that the GPU's fused attention with a bias takes in bf16; with others, such as 30, it falls back to the
slow kernel."""

RECOMPILES = 128
"""How often the block may be compiled anew, in one process: once for each width, count of heads, shape and mode,
with and without shift. dynamo's own limit of 8 is used up by a LUA at two sizes."""


def accelerate(network: SwinUpscaler, dtype: torch.dtype | None = None, compiled: bool | None = None) -> SwinUpscaler:
    """A frozen copy of `network`: the same call, the same numbers but for rounding.

    Heads are zero-padded to a width that fused kernels take, and the biases of all windows are computed once. Changing
    the weights of `network` later has no effect on the copy.

    Args:
        network: a LUA or SwinIR; the copy is on the same device, and may be moved.
        dtype: to compute in, such as torch.bfloat16; None: as it is. Inputs must have it too.
        compiled: compile the blocks, one by one with torch.compile; None: on CUDA only.
    """
    fast = copy.deepcopy(network).eval().requires_grad_(False)
    for module in fast.modules():
        if isinstance(module, WindowAttention):
            pad_heads(module)
    if dtype is not None:
        fast.to(dtype)
    fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
    shifts = {0, fast.shift}
    for module in fast.modules():
        if isinstance(module, WindowAttention):
            freeze_biases(module, shifts)
    if compiled or (compiled is None and next(fast.parameters()).is_cuda):
        for layer in fast.layers:
            assert isinstance(layer, ResidualGroup)
            for block in layer.blocks:
                # Buffers are named by window size, so dynamo must not turn a size into a symbol.
                block.compile(fullgraph=True, dynamic=False)
        fast.register_forward_pre_hook(_allow_recompiles)
    return fast


def _allow_recompiles(*_: object) -> None:
    """Before a forward, as dynamo keeps its settings per thread."""
    config = torch._dynamo.config
    if config.recompile_limit < RECOMPILES:
        config.recompile_limit = RECOMPILES


@torch.no_grad()
def pad_heads(attention: WindowAttention) -> None:
    """Make every head as wide as the next multiple of `HEAD_MULTIPLE`, with zeros; the scale of the scores stays."""
    heads, inputs = attention.num_heads, attention.qkv.in_features
    width = attention.qkv.out_features // 3 // heads
    padded = -(-width // HEAD_MULTIPLE) * HEAD_MULTIPLE
    if padded == width:
        return
    qkv, proj = attention.qkv, attention.proj
    pad = padded - width
    weight = nn.functional.pad(qkv.weight.view(3, heads, width, inputs), (0, 0, 0, pad)).flatten(0, 2)
    bias = nn.functional.pad(qkv.bias.view(3, heads, width), (0, pad)).flatten()
    back = nn.functional.pad(proj.weight.view(-1, heads, width), (0, pad)).flatten(1)
    attention.qkv = _linear(weight, bias)
    attention.proj = _linear(back, proj.bias)


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> Linear:
    with torch.device("meta"):
        layer = Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = (nn.Parameter(t.contiguous(), requires_grad=False) for t in (weight, bias))
    return layer


@torch.no_grad()
def freeze_biases(attention: WindowAttention, shifts: set[int]) -> None:
    """Compute the biases for all sizes of windows that there are, and keep them as buffers, heads x N x N."""
    lengths = {length for shift in shifts for length, _, _ in bands(3 * attention.window, attention.window, shift)}
    for rows in lengths:
        for columns in lengths:
            kept = attention.bias(rows, columns)[0].contiguous()
            attention.register_buffer(f"bias_{rows}x{columns}", kept, persistent=False)


@dataclass(frozen=True)
class Recording:
    """A CUDA graph with all that it reads and writes. `indices`: of `SwinUpscaler.indices`."""

    graph: torch.cuda.CUDAGraph
    held: torch.Tensor
    out: torch.Tensor
    indices: tuple[object, ...]


class Graph:
    """A CUDA graph of `network` for each size and scale: one launch instead of hundreds. Results are copies.

    Raises:
        ValueError: the network is not on CUDA.
    """

    def __init__(self, network: SwinUpscaler):
        if not next(network.parameters()).is_cuda:
            raise ValueError("CUDA graphs need a network on CUDA: move it there first")
        self.network = network
        self.recorded: dict[tuple[tuple[int, ...], torch.dtype, int], Recording] = {}

    @torch.inference_mode()
    def __call__(self, x: torch.Tensor, scale: int) -> torch.Tensor:
        """As the network itself."""
        key = (tuple(x.shape), x.dtype, scale)
        if key not in self.recorded:
            self.recorded[key] = self._record(x, scale)
        recording = self.recorded[key]
        recording.held.copy_(x)
        recording.graph.replay()
        return recording.out.clone()

    def _record(self, x: torch.Tensor, scale: int) -> Recording:
        held = x.clone()
        with torch.cuda.device(x.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # warm-up: kernels are chosen and compiled, layouts are made
                for _ in range(3):
                    self.network(held, scale)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = self.network(held, scale)
        return Recording(graph, held, out, self.network.indices(held))
