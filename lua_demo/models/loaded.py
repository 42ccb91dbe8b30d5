"""The loaded networks of one engine: where each one comes from, what it is called, and making room."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.methods import METHODS_BY_KIND
from lua_demo.catalog.spaces import AUTOENCODER, DECODERS, GENERATOR, LUA, SPACES, SWINIR_OFFICIAL
from lua_demo.machine.placement import DTYPES
from lua_demo.models.base_model import BaseModel, components
from lua_demo.models.loaders import LOADERS, PUBLISHED, WEIGHTLESS
from lua_demo.models.lua import Found, lua_source
from lua_demo.models.pixel_upscalers import official_swinir_files
from lua_demo.models.upscalers import Upscaler, fast
from lua_demo.models.vaes import VAE, load_network, name_of, tiny_source
from lua_demo.models.weights import fingerprint
from lua_demo.schema import Request, UserError


def decoder_role(request: Request) -> str:
    """What decodes this request: a key of `DECODERS`, or the space's own autoencoder."""
    decoders = SPACES[BASES[request.base].space].decoders
    return request.decoder or next(iter(decoders), AUTOENCODER)


class Models:
    """Networks by latent space and role, and the base models.

    Below the folder of all weights lie those that are shipped, as `SPACES` has them, and whatever is put there:
    `<space>/lua`, `<space>/tiny` and `bases/<base>` (a diffusers pipeline) are taken before anything from the hub.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, weights: Path):
        self.device, self.dtype, self.weights = device, dtype, weights
        self.networks: dict[tuple[str, str], nn.Module] = {}
        self.found: dict[tuple[str, str], Found] = {}
        self.bases: dict[str, BaseModel] = {}

    def provide(self, space: str, role: str, network: nn.Module) -> None:
        """Use `network` as `role` of `space`, whatever weights lie in the folder."""
        self.found.pop((space, role), None)
        # On the CPU first: where ZeroGPU emulates CUDA, tensors can be moved but not computed with.
        network = fast(network.eval().requires_grad_(False), self.dtype)
        self.networks[space, role] = network.to(self.device, memory_format=torch.channels_last)

    def wanted(self, request: Request) -> list[str]:
        """The roles that `request` needs and that are not loaded."""
        row, methods = BASES[request.base], METHODS_BY_KIND[request.kind]
        sampler = [GENERATOR] if request.prompt and not row.hub_id else []
        roles = [decoder_role(request), *sampler, *(methods[key].upscaler for key in request.methods)]
        known = {*LOADERS, *PUBLISHED, *DECODERS}
        return [role for role in dict.fromkeys(roles) if role in known and (row.space, role) not in self.networks]

    def load(self, request: Request, role: str) -> None:
        """Load what `wanted` named.

        Raises:
            UserError: it is missing, cannot be had, or is something else.
        """
        space = BASES[request.base].space
        if role in DECODERS:
            source, subfolder = self._decoder_source(request.base, role)
            if subfolder and not Path(source).is_dir():
                components(BASES[request.base], source)  # says what to do where the base is gated or cannot be had
            self.provide(space, role, VAE(load_network(space, source, subfolder, fast=True), role))
            return
        if role in SPACES[space].roles:
            folder = self.weights / SPACES[space].roles[role]
            if folder.is_dir():
                self.provide(space, role, LOADERS[role](folder))
                return
            way_out = "train one (lua_demo train generator)" if role == GENERATOR else "restore it"
            raise UserError(
                f"the weights of {role} are missing: there is no {folder}; {way_out} or give another folder"
            )
        try:
            found = PUBLISHED[role](space, self.weights)
        except UserError as error:
            raise Absent(f"{error}; the other methods run without it") from error
        self.provide(space, role, found.network)
        self.found[space, role] = found

    def vae(self, request: Request) -> VAE:
        return self.networks[BASES[request.base].space, decoder_role(request)]

    def upscaler(self, request: Request, role: str | None) -> Upscaler | None:
        return WEIGHTLESS.get(role) or self.networks.get((BASES[request.base].space, role))

    def note(self, request: Request, role: str | None) -> str:
        """What a reader of the pictures of an upscaler must know; mostly nothing."""
        found = self.found.get((BASES[request.base].space, role))
        return found.note if found else ""

    def base(self, key: str) -> BaseModel | None:
        """The published base model `key`, not loaded yet where it was not used; None for the embedded one.

        All others give back their memory.
        """
        row = BASES[key]
        for other in self.bases.keys() - {key}:
            self.bases[other].release()
        if row.hub_id and key not in self.bases:
            narrow = self.dtype != torch.float32
            dtype = DTYPES[row.dtype] if narrow else torch.float32
            self.bases[key] = BaseModel(row, self._base_source(key), self.device, dtype)
        return self.bases.get(key)

    def sampler(self, request: Request) -> Callable[..., Tensor]:
        return self.base(request.base) or self.networks[BASES[request.base].space, GENERATOR]

    def make_room(self) -> bool:
        """Give back the memory of the base models; they are loaded again when they sample. False if none held any."""
        holding = [base for base in self.bases.values() if base.plan is not None]
        for base in holding:
            base.release()
        return bool(holding)

    def names(self, request: Request) -> dict[str, str]:
        """Role -> "source (start of the sha256)", of what `request` uses; no sha256 where it is not there."""
        row = BASES[request.base]
        space = SPACES[row.space]
        there = {role: folder for role, folder in space.roles.items() if (self.weights / folder).is_dir()}
        named = {role: f"{folder} ({fingerprint(self.weights / folder)})" for role, folder in there.items()}
        if LUA not in space.roles:
            found = self.found.get((row.space, LUA))
            with contextlib.suppress(UserError):  # there is none
                source = found.source if found else lua_source(row.space, self.weights)
                named[LUA] = f"{name_of(source)} ({fingerprint(source)})" if isinstance(source, Path) else source
        if any(METHODS_BY_KIND[request.kind][key].upscaler == SWINIR_OFFICIAL for key in request.methods):
            file = official_swinir_files()[request.scale]
            named[SWINIR_OFFICIAL] = f"{file.name} ({fingerprint(file)})" if file.is_file() else file.name
        if row.hub_id:
            source, _ = self._decoder_source(request.base, decoder_role(request))
            named = {"decoder": f"{space.decoders[decoder_role(request)]} of {name_of(source)}", **named}
            if request.prompt:
                named = {"base": name_of(self._base_source(request.base)), **named}
        return named

    def _base_source(self, key: str) -> str | os.PathLike[str]:
        folder = self.weights / "bases" / key
        return folder if folder.is_dir() else BASES[key].hub_id

    def _decoder_source(self, base: str, role: str) -> tuple[str | os.PathLike[str], str]:
        """Folder or hub id, and the folder in it."""
        if role == "kl":
            return self._base_source(base), "vae"
        return tiny_source(BASES[base].space, self.weights), ""


class Absent(UserError):
    """A network that was not made yet: methods that need it are left out, and say so."""
