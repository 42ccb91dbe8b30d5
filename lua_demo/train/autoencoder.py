"""Training of the embedded autoencoder: a latent space made to be upscaled.

Beside reconstruction, two things are asked of the latents. *Scale equivariance* (compare EQ-VAE, arXiv 2502.09509):
the decode of the downsampled latent is the downsampled image. *Upscalability*: a small convolutional upscaler,
trained along and thrown away afterwards, must be able to turn the latent of the small image into one that decodes to
the large image. The second shapes the encoder's choice of code and teaches the decoder to decode the averaged latents
that an upscaler gives where detail is lost.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.autoencoder import Autoencoder, ResBlock
from lua_demo.train import losses as L
from lua_demo.train.data import Crops, shrink
from lua_demo.train.loop import Stage, save_with_facts

WEIGHTS = {"l1": 1.0, "gradient": 0.3, "eq_decode": 0.1, "upscaled": 0.3}
STAGES = [
    Stage("reconstruct", 1200, WEIGHTS, lr=5e-4, crop=128, batch=16),
    Stage("refine", 2000, WEIGHTS, lr=4e-4, crop=160, batch=12),
]


class Probe(nn.Module):
    """The throw-away x2 upscaler of latents: bicubic plus a convolutional residual."""

    def __init__(self, channels: int, width: int = 128, blocks: int = 3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            *(ResBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latent: Tensor) -> Tensor:
        return F.interpolate(latent, scale_factor=2, mode="bicubic") + self.body(latent)


class WithProbe(nn.Module):
    def __init__(self, autoencoder: Autoencoder):
        super().__init__()
        self.autoencoder = autoencoder
        self.probe = Probe(autoencoder.latent_channels)


class AutoencoderTask:
    name = "autoencoder"

    def __init__(self, crops: Crops, held_out: Tensor, autoencoder: Autoencoder | None = None):
        self.crops, self.held_out = crops, held_out
        if autoencoder is None:
            autoencoder = Autoencoder()
            autoencoder.start_from_pca(crops.batch(512, 64, np.random.default_rng(0)))
        self.model = WithProbe(autoencoder).to(memory_format=torch.channels_last)

    def losses(self, stage: Stage, rng: np.random.Generator) -> dict[str, Tensor]:
        model, device = self.model.autoencoder, next(self.model.parameters()).device
        image = self.crops.batch(stage.batch, stage.crop, rng).to(device, memory_format=torch.channels_last)
        small = shrink(image, 2)
        latent, latent_small = model.encode(image), model.encode(small)
        output = model.decode(latent)
        terms = {"l1": L.l1(output, image), "l2": L.l2(output, image), "gradient": L.gradient_l1(output, image)}
        if "upscaled" in stage.weights:
            upscaled = model.decode(self.model.probe(latent_small))
            terms["upscaled"] = L.l1(upscaled, image) + 0.5 * L.gradient_l1(upscaled, image)
        if "eq_decode" in stage.weights:
            latent_down = F.interpolate(latent.float(), scale_factor=0.5, mode="bicubic", antialias=True)
            terms["eq_decode"] = L.l1(model.decode(latent_down), small)
        return terms

    @torch.no_grad()
    def sample(self, model: WithProbe) -> np.ndarray:
        autoencoder = model.autoencoder
        small = shrink(self.held_out, 2)
        rows = [
            self.held_out,
            autoencoder.decode(autoencoder.encode(self.held_out)),
            autoencoder.decode(model.probe(autoencoder.encode(small))),
        ]
        sheet = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
        return (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

    @torch.no_grad()
    def save(self, model: WithProbe, folder: Path, facts: dict) -> None:
        """Saved with the scaling and shift factors that give normalised latents over the training photos."""
        scaling, shift = model.autoencoder.scaling_factor, model.autoencoder.shift_factor
        latents = model.autoencoder.encode(self.crops.batch(1024, 64, np.random.default_rng(1)))
        model.autoencoder.normalise(latents.mean().item(), latents.std().item())
        save_with_facts(model.autoencoder, folder, facts)
        model.autoencoder.scaling_factor, model.autoencoder.shift_factor = scaling, shift
