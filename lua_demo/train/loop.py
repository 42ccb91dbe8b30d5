"""The training loop of all networks: stages as data, EMA, bf16, checkpoints, a JSON log and sample images."""

from __future__ import annotations

import copy
import functools
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lua_demo.machine.devices import Devices
from lua_demo.networks.kinds import Network
from lua_demo.pictures.images import save_png
from lua_demo.schema import UserError
from lua_demo.train.optimiser import Optimiser

Model = TypeVar("Model", bound=nn.Module)
Facts = Mapping[str, object]
"""What is known of a training, as JSON holds it."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one set of loss weights.

    Attributes:
        steps: optimiser steps.
        weights: weight by name of loss term; a task computes only the terms named here.
        lr: learning rate; halved at 50, 75 and 90 % of the stage, as in the LUA paper.
        linear: it falls linearly to 0 instead, which is the better way when time is short.
        crop: side of the high resolution crops in px; for pixel upscalers that of the small ones, whatever the scale.
        batch: crops per step and device.
        betas: Adam's.
        one_head: share of the stage, at its end, in which a step trains one scale, drawn at random, instead of all.
    """

    name: str
    steps: int
    weights: dict[str, float]
    lr: float = 2e-4
    crop: int = 256
    batch: int = 8
    betas: tuple[float, float] = (0.9, 0.99)
    one_head: float = 0.0
    linear: bool = False

    def draws_one_head(self, step: int) -> bool:
        return step >= self.steps * (1 - self.one_head)


def read_plan(text: str) -> list[Stage]:
    """The stages of a checkpoint; a field that did not exist when it was written has its default."""
    return [Stage(**{**stage, "betas": tuple(stage["betas"])}) for stage in json.loads(text)]


class Savable(Network, Protocol):
    """A network of the hub's mixin."""

    def save_pretrained(self, folder: Path, /) -> object: ...


