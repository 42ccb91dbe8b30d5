"""What networks of a kind have in common, as types. Nothing derives from these: a network has the members or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

Self = TypeVar("Self", bound="Network")


class Network(Protocol):
    """What every `nn.Module` can do, as far as it is used here."""

    def __call__(self, *args: Any, **options: Any) -> Any: ...
    def to(self: Self, *args: Any, **options: Any) -> Self: ...
    def eval(self: Self) -> Self: ...
    def requires_grad_(self: Self, requires_grad: bool = True) -> Self: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def named_children(self) -> Iterator[tuple[str, nn.Module]]: ...
    def state_dict(self) -> dict[str, Tensor]: ...


class LatentUpscaler(Network, Protocol):
    """A LUA: (normalised latent B x C x h x w, scale) -> B x C x (scale * h) x (scale * w).

    `in_chans` is C; `scales` are those that it was trained for.
    """

    in_chans: int

    @property
    def scales(self) -> Sequence[int]: ...

    def __call__(self, x: Tensor, scale: int) -> Tensor: ...


class Codec(Network, Protocol):
    """An autoencoder: images B x 3 x H x W in [0, 1] <-> normalised latents B x C x H / stride x W / stride.

    `latent_channels` is C. H and W are multiples of `stride`, in px.
    """

    stride: int
    latent_channels: int

    def encode(self, image: Tensor) -> Tensor: ...
    def decode(self, latent: Tensor) -> Tensor: ...
