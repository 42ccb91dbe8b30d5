"""`python3 -m lua_demo doctor`: what can run here, why the rest cannot, what would be downloaded."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch
from huggingface_hub import constants, get_token, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

import lua_demo
from lua_demo.catalog.bases import BASES, first_base
from lua_demo.catalog.methods import METHODS
from lua_demo.catalog.spaces import AUTOENCODER, GENERATOR, SPACES
from lua_demo.machine.arguments import Parser, machine
from lua_demo.machine.memory import GIB, RESIDENT, Plan
from lua_demo.machine.placement import device_label, resolve_device, resolve_dtype
from lua_demo.models.loaded import Models
from lua_demo.models.lua import STAND_IN
from lua_demo.networks import onednn
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.report.records import markdown_table
from lua_demo.schema import UserError

GRADIO_TRIED_ON = "6.31"
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "gradio", "spaces")
COMPLETE = 0.95
"""Share of the expected bytes below which a cached repository counts as incomplete."""


@dataclass(frozen=True)
class BaseState:
    """Whether one base model can run here.

    Attributes:
        runs: prompts can be sampled here: it fits into the memory that is free now, at its default size.
        how: the way in which it is placed, or why it cannot be.
        weights: where they are: "shipped", "cached", "partly cached", "not here".
        download_gib: what is still to be downloaded from the hub.
        access: what the user must do before the hub sends them; empty if nothing.
        licence: of the weights; empty for those that are part of the checkout.
        steps, guidance: what its makers advise. unverified: what of its row was not checked against its own card.
    """

    base: str
    label: str
    runs: bool
    how: str
    weights: str
    download_gib: float
    access: str
    licence: str = ""
    steps: int = 0
    guidance: float = 0.0
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What `doctor` found. Memory and disk in GiB; `disk_gib` is free where the hub's files are kept."""

    versions: dict[str, str]
    device: str
    dtype: str
    memory_gib: tuple[float, float]
    device_memory_gib: tuple[float, float] | None
    disk_gib: float
    disk_folder: str
    bases: tuple[BaseState, ...]
    weights: dict[str, str]
    private: dict[str, str]


def examine(device_name: str = "auto", dtype_name: str = "auto", weights: Path = WEIGHTS_DIR) -> Report:
    """Examine the machine; nothing is loaded or downloaded.

    Raises:
        UserError: a device or dtype that is not there.
    """
    device = resolve_device(device_name)
    dtype = resolve_dtype(dtype_name, device)
    models, cached, memory = Models(device, dtype, weights), cached_bytes(), psutil.virtual_memory()
    folder = Path(constants.HF_HUB_CACHE).expanduser()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return Report(
        versions={"lua_demo": lua_demo.__version__, "python": platform.python_version(), **_versions()},
        device=device_label(device),
        dtype=str(dtype).removeprefix("torch."),
        memory_gib=(memory.available / GIB, memory.total / GIB),
        device_memory_gib=_device_memory(device),
        disk_gib=shutil.disk_usage(there).free / GIB,
        disk_folder=str(folder),
        bases=base_states(models),
        weights=_weights(weights, cached),
        private=private_apis(),
    )


def cached_bytes() -> dict[str, int]:
    """Hub id -> bytes of it in the hub's cache."""
    try:
        return {repo.repo_id: repo.size_on_disk for repo in scan_cache_dir().repos}
    except CacheNotFound:
        return {}


def base_states(models: Models) -> tuple[BaseState, ...]:
    """Whether each base can run with these models; what they hold counts as free, and stays where it is."""
    cached = cached_bytes()
    return tuple(base_state(key, models, cached) for key in BASES)


def base_state(key: str, models: Models, cached: dict[str, int] | None = None) -> BaseState:
    """As `base_states`, of one. `cached`: what `cached_bytes` gives, for a caller that has it already."""
    row, cached = BASES[key], cached_bytes() if cached is None else cached
    if row.renders:
        return _rendering_state(key, models, cached)
    if not row.hub_id:
        folder = models.weights / SPACES[row.space].roles[GENERATOR]
        there = folder.is_dir()
        missing = f"prompts need weights that are missing, photos and latents work: there is no {folder}"
        how = RESIDENT.label if there else missing
        return BaseState(key, row.label, there, how, "shipped" if there else "not here", 0.0, "")
    base, others = models.peek(key, row)
    size = row.sizes[0], row.sizes[0]
    plans: Sequence[Plan] = ()
    try:
        plans = base.plans(size, others)
        how = plans[0].label if plans else base.refusal(size, others)
    except UserError as error:  # the folder holds no pipeline
        how = str(error)
    card = row.licence, row.steps, row.guidance, row.unverified
    if Path(base.source).is_dir():
        return BaseState(key, row.label, bool(plans), how, str(base.source), 0.0, "", *card)
    have = cached.get(row.hub_id, 0) / GIB
    weights = "cached" if have >= COMPLETE * row.gib else "partly cached" if have else "not here"
    to_download = 0.0 if weights == "cached" else max(0.0, row.gib - have)
    access = row.access if to_download and not get_token() else ""
    return BaseState(key, row.label, bool(plans), how, weights, round(to_download, 1), access, *card)