class Task(Protocol[Model]):
    """What is trained: the loop knows nothing else about it."""

    name: str
    model: Model

    def losses(self, stage: Stage, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        """The unweighted loss terms of one random batch, by name, at `step` of `stage`."""

    def sample(self, model: Model) -> np.ndarray:
        """A contact sheet, H x W x 3 uint8, made by `model` (the EMA)."""

    def validate(self, model: Model) -> dict[str, float]:
        """What `model` (the EMA) reaches on pictures kept apart, by name; empty where there are none."""

    def pixels(self, stage: Stage) -> int:
        """Target pixels that a step of `stage` compares with, on average over the scales it may draw."""

    def save(self, model: Model, folder: Path, facts: Facts) -> None:
        """Write `model` (the EMA) to `folder` in its final form."""


@dataclass
class Settings:
    """How to run: all of it may change between two runs of the same training."""

    out: Path
    devices: Devices = field(default_factory=lambda: Devices("cpu"))
    bf16: bool = True
    optimiser: str = "adam"
    ema: float = 0.999
    clip: float = 0.4
    warmup: int = 100
    save_every: int = 200
    sample_every: int = 500
    validate_every: int = 250
    seed: int = 0
    facts: Facts = field(default_factory=dict)


def save_with_facts(model: Savable, folder: Path, facts: Facts, dtype: torch.dtype = torch.float32) -> None:
    """`save_pretrained` into `folder` in `dtype`, with what is known of the training beside it in training.json."""
    copy.deepcopy(model).to(dtype).save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def learning_rate(stage: Stage, step: int, warmup: int) -> float:
    """The rate at `step` of `stage`: linear warm-up, then MultiStep or a straight line to 0."""
    rising = min(warmup, stage.steps // 4)
    if step < rising:
        return stage.lr * (step + 1) / rising
    if stage.linear:
        return stage.lr * (stage.steps - step) / (stage.steps - rising)
    return stage.lr * 0.5 ** sum(step >= stage.steps * share for share in (0.5, 0.75, 0.9))


def train(task: Task[Model], stages: list[Stage], settings: Settings) -> None:
    """Run all stages, or what is left of them: a second call with the same `settings.out` resumes from the last
    checkpoint. On several devices every one of them runs this, and the first one writes.
    """
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    state_file = out / "state.pt"
    plan = [asdict(stage) for stage in stages]
    devices = settings.devices
    model = task.model.to(devices.device).train()
    devices.share(model)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    optimiser = Optimiser(model, settings.optimiser)
    done, seconds = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, map_location=devices.device, weights_only=True)
        if read_plan(state["plan"]) != stages:
            raise UserError(
                f"{state_file} belongs to a training with other stages; choose another --out or delete that folder"
            )
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        done, seconds = state["done"], state["seconds"]

    total = sum(stage.steps for stage in stages)
    log = (out / "log.jsonl").open("a") if devices.is_first else None
    bar = tqdm(total=total, initial=done, desc=task.name, unit="step", disable=not devices.is_first)
    autocast = torch.autocast(torch.device(devices.device).type, torch.bfloat16, enabled=settings.bf16)
    sums: dict[str, Tensor] = {}
    steps = 0
    began = since = time.monotonic()

    def checkpoint() -> None:
        took = seconds + time.monotonic() - began
        state = {
            "plan": json.dumps(plan), "done": done, "seconds": took,
            "model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict(),
        }  # fmt: skip
        torch.save(state, state_file.with_suffix(".tmp"))
        os.replace(state_file.with_suffix(".tmp"), state_file)
        facts = {
            **settings.facts, "steps": done, "of_steps": total, "pixels": _pixels(task, stages, done) * devices.count,
            "seconds": round(took), "stages": plan,
        }  # fmt: skip
        task.save(average, out / "model", facts)

    offset = 0
    for stage in stages:
        for step in range(max(0, done - offset), stage.steps):
            rate = learning_rate(stage, step, settings.warmup)
            optimiser.set(rate, stage.betas)
            # Seeded by step: a resumed run sees the batches that the uninterrupted run would have seen.
            rng = np.random.default_rng((settings.seed, done, devices.rank) if devices.rank else (settings.seed, done))
            torch.manual_seed(settings.seed * 1_000_003 + done)
            with autocast:
                terms = task.losses(stage, rng, step)
            loss = total_of(stage.weights[name] * terms[name] for name in stage.weights)
            if not torch.isfinite(loss):
                raise RuntimeError(
                    f"{task.name}: the loss is {loss.item()} at step {done}; lower the rate of stage {stage.name}"
                )
            optimiser.zero_grad()
            loss.backward()
            devices.average(optimiser.weights)
            norm = nn.utils.clip_grad_norm_(optimiser.weights, settings.clip)
            optimiser.step()
            done += 1
            # The EMA restarts with each stage: else it would average weights of the stage before.
            decay = min(settings.ema, (1 + step) / (5 + step))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
            for name, value in {**terms, "loss": loss, "grad_norm": norm}.items():
                sums[name] = sums.get(name, 0.0) + value.detach()
            steps += 1
            bar.update()
            last = done == total
            if done % 50 == 0 or step + 1 == stage.steps:
                now = time.monotonic()
                means = {name: round(devices.mean(value).item() / steps, 6) for name, value in sums.items()}
                elapsed = round(seconds + now - began, 1)
                entry = {"step": done, "stage": stage.name, "lr": rate, "seconds": elapsed,
                         "steps_per_s": round(steps / (now - since), 2), **means}  # fmt: skip
                if done % settings.validate_every == 0 or last:
                    entry |= {"pixels": _pixels(task, stages, done) * devices.count, **task.validate(average)}
                if log:
                    print(json.dumps(entry), file=log, flush=True)
                bar.set_postfix(stage=stage.name, loss=f"{means['loss']:.4f}")
                sums, steps, since = {}, 0, now
            if devices.is_first and (done % settings.sample_every == 0 or last):
                save_png(task.sample(average), out / "samples" / f"{done:07d}.png")
            if devices.is_first and (done % settings.save_every == 0 or last):
                checkpoint()
        offset += stage.steps
    if log:
        log.close()
    bar.close()
    devices.wait()


def total_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of one term at least."""
    return functools.reduce(torch.add, terms)


def with_steps(stages: Sequence[Stage], total: int) -> list[Stage]:
    """`stages` with `total` steps, shared as before."""
    before = sum(stage.steps for stage in stages)
    return [replace(stage, steps=max(1, stage.steps * total // before)) for stage in stages]


def _pixels(task: Task[Model], stages: list[Stage], done: int) -> int:
    """Target pixels that one device compared with in the first `done` steps."""
    seen, left = 0, done
    for stage in stages:
        steps = min(left, stage.steps)
        seen, left = seen + steps * task.pixels(stage), left - steps
    return seen
