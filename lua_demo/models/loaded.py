"""The loaded networks of one engine: where each one comes from, what it is called, and making room."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lua_demo.catalog.bases import Base
from lua_demo.catalog.spaces import AUTOENCODER, GENERATOR, LUA
from lua_demo.machine.placement import DTYPES
from lua_demo.models.base_model import BaseModel, Held, components
from lua_demo.models.generators import load_generator
from lua_demo.models.loaders import LOADERS, source_of
from lua_demo.models.upscalers import Found, Upscale, fast
from lua_demo.models.vaes import VAE, load_network, name_of, tiny_source
from lua_demo.models.weights import fingerprint, load_autoencoder
from lua_demo.request.job import Job
from lua_demo.schema import UserError

Source = str | os.PathLike[str]
Key = tuple[str, str]
"""Identity of a network: how it is loaded, and from where. Device and dtype are those of all networks of an engine."""


class Absent(UserError):
    """A network that cannot be loaded here: methods that need it are left out, and say so."""


class Models:
    """Networks by what they are, and the base models.

    Below the folder of all weights lie those that are shipped and whatever is put there: `<space>/lua`, `<space>/tiny`,
    `<space>/small` and `bases/<base>` (a diffusers pipeline) are taken before anything from the hub.

    A network has a role in a job: the key of a method (its upscaler), the key of a decoder, `AUTOENCODER`, `GENERATOR`.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, weights: Path):
        self.device, self.dtype, self.weights = device, dtype, weights
        self.networks: dict[Key, Found] = {}
        self.provided: dict[tuple[str, str], Found] = {}
        self.bases: dict[str, BaseModel] = {}
        self.staying: set[str] = set()
        """Bases that keep what they hold, whatever else runs: where they were placed for every visitor."""

    def provide(self, space: str, role: str, network: nn.Module) -> None:
        """Use `network` as `role` of the latent space `space`, whatever weights lie in the folder."""
        self.provided[space, role] = self._placed(Found(network))

    def wanted(self, job: Job) -> list[str]:
        """The roles that `job` needs and that are not loaded."""
        sampler = [GENERATOR] if job.samples and not job.base.hub_id else []
        upscalers = [key for key, method in job.methods.items() if method.upscaler]
        roles = dict.fromkeys([job.decoder, *sampler, *upscalers])
        return [role for role in roles if self._found(job, role) is None]

    def load(self, job: Job, role: str) -> None:
        """Load what `wanted` named.

        Raises:
            UserError: it is missing, cannot be loaded, or is something else.
            Absent: only the methods that need it have to be left out.
        """
        self.networks[self._key(job, role)] = self._placed(self._load(job, role))

    def vae(self, job: Job) -> VAE:
        return self.network(job, job.decoder)

    def upscaler(self, job: Job, method: str) -> Upscale | None:
        """The upscaler of `method`; None where it has none."""
        return self.network(job, method) if job.methods[method].upscaler else None

    def network(self, job: Job, role: str) -> Any:
        """The loaded network of a role."""
        found = self._found(job, role)
        if found is None:
            raise KeyError(f"{role} is not loaded")
        return found.network

    def note(self, job: Job, method: str) -> str:
        """A note on the upscaler of `method` that belongs beside its pictures; empty for most."""
        found = self._found(job, method) if job.methods[method].upscaler else None
        return found.note if found else ""

    def base(self, job: Job) -> BaseModel | None:
        """The published base model of `job`, not loaded yet where it was not used; None for the embedded one.

        All others give back their memory, but for those that stay.
        """
        for other in self.bases.keys() - self.staying - {job.request.base}:
            self.bases[other].release()
        return self.known_base(job.request.base, job.base)

    def known_base(self, key: str, row: Base) -> BaseModel | None:
        """As `base`, but the others keep what they hold."""
        if row.hub_id and key not in self.bases:
            self.bases[key] = self._new_base(key, row)
        return self.bases.get(key)

    def peek(self, key: str, row: Base) -> tuple[BaseModel, Held]:
        """The published base model `key`, and what the others hold that would be given back for it; nothing changes."""
        others = [base.held() for other, base in list(self.bases.items()) if other != key]
        on_device, on_host = (sum(held[i] for held in others) for i in range(2))
        return self.bases.get(key) or self._new_base(key, row), (on_device, on_host)

    def _new_base(self, key: str, row: Base) -> BaseModel:
        narrow = self.dtype != torch.float32
        return BaseModel(row, self._base_source(key, row), self.device, DTYPES[row.dtype] if narrow else torch.float32)

    def sampler(self, job: Job) -> Callable[..., Tensor]:
        return self.base(job) or self.network(job, GENERATOR)

    def make_room(self) -> bool:
        """Give back the memory of the base models, but for those that stay; they are loaded again when they sample.
        False if none held any.
        """
        holding = [base for key, base in self.bases.items() if base.plan is not None and key not in self.staying]
        for base in holding:
            base.release()
        return bool(holding)

    def names(self, job: Job) -> dict[str, str]:
        """Role -> "source (start of the sha256)", of what `job` uses; no sha256 where it is not there."""
        named: dict[str, str] = {}
        if job.samples and job.base.hub_id:
            named["base"] = name_of(self._base_source(job.request.base, job.base))
        if job.space.decoders:
            decoder = self._decoder_source(job)[0]
            named["decoder"] = f"{job.space.decoders[job.decoder]} of {name_of(decoder)}"
        for role, folder in job.space.roles.items():
            used = not (role == GENERATOR and job.renders)
            if used and (self.weights / folder).is_dir():
                named[role] = f"{folder} ({fingerprint(self.weights / folder)})"
        for key, method in job.methods.items():
            if method.upscaler and key not in named:
                named |= self._upscaler_name(job, key)
        return named

    def _upscaler_name(self, job: Job, key: str) -> dict[str, str]:
        row, found = job.upscaler(key), self._found(job, key)
        source: str | Path = ""
        with contextlib.suppress(UserError):  # there is none
            source = (found.source if found else "") or source_of(row, job.base.space, self.weights)
        if row.files:
            source = source_of(row, job.base.space, self.weights, job.request.scale)
        if not source or (row.folder and not Path(source).exists()):
            return {}
        if not isinstance(source, Path):
            return {key: source}
        name = row.folder or (source.name if row.own or row.published else name_of(source))
        return {key: f"{name} ({fingerprint(source)})" if source.exists() else name}

    def _found(self, job: Job, role: str) -> Found | None:
        given = self.provided.get((job.base.space, role))
        return given or self.networks.get(self._key(job, role))

    def _key(self, job: Job, role: str) -> Key:
        if role in job.methods:
            row = job.upscaler(role)
            if row.kind == LUA:
                return LUA, job.base.space  # one of several sources; which one it is is known once it is loaded
            return row.kind, str(source_of(row, job.base.space, self.weights))
        if role in job.space.roles:
            return role, str(self.weights / job.space.roles[role])
        return role, str(self._decoder_source(job)[0])

    def _load(self, job: Job, role: str) -> Found:
        space = job.base.space
        if role in job.space.decoders:
            source, subfolder = self._decoder_source(job)
            if subfolder and not Path(source).is_dir():
                # Says what to do where the base is gated or cannot be downloaded.
                components(job.vae_base[1], source)
            return Found(VAE(load_network(space, source, subfolder, fast=True), role), os.fspath(source))
        if role in job.space.roles:
            folder = self._shipped(role, job.space.roles[role])
            if role == AUTOENCODER:
                return Found(VAE(load_autoencoder(folder)), folder)
            if role == GENERATOR:
                return Found(load_generator(folder), folder)
        row = job.upscaler(role)
        if row.folder or role in job.space.roles:
            self._shipped(role, row.folder or job.space.roles[role])
            return LOADERS[row.kind](row, space, self.weights)
        try:
            return LOADERS[row.kind](row, space, self.weights)
        except UserError as error:
            raise Absent(f"{error}; the other methods run without it") from error

    def _shipped(self, role: str, folder: str) -> Path:
        path = self.weights / folder
        if not path.is_dir():
            way_out = "train one (lua_demo train generator)" if role == GENERATOR else "restore it"
            raise UserError(f"the weights of {role} are missing: there is no {path}; {way_out} or give another folder")
        return path

    def _placed(self, found: Found) -> Found:
        if not isinstance(found.network, nn.Module):
            return found
        # On the CPU first: where ZeroGPU emulates CUDA, tensors can be moved but not computed with.
        network = fast(found.network.eval().requires_grad_(False), self.dtype)
        return replace(found, network=network.to(self.device, memory_format=torch.channels_last))

    def _base_source(self, key: str, row: Base) -> Source:
        folder = self.weights / "bases" / key
        return folder if folder.is_dir() else row.hub_id

    def _decoder_source(self, job: Job) -> tuple[Source, str]:
        """Folder or hub id, and the folder in it."""
        if job.decoder == "kl":
            return self._base_source(*job.vae_base), "vae"
        if job.decoder == "small":
            folder = self.weights / job.base.space / "small"
            return folder if folder.is_dir() else str(job.space.small), ""
        return tiny_source(job.base.space, self.weights), ""
