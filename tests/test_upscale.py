"""`upscale`: a latent on disk through LUA, to another file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from test_latent_check import drawn

from lua_demo import load_lua
from lua_demo.commands.main import main
from lua_demo.pictures.latent_check import outside, soft_bound
from lua_demo.pictures.latents import load_latent, save_latent
from lua_demo.schema import BaseLatent


@pytest.fixture
def source(tmp_path):
    """A latent of the embedded space, of an image that is no multiple of the stride."""
    values = drawn("embedded", 12)[0, :, :9].numpy()
    return save_latent(tmp_path / "in.safetensors", BaseLatent(values, "embedded", (93, 70)))


@pytest.mark.parametrize("scale", [2, 4])
def test_it_writes_what_lua_makes(scale, source, toy_weights, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    command = [
        "upscale",
        str(source),
        "--scale",
        str(scale),
        str(out),
        "--weights",
        str(toy_weights),
        "--device",
        "cpu",
    ]
    assert main(command) == 0
    made, given = load_latent(out), load_latent(source)
    assert (made.space, made.size) == ("embedded", (93 * scale, 70 * scale))
    with torch.inference_mode():
        wanted = load_lua(toy_weights / "embedded" / "lua")(torch.from_numpy(given.values)[None], scale)
    wanted = wanted[..., : -(-70 * scale // 8), : -(-93 * scale // 8)]
    torch.testing.assert_close(torch.from_numpy(made.values)[None], wanted)
    told = capsys.readouterr().out
    assert f"embedded, 64 x {wanted.shape[2]} x {wanted.shape[3]}, for an image of {93 * scale} x {70 * scale}" in told
    assert f"{outside(wanted, 'embedded').mean():.2%} of its values outside" in told
    # What comes out goes in again.
    again = [
        "upscale",
        str(out),
        str(tmp_path / "again.safetensors"),
        "--space",
        "embedded",
        "--weights",
        str(toy_weights),
    ]
    assert main(again) == 0 and load_latent(tmp_path / "again.safetensors").size == (93 * scale * 2, 70 * scale * 2)


def test_the_bound_and_the_map(source, toy_weights, tmp_path, capsys):
    given = load_latent(source)
    wild = save_latent(tmp_path / "wild.safetensors", BaseLatent(given.values * 8, "embedded", given.size))
    plain, bound, where = (tmp_path / name for name in ("plain.safetensors", "bound.safetensors", "map.png"))
    common = ["--weights", str(toy_weights), "--device", "cpu"]
    assert main(["upscale", str(wild), str(plain), *common]) == 0
    assert main(["upscale", str(wild), str(bound), "--bound", "--map", str(where), *common]) == 0
    values = torch.from_numpy(load_latent(plain).values)[None]
    assert outside(values, "embedded").mean() > 0.03
    torch.testing.assert_close(torch.from_numpy(load_latent(bound).values)[None], soft_bound(values, "embedded"))
    assert "bent towards it" in capsys.readouterr().out
    picture = np.asarray(Image.open(where).convert("L"))
    assert picture.shape == (18, 24)
    np.testing.assert_allclose(picture, outside(values, "embedded")[0] * 255, atol=0.51)


def test_refusals(source, toy_weights, tmp_path, capsys):
    out = tmp_path / "out.safetensors"

    def refused(*arguments: object) -> str:
        assert main(["upscale", *map(str, arguments)]) == 2
        told = capsys.readouterr().err
        assert told.startswith("lua_demo: ") and told.count("\n") == 1 and not out.exists()
        return told

    given = load_latent(source)
    tags = {"sdxl": "sdxl", "other": "nonsense"}
    files = {
        name: save_latent(tmp_path / f"{name}.safetensors", BaseLatent(given.values, tag, given.size))
        for name, tag in tags.items()
    }
    assert "a latent of the space 'embedded', not sdxl" in refused(source, out, "--space", "sdxl")
    assert "unknown space 'nonsense'" in refused(files["other"], out)
    assert "sdxl.safetensors has 64 channels; latents of the space sdxl have 4" in refused(files["sdxl"], out)
    lying = save_latent(tmp_path / "lying.safetensors", BaseLatent(drawn("flux1", 12)[0].numpy(), "sd3", (96, 96)))
    assert "looks like a latent of the space flux1, not sd3" in refused(lying, out)
    xl = save_latent(tmp_path / "xl.safetensors", BaseLatent(drawn("sdxl", 12)[0].numpy(), "sdxl", (96, 96)))
    assert "no LUA for the latent space sdxl" in refused(xl, out, "--weights", toy_weights)
    assert "scale 3" in refused(source, out, "--scale", 3, "--weights", toy_weights)
    assert "gone.safetensors cannot be read" in refused(tmp_path / "gone.safetensors", out)
    (tmp_path / "occupied").write_text("a file")
    assert "cannot be written" in refused(source, tmp_path / "occupied" / "x.safetensors", "--weights", toy_weights)
