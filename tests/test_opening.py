"""What the page starts from: links, settings in the address, dropped pictures. Without a browser."""

from __future__ import annotations

import gradio as gr
import numpy as np
import pytest
from conftest import picture
from starlette.datastructures import QueryParams

from lua_demo.paths import EXAMPLES
from lua_demo.pictures import images
from lua_demo.pictures.latents import save_latent
from lua_demo.report import records
from lua_demo.runs import export
from lua_demo.runs.store import Store
from lua_demo.schema import BaseLatent, Environment, Request, Result, Span
from lua_demo.ui.opening import Opening, initial

CONTROLS = (
    "source", "prompt", "image", "latent", "scale", "methods", "size", "seed", "steps", "guidance", "aspect", "base",
    "decoder", "force_native", "refine",
)  # fmt: skip
PROMPT = Request(
    prompt="a lake at night",
    base="embedded",
    scale=4,
    size=96,
    methods=("native", "lua"),
    seed=9,
    steps=5,
    aspect="3:2",
)
ENVIRONMENT = Environment("cpu", "float32")


def document_of(request: Request) -> dict:
    results = [
        Result("lua", "LUA", picture(80, 60), (Span("encode", 0.1, 1),)),
        Result("native", "N", None, skipped="small"),
    ]
    return records.to_json(request, results, ENVIRONMENT)


def write(shelf: Store, request: Request, folder=None):
    folder = folder or shelf.draft()
    images.save_display(picture(80, 60), folder / "lua.webp")
    return shelf.finish(folder, document_of(request), request.image or request.latent)


@pytest.fixture
def shelf(tmp_path) -> Store:
    """With one pinned run of an example."""
    shelf = Store(tmp_path / "store", pinned=tmp_path / "pinned")
    write(shelf, Request(str(EXAMPLES / "dunes.jpg"), 4, 200, ("lua", "native"), seed=3), shelf.pin("dunes"))
    return shelf


@pytest.fixture
def opening(shelf) -> Opening:
    return Opening(shelf, CONTROLS)


def visit(**query: str) -> gr.Request:
    class Page:
        query_params = QueryParams(query)

    return gr.Request(request=Page())


def open_page(opening: Opening, **query: str):
    status, view, timing, share, *form = opening.link(visit(**query))
    return status, view, timing, share, held(form)


def held(form: list) -> dict:
    """What the controls get, by name; of an update its value."""
    values = (value.get("value", value) if isinstance(value, dict) and value != gr.skip() else value for value in form)
    return dict(zip(CONTROLS, values, strict=True))


def test_a_fresh_page_shows_the_pinned_run(opening, shelf):
    status, view, timing, share, form = open_page(opening)
    assert status.state == "empty" and "computed beforehand" in status.text
    assert [bool(pane.file) for pane in view.panes] == [True, False] and "Time per stage" in timing
    assert share.run.id == "dunes" and not share.go
    assert untouched(form), "it has these settings already"
    assert initial(shelf) == Request(str(EXAMPLES / "dunes.jpg"), 4, 200, ("lua", "native"), seed=3)


def test_without_pinned_runs_the_page_is_empty(tmp_path):
    shelf = Store(tmp_path, pinned=None)
    status, view, timing, share, form = open_page(Opening(shelf, CONTROLS))
    assert (status.state, view, timing, share) == ("empty", [], "", None) and untouched(form)
    assert initial(shelf) == Request()


def test_a_link_reopens_its_run(opening, shelf, photo):
    run = write(shelf, Request(str(photo(40, 30)), 2, 40, ("native", "lua"), seed=8))
    state = "mode=blink&left=lua&x=0.25&zoom=4"
    status, view, _, share, form = open_page(opening, run=run.id, view=state, scale="4")
    assert status.state == "done" and status.text.startswith("Compared on 20") and "LUA 0.10 s" in status.text
    assert view.state == state and [pane.key for pane in view.panes] == ["native", "lua"]
    assert share.go and share.run.id == run.id and "30 days" in share.note and "photo" in share.note
    assert form["image"] == str(run.source) and (form["scale"], form["seed"]) == (2, 8)
    assert form["source"] == "photo" and form["prompt"] == form["latent"] == form["steps"] == gr.skip()


