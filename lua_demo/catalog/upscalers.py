"""What an upscaler is, as data: how it is loaded, and where its weights come from. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
"""Suffixes of files that can hold an upscaler."""


@dataclass(frozen=True)
class File:
    """A published file of weights.

    Attributes:
        url: where it is downloaded from; its last part is the file's name.
        size: in bytes.
        sha256: of the whole file, in hex.
    """

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]

    @property
    def path(self) -> Path:
        """Where it is kept once it is downloaded."""
        return download_folder() / self.name


@dataclass(frozen=True)
class Upscaler:
    """What enlarges a latent or an image.

    Attributes:
        kind: how it is loaded: a key of `models.loaders.LOADERS`.
        folder: of the shipped weights, below the folder of all weights; empty where none are shipped.
        files: scale -> published file, downloaded when the upscaler is first chosen.
        by_space: the same by latent space, for an upscaler of latents: key of `spaces.SPACES` -> published file.
        own: a file of the user; empty otherwise.
        scales: those that it can enlarge by; empty for any.
        licence: of the weights, as an SPDX identifier.
        window: input cells or pixels per attention window; 0 for a network without windows. (Our SwinIR folds 2 x 2 px
            into a position, and its windows hold 8 x 8 positions.)
        note: what a reader of its pictures must know of the shipped weights; mostly nothing.
    """

    kind: str
    folder: str = ""
    files: Mapping[int, File] = field(default_factory=dict)
    by_space: Mapping[str, File] = field(default_factory=dict)
    own: str = ""
    scales: tuple[int, ...] = ()
    licence: str = "Apache-2.0"
    window: int = 0
    note: str = ""

    @property
    def published(self) -> list[File]:
        """All files that may have to be downloaded."""
        return [*self.files.values(), *self.by_space.values()]

    @property
    def missing(self) -> list[File]:
        """The published files that are not on this machine yet."""
        return [file for file in self.published if not file.path.is_file()]

    def refusal(self, space: str, scale: int) -> str:
        """Why it cannot enlarge by `scale` in the latent space `space`; empty where it can."""
        if self.scales and scale not in self.scales:
            return f"it enlarges by {' or '.join(map(str, self.scales))}, not by {scale}; choose another scale"
        if self.by_space and space not in self.by_space:
            known = ", ".join(self.by_space)
            return f"it was published for the latent spaces {known}, not for {space}; choose a model of one of these"
        return ""


def download_folder() -> Path:
    """Where downloaded files are kept: ~/.cache/lua_demo/weights, below XDG_CACHE_HOME where that is set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lua_demo" / "weights"