def _rendering_state(key: str, models: Models, cached: dict[str, int]) -> BaseState:
    """A scene is rendered on any CPU; what it needs is the autoencoder of its space."""
    row, space = BASES[key], SPACES[BASES[key].space]
    if AUTOENCODER in space.roles:
        folder = models.weights / space.roles[AUTOENCODER]
        how = "rendered on any CPU" if folder.is_dir() else f"there is no {folder}"
        return BaseState(key, row.label, folder.is_dir(), how, "shipped" if folder.is_dir() else "not here", 0.0, "")
    owner = BASES[first_base(row.space)]
    how = f"rendered on any CPU, encoded by the autoencoder of {owner.label}"
    if (folder := models.weights / "bases" / first_base(row.space)).is_dir():
        return BaseState(key, row.label, True, how, str(folder), 0.0, "")
    if owner.hub_id in cached:
        return BaseState(key, row.label, True, how, "cached", 0.0, "")
    return BaseState(
        key, row.label, True, how, "not here", round(owner.vae_gib, 1), "" if get_token() else owner.access
    )


def _weights(folder: Path, cached: dict[str, int]) -> dict[str, str]:
    """What -> where, of the networks beside the bases: LUA and tiny autoencoder of each space, published upscalers."""
    found = {}
    for space, row in SPACES.items():
        published = row.lua.hub_id if row.lua else ""
        hub = f"{published}: {_where(published, cached)}" if published else "none: to be trained"
        if (stand_in := folder / space / STAND_IN).is_dir():
            hub += f"; where it cannot be downloaded: {stand_in}"
        found[f"LUA, {space}"] = f"{folder / space / 'lua'}" if (folder / space / "lua").is_dir() else hub
        if row.tiny:
            own, tiny, file = folder / space / "tiny", f"madebyollin/{row.tiny}", row.tiny_file
            where = ("cached" if file.path.is_file() else "not here") if file else _where(tiny, cached)
            found[f"tiny autoencoder, {space}"] = str(own) if own.is_dir() else f"{file.url if file else tiny}: {where}"
        if row.small:
            own = folder / space / "small"
            found[f"small decoder, {space}"] = str(own) if own.is_dir() else f"{row.small}: {_where(row.small, cached)}"
    for method in METHODS.values():
        if method.upscaler and method.upscaler.published:
            megabytes = sum(file.size for file in method.upscaler.missing) / 1e6
            found[method.label] = f"not here, {megabytes:.0f} MB to download" if megabytes else "cached"
    return found


def private_apis() -> dict[str, str]:
    """Private API of a library that is used here -> whether it is in use, and on which version it was tried."""
    found, missing = "in use", "not found here, the public way is used"
    return {
        f"torch.ops.mkldnn (tried on torch {onednn.TRIED_ON})": found if onednn.available() else missing,
        f"gradio.component_meta (tried on gradio {GRADIO_TRIED_ON})": found if has_component_meta() else missing,
    }


def has_component_meta() -> bool:
    """Whether gradio has the module that `ui.component` uses, without importing gradio."""
    gradio = find_spec("gradio")
    folders = (gradio.submodule_search_locations or []) if gradio else []
    return any((Path(folder) / "component_meta.py").is_file() for folder in folders)


def _where(repository: str, cached: dict[str, int]) -> str:
    return "cached" if repository in cached else "not here"


def _device_memory(device: torch.device) -> tuple[float, float] | None:
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return free / GIB, total / GIB


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def to_text(report: Report) -> str:
    """For a terminal."""
    own = report.device_memory_gib
    lines = [
        "versions  " + ", ".join(f"{name} {number}" for name, number in report.versions.items()),
        f"device    {report.device}, {report.dtype}" + (f", {own[0]:.1f} of {own[1]:.1f} GiB free" if own else ""),
        "memory    {:.1f} of {:.1f} GiB free".format(*report.memory_gib),
        f"disk      {report.disk_gib:.0f} GiB free for {report.disk_folder}",
        "",
    ]
    table = [["base", "runs here", "weights", "to download"]]
    for base in report.bases:
        size = f"{base.download_gib:.1f} GiB" if base.download_gib else "-"
        short = " (more than the disk has)" if base.download_gib > report.disk_gib else ""
        table.append([base.base, "yes" if base.runs else "no", base.weights, size + short])
    lines += [markdown_table(table), ""]
    for base in report.bases:
        unchecked = f"not checked against its card: {', '.join(base.unverified)}" if base.unverified else ""
        licence = f"licence {base.licence}" if base.licence else ""
        lines.append("; ".join(filter(None, [f"{base.base}: {base.how}", base.access, licence, unchecked])))
    needed = sum(base.download_gib for base in report.bases if base.runs)
    lines += ["", f"All that can run here would take {needed:.0f} GiB more on disk.", ""]
    lines += [f"{what}: {where}" for what, where in report.weights.items()]
    lines += ["", *(f"private API {name}: {state}" for name, state in report.private.items())]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    parser = Parser(prog="lua_demo doctor", description=__doc__, parents=[machine()])
    parser.add_argument("--json", action="store_true", help="the same for a program")
    args = parser.parse_args(argv)
    report = examine(args.device, args.dtype, args.weights or WEIGHTS_DIR)
    print(json.dumps(asdict(report), indent=2) if args.json else to_text(report))
    return 0
