"""Checkpoints of others: wrapped, prefixed, of other networks, with odd keys, configurations and values."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_weights import folder, folders, golden, refusal  # noqa: F401  fixtures

from lua_demo import load_lua, load_swinir
from lua_demo.models.weights import load_autoencoder

LOADERS = (load_lua, load_swinir, load_autoencoder)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: {"state_dict": t, "epoch": 3, "optimizer": {"state": {}}},
        lambda t: {"state_dict": {f"module.{k}": v for k, v in t.items()}},
        lambda t: {f"module.{k}": v for k, v in t.items()},
        lambda t: {"params_ema": {f"module.{k}": v for k, v in t.items()}},
        lambda t: {"model_state_dict": {f"_orig_mod.{k}": v for k, v in t.items()}},
        lambda t: {"model": {"params": t}},
        lambda t: {"state_dict": {f"net_g.{k}": v for k, v in t.items()}},
    ],
)
@pytest.mark.parametrize(("name", "load"), [("lua", load_lua), ("swinir", load_swinir)])
def test_wrapped_checkpoints_load(wrap, name, load, tmp_path):
    torch.save(golden(name), tmp_path / "plain.pth")
    torch.save(wrap(golden(name)), tmp_path / "wrapped.pth")
    plain, wrapped = (load(tmp_path / f"{kind}.pth").state_dict() for kind in ("plain", "wrapped"))
    assert plain.keys() == wrapped.keys() and all(torch.equal(plain[key], wrapped[key]) for key in plain)


def body() -> dict[str, torch.Tensor]:
    """A published SwinIR without what comes after its trunk."""
    after = ("conv_before_upsample.", "upsample.", "conv_last.")
    return {name: value for name, value in golden("swinir").items() if not name.startswith(after)}


LAST = {"conv_last.weight": torch.zeros(3, 8, 3, 3), "conv_last.bias": torch.zeros(3)}
UP = {"conv_up1.weight": torch.zeros(8, 8, 3, 3), "conv_before_upsample.0.weight": torch.zeros(8, 8, 3, 3)}
KINDS = {
    "SwinIR for real-world": lambda: {**body(), **UP, **LAST},
    "SwinIR, lightweight": lambda: {**body(), "upsample.0.weight": torch.zeros(12, 8, 3, 3)},
    "does not enlarge": lambda: {**body(), **LAST},
    "ESRGAN": lambda: {
        "body.0.rdb1.conv1.weight": torch.zeros(8, 8, 3, 3),
        "conv_first.weight": torch.zeros(8, 3, 3, 3),
    },
    "Swin2SR": lambda: {"layers.0.residual_group.blocks.0.attn.logit_scale": torch.zeros(2, 1, 1)},
    "HAT": lambda: {"layers.0.residual_group.overlap_attn.qkv.weight": torch.zeros(8, 8)},
    "KL autoencoder": lambda: {"encoder.down_blocks.0.resnets.0.conv1.weight": torch.zeros(8, 8, 3, 3)},
    "a diffusion model": lambda: {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3)},
    "a LoRA": lambda: {"unet.to_k.lora_down.weight": torch.zeros(4, 8)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_other_networks_are_named(kind, wrapped, tmp_path):
    tensors = KINDS[kind]()
    if wrapped:
        tensors = {"params_ema": {f"module.{name}": value for name, value in tensors.items()}}
    torch.save(tensors, tmp_path / "x.pth")
    for load in LOADERS:
        refusal(load, tmp_path / "x.pth", kind)


@pytest.mark.parametrize(
    "content",
    [
        {1: torch.zeros(3)},
        {"params": {0: torch.zeros(3), "a": torch.zeros(3)}},
        {"params": {("a", 1): torch.zeros(3)}},
        {"params": 3},
        {"state_dict": {"state_dict": {"state_dict": {"state_dict": {"a": torch.zeros(3)}}}}},
        [torch.zeros(3)],
        {"a": torch.zeros(3).to_sparse()},
        {},
    ],
)
def test_odd_contents_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    for load in LOADERS:
        refusal(load, tmp_path / "x.pth")


def test_sparse_weights_are_refused(tmp_path):
    tensors = golden()
    tensors["norm.bias"] = tensors["norm.bias"].to_sparse()
    torch.save(tensors, tmp_path / "x.pth")
    refusal(load_lua, tmp_path / "x.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": 0},
        {"embed_dim": -8},
        {"embed_dim": 10**12},
        {"embed_dim": 1e300},
        {"embed_dim": 10**400},
        {"embed_dim": [8]},
        {"num_heads": [0]},
        {"num_heads": []},
        {"depths": [10**9]},
        {"depths": []},
        {"depths": [[2]]},
        {"window_size": 0},
        {"window_size": 10**6},
        {"mlp_ratio": float("nan")},
        {"mlp_ratio": 0},
        {"head_num_feat": 0},
        {"scales": []},
        {"scales": [2, 2**40]},
        {"scales": ["2"]},
        {"in_chans": 0},
        {"in_chans": None},
        {"more": 1},
    ],
    ids=str,
)
def test_odd_configurations_are_refused(change, folder):  # noqa: F811
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    refusal(load_lua, folder)


def test_a_nested_configuration_is_refused(folder):  # noqa: F811
    (folder / "config.json").write_text("[" * 100_000)
    refusal(load_lua, folder)
    (folder / "config.json").write_text('{"in_chans":' * 100_000)
    refusal(load_lua, folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value, folders, tmp_path):  # noqa: F811
    for name, load in zip(("lua", "swinir", "autoencoder"), LOADERS, strict=True):
        damaged = shutil.copytree(folders[name], tmp_path / name)
        tensors = load_file(damaged / "model.safetensors")
        list(tensors.values())[-1].view(-1)[0] = value
        save_file(tensors, damaged / "model.safetensors")
        with pytest.raises(ValueError, match=r"holds values that are no numbers"):
            load(damaged)
