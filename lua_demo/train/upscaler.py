"""Training of LUA on latents; and new networks of its trunk, LUA or SwinIR.

LUA learns both scales on one trunk against one target. Its input is the latent of the small image; SwinIR's and the
CNN's (`pixels`) is the decode of that latent, which is what they get in the demo, on crops of the same photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lua_demo.networks.feature_lua import FeatureLUA, lost, on_latents
from lua_demo.networks.kinds import Codec
from lua_demo.networks.lua import LUA
from lua_demo.networks.skip import LinearSkip
from lua_demo.networks.swinir import SwinIR
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.schema import UserError
from lua_demo.train import losses as L
from lua_demo.train.data import Crops, shrink
from lua_demo.train.held_out import HeldOut
from lua_demo.train.loop import Facts, Stage, save_with_facts
from lua_demo.train.pairs import Pairs, encoded

SCALES = (2, 4)


class Trunk(TypedDict):
    """The sizes of a `SwinUpscaler`, by its arguments."""

    embed_dim: int
    depths: Sequence[int]
    num_heads: Sequence[int]
    window_size: int
    mlp_ratio: float
    head_num_feat: int


TRUNK = Trunk(
    embed_dim=128,
    depths=(4, 4, 4),
    num_heads=(4, 4, 4),
    window_size=8,
    mlp_ratio=2,
    head_num_feat=64,
)
CHANNELS_PER_HEAD = 32
CELL = 8
"""Pixels per side of a latent's cell, in all spaces."""
FEATURE_WIDTH = 192
"""Channels of the trunk of a new FeatureLUA."""

STEM = 6
"""Residual blocks before the trunk of a new SwinIR."""

LATENT_TERMS = {"latent_l1": L.l1, "latent_fft": L.fft_l1}
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


def uneven(output: Tensor, target: Tensor, scale: int) -> Tensor:
    """`uneven_steps` in cells of the base, enlarged: the coarser grid of the two that LUA could leave."""
    return L.uneven_steps(output, target, CELL * scale)


def seams(output: Tensor, target: Tensor, scale: int) -> Tensor:
    """`seam_l1` on the borders of the latent's cells, whatever the scale."""
    return L.seam_l1(output, target, CELL)


SCALED_TERMS = {"downsampled": L.downsampled_l1, "faint": faint, "uneven": uneven, "seams": seams}
"""Terms of pixels that take the scale too."""
LOST = "lost"
"""Loss term that compares with the decode of the small latent, not the photo: L1 of what back-projection corrects."""

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
# What LUA's decoded outputs are trained for together with the embedded autoencoder; the pixel upscalers at their end.
DECODED = {"pixel_l1": 1.0, "pixel_l2": 12.0, "gradient": 0.1, "faint": 16.0}
GRID = {"seams": 0.05, "uneven": 0.02}
"""Against lines on the latent's cells, which the losses above hardly see; a pixel upscaler has no cells."""
# Not of the paper, run only where `--stages` names them. "pixel": for a published space, where a FeatureLUA starts
# close to what decoding and enlarging give, so that losses of the latent have nothing to prepare. "l1,detail": for
# the embedded space, what the pixel upscalers beside it are trained for (`pixels`).
MORE_LUA_STAGES = [
    Stage("pixel", 1000, {**DECODED, LOST: 3.0}, lr=5e-4, batch=3, one_head=1.0),
    Stage("l1", 9000, {"pixel_l1": 1.0}, lr=5e-4, batch=4, one_head=1.0, linear=True),
    Stage("detail", 1000, {**DECODED, **GRID}, lr=2e-4, batch=4, one_head=1.0, linear=True),
]


def pixel_term(name: str, output: Tensor, target: Tensor, scale: int) -> Tensor:
    """The term of pixels called `name`, of pictures enlarged by `scale`."""
    return PIXEL_TERMS[name](output, target) if name in PIXEL_TERMS else SCALED_TERMS[name](output, target, scale)


def has_pixels(stages: Sequence[Stage]) -> bool:
    """Whether any of `stages` compares pictures."""
    return any(name not in LATENT_TERMS for stage in stages for name in stage.weights)