def test_a_run_from_a_latent_fills_the_other_control(opening, shelf, tmp_path):
    path = save_latent(tmp_path / "x.safetensors", BaseLatent(np.zeros((16, 4, 5), np.float32), "embedded", (40, 30)))
    run = write(shelf, Request(latent=str(path)))
    *_, form = open_page(opening, run=run.id)
    assert form["source"] == "latent" and form["image"] == gr.skip() and form["latent"] == str(run.source)


@pytest.mark.parametrize("wrong", ["", "x" * 22, "../dunes", "/etc/passwd", "dunes/", "<b>"])
def test_a_link_to_nothing_is_told_calmly(opening, wrong):
    status, _, _, share, form = open_page(opening, run=wrong)
    assert status.state == "stopped" and status.text.startswith("This comparison is no longer kept")
    assert share.run.id == "dunes" and untouched(form)


def test_a_run_with_settings_of_another_version(opening, shelf, photo):
    """Its pictures are shown; the form is what it is by default."""
    request = Request(str(photo(40, 30)), 2, 40, ("lua", "native"))
    document = document_of(request)
    document["settings"]["base"] = "gone"
    draft = shelf.draft()
    images.save_display(picture(80, 60), draft / "lua.webp")
    run = shelf.finish(draft, document, request.image)
    _, view, _, _, form = open_page(opening, run=run.id)
    assert [bool(pane.file) for pane in view.panes] == [True, False] and form["size"] == 512


def test_a_link_with_settings_fills_the_form_and_runs_nothing(opening, shelf):
    status, view, timing, share, form = open_page(
        opening, scale="4", seed="12", methods="lua,swinir", image="/etc/passwd"
    )
    assert status.state == "empty" and "nothing has run yet" in status.text
    assert (view, timing, share) == ([], "", None)
    assert {name: value for name, value in form.items() if value != gr.skip()} == {
        "source": "photo", "image": str(EXAMPLES / "dunes.jpg"), "scale": 4, "methods": ["lua", "swinir"], "size": 512,
        "seed": 12, "base": "scene", "decoder": "",
    }  # fmt: skip
    assert not shelf.folder.exists()


def test_a_link_with_a_prompt_fills_the_form_and_runs_nothing(opening, shelf):
    query = {
        "prompt": "a lake, <b>",
        "seed": "7",
        "scale": "4",
        "steps": "9",
        "guidance": "2.5",
        "aspect": "3:2",
        "base": "embedded",
    }
    status, view, _, share, form = open_page(opening, **query)
    assert status.state == "empty" and "nothing has run yet" in status.text and (view, share) == ([], None)
    assert (form["source"], form["prompt"], form["seed"], form["scale"]) == ("prompt", "a lake, <b>", 7, 4)
    assert (form["steps"], form["guidance"], form["aspect"]) == (9, 2.5, "3:2")
    assert form["image"] == form["latent"] == gr.skip() and not shelf.folder.exists()
    assert open_page(opening, aspect="16:9")[-1]["source"] == "prompt", "it means nothing for a photo"
    for wrong, words in (
        ({"steps": "0"}, "steps 0"),
        ({"aspect": "5:1"}, "'5:1'"),
        ({"methods": "x"}, "'x'"),
    ):
        status, *_, form = open_page(opening, prompt="a lake", **wrong)
        assert status.state == "error" and words in status.text and untouched(form)


def test_a_link_to_a_prompted_run_reopens_it(opening, shelf):
    run = write(shelf, PROMPT)
    status, view, _, share, form = open_page(opening, run=run.id)
    assert status.text.startswith("Compared on 20") and [pane.key for pane in view.panes] == ["native", "lua"]
    assert "the settings and the prompt. It is kept" in share.note and "file" not in share.note
    assert (form["source"], form["prompt"], form["seed"], form["steps"]) == ("prompt", "a lake at night", 9, 5)
    assert form["methods"] == ["native", "lua"] and form["image"] == gr.skip()


