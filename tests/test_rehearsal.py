"""Base models of random weights: real architectures are as large as the table says, and small ones go all the way."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import diffusers
import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from tiny_bases import PIPELINES

from lua_demo.bench import rehearsal
from lua_demo.bench.architectures import ARCHITECTURES, TOKENIZERS, Part
from lua_demo.catalog.bases import BASES
from lua_demo.catalog.families import FAMILIES
from lua_demo.commands import bench as bench_command
from lua_demo.machine import memory
from lua_demo.machine.memory import GIB
from lua_demo.schema import UserError

CPU, WIDE = torch.device("cpu"), torch.float32


def gib(part: Part) -> float:
    """Of what a file of it in two bytes per value holds, tied weights once."""
    with torch.device("meta"):
        network = part.build()
    kept = dict(network.named_buffers()).keys() & network.state_dict().keys()
    return 2 / GIB * sum(
        value.numel() for value in (*network.parameters(), *(network.get_buffer(name) for name in kept))
    )  # fmt: skip


def test_all_published_bases_are_there():
    assert ARCHITECTURES.keys() == {key for key, row in BASES.items() if row.hub_id}


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_real_architectures_are_as_large_as_the_table_says(key):
    row, parts = BASES[key], ARCHITECTURES[key]
    encoders = sum(gib(part) for name, part in parts.items() if name.startswith("text_encoder"))
    assert encoders == pytest.approx(row.encoder_gib, abs=0.03)
    assert gib(parts[FAMILIES[row.family].denoiser]) == pytest.approx(row.denoiser_gib, abs=0.03)
    assert gib(parts["vae"]) == pytest.approx(row.vae_gib, abs=0.01)


def configured(part: Part, config: dict) -> dict:
    """What the network is built with: `config` and the defaults of its class; nothing if they do not go together."""
    if part.library == "transformers":
        try:
            return getattr(transformers, part.kind).config_class(**config).to_dict()
        except StrictDataclassError:
            return {}
    given = inspect.signature(getattr(diffusers, part.kind)).bind(**config)
    given.apply_defaults()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.arguments.items()}


def without(config: dict) -> Iterator[tuple[str, dict]]:
    """(name, `config` without that value), for every value in it."""
    for name, value in config.items():
        rest = {key: kept for key, kept in config.items() if key != name}
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", {**rest, name: less}) for inner, less in without(value))
        else:
            yield name, rest


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_no_configured_value_is_the_default_of_its_class(key):
    for component, part in ARCHITECTURES[key].items():
        if not isinstance(part, Part):
            continue
        whole = dict(part.config)
        for name, rest in without(whole):
            assert configured(part, rest) != configured(part, whole), f"{component}: {name}"


def small(key: str) -> dict:
    """The components of `key` with the configurations of the tests' tiny pipeline."""

    def part(component) -> Part:
        config = component.config.to_dict() if hasattr(component.config, "to_dict") else dict(component.config)
        return Part(type(component).__name__, {k: v for k, v in config.items() if not k.startswith("_")})

    made = PIPELINES[key]().components
    return {name: part(made[name]) if isinstance(value, Part) else value for name, value in ARCHITECTURES[key].items()}


def test_every_family_goes_all_the_way(monkeypatch, tmp_path, capsys):
    for key in PIPELINES:
        monkeypatch.setitem(ARCHITECTURES, key, small(key))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 200 * GIB)  # the table's numbers decide, of the real ones
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=200 * GIB))
    out = tmp_path / "out.json"
    assert bench_command.main(["--rehearse", *PIPELINES, "--size", "64", "--steps", "2", "--json", str(out)]) == 0
    found = {done["base"]: done for done in json.loads(out.read_text())["rehearsals"]}
    assert found.keys() == PIPELINES.keys()
    for key, done in found.items():
        assert "refused" not in done and not done["skipped"], (key, done)
        assert (done["size"], done["target"], done["steps"], done["dtype"]) == (64, 128, 2, "fp32")
        ran = [(stage["method"], stage["name"]) for stage in done["stages"]]
        assert ran == [
            ("base", "generate"), ("base", "decode"), ("lua", "upscale"), ("lua", "decode"), ("swinir", "upscale"),
            ("native", "generate"), ("native", "decode"),
        ], key  # fmt: skip
        assert all(stage["seconds"] > 0 and stage["peak_bytes"] > 0 for stage in done["stages"])
        assert any("stay on the device" in note for note in done["notes"])
    said = capsys.readouterr().out
    assert "flux2-klein, 64 -> 128 px, 2 steps, fp32" in said and "| lua | upscale |" in said


def test_what_does_not_fit_says_so_and_the_others_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(ARCHITECTURES, "sdxl", small("sdxl"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=40 * GIB))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 30 * GIB)
    out = tmp_path / "out.json"
    bench_command.main(
        ["--rehearse", "flux2-dev", "flux1-dev", "sdxl", "--size", "64", "--steps", "1", "--json", str(out)]
    )
    large, middle, fitting = json.loads(out.read_text())["rehearsals"]
    assert "FLUX.2 [dev] takes 104.9 GiB in" in large["refused"] and "TMPDIR" in large["refused"]
    assert "FLUX.1 [dev] needs at least" in middle["refused"] and "30.0 GiB are free" in middle["refused"]
    assert fitting["base"] == "sdxl" and fitting["stages"]


def test_sizes_are_those_of_the_page():
    assert rehearsal.sizes_of(BASES["sdxl"]) == (512, 1024)
    assert rehearsal.sizes_of(BASES["sdxl-turbo"]) == (512,)
    with pytest.raises(UserError, match="invalid choice: 'embedded'"):
        bench_command.main(["--rehearse", "embedded"])


def test_components_are_those_that_the_pipeline_takes():
    """A misspelt component, class or tokenizer would be found only on a large machine."""
    for key, parts in ARCHITECTURES.items():
        kind = getattr(diffusers, FAMILIES[BASES[key].family].pipeline)
        taken = inspect.signature(kind).parameters
        needed = {name for name, value in taken.items() if value.default is value.empty}
        assert parts.keys() <= taken.keys(), key
        assert needed <= parts.keys() | set(FAMILIES[BASES[key].family].without), key
        assert all(isinstance(part, Part | bool) or part in TOKENIZERS for part in parts.values())
