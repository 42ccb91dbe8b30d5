"""Training of the pixel upscalers, SwinIR and the CNN, on what the autoencoder makes of small photos.

Their input is the decode of the small photo's latent, which is what they get in the demo; LUA's is that latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lua_demo.networks.cnn import CNN
from lua_demo.networks.swinir import SwinIR
from lua_demo.train.decoded import DecodedPhotos
from lua_demo.train.held_out import HeldOut
from lua_demo.train.loop import Facts, Stage, save_with_facts
from lua_demo.train.upscaler import DECODED, SCALES, pixel_term

WIDTH = 96
"""Channels of a new CNN."""

# L1 first; what LUA is trained for, with its reward for detail, in the last tenth.
CNN_STAGES = [
    Stage("l1", 18000, {"pixel_l1": 1.0}, lr=1e-3, crop=48, batch=8, one_head=1.0, linear=True),
    Stage("detail", 2000, DECODED, lr=2e-4, crop=48, batch=8, one_head=1.0, linear=True),
]

# A trunk of attention diverges at the CNN's rate, above all where it comes to a stem that was trained.
SWINIR_STAGES = [
    replace(CNN_STAGES[0], steps=12000, lr=2e-4),
    replace(CNN_STAGES[1], steps=3000, lr=1e-4),
]


def new_cnn(width: int | None = None, scales: Sequence[int] = SCALES) -> CNN:
    return CNN(width or WIDTH, scales=tuple(scales))


class PixelTask:
    """Trains `model` on the bases of `photos`; `samples` are those on the sample sheets."""

    def __init__(self, model: SwinIR | CNN, photos: DecodedPhotos, samples: HeldOut, held_out: HeldOut | None = None):
        self.name = type(model).__name__.lower()
        self.model, self.photos, self.samples, self.held_out = model, photos, samples, held_out

    def losses(self, stage: Stage, rng: np.random.Generator, step: int = 0) -> dict[str, Tensor]:
        """The terms that `stage` weights, averaged over the scales trained in this step."""
        device = next(self.model.parameters()).device
        scales = self.model.scales
        if stage.draws_one_head(step):
            scales = (scales[rng.integers(len(scales))],)
        totals: dict[str, Tensor] = {}
        for scale in scales:
            base, target = self.photos.batch(stage.batch, stage.crop, scale, rng)
            output = self.model(base.to(device, memory_format=torch.channels_last), scale).float()
            for name in stage.weights:
                totals[name] = totals.get(name, 0.0) + pixel_term(name, output, target.to(device), scale) / len(scales)
        return totals

    @torch.no_grad()
    def sample(self, model: SwinIR | CNN) -> np.ndarray:
        """Rows: target, then for each scale decode-then-bicubic and the model."""
        rows = [self.samples.images]
        for scale, base in self.samples.bases.items():
            rows += [F.interpolate(base, scale_factor=scale, mode="bicubic", align_corners=False), model(base, scale)]
        sheet = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
        return (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

    def validate(self, model: SwinIR | CNN) -> dict[str, float]:
        return self.held_out.gains(lambda base, _, scale: model(base, scale)) if self.held_out else {}

    def pixels(self, stage: Stage) -> int:
        sides = [(stage.crop * scale) ** 2 for scale in self.model.scales]
        return stage.batch * sum(sides) // (len(sides) if stage.one_head == 1 else 1)

    def save(self, model: SwinIR | CNN, folder: Path, facts: Facts) -> None:
        save_with_facts(model, folder, facts, torch.float16)