def test_a_dropped_picture_of_a_prompt_brings_it_back(opening, shelf, tmp_path):
    run = write(shelf, PROMPT)
    (tmp_path / "lua.png").write_bytes(export.make(run, "lua.png"))
    status, form = drop(opening, tmp_path / "lua.png")
    assert "So is its prompt: press Compare" in status.text
    assert (form["source"], form["prompt"], form["scale"], form["aspect"]) == ("prompt", "a lake at night", 4, "3:2")
    assert form["image"] == gr.skip(), "the picture stays in the photo field"


def test_a_link_with_bad_settings_says_which(opening):
    status, _, _, share, form = open_page(opening, scale="3", seed="12")
    assert status.state == "error" and "scale 3 does not exist" in status.text
    assert share.run.id == "dunes" and untouched(form)


def drop(opening: Opening, path, shared=None):
    """Choose a picture of ours as the photo, then ask for its settings."""
    assert opening.chosen(str(path)).text.startswith("The photo is a ") and opening.offered(str(path))["visible"]
    status, *form = opening.restored(str(path), shared)
    return status, held(form)


def untouched(form: dict) -> bool:
    return all(value == gr.skip() for value in form.values())


def test_a_dropped_picture_brings_its_settings_back(opening, shelf, photo, tmp_path):
    run = write(shelf, Request(str(photo(40, 30)), 4, 40, ("lua", "native"), seed=8))
    path = tmp_path / "lua.png"
    path.write_bytes(export.make(run, "lua.png"))
    status, form = drop(opening, path, {"run": run.id})
    assert status.state == "empty" and "photo_40x30.png: press Compare" in status.text
    assert (form["scale"], form["size"], form["seed"], form["methods"]) == (4, 40, 8, ["lua", "native"])
    assert (form["source"], form["image"], form["latent"]) == ("photo", str(run.source), gr.skip())


@pytest.mark.parametrize("shared", [None, {}, {"run": "dunes"}, {"run": "x" * 22}, {"run": ["../"]}, "text", 7])
def test_a_picture_alone_leads_nobody_to_a_photo_in_the_store(opening, shelf, photo, tmp_path, shared):
    run = write(shelf, Request(str(photo(40, 30)), 4, 40, ("lua",)))
    path = tmp_path / "lua.png"
    path.write_bytes(export.make(run, "lua.png"))
    status, form = drop(opening, path, shared)
    assert form["image"] == gr.skip() and form["scale"] == 4
    assert "It was made from photo_40x30.png, which is not here" in status.text


def test_a_picture_of_an_example_finds_it(opening, shelf, tmp_path):
    (tmp_path / "lua.png").write_bytes(export.make(shelf.open("dunes"), "lua.png"))
    assert drop(opening, tmp_path / "lua.png")[1]["image"] == str(EXAMPLES / "dunes.jpg")


def test_a_picture_of_ours_is_a_photo_whose_settings_are_offered(opening, shelf, photo, tmp_path):
    run = write(shelf, Request(str(photo(40, 30)), 4, 40, ("lua",)))
    path = tmp_path / "lua.png"
    path.write_bytes(export.make(run, "lua.png"))
    status = opening.chosen(str(path))
    assert status.state == "empty" and "LUA" in status.text and "'Use the settings of this picture'" in status.text
    assert opening.offered(str(path))["visible"] is True


def test_other_photos_have_no_settings_to_offer(opening, photo, tmp_path):
    assert opening.chosen(None) == opening.chosen(str(photo(40, 30))) == gr.skip()
    images.save_png(picture(8, 6), tmp_path / "x.png", {"lua_demo": "{"})
    status = opening.chosen(str(tmp_path / "x.png"))
    assert status.state == "error" and "x.png is broken" in status.text and "ordinary photo" in status.text
    for path, words in ((None, "no settings"), (photo(40, 30), "no settings"), (tmp_path / "x.png", "is broken")):
        path = path and str(path)
        assert opening.offered(path)["visible"] is False
        status, *form = opening.restored(path, None)
        assert status.state == "error" and words in status.text and untouched(held(form))
