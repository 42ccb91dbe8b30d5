"""`doctor`: what it says of this machine, of a hub's cache that is made here, and of what is missing."""

from __future__ import annotations

import json
import shutil

import pytest

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.methods import SWINIR_OFFICIAL
from lua_demo.catalog.spaces import SPACES
from lua_demo.commands import doctor
from lua_demo.commands.main import main
from lua_demo.machine.memory import GIB
from lua_demo.models.lua import STAND_IN
from lua_demo.paths import WEIGHTS_DIR


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An empty hub cache, no token and an own cache folder; cached(repository, bytes) puts something there."""
    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(hub), raising=False)
    monkeypatch.setattr("lua_demo.commands.doctor.get_token", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def cached(repository: str, size: int) -> None:
        base = hub / f"models--{repository.replace('/', '--')}"
        snapshot = base / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (base / "refs").mkdir()
        (base / "refs" / "main").write_text("0" * 40)
        (base / "blobs").mkdir()
        with (base / "blobs" / "blob").open("wb") as file:
            file.truncate(size)  # sparse: gigabytes that take no room
        (snapshot / "weights.safetensors").symlink_to(base / "blobs" / "blob")

    return cached


def states(report: doctor.Report) -> dict[str, doctor.BaseState]:
    return {base.base: base for base in report.bases}


def test_every_base_is_told_and_why(machine, monkeypatch, capsys):
    monkeypatch.setattr("lua_demo.machine.memory.free_bytes", lambda device: 16 * GIB)
    report = doctor.examine("cpu")
    found = states(report)
    assert list(found) == list(BASES)
    assert found["sdxl"].runs and not found["flux2-dev"].runs
    assert "needs at least" in found["flux2-dev"].how and "16.0 GiB are free" in found["flux2-dev"].how
    assert "accept its licence" in found["flux1-dev"].access and found["sdxl"].access == ""
    assert {base.weights for base in report.bases if BASES[base.base].hub_id} == {"not here"}
    assert main(["doctor", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert [key for key in BASES if f"| {key} " not in told] == []
    assert found["flux2-dev"].how in told and "GiB more on disk" in told
    assert all(f"private API {name}: {state}" in told for name, state in report.private.items())


def test_more_memory_runs_more(machine, monkeypatch):
    counts = []
    for gigabytes in (1, 16, 40, 400):
        monkeypatch.setattr("lua_demo.machine.memory.free_bytes", lambda device, there=gigabytes: there * GIB)
        counts.append(sum(base.runs for base in doctor.examine("cpu").bases if BASES[base.base].hub_id))
    assert (
        counts[0] == 0
        and counts == sorted(set(counts))
        and counts[-1] == sum(bool(row.hub_id) for row in BASES.values())
    )


def test_what_is_cached_need_not_be_downloaded(machine):
    row = BASES["sdxl"]
    machine(row.hub_id, round(row.gib * GIB))
    machine(BASES["sd15"].hub_id, GIB // 2)
    machine("vaskers5/LUA-FLUX", 1000)
    report = doctor.examine("cpu")
    found = states(report)
    assert (found["sdxl"].weights, found["sdxl"].download_gib) == ("cached", 0.0)
    assert found["sd15"].weights == "partly cached"
    assert found["sd15"].download_gib == pytest.approx(BASES["sd15"].gib - 0.5, abs=0.06)
    stand_in = WEIGHTS_DIR / "flux1" / STAND_IN
    assert report.weights["LUA, flux1"] == f"vaskers5/LUA-FLUX: cached; where it cannot be downloaded: {stand_in}"
    assert report.weights["tiny autoencoder, sdxl"] == "madebyollin/taesdxl: not here"


def test_weights_of_ones_own_are_found(machine, toy_weights, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(toy_weights / "embedded" / "lua", folder / "sdxl" / "lua")
    report = doctor.examine("cpu", weights=folder)
    assert report.weights["LUA, sdxl"] == str(folder / "sdxl" / "lua")
    assert report.weights["LUA, sd1"] == "none: to be trained"
    assert not states(report)["embedded"].runs and "generator" in states(report)["embedded"].how
    (folder / "embedded" / "generator").mkdir(parents=True)
    assert states(doctor.examine("cpu", weights=folder))["embedded"].runs


def test_a_folder_that_is_no_pipeline_is_told(machine, tmp_path):
    folder = tmp_path / "weights"
    (folder / "bases" / "sdxl").mkdir(parents=True)
    found = states(doctor.examine("cpu", weights=folder))["sdxl"]
    assert not found.runs and "no diffusers pipeline" in found.how


def test_the_release_of_swinir_is_looked_for(machine, tmp_path):
    assert doctor.examine("cpu").weights["SwinIR (official)"] == "not here, 135 MB to download"
    folder = tmp_path / "lua_demo" / "weights"
    folder.mkdir(parents=True)
    for file in SWINIR_OFFICIAL.files.values():
        file.path.touch()
    assert doctor.examine("cpu").weights["SwinIR (official)"] == "cached"


def test_json(machine, capsys):
    assert main(["doctor", "--json", "--device", "cpu", "--dtype", "fp32"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"].startswith("cpu") and found["dtype"] == "float32" and found["device_memory_gib"] is None
    assert 0 < found["memory_gib"][0] <= found["memory_gib"][1] and found["disk_gib"] > 0
    assert len([what for what in found["weights"] if what.startswith("LUA, ")]) == len(SPACES)
    assert main(["doctor", "--device", "tpu"]) == 2
    assert "tpu" in capsys.readouterr().err
