"""Training of the embedded autoencoder, together with LUA: a latent space made to be upscaled.

The encoder chooses a code from which LUA can predict the code of the enlarged picture, and the decoder learns to decode
what LUA predicts where detail is lost. Afterwards `train lua` goes on with LUA alone, on the frozen autoencoder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.networks.lua import LUA
from lua_demo.networks.skip import LinearSkip, least_squares
from lua_demo.schema import UserError
from lua_demo.train import losses as L
from lua_demo.train.data import Crops, shrink
from lua_demo.train.loop import Facts, Stage, save_with_facts, total_of
from lua_demo.train.upscaler import DECODED, SCALES, configuration, fit_skips, new_lua, pixel_term

DETAIL_STD = 0.6  # of added channels: as of the finer ones among the first
WEIGHTS = {"l1": 0.4, "l2": 4.0, "gradient": 0.05, "upscaled": 1.0, "seams": 0.05, "uneven": 0.02}
STAGES = [
    Stage("reconstruct", 1200, {"l1": 1.0, "gradient": 0.1}, lr=5e-4, crop=128, batch=16),
    Stage("joint", 4000, WEIGHTS, lr=4e-4, crop=256, batch=4),
]


class Together(nn.Module):
    """What is trained: the autoencoder and LUA. LUA sees normalised latents, whose scale is fixed before."""

    def __init__(self, autoencoder: Autoencoder, lua: LUA):
        super().__init__()
        self.autoencoder, self.lua = autoencoder, lua


@torch.no_grad()
def widened(autoencoder: Autoencoder, channels: int, crops: Crops) -> Autoencoder:
    """`autoencoder` with `channels` channels: the first ones stay what they are, the added ones start as the principal
    components of what the decoder gets wrong, and the linear part for them is found by least squares.
    """
    base = autoencoder.latent_channels
    if channels <= base:
        raise UserError(f"--channels {channels} adds no channels to the {base} of --init; give more, or leave it out")
    added = channels - base
    detail = autoencoder.detail_channels + added
    result = Autoencoder(**{**configuration(autoencoder), "latent_channels": channels, "detail_channels": detail})
    result.load_state_dict(padded(autoencoder.state_dict(), result.state_dict()))
    stride, scale, shift = result.stride, result.scaling_factor, result.shift_factor

    def wrong(image: Tensor, network: Autoencoder) -> Tensor:
        return F.pixel_unshuffle(2 * (image - network.decode(network.encode(image))), stride)

    images = list(crops.batch(144, crops.smallest, np.random.default_rng(2)).split(12))
    patches = torch.cat([wrong(image, autoencoder).movedim(1, -1).flatten(0, -2) for image in images]).double()
    vectors = torch.linalg.eigh(torch.cov(patches.T))[1].flip(1)[:, :added].T
    seen = torch.cat([F.pixel_unshuffle(2 * image - 1, stride).movedim(1, -1).flatten(0, -2) for image in images])
    found = seen.double() @ vectors.T
    vectors, mean = vectors / (found.std(0) / DETAIL_STD * scale)[:, None], found.mean(0) / found.std(0) * DETAIL_STD
    if not autoencoder.detail_channels:
        trunk, own = (network.correction.state_dict() for network in (autoencoder.encoder, result.detail))
        result.detail.correction.load_state_dict(padded(trunk, own))
    linear, last = result.detail.linear, result.detail.correction[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None and linear.bias is not None
    for new in (linear.weight[-added:], last.weight[-added:], last.bias[-added:]):
        new.zero_()
    linear.weight[-added:, :, 1, 1] = vectors.float()
    linear.bias[-added:] = shift - mean.float() / scale
    raw = ((result.encode(image) / scale + shift, wrong(image, result)) for image in images)
    weight, bias = least_squares(raw)
    result.decoder.linear.weight += weight
    if result.decoder.linear.bias is not None:
        result.decoder.linear.bias += bias
    return result


@torch.no_grad()
def widened_lua(lua: LUA, autoencoder: Autoencoder, crops: Crops) -> LUA:
    """`lua` for the channels that `widened` added: the network starts as it was, and least squares tell the linear
    skips what the added channels say and how they are enlarged themselves.
    """
    if lua.residual != "linear":
        raise UserError("--channels widens the linear skips of a LUA, and that of --lua has none; leave --lua out")
    result = LUA(**{**configuration(lua), "in_chans": autoencoder.latent_channels})
    result.load_state_dict(padded(lua.state_dict(), result.state_dict()))
    for scale in lua.scales:
        images = crops.batch(144, crops.smallest, np.random.default_rng(2)).split(12)
        pairs = ((autoencoder.encode(shrink(image, scale)), autoencoder.encode(image)) for image in images)
        skip = result.skips[f"x{scale}"]
        assert isinstance(skip, LinearSkip)
        found = least_squares((x, F.pixel_unshuffle(target - result(x, scale), scale)) for x, target in pairs)
        for parameter, value in zip(skip.conv.parameters(), found, strict=True):
            parameter.add_(value)
    return result


def padded(state: dict[str, Tensor], wider: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` in the shapes of `wider`, the first channels what they were and the others 0; what it has not is kept."""
    result = dict(wider)
    for name, value in state.items():
        result[name] = F.pad(
            value,
            [side for to, of in zip(wider[name].shape[::-1], value.shape[::-1], strict=True) for side in (0, to - of)],
        )
    return result


