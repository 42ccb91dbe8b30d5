"""Loading: published checkpoints, our own folders, the hub's cache, and everything that is not weights."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lua_demo import LUA, SwinIR, load_lua, load_swinir
from lua_demo.models.weights import fingerprint, load_autoencoder
from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.schema import UserError

GOLDEN = Path(__file__).parent / "golden"
TOY = dict(embed_dim=8, depths=(2,), num_heads=(2,), window_size=4, head_num_feat=8, scales=(2, 4), residual="bicubic")
LOADERS = {"lua": load_lua, "swinir": load_swinir, "autoencoder": load_autoencoder}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One saved toy network of each kind, none of which is at its starting values."""
    torch.manual_seed(0)
    small = dict(fine=8, coarse=8, encoder_coarse=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    upscalers = {"lua": LUA(in_chans=4, shift=False, **TOY), "swinir": SwinIR(**TOY)}
    networks = {**upscalers, "autoencoder": Autoencoder(**small)}
    root = tmp_path_factory.mktemp("saved")
    for name, network in networks.items():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        network.save_pretrained(root / name)
    return {name: root / name for name in networks}


@pytest.fixture
def folder(folders, tmp_path) -> Path:
    """A LUA folder that a test may damage."""
    return Path(shutil.copytree(folders["lua"], tmp_path / "lua"))


def golden(name: str = "lua") -> dict[str, torch.Tensor]:
    content = torch.load(GOLDEN / f"{name}_tiny.pth", weights_only=True)
    return dict(content.get("params_ema", content["params"]))


def refusal(load, source, *words: str) -> str:
    """The message of the UserError; it is one line and has all `words`."""
    with pytest.raises(UserError) as error:
        load(source)
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in (*words, str(source)) if word not in message] == []
    return message


def test_the_weights_folder_is_the_checkouts():
    assert Path(__file__).parents[1] / "assets" / "weights" == WEIGHTS_DIR


@pytest.mark.parametrize(("name", "load"), [("lua", load_lua), ("swinir", load_swinir)])
def test_the_configuration_is_deduced_from_a_published_checkpoint(name, load):
    written = json.loads((GOLDEN / "config.json").read_text())[name]
    network = load(GOLDEN / f"{name}_tiny.pth")
    found = network._hub_mixin_config
    for key in ("depths", "num_heads", "embed_dim", "window_size", "mlp_ratio"):
        assert found[key] == written[key]
    assert network.in_chans == written["in_chans"]
    assert network.scales == (tuple(written["heads"].values()) if name == "lua" else (written["upscale"],))
    assert found["head_num_feat"] == written.get("head_num_feat", 64)
    assert found["shift"] and found["residual"] is None
    assert not network.training


def test_another_configuration_is_deduced_too(tmp_path):
    """Unequal groups, window, ratio and head; heads for 2 and 8; no shift, told by the absence of masks."""
    made = LUA(4, 12, (1, 3), (3, 2), 6, 2.75, 5, (2, 8), shift=False)
    index = torch.zeros(36, 36, dtype=torch.int64)
    tensors = {**made.state_dict(), "layers.0.residual_group.blocks.0.attn.relative_position_index": index}
    torch.save({"params": tensors}, tmp_path / "other.pth")
    found = load_lua(tmp_path / "other.pth")
    x = torch.rand(1, 4, 7, 5)
    with torch.inference_mode():
        assert torch.equal(found(x, 8), made(x, 8))
    assert found._hub_mixin_config["depths"] == [1, 3] and found._hub_mixin_config["num_heads"] == [3, 2]
    assert not found._hub_mixin_config["shift"]


def test_the_average_is_preferred(tmp_path):
    average = golden()
    last = {name: torch.zeros_like(value) for name, value in average.items()}
    torch.save({"params": last, "params_ema": average}, tmp_path / "both.pt")
    assert torch.equal(load_lua(tmp_path / "both.pt").conv_first.weight, average["conv_first.weight"])


@pytest.mark.parametrize("name", ["lua", "swinir"])
def test_a_published_checkpoint_can_be_bare_or_safetensors(name, tmp_path):
    torch.save(golden(name), tmp_path / "bare.pth")
    save_file(golden(name), tmp_path / "same.safetensors")
    for file in ("bare.pth", "same.safetensors"):
        assert torch.equal(LOADERS[name](tmp_path / file).conv_first.weight, golden(name)["conv_first.weight"])


