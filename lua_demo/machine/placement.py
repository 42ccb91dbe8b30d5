"""Device and dtype: what was asked for, whether it is there, and what to call it."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from lua_demo.schema import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU. UserError where it is missing."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"device {name!r} does not exist; choose auto, cpu, cuda, cuda:0 or mps") from error
    index = device.index or 0
    there = {
        "cpu": index == 0,
        "cuda": torch.cuda.is_available() and index < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available() and index == 0,
    }
    if device.type not in there:
        raise UserError(f"device {name!r} is not supported; choose auto, cpu, cuda, cuda:0 or mps")
    if not there[device.type]:
        raise UserError(f"device {name!r} is not available on this machine; choose auto or cpu")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype called `name`; "auto" is bf16 on CUDA (fp16 where it knows no bf16) and fp32 elsewhere.

    Raises:
        UserError: a name that is not in `DTYPES`.
    """
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if name not in DTYPES:
        raise UserError(f"dtype {name!r} does not exist; choose auto, {' or '.join(DTYPES)}")
    return DTYPES[name]


def device_label(device: torch.device) -> str:
    """For people: "cuda:0 (NVIDIA H200)", "cpu (AMD EPYC 9B14, 2 threads)"."""
    if device.type == "cuda":
        return f"cuda:{device.index or 0} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({_cpu_name()}, {torch.get_num_threads()} threads)"
    return f"{device} ({platform.machine()})"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
