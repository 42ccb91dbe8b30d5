"""The batch section of the page: its handlers, and once in a real browser; real engine, toy weights."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from conftest import set_advanced
from PIL import Image
from playwright.sync_api import expect

from lua_demo.engine import Engine
from lua_demo.runs.store import Store
from lua_demo.schema import Request, Result, UserError
from lua_demo.ui.batch import MAX_ITEMS, Batches
from lua_demo.ui.limits import Limits

METHODS = ["base", "lua"]
FORM = {
    "scale": 2, "methods": METHODS, "size": 64, "base": "embedded", "decoder": "", "steps": 16, "guidance": 3.0,
    "aspect": "1:1", "force_native": False, "refine": 0.25,
}  # fmt: skip


@pytest.fixture
def batches(engine, tmp_path, monkeypatch) -> Batches:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return Batches(engine, Store(tmp_path / "store", pinned=None))


@pytest.fixture
def files(photo, tmp_path) -> list[str]:
    """A photo, what is none, and a second photo."""
    broken = tmp_path / "<b>broken.png"
    broken.write_bytes(b"no picture")
    return [str(photo(150, 110)), str(broken), str(photo(90, 100))]


def run(batches: Batches, files: list[str], session: str = "a", **changes) -> Iterator[tuple]:
    return batches.run(
        {"source": "photo", "prompts": "", "seeds": "", "files": files, **FORM, **changes},
        session=gr.Request(session_hash=session),
    )


def test_rows_and_pictures_come_item_by_item(batches, files):
    answers = list(run(batches, files))
    counts = [len(ids) for _, _, _, ids, *_ in answers if isinstance(ids, list)]
    assert counts == [0, 1, 1, 2, 2], "nothing yet, then after every item, then the end"
    texts = [answer[0].text for answer in answers]
    assert "1 of 3, photo_150x110.png: LUA (latent): upscale, 1 of 2 done" in texts
    status, table, _, ids, button, column = answers[-1]
    assert (status.state, status.text) == ("done", "3 items: 2 run, 1 failed.") and column["visible"]
    assert table.count("<tr>") == 4 and table.count(" dB") == 2 and all(f'href="?run={run}"' in table for run in ids)
    assert "&lt;b&gt;broken.png is not a readable image" in table and "<b>" not in table
    runs = [batches.store.open(run) for run in ids]
    assert [run.document["source"]["file"] for run in runs] == ["photo_150x110.png", "photo_90x100.png"]
    assert all(list(run.pictures()) == METHODS and run.source and run.latent for run in runs)
    assert "MB" in button["label"]
    assert not batches.runs


def test_the_zip_is_what_the_command_line_writes(batches, files, toy_weights):
    *_, (_, _, _, _, button, _) = run(batches, files)
    path = Path(button["value"])
    assert path.name == "lua_demo_batch_x2.zip" and [file.name for file in path.parent.iterdir()] == [path.name]
    with zipfile.ZipFile(path) as archive:
        made = ("base.png", "latent.safetensors", "lua.png", "results.json")
        names = ["photo_150x110_x2", "photo_90x100_x2"]
        assert sorted(archive.namelist()) == ["batch.csv", *(f"{name}/{file}" for name in names for file in made)]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        rows = list(csv.DictReader(io.StringIO(archive.read("batch.csv").decode())))
        assert [bool(row["error"]) for row in rows] == [False, False, True, False, False]
        picture = np.asarray(Image.open(io.BytesIO(archive.read(rows[1]["file"]))))
    stream = Engine("cpu", weights=toy_weights).compare(Request(files[0], 2, 64, tuple(METHODS)))
    (expected,) = (event.image for event in stream if isinstance(event, Result) and event.method == "lua")
    assert np.array_equal(picture, expected)


def test_the_gallery_shows_one_method_losslessly(batches, files):
    *_, (_, _, _, ids, _, _) = run(batches, files)
    shown = batches.gallery(ids, "lua")
    assert shown == [
        (batches.store.open(run).pictures()["lua"], file)
        for run, file in zip(ids, ["photo_150x110.png", "photo_90x100.png"], strict=True)
    ]
    assert batches.gallery(ids, "swinir") == batches.gallery(["x" * 22, "../x"], "lua") == []


def test_refusals(batches, files):
    for wrong, words in (
        ({"files": []}, "No photos yet"),
        ({"files": [f"{n}.png" for n in range(MAX_ITEMS + 1)]}, f"{MAX_ITEMS + 1} comparisons are more than"),
        ({"files": files, "scale": 3}, "scale 3 does not exist"),
        ({"files": files, "methods": ["magic"]}, "method 'magic' does not exist"),
        ({"files": files, "base": "magic"}, "base 'magic' does not exist"),
    ):
        answers = run(batches, **wrong)
        assert next(answers)[0].text.startswith(words)
        with pytest.raises(gr.Error, match=words.split("'")[0]):
            next(answers)
    assert not batches.runs


def test_a_visitor_runs_so_many_items_in_an_hour(engine, files, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    limits = Limits(lambda: True, {"LUA_DEMO_MAX_BATCHES": "3"})
    batches = Batches(engine, Store(tmp_path / "store", pinned=None), limits)
    assert list(run(batches, files[:2]))[-1][0].text == "2 items: 1 run, 1 failed."
    answers = run(batches, files[:2])
    assert "at most 3 comparisons in batches per visitor and hour" in next(answers)[0].text
    with pytest.raises(gr.Error, match="LUA_DEMO_MAX_BATCHES"):
        next(answers)
    assert list(run(batches, files[:1]))[-1][0].state == "done", "one is left"
    assert list(run(batches, files[:2], session="b"))[-1][0].state == "done", "another visitor has their own"


def test_stop_keeps_what_is_finished(batches, files):
    answers = run(batches, files)
    for status, *_ in answers:
        if "3 of 3" in status.text and "upscale" in status.text:
            batches.runs["a"].stop.set()  # within the stage, as the button does
            break
    *_, (status, table, _, ids, button, _) = answers
    words = "Stopped. 2 of 3 were over, of 1 more some pictures are there."
    assert (status.state, status.text) == ("stopped", words)
    assert table.count("<tr>") == 4 and "stopped on request; missing: LUA (latent)" in table
    assert len(ids) == 2 and len(list(batches.store.runs())) == 2 and table.count(">Open</a>") == 2
    assert [len(batches.gallery(ids, method)) for method in METHODS] == [2, 1]
    with zipfile.ZipFile(button["value"]) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {
            "photo_150x110_x2", "photo_90x100_x2", "batch.csv",
        }  # fmt: skip
        assert "photo_90x100_x2/base.png" in archive.namelist()


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (UserError("the GPU is gone; try again"), "done", "3 items: 1 run, 1 ended halfway, 1 failed."),
        (KeyError("no such layer"), "error", "0 of 3 were over, of 1 more some pictures are there."),
    ],
)
def test_an_item_that_fails_halfway_keeps_its_pictures(batches, files, monkeypatch, error, state, words):
    method = batches.engine._method

    def fails(task, key, notes):
        if key == "lua" and task.job.request.image == files[0]:
            raise error
        return (yield from method(task, key, notes))

    monkeypatch.setattr(batches.engine, "_method", fails)
    *_, (status, table, _, ids, button, _) = list(run(batches, files))
    assert status.state == state and words in status.text
    assert "missing: LUA (latent)" in table and table.count(">Open</a>") == len(ids) == (2 if state == "done" else 1)
    assert list(batches.store.open(ids[0]).pictures()) == ["base"]
    assert len(batches.gallery(ids, "base")) == len(ids)
    with zipfile.ZipFile(button["value"]) as archive:
        assert "photo_150x110_x2/base.png" in archive.namelist()
        assert "missing: LUA" in archive.read("batch.csv").decode()


def test_a_closed_page_leaves_no_work_files(batches, files, tmp_path):
    answers = run(batches, files)
    for status, *_ in answers:
        if "3 of 3" in status.text:
            break
    answers.close()
    assert not batches.runs and not list((tmp_path / "cache").rglob("items"))


def test_only_uploaded_files(photo):
    from gradio.data_classes import FileData, ListFiles

    from lua_demo.ui.inputs import FilesInput

    control = FilesInput(file_count="multiple")
    assert control.preprocess(None) == []
    with pytest.raises(gr.Error, match="not an uploaded file"):
        control.preprocess(ListFiles(root=[FileData(path=str(photo(20, 20)))]))


def prompts(batches: Batches, text: str, seeds: str, **changes) -> list[tuple]:
    return list(
        batches.run(
            {"source": "prompt", "prompts": text, "seeds": seeds, "files": [], **FORM, **changes},
            session=gr.Request(session_hash="a"),
        )
    )


@pytest.fixture
def prompted(batches, prompted_weights) -> Batches:
    return Batches(Engine("cpu", weights=prompted_weights), batches.store)


def test_prompts_with_every_seed(prompted):
    answers = prompts(prompted, "# scenes\n a lake at night \n\nzzz <b>\n", "3, 4", methods=["lua", "native"])
    texts = [answer[0].text for answer in answers]
    assert any(
        text.startswith("1 of 4, a lake at night, seed 3: LUA (latent): generate, step 5 of 16") for text in texts
    )
    done = [answer[0].done for answer in answers if answer[0].state == "busy"]
    assert 5 / 16 in done, "every step moves the bar"
    status, table, _, ids, button, _ = answers[-1]
    assert status.text == "4 items: 2 run, 2 failed."
    assert table.count("Native (sampled large)") == 1 and ">Prompt</th>" in table and "<b>" not in table
    runs = [prompted.store.open(run) for run in ids]
    assert [(run.document["settings"]["prompt"], run.document["settings"]["seed"]) for run in runs] == [
        ("a lake at night", 3), ("a lake at night", 4),
    ]  # fmt: skip
    assert [words for _, words in prompted.gallery(ids, "native")] == [
        "a lake at night, seed 3",
        "a lake at night, seed 4",
    ]
    with zipfile.ZipFile(button["value"]) as archive:
        assert {"a_lake_at_night_x2_s3/native.png", "a_lake_at_night_x2_s4/latent.safetensors"} <= {*archive.namelist()}


def test_prompts_take_the_settings_of_the_form(prompted):
    settings = {"size": 48, "steps": 3, "guidance": 1.5, "aspect": "3:2", "force_native": True}
    *_, (_, _, _, (run,), *_) = prompts(prompted, "a lake", "7", **settings)
    document = prompted.store.open(run).document
    assert document["settings"].items() >= {**settings, "seed": 7, "base": "embedded"}.items()
    stream = prompted.engine.compare(Request(prompt="a lake", base="embedded", seed=7, methods=("lua",), **settings))
    (expected,) = (event.image for event in stream if isinstance(event, Result))
    assert np.array_equal(np.asarray(Image.open(prompted.store.open(run).pictures()["lua"])), expected)


def test_refusals_of_prompts(prompted):
    for text, seeds, words in (
        (" \n# nothing", "0", "No prompts yet"),
        ("a lake", "", "the seeds '' are no whole numbers"),
        ("a lake", "1, two", "the seeds '1, two' are no whole numbers"),
        ("a lake", "-1", "seed -1"),
        ("a lake", " ".join(map(str, range(MAX_ITEMS + 1))), f"{MAX_ITEMS + 1} comparisons are more than"),
    ):
        with pytest.raises(gr.Error) as caught:
            prompts(prompted, text, seeds)
        assert str(caught.value).strip("'\"").startswith(words) or words in str(caught.value)


@pytest.mark.browser
def test_in_a_browser(open_page, files):
    page = open_page()
    page.get_by_role("button", name="Batch: several prompts or photos in one go").click()
    told = page.locator("#batch-taken")
    page.locator("#batch-source").get_by_text("Photos").click()
    expect(told).to_have_text("Size and model as under Advanced above: 512 px, Rendered scene.")
    set_advanced(page, size=128)
    expect(told).to_have_text("Size and model as under Advanced above: 128 px, Rendered scene.")
    page.locator("#batch-source").get_by_text("Prompts").click()
    expect(told).to_contain_text("128 px, 1:1, Rendered scene")
    page.locator("#batch-source").get_by_text("Photos").click()
    page.set_input_files("#batch-files input[type=file]", files)
    expect(page.locator("#batch-files")).to_contain_text("photo_90x")
    page.locator("#batch-run").click()
    expect(page.locator("#batch-status .text")).to_have_text("3 items: 2 run, 1 failed.", timeout=120_000)
    expect(page.locator("#batch-table tbody tr")).to_have_count(3)
    expect(page.locator("#batch-gallery img")).to_have_count(2)
    source = page.locator("#batch-gallery img").first.get_attribute("src")
    assert source.endswith("/lua.webp"), "the stored file itself, not a copy in another format"
    page.locator("#batch-choice").get_by_text("SwinIR").click()
    expect(page.locator("#batch-gallery img").first).to_have_attribute("src", source.replace("lua.", "swinir."))
    with page.expect_download() as download:
        page.locator("#batch-zip").click()
    assert "photo_90x100_x2/swinir.png" in zipfile.ZipFile(download.value.path()).namelist()
    with page.expect_popup() as popup:
        page.locator("#batch-table a").first.click()
    expect(popup.value.locator("#status .text")).to_contain_text("Compared on", timeout=30_000)
