"""The adversary of `Detail`: what tells the texture of a made picture from that of a render.

Source: relativistic pairs, arXiv 1807.00734; the penalty on the critic's slope at renders (R1, arXiv 1801.04406) by a
difference instead of a second derivative, as in arXiv 2501.08316.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

JITTER = 0.02  # standard deviation of the noise across which the critic's slope is measured, of pictures in [0, 1]


class Critic(nn.Module):
    """Picture B x 3 x H x W in [0, 1] and what it was made from, of the same size -> how true each of H/8 x W/8 places
    looks beside others made from that, and the features on the way.
    """

    def __init__(self, widths: Iterable[int] = (48, 96, 160)):
        super().__init__()
        half, quarter, eighth = widths
        self.fine = nn.Sequential(nn.PixelUnshuffle(2), _layer(24, half), _layer(half, half))
        self.middle = nn.Sequential(_layer(half, quarter, 2), _layer(quarter, quarter))
        self.coarse = nn.Sequential(_layer(quarter, eighth, 2), _layer(eighth, eighth))
        self.last = nn.Conv2d(eighth, 1, 3, padding=1, bias=False)  # only differences of its answers count

    def forward(self, picture: Tensor, given: Tensor) -> tuple[Tensor, list[Tensor]]:
        fine = self.fine(torch.cat([(picture - given) * 8, (given - 0.5) * 4], dim=1))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        return self.last(coarse).float(), [fine, middle, coarse]


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    kernel, padding = (4, 1) if stride == 2 else (3, 1)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.LeakyReLU(0.2))


def losses(critic: Critic, made: Tensor, real: Tensor, given: Tensor) -> dict[str, Tensor]:
    """`critic` and `slope`, which train the critic alone, and `fooled` and `statistics`, which train what made the
    pictures: two networks, one sum of losses.

    Args:
        made, real: pictures B x 3 x H x W in [0, 1]; those made carry a gradient.
        given: what they were made from, as pictures.
    """
    of_real, real_features = critic(real, given)
    of_made, _ = critic(made.detach(), given)
    jittered, _ = critic(real + JITTER * torch.randn_like(real), given)
    frozen = {name: value.detach() for name, value in critic.named_parameters()}
    fooling, made_features = torch.func.functional_call(critic, frozen, (made, given))
    return {
        "critic": F.softplus(of_made - of_real).mean(),
        "slope": (jittered - of_real).square().mean() / JITTER**2,
        "fooled": F.softplus(of_real.detach() - fooling).mean(),
        "statistics": sum(
            (_statistics(a) - _statistics(b.detach())).abs().mean()
            for a, b in zip(made_features, real_features, strict=True)
        ),
    }


def _statistics(features: Tensor) -> Tensor:
    """Mean and deviation of every channel over a crop: B x 2 C."""
    features = features.float()
    return torch.cat([features.mean((-1, -2)), features.std((-1, -2))], dim=1)
