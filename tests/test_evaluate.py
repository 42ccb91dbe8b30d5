"""What `evaluate` adds to the engine's results: where seams could be, and averages of what each method adds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import TRUNK, picture
from PIL import Image
from safetensors.torch import save_file

from lua_demo.catalog.methods import METHODS
from lua_demo.commands.evaluate import evaluate, evaluate_scenes, seams, to_markdown
from lua_demo.commands.main import main
from lua_demo.commands.sheet import GAP, HEADER, busiest
from lua_demo.networks.lua import LUA
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.pictures import metrics
from lua_demo.pictures.images import enlarge
from lua_demo.scenes.corpus import write_picture
from lua_demo.schema import Request, Result, UserError


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("roundtrip", (8,)),
        ("base", (16,)),
        ("bicubic", (8,)),
        ("lua", (8, 64)),
        ("swinir", (16, 16)),
    ],
)
def test_seams_at_twice_the_size(method, expected):
    assert seams(METHODS[method], 2) == expected


def test_every_method_gets_every_column(engine, tmp_path):
    Image.fromarray(picture(200, 190)).save(tmp_path / "a.png")
    result = evaluate(engine, tmp_path, scales=(2,), crop=176)
    for method, entries in result.values[2].items():
        assert None not in entries["a.png"].values(), method
    crop = picture(200, 190)[7:183, 12:188]
    Image.fromarray(crop).save(tmp_path / "crop.png")
    stream = engine.compare(Request(str(tmp_path / "crop.png"), 2, 88, ("base", "lua")))
    made = {event.method: event.image for event in stream if isinstance(event, Result)}
    expected = metrics.further(made["lua"], crop, made["base"], (8, 64))
    assert result.values[2]["lua"]["a.png"] == pytest.approx(
        {**expected, **metrics.against(made["lua"], crop), "seconds": result.values[2]["lua"]["a.png"]["seconds"]}
    )
    assert result.values[2]["base"]["a.png"]["vif"] == metrics.vif(enlarge(made["base"], (176, 176)), crop)
    document = json.loads(json.dumps(result.to_json()))
    means = document["averages"]["2"]
    assert document["differences"]["2"]["lua - base"]["psnr"] == pytest.approx(
        means["lua"]["psnr"] - means["base"]["psnr"]
    )
    assert np.isfinite(means["lua"]["grid"])


def test_scenes_are_rendered_at_the_size_of_the_truth(engine, monkeypatch):
    rendered = []

    def spy(scene, size, path):
        write_picture(scene, size, path)
        rendered.append(np.asarray(Image.open(path)))

    monkeypatch.setattr("lua_demo.commands.evaluate.write_picture", spy)
    result = evaluate_scenes(engine, 2, (2, 4), ("base", "lua"), base=32)
    assert [picture.shape[0] for picture in rendered] == [64, 64, 128, 128]
    assert result.crop is None and result.to_json()["averages"][4]["lua"]["psnr"] > 5
    # One scene at two sizes: shrunk to one size they are the same picture but for the sampling.
    one, other, larger = (
        np.asarray(Image.fromarray(rendered[i]).resize((32, 32), Image.BOX), float) for i in (0, 1, 2)
    )
    assert np.abs(one - larger).mean() < 0.5 * np.abs(one - other).mean()
    assert to_markdown(result).startswith("2 scenes")
    with pytest.raises(UserError, match="0 scenes"):
        evaluate_scenes(engine, 0)


def test_without_the_base_there_is_no_drift(engine, photo):
    result = evaluate(engine, photo(64, 64).parent, scales=(2,), crop=64, methods=("lua",))
    assert result.mean(2, "lua", "colour_drift") is None and result.mean(2, "lua", "sharpness") is not None


def test_a_space_from_outside_and_its_sheets(toy_weights, tmp_path, capsys):
    """A LUA and a tiny autoencoder of a space without shipped weights, given by path; SwinIR is the shipped one."""
    tiny = TinyAutoencoder(4)
    for half in ("encoder", "decoder"):
        save_file(getattr(tiny, half).state_dict(), tmp_path / f"taesdxl_{half}.safetensors")
    LUA(in_chans=4, **TRUNK).save_pretrained(tmp_path / "sdxl" / "lua")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(picture(70, 66)).save(photos / "a.png")
    common = ["--device", "cpu", "--weights", str(toy_weights), "--images", str(photos), "--crop", "64",
              "--scales", "2", "--space", "sdxl", "--vae", str(tmp_path)]  # fmt: skip
    assert main(["evaluate", *common]) == 2
    assert "there is no LUA for the latent space sdxl: train one" in capsys.readouterr().err
    common += ["--lua", str(tmp_path / "sdxl" / "lua")]
    assert main(["evaluate", *common]) == 0
    out = capsys.readouterr().out
    assert "| LUA (latent)" in out and "lua" in out.splitlines()[-1] and "sdxl/lua (" in out
    assert main(["sheet", *common, "--out", str(tmp_path / "sheets"), "--side", "32"]) == 0
    sheet = np.asarray(Image.open(tmp_path / "sheets" / "x2.png"))
    assert sheet.shape == (GAP + 32 + GAP + HEADER, GAP + 5 * (32 + GAP), 3)
    crop = picture(70, 66)[1:65, 3:67]
    top, left = busiest(crop, 32)
    assert np.array_equal(sheet[GAP + HEADER : -GAP, -32 - GAP : -GAP], crop[top : top + 32, left : left + 32])
    assert main(["sheet", *common, "--out", str(tmp_path / "sheets"), "--side", "65"]) == 2


def test_the_busiest_part_is_found():
    image = np.full((64, 64, 3), 90, np.uint8)
    image[34:44, 18:28] = picture(10, 10)
    assert busiest(image, 16) == (32, 16)
