"""Training of the two upscalers that the demo compares: LUA on latents, SwinIR on pixels, with the same trunk.

Both see the same crops and learn both scales on one trunk against one target. LUA's input is the latent of the small
image; SwinIR's is the decode of that latent, which is what it gets in the demo: the baseline has every advantage that
LUA has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo import LUA, SwinIR
from lua_demo.schema import UserError
from lua_demo.train import losses as L
from lua_demo.train.data import Crops, shrink
from lua_demo.train.loop import Stage, save_with_facts
from lua_demo.train.pairs import Pairs, encoded

SCALES = (2, 4)
TRUNK = dict(
    embed_dim=128,
    depths=(4, 4, 4),
    num_heads=(4, 4, 4),
    window_size=8,
    mlp_ratio=2,
    head_num_feat=64,
)
CHANNELS_PER_HEAD = 32

LATENT_TERMS = {"latent_l1": L.l1, "latent_fft": L.fft_l1}
ENLARGED_TERMS = {"enlarged_l1": L.l1, "enlarged_l2": L.l2}
"""Against the latent of the decoded, enlarged and encoded input: what is to be done is certain there."""
PIXEL_TERMS = {
    "pixel_l1": L.l1,
    "pixel_l2": L.l2,
    "gradient": L.gradient_l1,
    "pixel_fft": L.fft_l1,
    "highpass": L.highpass_l1,
    "eagle": L.eagle,
}


def faint(output: Tensor, target: Tensor, scale: int) -> Tensor:
    """`faintness` at x2. At x4 most detail is unknown, and more of what is guessed shows as grain: 0."""
    return L.faintness(output, target) * (scale == 2)


SCALED_TERMS = {"downsampled": L.downsampled_l1, "faint": faint}
"""Terms of pixels that take the scale too."""

# The paper's curriculum (section on training, Table 3): terms, weights, betas, and one head per step in the last 40 %
# of each stage (50k of 125k steps). Its batches are 2048, 32 and 32 and its rate 2e-4; ours are smaller and the steps
# a hundredth, for which twice that rate trains faster and stays stable under the paper's clipping at 0.4.
LUA_STAGES = [
    Stage("I", 3000, {"latent_l1": 1.0, "latent_fft": 0.1}, lr=4e-4, batch=16, betas=(0.9, 0.995), one_head=0.4),
    Stage(
        "II", 1000, {"latent_l1": 1.0, "latent_fft": 0.1, "downsampled": 0.1, "highpass": 0.05},
        lr=4e-4, batch=4, betas=(0.9, 0.995), one_head=0.4,
    ),
    Stage(
        "III", 4000, {"pixel_l1": 10.0, "pixel_fft": 1.0, "eagle": 5e-5},
        lr=4e-4, batch=4, betas=(0.9, 0.99), one_head=0.4,
    ),
]  # fmt: skip
# What LUA's decoded outputs are trained for together with the embedded autoencoder, and SwinIR beside it.
DECODED = {"pixel_l1": 1.0, "pixel_l2": 12.0, "gradient": 0.1, "faint": 16.0}
SWINIR_STAGES = [Stage("pixel", 1500, DECODED, lr=5e-4, crop=96, batch=4)]
# Not of the paper, run only where `--stages` names them, for a published space, whose latents are far from linear:
# first LUA learns to do in the latent what decoding, enlarging and encoding would do, which is certain and costs no
# decoder; then DECODED, one scale per step.
MORE_LUA_STAGES = [
    Stage("enlarge", 3000, {"enlarged_l1": 1.0, "enlarged_l2": 1.0}, lr=5e-4, batch=16),
    Stage("pixel", 4000, DECODED, lr=4e-4, batch=4, one_head=1.0),
]


def pixel_term(name: str, output: Tensor, target: Tensor, scale: int) -> Tensor:
    """The term of pixels called `name`, of pictures enlarged by `scale`."""
    return PIXEL_TERMS[name](output, target) if name in PIXEL_TERMS else SCALED_TERMS[name](output, target, scale)


def has_pixels(stages: Sequence[Stage]) -> bool:
    """Whether any of `stages` compares pictures."""
    return any(name not in {**LATENT_TERMS, **ENLARGED_TERMS} for stage in stages for name in stage.weights)


def has_enlarged(stages: Sequence[Stage]) -> bool:
    """Whether any of `stages` compares with enlarged inputs."""
    return any(name in ENLARGED_TERMS for stage in stages for name in stage.weights)


def trunk(width: int | None = None) -> dict:
    """The trunk of a new model: `TRUNK`, `width` channels wide.

    Raises:
        UserError: a width that the attention heads do not share evenly.
    """
    if width is None:
        return TRUNK
    if width < CHANNELS_PER_HEAD or width % CHANNELS_PER_HEAD:
        raise UserError(f"a trunk of {width} channels cannot be cut into heads of {CHANNELS_PER_HEAD}: 128, 192, 256")
    heads = tuple(width // CHANNELS_PER_HEAD for _ in TRUNK["depths"])
    return {**TRUNK, "embed_dim": width, "num_heads": heads, "head_num_feat": width // 2}


def new_lua(channels: int, scales: Sequence[int] = SCALES, width: int | None = None) -> LUA:
    return LUA(in_chans=channels, scales=tuple(scales), residual="linear", **trunk(width))


def new_swinir(scales: Sequence[int] = SCALES, width: int | None = None) -> SwinIR:
    return SwinIR(scales=tuple(scales), residual="bicubic", **trunk(width))


def adapted(lua: LUA, channels: int) -> LUA:
    """`lua` for another latent space: a new first convolution and new last ones, all else kept (the paper's cross-VAE
    transfer). A linear skip is new too: `fit_skips` finds it.
    """
    result = LUA(**{**lua._hub_mixin_config, "in_chans": channels})
    kept = {name: value for name, value in lua.state_dict().items() if not _belongs_to_space(name)}
    absent, unexpected = result.load_state_dict(kept, strict=False)
    assert not unexpected and all(_belongs_to_space(name) for name in absent)
    return result


def _belongs_to_space(name: str) -> bool:
    return name.startswith(("conv_first.", "skips.")) or ".conv_last." in name


@torch.no_grad()
def fit_skips(lua: LUA, network: nn.Module, crops: Crops, batches: int = 12, count: int = 12) -> None:
    """Start `lua` from the best linear upscaler of the latents of the autoencoder `network`, found by least squares in
    seconds. Does nothing to a LUA without a linear skip.
    """
    if lua.residual != "linear":
        return
    device = next(network.parameters()).device
    for scale in lua.scales:
        images = (crops.batch(count, crops.smallest, np.random.default_rng(i)).to(device) for i in range(batches))
        lua.skips[f"x{scale}"].fit((network.encode(shrink(image, scale)), network.encode(image)) for image in images)


class UpscalerTask:
    """Trains `model`, LUA or SwinIR, on the latents of the frozen autoencoder `network`."""

    def __init__(self, model: LUA | SwinIR, network: nn.Module, pairs: Pairs, held_out: Tensor):
        self.name = type(model).__name__.lower()
        self.model, self.pairs, self.held_out = model, pairs, held_out
        self.network = network.requires_grad_(False).to(memory_format=torch.channels_last)

    def losses(self, stage: Stage, rng: np.random.Generator, step: int = 0) -> dict[str, Tensor]:
        """The terms that `stage` weights, averaged over the scales trained in this step."""
        device = next(self.model.parameters()).device
        self.network.to(device)
        batch = self.pairs.batch(stage.batch, stage.crop, rng, device)
        scales = self.model.scales
        if stage.draws_one_head(step):
            scales = (scales[rng.integers(len(scales))],)
        totals = dict.fromkeys(stage.weights, 0.0)
        for scale in scales:
            latent = batch.inputs[scale]
            upscaled = self.model(latent, scale) if self.name == "lua" else None
            output = self._picture(upscaled, latent, scale) if has_pixels([stage]) else None
            for name in stage.weights:
                if name in LATENT_TERMS:
                    value = LATENT_TERMS[name](upscaled, batch.target)
                elif name in ENLARGED_TERMS:
                    value = ENLARGED_TERMS[name](upscaled, batch.enlarged[scale])
                else:
                    value = pixel_term(name, output, batch.image, scale)
                totals[name] = totals[name] + value / len(scales)
        return totals

    def _picture(self, upscaled: Tensor | None, latent: Tensor, scale: int) -> Tensor:
        if upscaled is not None:
            return self.network.decode(upscaled)
        with torch.no_grad():
            small = self.network.decode(latent).float().clamp(0, 1)
        return self.model(small, scale)

    @torch.no_grad()
    def sample(self, model: nn.Module) -> np.ndarray:
        """Rows: target, then for each scale decode-then-bicubic and the model."""
        device = next(model.parameters()).device
        held_out = self.held_out.to(device)
        rows = [held_out]
        for scale, latent in encoded(self.network.to(device), held_out, model.scales).inputs.items():
            small = self.network.decode(latent).clamp(0, 1)
            rows.append(F.interpolate(small, scale_factor=scale, mode="bicubic"))
            rows.append(self.network.decode(model(latent, scale)) if self.name == "lua" else model(small, scale))
        sheet = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
        return (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

    def save(self, model: nn.Module, folder: Path, facts: dict) -> None:
        save_with_facts(model, folder, facts, torch.bfloat16)
