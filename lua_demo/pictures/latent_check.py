"""Is this a latent of that space, and do its values lie where that space's values lie?

Nothing bounds what a latent upscaler gives, and nothing in a tensor says whose it is: latents of several autoencoders
have the same shape. Both questions are answered from statistics of encoded photos (`python3 -m
lua_demo.train.statistics` makes them).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from reprlib import repr as brief

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from lua_demo.catalog.spaces import SPACES
from lua_demo.paths import STATISTICS
from lua_demo.schema import BaseLatent, UserError

RANGE = 0.9995
"""Share of the values of each channel that lie within a space's range."""

MANY_OUTSIDE = 0.01
"""Share of an enlarged latent outside the range above which its picture comes with a note: 20 times that of photos."""

CLEARLY = 1.0
"""Log likelihood per patch, in nats, by which another space must fit better before a latent is refused."""

SOFTNESS = 0.25
"""How far the soft bound lets a value leave the range, as a share of the range's width."""

FREEDOM, ROUNDS = 3.0, 6
"""Degrees of freedom of the t distribution, whose tails are as heavy as those of photos; rounds of its fit."""

FLAT, MOST_FLAT = 0.1, 0.5
"""Standard deviation within a patch below which it counts as flat and is not used. If more than this share of the
patches is flat, the others are not used either: most of them lie at the border then."""