def has_latents(stages: Sequence[Stage]) -> bool:
    """Whether any of `stages` compares latents."""
    return any(name in LATENT_TERMS for stage in stages for name in stage.weights)


def trunk(width: int | None = None) -> Trunk:
    """The trunk and heads of a new model: `TRUNK`, `width` channels wide.

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


def new_lua_for(channels: int | None, width: int | None = None) -> LUA | FeatureLUA:
    """A LUA of latents of `channels`, or with None a FeatureLUA."""
    if channels:
        return new_lua(channels, width=width)
    sizes: Trunk = {**trunk(width or FEATURE_WIDTH), "head_num_feat": TRUNK["head_num_feat"]}
    return FeatureLUA(scales=SCALES, **sizes)


def new_swinir(scales: Sequence[int] = SCALES, width: int | None = None, stem: int | None = None) -> SwinIR:
    """The trunk of LUA at half the resolution of the picture, with a stem before it and heads of one convolution: all
    that makes it learn in hours what takes days without.
    """
    sizes: Trunk = {**trunk(width), "head_num_feat": 0}
    stem = STEM if stem is None else stem
    return SwinIR(scales=tuple(scales), residual="bicubic", stem=stem, unshuffle=2, **sizes)


def adapted(lua: LUA | FeatureLUA, channels: int | None) -> LUA | FeatureLUA:
    """`lua` for another latent space: a LUA of `channels`, or with None a FeatureLUA. Trunk and heads are kept; the
    first convolution and each head's last one are new (the paper's cross-VAE transfer), and so are linear skips:
    `fit_skips` finds them. From one kind to the other the heads are new, as they enlarge by other factors.
    """
    config = configuration(lua)
    sizes = {key: config[key] for key in (*TRUNK, "scales")}
    if channels is None:
        result: LUA | FeatureLUA = FeatureLUA(**sizes)
    elif isinstance(lua, LUA):
        result = LUA(**{**config, "in_chans": channels})
    else:
        result = LUA(in_chans=channels, residual="linear", **sizes)
    new = ("heads.", "stem.") if type(result) is not type(lua) else ()
    kept = {
        name: value
        for name, value in lua.state_dict().items()
        if not _belongs_to_space(name) and not name.startswith(new)
    }
    absent, unexpected = result.load_state_dict(kept, strict=False)
    assert not unexpected and all(_belongs_to_space(name) or name.startswith(new) for name in absent)
    return result


def with_back_projection(lua: LUA | FeatureLUA, side: int) -> FeatureLUA:
    """The same weights, with the step of back-projection, of averages over `side` px of the small picture.

    Raises:
        UserError: not a FeatureLUA.
    """
    if not isinstance(lua, FeatureLUA):
        raise UserError("--back-project is for a LUA between layers of a tiny autoencoder: leave it or --plain out")
    result = FeatureLUA(**{**configuration(lua), "back_project": side})
    result.load_state_dict(lua.state_dict())
    return result


def configuration(network: Any) -> dict[str, Any]:
    """The arguments that `network`, of the hub's mixin, was built with."""
    return network._hub_mixin_config


def _belongs_to_space(name: str) -> bool:
    return name.startswith(("conv_first.", "skips.")) or ".conv_last." in name


