"""A published base model on a device: loaded from the hub or a folder, placed so that it fits, and sampled."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from huggingface_hub.errors import GatedRepoError, HFValidationError
from torch import Tensor

from lua_demo.catalog.bases import Base
from lua_demo.catalog.families import FAMILIES, Given, Pipeline
from lua_demo.machine import memory
from lua_demo.machine.cancel import leave_if_stopped
from lua_demo.machine.memory import DROP_ENCODERS, MODEL_OFFLOAD, RESIDENT, SEQUENTIAL_OFFLOAD, Plan, give_back
from lua_demo.models.generators import Start, sample
from lua_demo.models.weights import hub_file
from lua_demo.schema import UserError

INDEX = "model_index.json"
Held = tuple[int, int]
"""Bytes of weights on a device, and beside it."""


class BaseModel:
    """One row of `BASES` with weights. `plan` is how it is placed; None as long as nothing is loaded.

    Args:
        source: folder of a diffusers pipeline, or a hub id.
        dtype: of all weights.
    """

    def __init__(self, row: Base, source: str | os.PathLike[str], device: torch.device, dtype: torch.dtype):
        self.row, self.source, self.device, self.dtype = row, source, device, dtype
        self.family = FAMILIES[row.family]
        self.plan: Plan | None = None
        self._pipeline: Pipeline = None
        self._encoded: tuple[tuple[str, bool], Given] | None = None

    @property
    def plan_label(self) -> str:
        """How it is placed, for people."""
        return self.plan.label if self.plan else "not loaded"

    def need(self, size: tuple[int, int]) -> memory.Need:
        """What sampling takes: the table's numbers, or where the weights lie in a folder, what is there."""
        needed = memory.need(self.row, *size, self.dtype.itemsize)
        if not Path(self.source).is_dir():
            return needed
        folder, size_of_one = Path(self.source), self.dtype.itemsize
        parts = {part: _values(folder / part) * size_of_one for part in components(self.row, folder)}
        texts = sum(count for part, count in parts.items() if part.startswith("text_encoder"))
        return replace(needed, encoders=texts, denoiser=parts.get(self.family.denoiser, 0), vae=parts.get("vae", 0))

    def plans(self, size: tuple[int, int], others: Held = (0, 0)) -> tuple[Plan, ...]:
        """The ways in which a picture of `size` px can be sampled here, fastest first; what it and
        `others` hold counts as free.
        """
        return memory.fitting(self.need(size), *self._free(others))

    def refusal(self, size: tuple[int, int], others: Held = (0, 0)) -> str:
        """Why `plans` is empty."""
        return memory.refusal(self.row.label, self.need(size), *self._free(others))

    def _free(self, others: Held) -> tuple[int, int | None]:
        on_device, on_host = self.held()
        host = memory.host_bytes(self.device)
        free = memory.free_bytes(self.device) + on_device + others[0]
        return free, None if host is None else host + on_host + others[1]

    def place(self, size: tuple[int, int]) -> None:
        """Load it, if it is not there, in the fastest way in which a picture of `size` px can be sampled.

        Raises:
            UserError: nothing fits; gated, not there, not reachable, or no pipeline of its family.
        """
        fitting = self.plans(size)
        if not fitting:
            raise UserError(self.refusal(size))
        if self.plan not in fitting and not self._use_first(fitting):
            raise UserError(
                f"{self.row.label} ran out of memory on {self.device} while it was loaded, in all "
                f"{len(fitting)} ways that seemed to fit; end what else uses the device, or choose another base"
            )

    def place_resident(self) -> None:
        """Load it so that all weights stay on the device, whatever is free there."""
        if self.plan is not RESIDENT:
            self._use(RESIDENT)

    def step_down(self, size: tuple[int, int]) -> bool:
        """After an out-of-memory: give back everything and use the next plan that asks less. False where there is none.

        What the text encoders made of the prompt is kept.
        """
        if self.plan is None:
            return False
        plans = memory.slower(self.plan, self.need(size), self._free((0, 0))[1])
        return self._use_first(plans)

    def release(self) -> None:
        """Give back the memory of all weights; they are loaded again when they are needed."""
        self._pipeline = None
        if self.plan is not None:
            self.plan = None
            give_back(self.device)

    def __call__(
        self,
        prompt: str,
        size: tuple[int, int],
        steps: int,
        guidance: float,
        seed: int,
        told: Callable[[int], None] = lambda step: None,
        start: Start | None = None,
    ) -> Tensor:
        """Prompt -> normalised latent, as `generators.sample`. The text encoders run once for a prompt."""
        # Accelerate cannot stream tensors that were made in inference mode.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            try:
                given = self._text(prompt, guidance > 1)
                if self._pipeline is None:
                    self._load_for(DROP_ENCODERS, encoders=False)
                return sample(self._pipeline, self.family, given, size, steps, guidance, seed, told, start)
            finally:
                # A pipeline takes its networks off the device at its own end: not after a stop or an error, and not
                # where another pipeline was made of them.
                if self._pipeline is not None:
                    self._pipeline.maybe_free_model_hooks()

    def _text(self, prompt: str, guided: bool) -> Given:
        if self._encoded is None or self._encoded[0] != (prompt, guided):
            self._encoded = None
            if self.plan is DROP_ENCODERS:
                self._load_for(DROP_ENCODERS, encoders=True)
            self._encoded = (prompt, guided), self.family.encode(self._pipeline, prompt, guided, self.device)
            if self.plan is DROP_ENCODERS:
                self._pipeline = None
                give_back(self.device)
        return self._encoded[1]

    def _use_first(self, plans: Sequence[Plan]) -> bool:
        """Place it by the first of `plans` that loading does not run out of memory with; False where all do."""
        for plan in plans:
            try:
                self._use(plan)
                return True
            except (UserError, RuntimeError, MemoryError, OSError) as error:
                if not memory.is_out_of_memory(error):
                    raise
            give_back(self.device)  # here, where the error and its traceback no longer hold tensors
        return False

    def _use(self, plan: Plan) -> None:
        self.release()
        if plan is not DROP_ENCODERS:  # which loads one half at a time, when it is needed
            self._load_for(plan)
        self.plan = plan

    def _load_for(self, plan: Plan, encoders: bool | None = None) -> None:
        """Load the pipeline, or only its text encoders, or all but these, and place it."""
        self._pipeline = None
        give_back(self.device)
        index = components(self.row, self.source)
        texts = [name for name in index if name.startswith("text_encoder")]
        without = {None: [], True: [self.family.denoiser, "vae"], False: texts}[encoders]
        with torch.inference_mode(False):
            changes = {name: None for name in (*without, *self.family.without)}
            straight = plan in (RESIDENT, DROP_ENCODERS) and self._host_is_short()
            pipeline = leave_if_stopped(partial(self._from_pretrained, changes, straight))
            if plan in (RESIDENT, DROP_ENCODERS):
                pipeline.to(self.device)
            elif plan is MODEL_OFFLOAD:
                pipeline.enable_model_cpu_offload(device=self.device)
            elif plan is SEQUENTIAL_OFFLOAD:
                pipeline.enable_sequential_cpu_offload(device=self.device)
        self._pipeline = pipeline

    def _host_is_short(self) -> bool:
        """Whether the weights would not fit into the memory beside the device, and must be read straight onto it.

        Elsewhere they are not: ZeroGPU's emulation of CUDA in the main process takes only what is moved there.
        """
        beside = memory.host_bytes(self.device)
        return beside is not None and self.need((512, 512)).weights * memory.MARGIN > beside

    def _from_pretrained(self, changes: Mapping[str, object], straight: bool) -> Pipeline:
        """The pipeline with `changes`; its weights go `straight` to the device, a CUDA one, or beside it."""
        import diffusers  # noqa: PLC0415  takes seconds

        kind = getattr(diffusers, self.family.pipeline)
        variant = None if Path(self.source).is_dir() else self.row.variant
        if straight:
            changes = {**changes, "device_map": "cuda"}
        try:
            with torch.cuda.device(self.device) if straight else contextlib.nullcontext():
                return kind.from_pretrained(self.source, dtype=self.dtype, variant=variant, **changes)
        except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(f"{self.source} could not be loaded as a {self.family.pipeline} ({line[:200]})") from error

    def held(self) -> Held:
        """Bytes of the weights on the device, and beside it."""
        if self._pipeline is None:
            return 0, 0
        modules = [part for part in self._pipeline.components.values() if isinstance(part, torch.nn.Module)]
        tensors = [t for part in modules for t in (*part.parameters(), *part.buffers())]
        there = sum(t.nbytes for t in tensors if t.device.type == self.device.type)
        return there, sum(t.nbytes for t in tensors) - there


def _values(folder: Path) -> int:
    """How many values the safetensors files in `folder` hold, by their headers."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total


def components(row: Base, source: str | os.PathLike[str]) -> list[str]:
    """Names of the components of the pipeline at `source`; UserError where it cannot be downloaded."""
    if Path(source).is_dir():
        file = Path(source) / INDEX
    else:
        try:
            file = hub_file(os.fspath(source), INDEX)
        except GatedRepoError as error:
            raise UserError(f"{row.label} is gated: {row.access or f'ask for access at {source}'}") from error
        except (OSError, HFValidationError) as error:
            gated = f" (it is gated: {row.access})" if row.gated else ""
            raise UserError(
                f"{row.label} could not be downloaded: {source} is not here, and the Hugging Face hub did not send it "
                f"({type(error).__name__}); go online{gated}, or choose another base"
            ) from error
    try:
        return [name for name in json.loads(file.read_text(encoding="utf-8")) if not name.startswith("_")]
    except (OSError, ValueError) as error:
        raise UserError(f"{source} is no diffusers pipeline: its {INDEX} is missing or broken; get it again") from error
