"""Training of the two upscalers that the demo compares: LUA on latents, SwinIR on pixels, with the same trunk.

Both see the same crops and learn both scales on one trunk against one target. LUA's input is the latent of the small
image; SwinIR's is the decode of that latent, which is what it gets in the demo: the baseline has every advantage that
LUA has.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lua_demo import LUA, SwinIR
from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.train import losses as L
from lua_demo.train.data import Crops, shrink
from lua_demo.train.loop import Stage, save_with_facts
from lua_demo.weights import WEIGHTS_DIR, load_autoencoder, load_lua, load_swinir

SCALES = (2, 4)
TRUNK = dict(
    embed_dim=128,
    depths=(4, 4, 4),
    num_heads=(4, 4, 4),
    window_size=8,
    mlp_ratio=2,
    head_num_feat=64,
    scales=SCALES,
)

LATENT_TERMS = {"latent_l1": L.l1, "latent_fft": L.fft_l1}
PIXEL_TERMS = {"pixel_l1": L.l1, "gradient": L.gradient_l1, "pixel_fft": L.fft_l1}

PIXEL = {"pixel_l1": 1.0, "gradient": 0.2}
LUA_STAGES = [
    Stage("latent", 500, {"latent_l1": 1.0, "latent_fft": 0.1}, lr=5e-4, betas=(0.9, 0.995)),
    Stage("pixel", 4000, PIXEL, lr=4e-4, batch=4),
]
SWINIR_STAGES = [Stage("pixel", 1500, PIXEL, lr=5e-4, crop=96, batch=4)]


def new_lua(channels: int) -> LUA:
    return LUA(in_chans=channels, residual="linear", **TRUNK)


@torch.no_grad()
def fit_skips(lua: LUA, vae: Autoencoder, crops: Crops, batches: int = 12, count: int = 12) -> None:
    """Start `lua` from the best linear upscaler of the latents of `vae`, found by least squares in seconds."""
    for scale in SCALES:
        images = (crops.batch(count, crops.smallest, np.random.default_rng(i)) for i in range(batches))
        lua.skips[f"x{scale}"].fit((vae.encode(shrink(image, scale)), vae.encode(image)) for image in images)


class UpscalerTask:
    """`kind` is "lua" or "swinir"."""

    def __init__(
        self, kind: str, crops: Crops, held_out: Tensor, autoencoder: str | None = None, init: str | None = None
    ):
        self.name, self.crops, self.held_out = kind, crops, held_out
        self.vae = load_autoencoder(autoencoder or WEIGHTS_DIR / "embedded" / "autoencoder").requires_grad_(False)
        self.vae = self.vae.to(memory_format=torch.channels_last)
        if init:
            self.model = {"lua": load_lua, "swinir": load_swinir}[kind](init)
        elif kind == "lua":
            self.model = new_lua(self.vae.latent_channels)
            fit_skips(self.model, self.vae, crops)
        else:
            self.model = SwinIR(residual="bicubic", **TRUNK)

    def losses(self, stage: Stage, rng: np.random.Generator) -> dict[str, Tensor]:
        """The terms that `stage` weights, averaged over the scales: those of `LATENT_TERMS` and of `PIXEL_TERMS`."""
        device = next(self.model.parameters()).device
        self.vae.to(device)
        image = self.crops.batch(stage.batch, stage.crop, rng).to(device, memory_format=torch.channels_last)
        latent_terms, pixel_terms = (
            {name: term for name, term in terms.items() if name in stage.weights}
            for terms in (LATENT_TERMS, PIXEL_TERMS)
        )
        with torch.no_grad():
            target = self.vae.encode(image) if latent_terms else None
        totals = dict.fromkeys(stage.weights, 0.0)
        for scale in SCALES:
            with torch.no_grad():
                latent = self.vae.encode(shrink(image, scale))
            if self.name == "lua":
                upscaled = self.model(latent, scale)
                output = self.vae.decode(upscaled) if pixel_terms else None
            else:
                with torch.no_grad():
                    small = self.vae.decode(latent).float().clamp(0, 1)
                upscaled, output = None, self.model(small, scale)
            for name, term in latent_terms.items():
                totals[name] = totals[name] + term(upscaled, target) / len(SCALES)
            for name, term in pixel_terms.items():
                totals[name] = totals[name] + term(output, image) / len(SCALES)
        return totals

    @torch.no_grad()
    def sample(self, model: torch.nn.Module) -> np.ndarray:
        """Rows: target, then for each scale decode-then-bicubic and the model."""
        rows = [self.held_out]
        for scale in SCALES:
            latent = self.vae.encode(shrink(self.held_out, scale))
            small = self.vae.decode(latent).clamp(0, 1)
            rows.append(F.interpolate(small, scale_factor=scale, mode="bicubic"))
            rows.append(self.vae.decode(model(latent, scale)) if self.name == "lua" else model(small, scale))
        sheet = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
        return (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    def save(self, model: torch.nn.Module, folder: Path, facts: dict) -> None:
        save_with_facts(model, folder, facts)