class AutoencoderTask:
    name = "autoencoder"

    def __init__(
        self,
        crops: Crops,
        held_out: Tensor,
        autoencoder: Autoencoder | None = None,
        lua: LUA | None = None,
        keep: str = "",
        channels: int | None = None,
    ):
        """`keep`: the channels that stay what they are, "all", or "base", all but the detail. `channels`: of the latent
        of a new autoencoder.
        """
        self.crops, self.held_out = crops, held_out
        if autoencoder is None:
            autoencoder = Autoencoder(latent_channels=channels) if channels else Autoencoder()
            autoencoder.start_from_pca(crops.batch(512, 64, np.random.default_rng(0)))
            latents = autoencoder.encode(crops.batch(512, 64, np.random.default_rng(1)))
            autoencoder.normalise(latents.mean().item(), latents.std().item())
        autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
        if lua is None:
            lua = new_lua(autoencoder.latent_channels)
            fit_skips(lua, autoencoder, crops)
        if keep:
            autoencoder.encoder.requires_grad_(False)
        if keep == "all" and autoencoder.detail_channels:
            autoencoder.detail.requires_grad_(False)
        self.model = Together(autoencoder, lua)

    def losses(self, stage: Stage, rng: np.random.Generator, step: int = 0) -> dict[str, Tensor]:
        """`l1`, `l2`, `gradient` of the round trip; `upscaled`, the sum of `DECODED` for what LUA's outputs decode to,
        where it is weighted; `seams` and `uneven` of both, the latter also of the base that LUA enlarges.
        """
        model, lua = self.model.autoencoder, self.model.lua
        device = next(model.parameters()).device
        image = self.crops.batch(stage.batch, stage.crop, rng).to(device, memory_format=torch.channels_last)
        # Beside LUA's, a quarter of each round trip is enough: it is the easier to learn.
        side = stage.crop // 16 * 8 if "upscaled" in stage.weights else stage.crop
        part = image[..., :side, :side]
        output = model.decode(model.encode(part))
        terms = {"l1": L.l1(output, part), "l2": L.l2(output, part), "gradient": L.gradient_l1(output, part)}
        terms["seams"] = L.seam_l1(output, part, model.stride)
        terms["uneven"] = L.uneven_steps(output, part, model.stride)
        if "upscaled" in stage.weights:
            # One scale per step, the easier one more often: the decode is what a step costs.
            scale = SCALES[rng.random() < 1 / 3]
            small = shrink(image, scale)
            latent = model.encode(small)
            output = model.decode(lua(latent, scale))
            terms["upscaled"] = total_of(
                weight * pixel_term(name, output, image, scale) for name, weight in DECODED.items()
            )
            terms["seams"] = terms["seams"] + L.seam_l1(output, image, model.stride)
            terms["uneven"] = (
                terms["uneven"]
                + L.uneven_steps(output, image, model.stride * scale)  # the cells of the base
                + L.uneven_steps(model.decode(latent), small, model.stride)
            )
        return terms

    @torch.no_grad()
    def sample(self, model: Together) -> np.ndarray:
        """Rows: target, round trip, and LUA at each scale."""
        autoencoder = model.autoencoder
        held_out = self.held_out.to(next(model.parameters()).device)
        rows = [held_out, autoencoder.decode(autoencoder.encode(held_out))]
        for scale in SCALES:
            rows.append(autoencoder.decode(model.lua(autoencoder.encode(shrink(held_out, scale)), scale)))
        sheet = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
        return (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()

    def validate(self, model: Together) -> dict[str, float]:
        return {}

    def pixels(self, stage: Stage) -> int:
        return stage.batch * stage.crop**2

    def save(self, model: Together, folder: Path, facts: Facts) -> None:
        """The autoencoder in `folder`, LUA in `folder`/lua; in float16, whose rounding costs no digit of the cards."""
        save_with_facts(model.autoencoder, folder, facts, torch.float16)
        save_with_facts(model.lua, folder / "lua", facts, torch.float16)
