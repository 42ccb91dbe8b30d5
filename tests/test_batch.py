"""Many comparisons in one go, from the command line and on the page: real engine, toy weights."""

from __future__ import annotations

import contextlib
import csv
import json
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from lua_demo.commands.main import main
from lua_demo.runs import batch
from lua_demo.schema import Progress, Stopped, UserError

FILES = ["base.png", "latent.safetensors", "lua.png", "results.json"]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two photos and, between them, one that cannot be read."""
    result = tmp_path / "photos"
    result.mkdir()
    Image.fromarray(picture(150, 110)).save(result / "a.png")
    (result / "broken.png").write_bytes(b"no picture")
    Image.fromarray(picture(90, 100)).save(result / "c.png")
    return result


@pytest.fixture
def command(toy_weights, tmp_path, capsys):
    """command(*argv) -> (exit code, what it printed)."""

    def run(source, *more) -> tuple[int, str]:
        common = ["--device", "cpu", "--weights", toy_weights, "--size", 64, "--methods", "base,lua"]
        code = main([str(arg) for arg in ["batch", source, "--out", tmp_path / "out", *common, *more]])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def table(out: Path) -> list[dict[str, str]]:
    with (out / "batch.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_folders_and_a_table(command, folder, tmp_path, toy_weights):
    code, told = command(folder)
    out = tmp_path / "out"
    assert code == 1 and "[1/3] a_x2: LUA (latent): upscale" in told
    assert "[2/3] broken_x2: failed: broken.png is not a readable image" in told
    assert "3 items: 2 run, 1 failed" in told
    assert sorted(path.name for path in out.iterdir()) == ["a_x2", "batch.csv", "c_x2"]
    alone = ["compare", "--image", folder / "a.png", "--device", "cpu", "--weights", toy_weights, "--size", 64]
    assert main([str(arg) for arg in [*alone, "--methods", "base,lua", "--out", tmp_path / "alone"]]) == 0
    assert sorted(path.name for path in (out / "a_x2").iterdir()) == FILES
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == FILES
    for method in ("base", "lua"):
        with Image.open(out / "a_x2" / f"{method}.png") as one, Image.open(tmp_path / "alone" / f"{method}.png") as two:
            assert np.array_equal(one, two) and set(one.text) == set(two.text)
    rows = table(out)
    assert [(row["item"], row["method"]) for row in rows] == [
        ("a_x2", "base"), ("a_x2", "lua"), ("broken_x2", ""), ("c_x2", "base"), ("c_x2", "lua"),
    ]  # fmt: skip
    entry = json.loads((out / "a_x2" / "results.json").read_text())["methods"]["lua"]
    row = rows[1]
    assert row["source"] == str(folder / "a.png") and row["file"] == "a_x2/lua.png" and (out / row["file"]).is_file()
    assert (int(row["width"]), int(row["height"]), row["scale"], row["seed"]) == (128, 92, "2", "0")
    seconds = {stage["name"]: stage["seconds"] for stage in entry["stages"]}
    assert {name: float(row[f"{name}_s"]) for name in seconds} == pytest.approx(seconds, abs=1e-5)
    assert float(row["total_s"]) == pytest.approx(entry["total_seconds"], abs=1e-5) and float(row["peak_mib"]) > 0
    for metric in ("psnr", "ssim", "colour_shift"):
        assert float(row[metric]) == entry["metrics"][metric]
    assert rows[4]["psnr"] == "", "c.png is too small for a ground truth"
    assert "not a readable image" in rows[2]["error"] and rows[2]["file"] == ""


def test_what_is_finished_is_not_run_again(command, folder, tmp_path):
    (folder / "broken.png").unlink()
    assert command(folder)[0] == 0
    out, before = tmp_path / "out", table(tmp_path / "out")
    stamp = (out / "a_x2" / "lua.png").stat().st_mtime_ns
    code, told = command(folder)
    assert code == 0 and "[1/2] a_x2: finished before, not run again" in told and "upscale" not in told
    assert (out / "a_x2" / "lua.png").stat().st_mtime_ns == stamp and table(out) == before

    (out / "c_x2" / "lua.png").unlink()
    told = command(folder)[1]
    assert "a_x2: finished before" in told and "c_x2: 2 pictures" in told, "a picture was missing"

    Image.fromarray(picture(150, 120)).save(folder / "a.png")
    told = command(folder)[1]
    assert "a_x2: 2 pictures" in told and "c_x2: finished before" in told, "another photo of the same name"

    assert "2 items: 2 run" in command(folder, "--size", "32")[1], "other settings"
    assert "2 items: 2 run" in command(folder, "--size", "32", "--methods", "lua")[1], "other methods"


def test_other_weights_are_run_again(engine, folder, tmp_path):
    items = batch.items([batch.file_source(folder / "a.png")], {"size": 64, "methods": ("base",)})
    out = tmp_path / "out"
    assert [event.kept for event in batch.run(engine, items, out) if isinstance(event, batch.Outcome)] == [False]
    file = out / "a_x2" / "results.json"
    document = json.loads(file.read_text())
    for key, value in (("weights", {"autoencoder": "embedded/autoencoder (000000000000)"}), ("dtype", "bfloat16")):
        file.write_text(json.dumps({**document, key: value}))
        assert [event.kept for event in batch.run(engine, items, out) if isinstance(event, batch.Outcome)] == [False]
    assert [event.kept for event in batch.run(engine, items, out) if isinstance(event, batch.Outcome)] == [True]


def test_a_list_of_photos_and_latents(command, folder, tmp_path):
    assert command(folder / ".." / "photos")[0] == 1
    latent = (tmp_path / "out" / "c_x2" / "latent.safetensors").rename(tmp_path / "c.safetensors")
    listed = tmp_path / "list.txt"
    listed.write_text(f"# photos\n\n  photos/a.png  \n{latent}\nnowhere.jpg\nphotos/a.png\n")
    code, told = command(listed)
    assert code == 1 and "[1/3] a_x2: finished before" in told, "found beside the list, and taken once"
    assert "[2/3] c_x2:" in told and "[3/3] nowhere_x2: failed: " in told and "nowhere.jpg" in told
    document = json.loads((tmp_path / "out" / "c_x2" / "results.json").read_text())
    assert document["source"]["kind"] == "latent"
    assert len([row for row in table(tmp_path / "out") if row["item"] == "nowhere_x2"]) == 1


def test_scales_and_seeds(command, folder, tmp_path):
    code, told = command(folder, "--scales", "2", "4", "2", "--seeds", "5", "6")
    assert "seeds change nothing for photos and latents: each is run once, with seed 5" in told
    assert [row["item"] for row in table(tmp_path / "out")][::2][:2] == ["a_x2", "a_x4"] and "6 items" in told
    assert {row["seed"] for row in table(tmp_path / "out")} == {"5"} and code == 1
    assert "seeds change" not in command(folder, "--seeds", "5")[1]


def test_refusals(command, folder, tmp_path):
    def refused(*argv) -> str:
        code, told = command(*argv)
        assert code == 2 and told.startswith("lua_demo: ") and told.count("\n") == 1
        return told

    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing\n")
    assert "lists nothing" in refused(empty)
    assert "nowhere cannot be read (No such file or directory); give the path of a folder of photos" in refused(
        tmp_path / "nowhere"
    )
    assert "cannot be read as text" in refused(folder / "a.png")
    assert "give the path of a text file of prompts" in refused(folder, "--prompts")
    assert "scale 3 does not exist" in refused(folder, "--scales", "2", "3")
    assert "method 'magic' does not exist" in refused(folder, "--methods", "magic")
    assert "seed -1" in refused(folder, "--seeds", "-1")
    assert "holds no photo" in refused(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()), "refused before anything is computed"


@pytest.fixture(autouse=True)
def out(tmp_path):
    (tmp_path / "out").mkdir()


def test_missing_weights_end_the_batch_at_once(folder, tmp_path, capsys):
    argv = ["batch", folder, "--out", tmp_path / "out", "--weights", tmp_path / "out", "--device", "cpu"]
    assert main([str(arg) for arg in argv]) == 2
    assert "weights of autoencoder are missing" in capsys.readouterr().err


def test_results_below_the_folder_are_no_sources(engine, folder):
    out = folder / "results"
    list(batch.run(engine, batch.items([batch.file_source(folder / "a.png")], {"size": 64, "methods": ("base",)}), out))
    assert [Path(source.image).name for source in batch.read_sources(folder, out)] == ["a.png", "broken.png", "c.png"]
    with pytest.raises(UserError, match="choose another --out"):
        batch.read_sources(out, folder)


def test_names_are_readable_distinct_and_stay_the_same():
    def names(*paths: str) -> list[str]:
        return [item.name for item in batch.items(map(batch.file_source, paths), {})]

    assert names("a/See im Nebel.jpg", "山.png", "../...png") == ["See_im_Nebel_x2", "山_x2", "item_x2"]
    assert names("p/a.png", "p/A.jpg", "q/a.png") == ["p-a_png_x2", "p-A_jpg_x2", "q-a_png_x2"]
    assert len(set(names("p/a b.png", "p/a_b.png", "p/a-b.png"))) == 3
    assert max(map(len, names("x" * 300 + ".png"))) < 70


def test_prompts_come_with_every_seed(tmp_path):
    listed = tmp_path / "prompts.txt"
    long = "a lake at night, " * 8
    listed.write_text(f"# scenes\na lake at night\n{long}north\n{long}south\na lake at night\n")
    sources = batch.read_sources(listed, tmp_path / "out", prompts=True)
    found = batch.items(sources, {"steps": 3}, scales=(2,), seeds=(3, 4))
    assert [(item.request.prompt, item.request.seed, item.request.steps) for item in found[:2]] == [
        ("a lake at night", 3, 3), ("a lake at night", 4, 3),
    ]  # fmt: skip
    names = [item.name for item in found]
    assert names[:2] == ["a_lake_at_night_x2_s3", "a_lake_at_night_x2_s4"] and len(set(names)) == 6
    assert [item.source for item in found[::2]] == ["a lake at night", f"{long}north", f"{long}south"]
    assert batch.seeds_note(found, (3, 4)) == ""


def test_prompts_from_the_command_line(command, prompted_weights, tmp_path):
    listed = tmp_path / "prompts.txt"
    listed.write_text("a lake at night\nzzz qqq\n")
    more = ["--prompts", "--seeds", "1", "2", "--base", "embedded", "--steps", "2", "--weights", prompted_weights]
    code, told = command(listed, *more)
    assert code == 1 and "[2/4] a_lake_at_night_x2_s2: LUA (latent): upscale" in told and "2 run, 2 failed" in told
    rows = table(tmp_path / "out")
    assert [(row["seed"], row["method"]) for row in rows[:4]] == [(s, m) for s in "12" for m in ("base", "lua")]
    assert float(rows[0]["generate_s"]) > 0 and rows[0]["encode_s"] == "" and rows[0]["source"] == "a lake at night"
    one, two = (np.asarray(Image.open(tmp_path / "out" / row["file"])) for row in (rows[0], rows[2]))
    assert not np.array_equal(one, two), "another seed, another picture"
    assert "2 finished before, 2 failed" in command(listed, *more)[1]


def test_stop_keeps_what_is_finished(engine, folder, tmp_path):
    stop, over = threading.Event(), []
    items = batch.items(
        map(batch.file_source, [folder / "a.png", folder / "c.png"]), {"size": 64, "methods": ("base", "lua")}
    )
    with pytest.raises(Stopped):
        for event in batch.run(engine, items, tmp_path / "out", stop):
            if isinstance(event, batch.Outcome):
                over.append(event)
            elif event[0].name == "c_x2" and event[1] == Progress("lua", "upscale", 1, 2):
                stop.set()
    assert [(outcome.item.name, len(outcome.results)) for outcome in over] == [("a_x2", 2), ("c_x2", 1)]
    assert over[1].halfway and over[1].error == "stopped on request; missing: LUA (latent)"
    assert [(row["item"], row["method"]) for row in table(tmp_path / "out")] == [
        ("a_x2", "base"), ("a_x2", "lua"), ("c_x2", "base"), ("c_x2", ""),
    ]  # fmt: skip
    again = [event for event in batch.run(engine, items, tmp_path / "out") if isinstance(event, batch.Outcome)]
    assert [outcome.kept for outcome in again] == [True, False], "the half finished item is run again"


@pytest.mark.parametrize(
    ("error", "words", "ends"),
    [
        (UserError("the weights are gone; get them again"), "the weights are gone; get them again", False),
        (KeyError("no such layer"), "an error of the program", True),
        (MemoryError(), "out of memory", True),
    ],
)
def test_what_an_item_had_finished_when_it_failed_is_its_outcome(
    engine, folder, tmp_path, monkeypatch, error, words, ends
):
    method = engine._method

    def fails(task, key, notes):
        if key == "lua" and task.job.request.image.endswith("a.png"):
            raise error
        return (yield from method(task, key, notes))

    monkeypatch.setattr(engine, "_method", fails)
    sources = map(batch.file_source, [folder / "a.png", folder / "c.png"])
    items = batch.items(sources, {"size": 64, "methods": ("base", "lua", "bicubic")})
    found: list = []
    with pytest.raises(type(error)) if ends else contextlib.nullcontext():
        for event in batch.run(engine, items, tmp_path / "out"):
            found += [event] if isinstance(event, batch.Outcome) else []
    first = found[0]
    assert first.halfway and [result.method for result in first.results] == ["base"]
    assert first.error == f"{words}; missing: LUA (latent), Bicubic latent"
    assert first.summary == f"1 picture; then {first.error}"
    assert len(found) == (1 if ends else 2) and ("1 run, 1 ended halfway" in batch.summary(found)) is not ends
    assert [row["error"] for row in table(tmp_path / "out") if row["item"] == "a_x2"] == ["", first.error]
    assert (tmp_path / "out" / "a_x2" / "base.png").is_file()


def test_interrupt_keeps_what_is_finished(command, folder, tmp_path):
    (folder / "broken.png").unlink()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(module, args) -> None:
        if (tmp_path / "out" / "batch.csv").exists():  # the first item is over
            signal.raise_signal(signal.SIGINT)

    hook = register_module_forward_pre_hook(interrupt)
    try:
        code, told = command(folder)
    finally:
        hook.remove()
        signal.signal(signal.SIGINT, before)
    assert code == 130 and "interrupted" in told and [row["item"] for row in table(tmp_path / "out")] == ["a_x2"] * 2
    assert "2 items: 1 run, 1 finished before" in command(folder)[1]