@pytest.mark.parametrize("name", ["lua", "swinir"])
def test_a_published_checkpoint_can_be_converted(name, tmp_path):
    published = LOADERS[name](GOLDEN / f"{name}_tiny.pth")
    published.save_pretrained(tmp_path)
    x = torch.rand(1, published.in_chans, 9, 6)
    with torch.inference_mode():
        assert torch.equal(LOADERS[name](tmp_path)(x, 2), published(x, 2))


@pytest.mark.parametrize("name", ["lua", "swinir", "autoencoder"])
def test_save_and_load(name, folders, tmp_path):
    """Folder, file with its config beside it, and from_pretrained give the same network; it saves to the same files."""
    network = LOADERS[name](folders[name])
    others = [LOADERS[name](str(folders[name] / "model.safetensors")), type(network).from_pretrained(folders[name])]
    saved = load_file(folders[name] / "model.safetensors")
    assert saved.keys() == dict(network.named_parameters()).keys()
    for other in (network, *others):
        assert not other.training
        assert all(torch.equal(value, saved[key]) for key, value in other.state_dict().items())
        assert other._hub_mixin_config == json.loads((folders[name] / "config.json").read_text())
    network.save_pretrained(tmp_path)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / file).read_bytes() == (folders[name] / file).read_bytes()
    assert "license: apache-2.0" in (tmp_path / "README.md").read_text()


def test_a_loaded_network_computes_what_the_saved_one_did(tmp_path):
    torch.manual_seed(0)
    made, x = SwinIR(**{**TOY, "residual": None}), torch.rand(1, 3, 5, 9)
    made.save_pretrained(tmp_path)
    with torch.inference_mode():
        assert torch.equal(load_swinir(tmp_path)(x, 4), made(x, 4))


def test_from_pretrained_is_strict(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["norm.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"norm\.bias"):
        LUA.from_pretrained(folder)


def test_the_fingerprint_is_that_of_the_file(folders, tmp_path):
    expected = hashlib.sha256((folders["lua"] / "model.safetensors").read_bytes()).hexdigest()[:12]
    assert fingerprint(folders["lua"]) == expected
    refusal(fingerprint, folders["lua"] / "no.pth", "does not exist")
    copy = tmp_path / "model.safetensors"
    shutil.copy(folders["lua"] / "model.safetensors", copy)
    assert fingerprint(copy) == expected
    copy.write_bytes(copy.read_bytes() + b"x")
    assert fingerprint(copy) != expected, "a file that has changed is read again"


@pytest.mark.parametrize("name", ["lua", "swinir", "autoencoder"])
@pytest.mark.parametrize("given", ["lua", "swinir", "autoencoder"])
def test_another_kind_of_network_is_refused_by_name(name, given, folders):
    if name != given:
        message = refusal(LOADERS[name], folders[given], f"use {LOADERS[given].__name__}")
        assert message.count("model.safetensors") == 1


def test_a_published_checkpoint_of_another_kind_is_refused_by_name():
    refusal(load_lua, GOLDEN / "swinir_tiny.pth", "holds SwinIR", "load_swinir")
    refusal(load_swinir, GOLDEN / "lua_tiny.pth", "holds LUA", "load_lua")
    refusal(load_autoencoder, GOLDEN / "lua_tiny.pth", "holds LUA", "load_lua")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("content", ["empty", "text", "cut off", "image"])
def test_a_file_that_is_not_weights_is_refused(content, suffix, tmp_path):
    whole = GOLDEN / ("lua_tiny_io.safetensors" if suffix == ".safetensors" else "lua_tiny.pth")
    cut = whole.read_bytes()[:-1000]
    data = {"empty": b"", "text": b"hello\nworld\n", "cut off": cut, "image": b"\x89PNG\r\n\x1a\n"}
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(data[content])
    refusal(load_lua, file, "not readable as weights")


@pytest.mark.parametrize("content", [[1, 2], {}, {"params": 3}, {"params": {"a": "b"}}, torch.zeros(2)])
def test_a_torch_file_without_weights_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    refusal(load_lua, tmp_path / "other.pth", "holds no weights")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "trapped").touch, ()

    torch.save({"params": Trap()}, tmp_path / "trap.pth")
    refusal(load_lua, tmp_path / "trap.pth", "not readable as weights")
    assert not (tmp_path / "trapped").exists()


def test_paths_without_weights_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    refusal(load_lua, tmp_path / "empty", "has no model.safetensors")
    refusal(load_lua, tmp_path / "missing.pth", "does not exist")
    refusal(load_lua, "nowhere", "does not exist", "hub id")
    (folder / "config.json").unlink()
    refusal(load_lua, folder, "has no config.json")
    refusal(load_lua, folder / "model.safetensors", "needs its config.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("norm.bias"), ["1 missing", "norm.bias"]),
        (lambda t: t.update(more=torch.zeros(1)), ["1 unexpected", "more"]),
        (lambda t: t.update({"norm.bias": torch.zeros(3)}), ["1 of another shape", "norm.bias"]),
        (lambda t: t.pop("conv_first.weight"), ["conv_first.weight"]),
        (lambda t: t.update({"conv_first.weight": torch.zeros(3)}), ["conv_first.weight"]),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("layers.0.")], ["layers.0."]),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("layers.")], ["config.json"]),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("heads.")], ["nothing known"]),
        (lambda t: [t.update({k.replace(".x", ".by"): t.pop(k)}) for k in list(t) if ".x" in k], ["heads.x2"]),
        (lambda t: [t.pop(k) for k in list(t) if "upsample" in k], ["6 missing", "upsample"]),
    ],
)
def test_a_damaged_published_checkpoint_is_refused(change, words, tmp_path):
    tensors = golden()
    change(tensors)
    torch.save({"params": tensors}, tmp_path / "damaged.pth")
    refusal(load_lua, tmp_path / "damaged.pth", *words)


