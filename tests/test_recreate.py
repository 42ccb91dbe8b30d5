"""Pictures made again from their PNG."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from lua_demo.engine import Engine
from lua_demo.pictures import images
from lua_demo.pictures.latents import save_latent
from lua_demo.report import records
from lua_demo.runs.recreate import compare_pixels, recreate
from lua_demo.runs.store import Store
from lua_demo.schema import Request, Result, UserError


def results_of(engine: Engine, request: Request, folder) -> dict[str, Result]:
    """Compare, and write each picture as the command line does."""
    results = [event for event in engine.compare(request) if isinstance(event, Result)]
    document = records.to_json(request, results, engine.environment(request))
    for result in results:
        images.save_png(result.image, folder / f"{result.method}.png", records.png_metadata(document, result.method))
    return {result.method: result for result in results}


@pytest.fixture
def made(engine, photo, tmp_path):
    """A folder with base.png, lua.png and swinir.png, away from their photo."""
    (tmp_path / "out").mkdir()
    source = photo(150, 110)
    results_of(engine, Request(str(source), 2, 70, ("base", "lua", "swinir"), seed=3), tmp_path / "out")
    return tmp_path / "out", source


@pytest.fixture
def nothing(tmp_path) -> Store:
    return Store(tmp_path / "empty-store", pinned=None)


@pytest.mark.parametrize("method", ["base", "lua", "swinir"])
def test_same_pixels(made, toy_weights, nothing, method):
    """By a process-fresh engine, one method alone."""
    folder, source = made
    again = recreate(folder / f"{method}.png", Engine("cpu", weights=toy_weights), nothing, source)
    assert again.same and again.verdict.startswith("same pixels: all ") and again.differences == []
    assert np.array_equal(again.result.image, np.asarray(Image.open(folder / f"{method}.png")))
    assert again.document["settings"]["methods"] == [method] and again.document["settings"]["seed"] == 3


def test_the_source_is_found_beside_the_picture(made, engine, nothing):
    folder, source = made
    shutil.copy(source, folder / "renamed.bin")
    assert recreate(folder / "lua.png", engine, nothing).source == str(folder / "renamed.bin")


def test_the_source_is_found_in_the_store(made, engine, tmp_path):
    folder, source = made
    shelf = Store(tmp_path / "shelf", pinned=None)
    run = shelf.finish(shelf.draft(), records.to_json(Request(str(source)), [], engine.environment()), source)
    assert recreate(folder / "lua.png", engine, shelf).source == str(run.source) != str(source)


def test_a_picture_from_a_latent(engine, photo, tmp_path, nothing):
    results = results_of(engine, Request(str(photo(150, 110)), 2, 70, ("base",)), tmp_path)
    latent = save_latent(tmp_path / "base.safetensors", results["base"].latent)
    (tmp_path / "out").mkdir()
    results_of(engine, Request(latent=str(latent), methods=("lua",)), tmp_path / "out")
    with pytest.raises(UserError, match=r"base\.safetensors, the latent that lua\.png was made from"):
        recreate(tmp_path / "out" / "lua.png", engine, nothing)
    assert recreate(tmp_path / "out" / "lua.png", engine, nothing, latent).same


def test_other_pixels_and_other_weights_are_named(made, engine, nothing):
    folder, source = made
    with Image.open(folder / "lua.png") as image:
        array, content = np.array(image), json.loads(image.text["lua_demo"])
    array[3, 4, 1] ^= 8
    content["weights"]["lua"] = "embedded/lua (000000000000)"
    images.save_png(array, folder / "lua.png", {"lua_demo": json.dumps(content)})
    again = recreate(folder / "lua.png", engine, nothing, source)
    assert not again.same and re.fullmatch(
        r"different: 0\.01 % of the pixels, by at most 8 of 255; PSNR \d+\.\d\d dB", again.verdict
    )
    (line,) = again.differences
    assert line.startswith("weights of lua: made with embedded/lua (000000000000), here embedded/lua (")


def test_comparing_pixels():
    one = picture(20, 10)
    assert compare_pixels(one, one.copy()) == (True, "same pixels: all 20 x 10")
    assert compare_pixels(one, picture(10, 20)) == (False, "different size: 20 x 10 then, 10 x 20 now")
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert compare_pixels(black, white)[1] == "different: 100.00 % of the pixels, by at most 255 of 255; PSNR 0.00 dB"
    assert compare_pixels(white, black)[1] == compare_pixels(black, white)[1]


def test_refusals(made, engine, nothing, photo, tmp_path):
    folder, source = made
    lua = folder / "lua.png"
    with pytest.raises(UserError, match=r"photo_150x110\.png, the photo that lua\.png was made from, is not here"):
        recreate(lua, engine, nothing)
    with pytest.raises(UserError, match="another sha256"):
        recreate(lua, engine, nothing, photo(90, 90))
    with pytest.raises(UserError, match=r"nowhere\.jpg is not a file"):
        recreate(lua, engine, nothing, tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match=r"nowhere\.png is not a file"):
        recreate(tmp_path / "nowhere.png", engine, nothing)
    with pytest.raises(UserError, match="carries no lua_demo metadata"):
        recreate(source, engine, nothing)
    lua.write_bytes(lua.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"lua\.png is damaged"):
        recreate(lua, engine, nothing, source)