FITTED = 60_000
"""Patches that the fit takes at most."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of normalised latents of photos in one space with C channels: k x k patches of D = C k k values.

    Sixteen channels of one pixel distinguish spaces. Four do not: how neighbours vary together is needed too.

    Attributes:
        mean: D. scatter: D x D, of a multivariate t distribution with `FREEDOM` degrees of freedom.
        low, high: C each: the range that holds `RANGE` of the values.
    """

    mean: Tensor
    scatter: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, latents: Tensor) -> Statistics:
        """From latents B x C x h x w."""
        values = latents.movedim(1, 0).flatten(1)
        tail, (ordered, _) = (1 - RANGE) / 2, values.sort()
        low, high = (ordered[:, round(share * (values.shape[1] - 1))] for share in (tail, 1 - tail))
        x = _patches(latents, 3 if latents.shape[1] < 16 else 1)
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:FITTED]]
        mean, scatter = x.mean(0), x.T.cov()
        for _ in range(ROUNDS):
            made = cls(mean, scatter, low, high)
            weight = (FREEDOM + x.shape[1]) / (FREEDOM + made._distances(x))
            scatter = ((x - mean).T * weight) @ (x - mean) / len(x)
        return cls(mean.float(), scatter.float(), low, high)

    @property
    def channels(self) -> int:
        return len(self.low)

    def log_likelihood(self, latent: Tensor) -> float:
        """Mean over the patches of `latent` (B x C x h x w) of the log-density, in nats, but for a constant.

        0 where too many of them are flat, in all spaces of as many channels alike.
        """
        side = math.isqrt(len(self.mean) // self.channels)
        x = _patches(latent.detach().cpu(), side)
        places = len(latent) * (latent.shape[2] - side + 1) * (latent.shape[3] - side + 1)
        if len(x) < (1 - MOST_FLAT) * places or not len(x):
            return 0.0
        tails = (FREEDOM + x.shape[1]) / 2 * torch.log1p(self._distances(x) / FREEDOM)
        return float(-tails.mean() - torch.linalg.cholesky(self.scatter.double()).diagonal().log().sum())

    def _distances(self, x: Tensor) -> Tensor:
        """Squared Mahalanobis distances of the rows of N x D."""
        factor = torch.linalg.cholesky(self.scatter.double())
        return torch.linalg.solve_triangular(factor, (x - self.mean).T, upper=False).square().sum(0)


def _patches(latents: Tensor, side: int) -> Tensor:
    """B x C x h x w -> all patches of side x side pixels that are not flat, as rows, float64."""
    if min(latents.shape[2:]) < side:
        return latents.new_zeros(0, latents.shape[1] * side**2, dtype=torch.float64)
    x = F.unfold(latents.double(), side).movedim(1, 2).flatten(0, 1)
    return x if side == 1 else x[x.unflatten(1, (-1, side**2)).var(2).mean(1) > FLAT**2]


def save_statistics(made: Mapping[str, Statistics], file: Path = STATISTICS) -> None:
    """Write the statistics of some spaces; those of the others in `file` stay."""
    entries = {**(load_statistics(file) if file.is_file() else {}), **made}
    tensors = {
        f"{space}.{field.name}": getattr(entry, field.name).contiguous()
        for space, entry in entries.items()
        for field in fields(Statistics)
    }
    save_file(tensors, file, {"spaces": json.dumps(list(entries))})
    load_statistics.cache_clear()


@cache
def load_statistics(file: Path = STATISTICS) -> dict[str, Statistics]:
    """Space -> its statistics."""
    with safe_open(file, framework="pt") as content:
        spaces = json.loads(content.metadata()["spaces"])
        names = [field.name for field in fields(Statistics)]
        return {space: Statistics(*(content.get_tensor(f"{space}.{name}") for name in names)) for space in spaces}


def refuse_foreign(latent: BaseLatent | Tensor, space: str, name: str = "the latent") -> None:
    """Raise unless `latent` may be one of `space`: by its tag, its channels, and what its values look like.

    Args:
        latent: normalised; with its tag, or bare: B x C x h x w.
        space: key of `spaces.SPACES`.
        name: what the error calls it.
    Raises:
        UserError: another tag, another number of channels, or values as another space has them and this one has not.
    """
    if space not in SPACES:
        raise UserError(f"the latent space {brief(space)} does not exist; choose {', '.join(SPACES)}")
    if isinstance(latent, BaseLatent):
        if latent.space != space:
            raise UserError(f"{name} is a latent of the space {brief(latent.space)}, not {space}; give one of its own")
        latent = torch.from_numpy(latent.values)[None]
    channels = latent.shape[-3]
    if channels != SPACES[space].channels:
        raise UserError(f"{name} has {channels} channels; latents of the space {space} have {SPACES[space].channels}")
    if space not in load_statistics():
        return  # nothing is known of its values
    likeliest = closest_space(latent, space)
    if likeliest != space:
        raise UserError(
            f"{name} looks like a latent of the space {likeliest}, not {space}: its channels vary as in {likeliest}; "
            f"give one of {space}, normalised as its denoiser leaves it"
        )


def check_size(latent: BaseLatent, name: str = "the latent") -> None:
    """UserError unless the tensor of `latent` has the shape that an image of its size has in its space."""
    (width, height), row = latent.size, SPACES[latent.space]
    fitting = (row.channels, -(-height // row.stride), -(-width // row.stride))
    if min(width, height) < 1 or latent.values.shape != fitting:
        raise UserError(
            f"{name} has shape {latent.values.shape}; an image of {brief(width)} x {brief(height)} in the space "
            f"{latent.space} has {'x'.join(map(brief, fitting))}: save the latent again"
        )


def closest_space(latent: Tensor, claimed: str) -> str:
    """The space whose statistics fit `latent` (B x C x h x w) best; `claimed` unless another fits clearly better."""
    known = load_statistics()
    fits = {s: row.log_likelihood(latent) for s, row in known.items() if row.channels == latent.shape[-3]}
    best = max(fits, key=fits.__getitem__)
    return best if fits[best] > fits[claimed] + CLEARLY else claimed


def outside(latent: Tensor, space: str) -> Tensor:
    """Latent B x C x h x w -> B x h x w in [0, 1]: which share of a latent pixel's channels is outside the range of
    `space`. Its mean is the share of all values; encoded photos have about 1 - `RANGE`.
    """
    low, high = _range(latent, space)
    return (~((latent >= low) & (latent <= high))).float().mean(1)  # so that NaN is outside


def share_outside(latent: Tensor, space: str) -> float | None:
    """Share of the values of `latent` (B x C x h x w) outside the range of `space`; None where no range is shipped."""
    return float(outside(latent, space).mean()) if space in load_statistics() else None


def soft_bound(latent: Tensor, space: str) -> Tensor:
    """The same latent B x C x h x w, with what is outside the range of `space` bent towards it.

    Inside nothing changes; outside the distance d becomes m tanh(d / m), where m is `SOFTNESS` of the range's width:
    smooth, monotonic, and never further out than m.
    """
    low, high = _range(latent, space)
    most = SOFTNESS * (high - low)
    inside = latent.clamp(low, high)
    return inside + most * torch.tanh((latent - inside) / most)


def _range(latent: Tensor, space: str) -> tuple[Tensor, Tensor]:
    """Each 1 x C x 1 x 1, as `latent` is."""
    row = load_statistics().get(space)
    if row is None:
        raise UserError(
            f"there are no statistics of latents of the space {space}; compute them "
            "(python3 -m lua_demo.train.statistics)"
        )
    if latent.ndim != 4 or latent.shape[1] != row.channels:
        raise UserError(
            f"the latent has shape {tuple(latent.shape)}; one of the space {space} is B x {row.channels} x h x w"
        )
    return row.low.to(latent)[None, :, None, None], row.high.to(latent)[None, :, None, None]
