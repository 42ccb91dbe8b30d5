"""Adam, and Muon for the matrices of a trunk: one optimiser to the loop."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lua_demo.schema import UserError

TRUNK = ("blocks.", "stem.", "layers.", "conv_after_body.")
"""Prefixes of the names of weights that Muon trains. Adam trains first and last layers, biases and norms, as Muon's
author advises."""

NAMES = ("adam", "muon")


def matrix(weight: Tensor, like: Tensor | None = None) -> Tensor:
    """The weight of a linear layer or a convolution, or its gradient, as outputs x inputs: of the weight (which is
    `like` the gradient) a view, so that what changes one changes the other.
    """
    like = weight if like is None else like
    nhwc = weight.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last)
    return (weight.permute(0, 2, 3, 1) if nhwc else weight).reshape(len(weight), -1)


class Optimiser:
    """Steps of all that `model` trains.

    Args:
        name: "adam", or "muon": Muon (Jordan et al., 2024; `torch.optim.Muon`) for linear layers and convolutions of
            the trunk, with steps as large as Adam's at the same rate, and Adam for the rest.
    """

    def __init__(self, model: nn.Module, name: str = "adam"):
        if name not in NAMES:
            raise UserError(f"there is no optimiser {name!r}; choose {' or '.join(NAMES)}")
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.large = [
            weight
            for key, weight in model.named_parameters()
            if name == "muon" and weight.requires_grad and key.startswith(TRUNK) and key.endswith(".weight")
            and weight.ndim in (2, 4)
        ]  # fmt: skip
        chosen = set(map(id, self.large))
        rest = [weight for weight in self.weights if id(weight) not in chosen]
        self.adam = torch.optim.Adam(rest, lr=1e-4)
        self.parts: list[torch.optim.Optimizer] = [self.adam]
        self.matrices = [matrix(weight.detach()).requires_grad_() for weight in self.large]
        if self.large:
            muon = torch.optim.Muon(self.matrices, lr=1e-4, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
            self.parts.append(muon)

    def set(self, lr: float, betas: Sequence[float]) -> None:
        """The learning rate of all, and Adam's betas."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr
        for group in self.adam.param_groups:
            group["betas"] = tuple(betas)

    def zero_grad(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def step(self) -> None:
        for weight, view in zip(self.large, self.matrices, strict=True):
            view.grad = None if weight.grad is None else matrix(weight.grad, weight)
        for part in self.parts:
            part.step()

    def state_dict(self) -> list[dict]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: Sequence[dict]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
