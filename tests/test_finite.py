"""Values that are no numbers are named with the stage that made them, never shown as a black picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_latent_check import drawn

from lua_demo.commands.main import main
from lua_demo.machine.finite import check_finite
from lua_demo.pictures.latents import load_latent, save_latent
from lua_demo.schema import BaseLatent, Request, Result, UserError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_is_enough(dtype, value):
    for shape, place in (((1, 3, 40, 50), (0, 2, 39, 49)), ((1,), (0,)), ((2, 64, 8, 8), (1, 0, 0, 0))):
        values = torch.randn(shape).to(dtype)
        assert check_finite(values, "a stage") is values
        values[place] = value
        with pytest.raises(UserError, match="a stage gave values that are no numbers"):
            check_finite(values, "a stage")


def test_infinities_that_cancel_and_finite_values_whose_sum_overflows():
    values = torch.zeros(1, 3, 8, 8)
    values[0, 0, 0, 0], values[0, 1, 0, 0] = float("inf"), -float("inf")
    with pytest.raises(UserError, match="no numbers"):
        check_finite(values, "a stage")
    large = torch.full((1, 3, 64, 64), torch.finfo(torch.float32).max)
    assert check_finite(large, "a stage") is large
    assert check_finite(torch.full((999,), 65504.0, dtype=torch.float16), "a stage") is not None
    assert check_finite(torch.zeros(1, 3, 0, 4), "a stage") is not None


@pytest.fixture
def source(tmp_path):
    return save_latent(tmp_path / "in.safetensors", BaseLatent(drawn("embedded", 12)[0].numpy(), "embedded", (96, 96)))


def test_upscale_writes_no_such_file(source, toy_weights, tmp_path, capsys):
    import shutil

    weights = shutil.copytree(toy_weights, tmp_path / "weights")
    file = weights / "embedded" / "lua" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("weight") and "conv_last" in name)
    tensors[name].view(-1)[:] = 3e38
    save_file(tensors, file)
    out = tmp_path / "out.safetensors"
    assert main(["upscale", str(source), str(out), "--weights", str(weights), "--device", "cpu"]) == 2
    assert "LUA x2 gave values that are no numbers" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(("network", "stage"), [("lua", "upscale"), ("autoencoder", "encode"), ("swinir", "upscale")])
def test_a_comparison_names_the_stage(network, stage, engine, photo):
    request = Request(str(photo(150, 110)), 2, 64, ("bicubic", "base", "lua", "swinir"))
    list(engine.compare(replace(request, image=str(photo(110, 150)))))  # loads the networks
    assert len(engine.models.networks) >= 3
    for name, found in engine.models.networks.items():
        if network in name:
            for parameter in getattr(found, "network", found).parameters():
                torch.nn.init.constant_(parameter, 3e38)
    results = []
    with pytest.raises(UserError, match=f"the stage {stage} gave values that are no numbers"):
        results += [event for event in engine.compare(request) if isinstance(event, Result)]


@pytest.mark.parametrize("size", [(96, 48), (960, 960), (88, 96), (0, 96), (-96, 96), (10**12, 96)])
def test_upscale_refuses_a_size_that_its_tensor_has_not(size, source, toy_weights, tmp_path, capsys):
    lying = save_latent(tmp_path / "lying.safetensors", BaseLatent(load_latent(source).values, "embedded", size))
    out = tmp_path / "out.safetensors"
    assert main(["upscale", str(lying), str(out), "--weights", str(toy_weights), "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert "lying.safetensors has shape (64, 12, 12)" in told and told.count("\n") == 1 and not out.exists()


def test_upscale_does_not_overwrite_its_source(source, toy_weights, capsys):
    before = source.read_bytes()
    for out in (source, source.parent / "." / source.name):
        assert main(["upscale", str(source), str(out), "--weights", str(toy_weights), "--device", "cpu"]) == 2
        assert "would be overwritten" in capsys.readouterr().err and source.read_bytes() == before
