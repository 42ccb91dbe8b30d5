"""What an upscaler is, as data: how it is loaded, and where its weights come from. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class File:
    """A published file of weights.

    Attributes:
        url: where it is downloaded from; its last part is the file's name.
        megabytes: its size in 10^6 bytes, for people.
        sha256: of the whole file, in hex; empty where it is not known.
    """

    url: str
    megabytes: float
    sha256: str = ""

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
        licence: of the weights, as an SPDX identifier.
        window: input cells or pixels per attention window; 0 for a network without windows.
    """

    kind: str
    folder: str = ""
    files: Mapping[int, File] = field(default_factory=dict)
    licence: str = "Apache-2.0"
    window: int = 0

    @property
    def missing(self) -> list[File]:
        """The published files that are not on this machine yet."""
        return [file for file in self.files.values() if not file.path.is_file()]


def download_folder() -> Path:
    """Where downloaded files are kept: ~/.cache/lua_demo/weights, below XDG_CACHE_HOME where that is set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lua_demo" / "weights"
