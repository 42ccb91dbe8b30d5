"""The mean of several trainings, as a command."""

import json

import pytest
import torch

from lua_demo.commands.main import main
from lua_demo.models.lua import lua_from
from lua_demo.models.weights import load_any_lua
from lua_demo.networks.feature_lua import FeatureLUA
from lua_demo.networks.lua import LUA
from lua_demo.networks.tae import TinyAutoencoder

TOY = dict(embed_dim=12, depths=(2,), num_heads=(2,), window_size=4, head_num_feat=8)


def write(folder, model, **facts):
    model.save_pretrained(folder)
    if facts:
        (folder / "training.json").write_text(json.dumps(facts))
    return model


def test_mean_of_two_trainings(tmp_path, capsys):
    networks = [
        write(tmp_path / name, FeatureLUA(**TOY), what="lua", space="sdxl", seed=seed) for seed, name in enumerate("ab")
    ]
    assert main(["average", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "mean")]) == 0
    assert "mean of 2 models" in capsys.readouterr().out
    mean = load_any_lua(tmp_path / "mean")
    for made, *given in zip(mean.parameters(), *(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(made, (given[0] + given[1]) / 2, rtol=2**-8, atol=1e-6)
    facts = json.loads((tmp_path / "mean" / "training.json").read_text())
    assert facts == {"what": "lua", "space": "sdxl", "average_of": [
        {"what": "lua", "space": "sdxl", "seed": 0}, {"what": "lua", "space": "sdxl", "seed": 1},
    ]}  # fmt: skip
    larger = lua_from(tmp_path / "mean", "sdxl", tiny=TinyAutoencoder(4).eval())(torch.randn(1, 4, 8, 8), 2)
    assert larger.shape == (1, 4, 16, 16)


@pytest.mark.parametrize(
    ("other", "facts", "names", "said"),
    [
        (None, {}, "a", "give two or more"),
        (FeatureLUA(**{**TOY, "embed_dim": 16}), {}, "ab", "b is not built like"),
        (LUA(in_chans=4, **TOY), {}, "ab", "b is not built like"),
        (FeatureLUA(**TOY), {"space": "sd3"}, "ab", "different latent spaces, sd3, sdxl"),
        (None, {}, "ac", "c does not exist"),
    ],
)
def test_models_without_a_mean_are_refused(other, facts, names, said, tmp_path, capsys):
    write(tmp_path / "a", FeatureLUA(**TOY), space="sdxl")
    if other:
        write(tmp_path / "b", other, **{"space": "sdxl", **facts})
    out = tmp_path / "mean"
    assert main(["average", *(str(tmp_path / name) for name in names), "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
