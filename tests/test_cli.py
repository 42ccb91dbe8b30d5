"""The command line, in process and as a program."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CHANNELS, TRUNK, picture
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from lua_demo.commands import main as command_line
from lua_demo.commands.main import main
from lua_demo.engine import Engine
from lua_demo.networks.lua import LUA
from lua_demo.pictures.metrics import no_lpips
from lua_demo.report.measures import METRICS
from lua_demo.runs import store
from lua_demo.schema import Request, Result


def refused(capsys, *argv) -> str:
    assert main([str(arg) for arg in argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("lua_demo: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.fixture
def compare(toy_weights, tmp_path):
    return ["compare", "--device", "cpu", "--weights", str(toy_weights), "--size", "64", "--out", str(tmp_path / "out")]


def test_compare_writes_pictures_and_results(compare, toy_weights, tmp_path, photo, capsys):
    path = photo(400, 300)
    assert main([*compare, "--image", str(path), "--scale", "4", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    assert "[2/6] LUA (latent): upscale" in out and "| LUA (latent)" in out
    folder = tmp_path / "out"
    document = json.loads((folder / "results.json").read_text())
    settings = document["settings"]
    assert (settings["scale"], settings["size"], settings["seed"], document["dtype"]) == (4, 64, 5, "float32")
    assert document["source"]["file"] == path.name
    assert set(document["weights"]) == {"autoencoder", "lua", "swinir", "cnn"}
    assert list(document["methods"]) == ["base", "lua", "swinir", "cnn", "bicubic", "native"]
    stream = Engine("cpu", weights=toy_weights).compare(Request(str(path), 4, 64))
    for result in (event for event in stream if isinstance(event, Result)):
        entry = document["methods"][result.method]
        with Image.open(folder / entry["file"]) as image:
            assert np.array_equal(np.asarray(image), result.image), "the file is the engine's picture, losslessly"
            assert json.loads(image.text["lua_demo"])["method"] == result.method
        assert (entry["width"], entry["height"]) == ((64, 48) if result.method == "base" else (256, 192))
        assert entry["total_seconds"] == pytest.approx(sum(stage["seconds"] for stage in entry["stages"]))
        assert entry["metrics"] == (None if result.metrics is None else pytest.approx(dict(result.metrics), abs=1e-6))
    assert set(document["methods"]["lua"]["stages"][0]) == {"name", "seconds", "peak_bytes", "cold", "shared"}


def test_compare_says_why_native_is_left_out(compare, tmp_path, photo, capsys):
    assert main([*compare, "--image", str(photo(100, 80)), "--methods", "base, native"]) == 0
    assert "left out: the photo is 100 x 80" in capsys.readouterr().out
    entry = json.loads((tmp_path / "out" / "results.json").read_text())["methods"]["native"]
    assert entry["file"] is None and "100 x 80" in entry["skipped"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "base.png",
        "latent.safetensors",
        "results.json",
    ]


def test_compare_refusals(compare, tmp_path, photo, capsys, toy_weights):
    image = ["--image", photo(40, 40)]
    assert "--image" in refused(capsys, *compare)
    assert "scale 3" in refused(capsys, *compare, *image, "--scale", 3)
    assert "--scale" in refused(capsys, *compare, *image, "--scale", "two")
    assert "'magic'" in refused(capsys, *compare, *image, "--methods", "base,magic")
    assert "no method" in refused(capsys, *compare, *image, "--methods", ",")
    assert "size 7" in refused(capsys, *compare, *image, "--size", 7)
    assert "'tpu'" in refused(capsys, *compare, *image, "--device", "tpu")
    assert "--dtype" in refused(capsys, *compare, *image, "--dtype", "fp8")
    assert "nowhere.jpg" in refused(capsys, *compare, "--image", tmp_path / "nowhere.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    assert "text.jpg is not a readable image" in refused(capsys, *compare, "--image", tmp_path / "text.jpg")
    assert "nowhere" in refused(capsys, *compare, *image, "--weights", tmp_path / "nowhere")
    assert "are missing" in refused(capsys, *compare, *image, "--weights", tmp_path)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_compare_from_the_latent_of_another_run(compare, tmp_path, photo):
    out = tmp_path / "out"
    assert main([*compare, "--image", str(photo(100, 80)), "--methods", "base,lua"]) == 0
    before = np.asarray(Image.open(out / "lua.png"))
    latent = str((out / "latent.safetensors").rename(tmp_path / "base.safetensors"))
    assert main([*compare, "--latent", latent, "--methods", "lua,native"]) == 0
    assert np.array_equal(np.asarray(Image.open(out / "lua.png")), before)
    document = json.loads((out / "results.json").read_text())
    assert document["source"]["kind"] == "latent" and document["source"]["file"] == "base.safetensors"
    assert "the base is a latent" in document["methods"]["native"]["skipped"]


def test_latent_refusals(compare, tmp_path, photo, capsys):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"not a latent")
    assert "x.safetensors is not a readable" in refused(capsys, *compare, "--latent", path)
    assert "not allowed with" in refused(capsys, *compare, "--latent", path, "--image", photo(40, 40))
    assert "nowhere to write to" in refused(capsys, "compare", "--image", photo(40, 40))


def test_pin_writes_a_run_that_the_page_can_open(compare, tmp_path, photo, monkeypatch, capsys):
    shelf = store.Store(tmp_path / "unused", pinned=tmp_path / "runs")
    monkeypatch.setattr(store, "PINNED", tmp_path / "runs")
    monkeypatch.setattr(command_line.store, "Store", lambda folder: shelf)
    argv = [*compare[:-2], "--image", str(photo(100, 80)), "--methods", "base,lua"]
    assert main([*argv, "--pin", "lake"]) == 0
    assert str(tmp_path / "runs" / "lake") in capsys.readouterr().out
    run = shelf.open("lake")
    assert list(run.pictures()) == ["base", "lua"] and run.source and run.latent
    assert main([*argv, "--pin", "lake", "--scale", "4"]) == 0
    assert shelf.open("lake").document["settings"]["scale"] == 4
    assert "no name" in refused(capsys, *argv, "--pin", "../lake")


def test_recreate(compare, tmp_path, photo, capsys, toy_weights):
    source, out = photo(150, 110), tmp_path / "out"
    assert main([*compare, "--image", str(source), "--methods", "base,lua"]) == 0
    again = ["recreate", str(out / "lua.png"), "--device", "cpu", "--weights", str(toy_weights)]
    assert "is not here" in refused(capsys, *again)
    capsys.readouterr()
    assert main([*again, "--image", str(source), "--out", str(tmp_path / "again")]) == 0
    assert "same pixels: all 128 x 92" in capsys.readouterr().out
    assert np.array_equal(Image.open(tmp_path / "again" / "lua.png"), Image.open(out / "lua.png"))
    other = tmp_path / "weights"
    shutil.copytree(toy_weights, other)
    network = LUA(in_chans=CHANNELS, **TRUNK)
    torch.nn.init.constant_(network.get_parameter("heads.x2.conv_last.bias"), 0.5)  # an untrained head adds nothing
    network.save_pretrained(other / "embedded" / "lua")
    assert main([*again[:-1], str(other), "--image", str(source)]) == 1
    told = capsys.readouterr().out
    assert "different: " in told and "weights of lua: made with embedded/lua (" in told and "torch" not in told


def test_export_of_a_results_folder(compare, tmp_path, photo, capsys):
    out = tmp_path / "out"
    assert "holds no finished comparison" in refused(capsys, "export", out, "--html")
    assert main([*compare, "--image", str(photo(150, 110))]) == 0
    capsys.readouterr()
    assert main(["export", str(out), "--html", "--strip", "--blink", "lua, swinir"]) == 0
    assert capsys.readouterr().out.count(" MB") == 3
    assert b"data:image/png;base64," in (out / "comparison.html").read_bytes()
    with Image.open(out / "strip.png") as strip, Image.open(out / "blink.webp") as blink:
        assert strip.width > 4 * 128 and blink.n_frames == 2
    assert "nothing to export" in refused(capsys, "export", out)
    assert "no pair" in refused(capsys, "export", out, "--blink", "lua")
    assert "no picture of 'magic'" in refused(capsys, "export", out, "--blink", "lua,magic")


def test_output_folder_that_cannot_be_written(compare, tmp_path, photo, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    for out in (blocked, blocked / "below"):
        message = refused(capsys, *compare, "--image", photo(40, 40), "--out", out)
        assert str(out) in message and "cannot be written" in message


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_output_folder(compare, tmp_path, photo, capsys):
    (tmp_path / "out").mkdir(mode=0o500)
    assert "cannot be written" in refused(capsys, *compare, "--image", photo(40, 40))


def test_commands_that_do_not_exist(capsys):
    assert "invalid choice" in refused(capsys, "conjure")
    assert "required" in refused(capsys)


def test_delegated_commands_report_in_the_same_way(capsys, tmp_path):
    missing = tmp_path / "nowhere"
    message = refused(capsys, "train", "autoencoder", "--images", missing, "--out", tmp_path / "run")
    assert str(missing) in message


def test_interrupt(compare, photo, capsys):
    # A program that was started in the background inherits an ignored SIGINT; the shell's Ctrl-C is what is meant here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hook = register_module_forward_pre_hook(lambda module, args: signal.raise_signal(signal.SIGINT))
    try:
        assert main([*compare, "--image", str(photo(40, 40))]) == 130
    finally:
        hook.remove()
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "lua_demo: interrupted\n"


def test_as_a_program(compare, photo, tmp_path):
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "lua_demo", *compare, "--methods", "base"]
    done = subprocess.run([*command, "--image", photo(40, 40)], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "out" / "base.png").exists()
    done = subprocess.run([*command, "--image", "nowhere.png"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("lua_demo: nowhere.png") and done.stderr.count("\n") == 1


@pytest.fixture
def folder(tmp_path):
    """Two photos that are large enough, one too small, one broken, one file that is no picture."""
    result = tmp_path / "photos"
    result.mkdir()
    Image.fromarray(picture(200, 190)).save(result / "a.png")
    Image.fromarray(picture(190, 260)).save(result / "b.jpg", quality=95)
    Image.fromarray(picture(60, 300)).save(result / "small.png")
    (result / "broken.png").write_bytes(b"")
    (result / "notes.txt").write_text("not a photo")
    return result


def test_evaluate(toy_weights, folder, tmp_path, capsys):
    file = tmp_path / "new" / "scores.json"
    argv = ["evaluate", "--device", "cpu", "--weights", toy_weights, "--images", folder, "--crop", 176, "--json", file]
    argv += ["--plot", tmp_path / "plot.svg"]
    assert main([str(arg) for arg in argv]) == 0
    out = capsys.readouterr().out
    assert "2 images, 176 x 176 centre crops" in out
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("| x")
    ]
    assert [line[0] for line in lines] == ["x2"] * 6 + ["x4"] * 6
    assert lines[0][1] == "Round trip" and lines[1][1] == "Base, then bicubic (pixels)"
    document = json.loads(file.read_text())
    assert document["images"] == ["a.png", "b.jpg"] and set(document["skipped"]) == {"small.png", "broken.png"}
    assert "small.png is 60 x 300" in out and "broken.png is empty" in out
    per_image = document["per_image"]["2"]["lua"]
    wanted = {name for name in METRICS if name != "lpips" or not no_lpips()}
    assert set(per_image["a.png"]) == {*wanted, "seconds"}
    plot = (tmp_path / "plot.svg").read_text()
    assert (
        plot.count("<title>") == 10 and "Base, then bicubic" in plot and "x4: PSNR" in plot and "Round trip" not in plot
    )
    mean = (per_image["a.png"]["psnr"] + per_image["b.jpg"]["psnr"]) / 2
    assert document["averages"]["2"]["lua"]["psnr"] == pytest.approx(mean)
    assert lines[5][1] == "LUA (latent)" and lines[5][2] == f"{mean:.2f}"
    difference = mean - document["averages"]["2"]["base"]["psnr"]
    assert f"x2, LUA (latent) minus Base, then bicubic (pixels): PSNR dB {difference:+.2f}" in out
    assert document["weights"]["lua"].startswith("embedded/lua")


def test_evaluate_uses_the_crop_at_its_own_size(toy_weights, folder, tmp_path):
    file = tmp_path / "scores.json"
    argv = ["evaluate", "--device", "cpu", "--weights", toy_weights, "--images", folder, "--crop", 64, "--json", file]
    assert main([str(arg) for arg in [*argv, "--scales", 2, "--methods", "base"]]) == 0
    value = json.loads(file.read_text())["per_image"]["2"]["base"]["a.png"]["psnr"]
    crop = picture(200, 190)[63:127, 68:132]
    path = tmp_path / "crop.png"
    Image.fromarray(crop).save(path)
    stream = Engine("cpu", weights=toy_weights).compare(Request(str(path), 2, 32, ("base",)))
    assert list(stream)[-1].metrics["psnr"] == pytest.approx(value, abs=1e-6)


def test_evaluate_refusals(toy_weights, folder, tmp_path, capsys):
    start = ["evaluate", "--device", "cpu", "--weights", toy_weights]
    assert "nowhere is not a folder" in refused(capsys, *start, "--images", tmp_path / "nowhere")
    assert "crop 66 is not a multiple of scale 4" in refused(capsys, *start, "--images", folder, "--crop", 66)
    assert "scale 3 does not exist" in refused(capsys, *start, "--images", folder, "--crop", 63, "--scales", 3)
    assert "choose a smaller --crop" in refused(capsys, *start, "--images", folder, "--crop", 4096)
    assert "cannot be written" in refused(capsys, *start, "--images", folder, "--json", tmp_path)
    (tmp_path / "none").mkdir()
    assert "holds no photo" in refused(capsys, *start, "--images", tmp_path / "none")