def test_a_published_swinir_of_another_architecture_is_refused(tmp_path):
    tensors = golden("swinir")
    for name in [name for name in tensors if name.startswith("upsample.")]:
        tensors[name] = tensors[name].repeat_interleave(9, 0)[::4]
    torch.save({"params": tensors}, tmp_path / "x3.pth")
    refusal(load_swinir, tmp_path / "x3.pth", "2 of another shape", "upsample")
    grey = {**golden("swinir"), "conv_first.weight": torch.zeros(24, 1, 3, 3)}
    torch.save({"params": grey}, tmp_path / "grey.pth")
    refusal(load_swinir, tmp_path / "grey.pth", "grey")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["not readable JSON"]),
        ("[1]", ["not a JSON object"]),
        ('{"in_chans": 4, "embed_dim": "wide"}', ["describes no LUA"]),
        ('{"in_chans": 4, "width": 8}', ["describes no LUA", "width"]),
        ('{"in_chans": 4, "depths": [2, 2], "num_heads": [2], "embed_dim": 8}', ["describes no LUA"]),
        ('{"in_chans": 4, "scales": [3], "embed_dim": 8, "num_heads": [2], "depths": [1]}', ["no LUA", "scale 3"]),
        ('{"in_chans": 4, "embed_dim": 8, "num_heads": [2], "depths": [1]}', ["does not fit its LUA configuration"]),
    ],
)
def test_a_wrong_config_is_refused(text, words, folder):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError) as error:
        load_lua(folder)
    message = str(error.value)
    assert "\n" not in message and str(folder) in message
    assert [word for word in words if word not in message] == []


@pytest.fixture
def offline_cache(tmp_path, monkeypatch) -> Path:
    """An empty hub cache and no hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def cache(root: Path, repository: str, *files: Path) -> None:
    """Put `files` where the hub's client keeps what it has downloaded."""
    base = root / f"models--{repository.replace('/', '--')}"
    snapshot = base / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("0" * 40)
    for file in files:
        shutil.copy(file, snapshot / file.name)


def test_hub_ids(offline_cache, folders, tmp_path):
    cache(offline_cache, "somebody/lua", folders["lua"] / "config.json", folders["lua"] / "model.safetensors")
    assert load_lua("somebody/lua").in_chans == 4
    assert fingerprint("somebody/lua") == fingerprint(folders["lua"])
    published = tmp_path / "lua_flux.pth"
    shutil.copy(GOLDEN / "lua_tiny.pth", published)
    cache(offline_cache, "vaskers5/LUA-FLUX", published)
    assert load_lua("vaskers5/LUA-FLUX").scales == (2, 4)


def test_a_hub_that_cannot_be_reached_is_said(offline_cache):
    refusal(load_lua, "somebody/lua", "hub", "go online")
    refusal(load_lua, "vaskers5/LUA-FLUX", "hub", "go online")