@torch.no_grad()
def fit_skips(
    lua: LUA | FeatureLUA, network: Codec, crops: Crops, tiny: TinyAutoencoder | None = None,
    batches: int = 12, count: int = 12,
) -> None:  # fmt: skip
    """Start `lua` from the best linear upscaler of the latents of the autoencoder `network`, found by least squares in
    seconds, or of their features in `tiny`. Does nothing to a LUA without a linear skip.

    Of latents the target is the latent of the large picture; of features, those of the decoded and enlarged small one.
    """
    if isinstance(lua, LUA) and lua.residual != "linear":
        return
    device = next(network.parameters()).device

    def pair(image: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        latent = network.encode(shrink(image, scale))
        if isinstance(lua, LUA):
            return latent, network.encode(image)
        larger = F.interpolate(network.decode(latent).float().clamp(0, 1), scale_factor=scale, mode="bicubic")
        assert tiny is not None  # a FeatureLUA works between its layers
        return tiny.read(latent), tiny.look(larger.clamp(0, 1))

    for scale in lua.scales:
        images = (crops.batch(count, crops.smallest, np.random.default_rng(i)).to(device) for i in range(batches))
        skip = lua.skips[f"x{scale}"]
        assert isinstance(skip, LinearSkip)
        skip.fit(pair(image, scale) for image in images)


class UpscalerTask:
    """Trains `model` on the latents of the frozen autoencoder `network`; `samples` are on the sample sheets.

    A FeatureLUA reads and writes them with layers of the frozen `tiny`, which may be `network` itself. Where it has
    back-projection, what that mends is added to its pictures, not to its latents, which would cost three times as much;
    losses of the latent, and `LOST`, are of what it gives by itself.
    """

    def __init__(
        self,
        model: LUA | FeatureLUA,
        network: Codec,
        pairs: Pairs,
        samples: Tensor,
        tiny: TinyAutoencoder | None = None,
        held_out: HeldOut | None = None,
    ):
        self.name = "lua"
        self.model, self.pairs, self.samples, self.held_out = model, pairs, samples, held_out
        self.network = network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.tiny = tiny
        if tiny:
            tiny.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
        self.mends = model.back_project if isinstance(model, FeatureLUA) else 0

    def losses(self, stage: Stage, rng: np.random.Generator, step: int = 0) -> dict[str, Tensor]:
        """The terms that `stage` weights, averaged over the scales trained in this step."""
        device = next(self.model.parameters()).device
        self.network.to(device)
        upscale = on_latents(self.model, self.tiny and self.tiny.to(device), back_project=0)
        batch = self.pairs.batch(stage.batch, stage.crop, rng, device)
        scales = self.model.scales
        if stage.draws_one_head(step):
            scales = (scales[rng.integers(len(scales))],)
        totals: dict[str, Tensor] = {}
        for scale in scales:
            latent = batch.inputs[scale]
            upscaled = upscale(latent, scale)
            if has_pixels([stage]):
                output = mended = self.network.decode(upscaled)
                if self.mends or LOST in stage.weights:
                    small = self._base(latent)
                if self.mends:
                    mended = output + lost(output, small, scale, self.mends)
            for name in stage.weights:
                if name in LATENT_TERMS:
                    assert batch.target is not None  # `make_pairs` keeps what the stages ask for
                    value = LATENT_TERMS[name](upscaled, batch.target)
                elif name == LOST:
                    value = lost(output, small, scale).abs().mean()
                else:
                    assert batch.image is not None
                    value = pixel_term(name, mended, batch.image, scale)
                totals[name] = totals.get(name, 0.0) + value / len(scales)
        return totals

    @torch.no_grad()
    def _base(self, latent: Tensor) -> Tensor:
        return self.network.decode(latent).float().clamp(0, 1)

    @torch.no_grad()
    def sample(self, model: LUA | FeatureLUA) -> np.ndarray:
        """Rows: target, then for each scale decode-then-bicubic and the model."""
        device = next(model.parameters()).device
        samples = self.samples.to(device)
        upscale = on_latents(model, self.tiny and self.tiny.to(device))
        rows = [samples]
        for scale, latent in encoded(self.network.to(device), samples, model.scales).inputs.items():
            small = self.network.decode(latent).clamp(0, 1)
            rows.append(F.interpolate(small, scale_factor=scale, mode="bicubic"))
            rows.append(self.network.decode(upscale(latent, scale)))
        sheet = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
        return (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

    def validate(self, model: LUA | FeatureLUA) -> dict[str, float]:
        if not self.held_out:
            return {}
        upscale = on_latents(model, self.tiny)
        return self.held_out.gains(lambda _, latent, scale: self.network.decode(upscale(latent, scale)))

    def pixels(self, stage: Stage) -> int:
        return stage.batch * stage.crop**2 * (1 if stage.one_head == 1 else len(self.model.scales))

    def save(self, model: LUA | FeatureLUA, folder: Path, facts: Facts) -> None:
        """In 16 bits: of the published spaces' in bfloat16, for the range of their numbers."""
        save_with_facts(model, folder, facts, torch.float16 if facts.get("space") == "embedded" else torch.bfloat16)
