"""Prompts on the page and over HTTP: toy generator of the real class, and a real browser."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

import gradio as gr
import numpy as np
import pytest
from conftest import served, set_advanced
from gradio_client import handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Page, expect
from test_app import form
from test_browser import expect_state, overflow, shared_run

from lua_demo.catalog.methods import methods_of
from lua_demo.catalog.prompts import EXAMPLES, VOCABULARY, WORDS, understand
from lua_demo.engine import Engine
from lua_demo.runs import export
from lua_demo.runs.provenance import read_png
from lua_demo.runs.recreate import recreate
from lua_demo.runs.store import Store
from lua_demo.scenes import captions, sample_scene
from lua_demo.schema import Request, Result
from lua_demo.ui.handlers import Handlers
from lua_demo.ui.share import download_name

PROMPT = "a lake at night, with a dragon"
SMALL = {"size": 64, "steps": 3, "base": "embedded"}


@pytest.fixture(scope="module")
def page_weights(prompted_weights):
    return prompted_weights


@pytest.fixture
def handlers(prompted_weights, tmp_path) -> Handlers:
    return Handlers(Engine("cpu", weights=prompted_weights), Store(tmp_path / "store", pinned=None))


def prompted(**changes) -> dict:
    return {**form(source="prompt", prompt=PROMPT, methods=["base", "lua", "native"]), **changes}


def test_every_step_is_told_and_the_run_is_kept(handlers):
    answers = list(handlers.run(prompted(image="ignored.png"), session=gr.Request(session_hash="a")))
    told = [status.text for status, *_ in answers]
    assert "Base, as decoded: generate, step 2 of 3, 0 of 3 done" in told
    assert "Native (sampled large): generate, step 3 of 3, 2 of 3 done" in told
    assert [status.done for status, *_ in answers if "step 2 of 3, 0" in status.text] == [pytest.approx(2 / 3)]
    status, view, timing, share = answers[-1]
    assert status.state == "done" and [pane.label for pane in view.panes][-1] == "Native (sampled large)"
    assert "words that the model does not know, ignored: dragon" in timing and "generate" in timing
    run = handlers.store.open(share.run.id)
    assert run.document["settings"]["prompt"] == PROMPT and run.source is None and run.latent
    assert "a prompt has no original to measure against" in timing


def test_stop_between_two_steps(handlers):
    answers = handlers.run(prompted(steps=50), session=gr.Request(session_hash="a"))
    for status, *_ in answers:
        if "step 2 of 50, 0 of 3" in status.text:
            handlers.runs["a"].stop.set()
            break
    *_, (status, *_) = answers
    assert (status.state, status.text) == ("stopped", "Stopped. 0 of 3 finished.")
    assert list(handlers.store.runs()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "  "}, f"No prompt yet: describe a landscape, like {EXAMPLES[0]!r}"),
        ({"prompt": "a cat"}, "no known word in 'a cat'; try"),
        ({"steps": 0}, "steps 0 is out of range"),
        ({"aspect": "5:1"}, "aspect '5:1' does not exist"),
        ({"methods": ["roundtrip"]}, "method 'roundtrip' does not exist"),
        ({"source": "photo"}, "No photo yet"),
        ({"source": "latent"}, "No latent yet"),
        ({"source": ["x"]}, "there is no source ['x']"),
    ],
)
def test_refusals_name_the_way_out(handlers, changes, words):
    answers = handlers.run(prompted(**changes), session=gr.Request(session_hash="a"))
    status, *views = next(answers)
    assert status.state == "error" and words in status.text and views == [gr.skip()] * 3
    with pytest.raises(gr.Error):
        next(answers)


def test_files_name_the_prompt_and_recreate_finds_it(handlers, prompted_weights, tmp_path):
    *_, (_, _, _, share) = handlers.run(prompted(), session=gr.Request(session_hash="a"))
    assert download_name(share.run, "lua.png") == "a_lake_at_night_with_a_dragon_x2_lua.png"
    page = export.make(share.run, "comparison.html").decode()
    assert f"<title>{PROMPT}: latent or pixel upscaling</title>" in page
    assert f"<dt>prompt</dt><dd>{PROMPT}</dd>" in page and "sha256 e" not in page.split("<dt>device")[0]
    for method in ("lua", "native"):
        path = tmp_path / f"{method}.png"
        path.write_bytes(export.make(share.run, path.name))
        assert read_png(path).request.prompt == PROMPT
        again = recreate(path, Engine("cpu", weights=prompted_weights), handlers.store)
        assert again.same and again.source == PROMPT and again.differences == []


def test_a_program_sends_a_prompt(client, prompted_weights, page_store):
    job = client.submit(prompt=PROMPT, seed=4, methods=["lua", "native"], aspect="3:2", **SMALL, api_name="/compare")
    answer = job.result()
    request = Request(prompt=PROMPT, seed=4, methods=("lua", "native"), aspect="3:2", **SMALL)
    for event in Engine("cpu", weights=prompted_weights).compare(request):
        if isinstance(event, Result):
            (picture,) = (entry["image"] for entry in answer["pictures"] if entry["key"] == event.method)
            assert np.array_equal(np.asarray(Image.open(picture)), event.image)
    assert page_store.open(answer["run"]).document["settings"]["prompt"] == PROMPT
    assert any("generate, step 2 of 3" in step["status"]["text"] for step in job.outputs())


def test_a_program_is_told_what_to_send(client, photo):
    path = handle_file(photo(96, 96))
    for given, words in (
        ({"prompt": "lake", "image": path}, "both image and prompt are given"),
        ({}, "there is nothing to start from; give the path of a photo, the path of a latent, or a prompt"),
        ({"prompt": "a cat"}, "no known word in"),
        ({"prompt": "lake", "base": "magic"}, "base 'magic' does not exist"),
    ):
        with pytest.raises(AppError, match=words):
            client.predict(**{**SMALL, **given}, api_name="/compare")


def test_models_tells_the_words(client):
    models = client.predict(api_name="/models")
    told = models["prompts"]
    assert {name: tuple(words) for name, words in told["vocabulary"].items()} == VOCABULARY
    assert list(told["methods"]) == list(methods_of("prompt")) and told["examples"] == list(EXAMPLES)
    assert told["methods"]["native"]["stages"] == ["generate", "decode"]
    assert told["scene_methods"]["native"]["stages"] == ["generate"]
    assert models["bases"]["embedded"]["runs"] and set(models["bases"]["sdxl"]) >= {"runs", "how", "download_gib"}


def pressed(page: Page) -> set[str]:
    return set(page.locator("#prompt [aria-pressed=true]").evaluate_all("all => all.map((b) => b.dataset.word)"))


def write(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Prompt").fill(text)


def prepare(page: Page, text: str) -> None:
    """A prompt, and settings that toy networks run at once."""
    write(page, text)
    set_advanced(page, size=128)


@pytest.mark.browser
def test_words_are_chosen_by_mouse_and_keyboard(open_page):
    page = open_page()
    expect(page.locator("#source input:checked")).to_have_value("prompt")
    box, note = page.get_by_role("textbox", name="Prompt"), page.locator("#prompt .note")
    expect(box).to_have_value(EXAMPLES[0])
    assert pressed(page) == set(understand(EXAMPLES[0]).words)
    write(page, "snowy mountains at sunset, clouds, golden light")
    page.get_by_role("group", name="place").get_by_role("button", name="mountains").click()
    expect(box).to_have_value("snowy landscape at sunset, clouds, golden light")
    page.get_by_role("button", name="forest", exact=True).focus()
    page.keyboard.press("Space")
    expect(box).to_have_value("snowy landscape at sunset, clouds, golden light, forest")
    # A word takes the "the" or "at" before it along, and its part of the sentence where nothing else is said in it.
    for gone, left in {"sea": "at sunset", "sunset": "the sea"}.items():
        write(page, "the sea at sunset, clear skies, sun on the left")
        page.get_by_role("button", name=gone, exact=True).click()
        expect(box).to_have_value(f"{left}, clear skies, sun on the left")
        page.get_by_role("button", name="left", exact=True).click()
        expect(box).to_have_value(f"{left}, clear skies, sun")
        page.get_by_role("button", name="clear", exact=True).click()
        expect(box).to_have_value(f"{left}, sun")
    for example in EXAMPLES:
        page.get_by_role("button", name=example).click()
        expect(box).to_have_value(example)
        assert pressed(page) | {"moon"} == set(understand(example).words) | {"moon"}

    write(page, "A Lake under moonlit skies, été")
    assert pressed(page) == {"lake", "night", "moon"}
    expect(note).to_have_text("Not known to the model, ignored: été")
    page.get_by_role("button", name="moon", exact=True).click()  # one word, two meanings: the other stays
    expect(box).to_have_value("A Lake under night skies, été")
    page.get_by_role("button", name="no moon").click()
    expect(box).to_have_value("A Lake under night skies, été, no moon")
    assert pressed(page) == {"lake", "night", "no"}
    page.get_by_role("button", name="moon", exact=True).click()
    assert pressed(page) == {"lake", "night", "moon"}
    write(page, "a cat, constructor")
    expect(note).to_contain_text("knows none of these words")
    assert pressed(page) == set()
    write(page, "")
    expect(note).to_be_hidden()


ISLANDS = "a photograph of the sea and rocky islands early in the morning, with mist over the land"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("text", "name", "left"),
    [
        ("the sea at sunset", "sunset", "the sea"),
        ("a lake among snowy mountains at noon", "lake", "snowy mountains at noon"),
        ("a lake among snowy mountains at noon", "snowy", "a lake among mountains at noon"),
        ("a rocky canyon at sunset, golden light", "canyon", "a rocky landscape at sunset, golden light"),
        ("a rocky canyon at sunset, golden light", "golden", "a rocky canyon at sunset"),
        (ISLANDS, "sea", "rocky landscape early in the morning, with mist over the land"),
        (ISLANDS, "dawn", "a photograph of the sea and rocky islands, with mist over the land"),
        (ISLANDS, "fog", "a photograph of the sea and rocky islands early in the morning"),
        ("an icy lake under a clear sky", "snowy", "a lake under a clear sky"),
        ("a rocky ocean", "rocky", "an ocean"),
        ("a red dragon over a lake", "lake", "a red dragon"),
        ("a lake", "clear", "a lake, clear sky"),
        ("a lake", "golden", "a lake, golden light"),
    ],
)
def test_a_word_comes_and_goes_with_its_phrase(open_page, text, name, left):
    page = open_page()
    write(page, text)
    page.get_by_role("button", name=name, exact=True).click()
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value(left)
    assert pressed(page) == {word for word in understand(left).words}


@pytest.mark.browser
def test_every_pressed_word_can_be_taken_away_alone(open_page):
    page = open_page()
    rng = np.random.default_rng(3)
    for caption in captions(sample_scene(rng)) + captions(sample_scene(rng)):
        write(page, caption)
        words = pressed(page)
        for word in words - {"moon"}:
            write(page, caption)
            page.locator(f"#prompt [data-word={word}]").click()
            left = page.get_by_role("textbox", name="Prompt").input_value()
            assert pressed(page) - {"moon"} == words - {word, "moon"}, (caption, word, left)
            assert not re.search(r"\b(of|in|at|on|under|with|and|among|the|an?)$", left), (caption, word, left)


@pytest.mark.browser
def test_an_unknown_word_takes_two_lines_of_a_phone(open_page):
    page = open_page(390, 844, has_touch=True, is_mobile=True)
    prepare(page, "a cat that sleeps on a sofa, in the style of somebody")
    lines = "(e) => Math.round(e.getBoundingClientRect().height / parseFloat(getComputedStyle(e).lineHeight))"
    expect(page.locator("#prompt .note")).to_be_visible()
    assert page.locator("#prompt .note").evaluate(lines) <= 2
    page.click("#compare")
    expect_state(page, "error")
    assert page.locator("#status .text").evaluate(lines) <= 2


TEXTS = [
    *EXAMPLES,
    "Hazy, snow-covered PEAKS; 3 moonless dunes_x",
    "l'été don't no-one sea/coast",
    "日の出 lake",
    "lake,lake",
]


@pytest.mark.browser
def test_the_page_understands_as_the_model_does(open_page):
    page = open_page()
    for text in [*TEXTS, *WORDS]:
        write(page, text)
        expected = understand(text)
        known = page.evaluate(
            "() => document.querySelector('#prompt .note').hidden ? [] : "
            "(document.querySelector('#prompt .note').textContent.split('ignored: ')[1] ?? '').split(', ')"
        )
        assert tuple(filter(None, known)) == (expected.ignored if expected.words else ()), text
        assert pressed(page) >= set(expected.words) - {"moon"}, text


@pytest.mark.browser
def test_from_a_prompt_to_pictures_and_back_by_link_and_file(open_page, page_store, tmp_path):
    page = open_page()
    prepare(page, PROMPT)
    page.click("#dice")
    expect(page.locator("#seed input")).not_to_have_value("0")
    seed = int(page.locator("#seed input").input_value())
    page.get_by_role("textbox", name="Prompt").press("Enter")
    expect_state(page, "done")
    expect(page.locator("#timing")).to_contain_text("ignored: dragon")
    expect(page.locator("#share .note")).to_contain_text("the settings and the prompt. It is kept")
    run = page_store.open(shared_run(page))
    settings = run.document["settings"]
    assert (settings["prompt"], settings["seed"], settings["base"]) == (PROMPT, seed, "scene")
    page.get_by_label("Picture on the left").select_option("native")
    expect(page.locator("#viewer [data-ref=single] .tag.left b")).to_have_text("Native (rendered large)")

    other = open_page(address=page.url)
    expect(other.locator("#status .text")).to_contain_text("Compared on")
    expect(other.get_by_role("textbox", name="Prompt")).to_have_value(PROMPT)
    expect(other.locator("#seed input")).to_have_value(str(seed))

    (tmp_path / "mine.png").write_bytes(export.make(run, "lua.png"))
    third = open_page()
    third.locator("#source").get_by_text("Photo").click()
    third.set_input_files("#photo input[type=file]", tmp_path / "mine.png")
    third.get_by_role("button", name="Use the settings of this picture").click()
    expect(third.locator("#status .text")).to_contain_text("So is its prompt: press Compare")
    expect(third.locator("#source input:checked")).to_have_value("prompt")
    expect(third.get_by_role("textbox", name="Prompt")).to_have_value(PROMPT)
    third.click("#compare")
    expect_state(third, "done")
    again = page_store.open(shared_run(third))
    assert again.id != run.id and again.pictures()["lua"].read_bytes() == run.pictures()["lua"].read_bytes()


def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file on the heading, far from all fields."""
    page.evaluate(
        """([name, bytes]) => {
            const target = document.querySelector("#header h1"), dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
            for (const kind of ["dragover", "drop"]) {
                target.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
            }
        }""",
        [name, base64.b64encode(content).decode()],
    )


@pytest.mark.browser
def test_a_file_dropped_on_the_prompt_tab_fills_the_form(open_page, handlers, photo):
    changes = {"seed": 11, "steps": 4, "aspect": "3:2", "scale": 4, "methods": ["lua"]}
    *_, (_, _, _, share) = handlers.run(prompted(**changes), session=gr.Request(session_hash="a"))
    ours, path = export.make(share.run, "lua.png"), photo(120, 90)
    page = open_page()
    source, told = page.locator("#source input:checked"), page.locator("#status .text")
    for _ in range(2):  # the second time the photo field holds a photo
        write(page, "dunes")
        drop(page, "mine.png", ours)
        expect(source).to_have_value("photo")
        page.get_by_role("button", name="Use the settings of this picture").click()
        expect(told).to_contain_text("So is its prompt: press Compare")
        expect(page.get_by_role("textbox", name="Prompt")).to_have_value(PROMPT)
        expect(page.locator("#seed input")).to_have_value("11")
        expect(page.locator("#methods input:checked")).to_have_count(1)
        expect(page.get_by_role("radio", name="4×").first).to_be_checked()
        expect(source).to_have_value("prompt")

        drop(page, path.name, path.read_bytes())
        expect(source).to_have_value("photo")
        expect(page.locator("#photo img")).to_have_attribute("src", re.compile(re.escape(path.name)))
        expect(told).to_have_text("The photo is in the form: press Compare.")
        expect(page.locator("#methods")).to_contain_text("Round trip")
        expect(page.locator("#methods input:checked")).to_have_count(1)
        page.locator("#source").get_by_text("Prompt").click()

    drop(page, "mine.safetensors", export.make(share.run, "latent.safetensors"))
    expect(source).to_have_value("latent")
    expect(page.locator("#latent").get_by_role("link")).to_have_attribute("href", re.compile(r"mine\.safetensors$"))
    expect(told).to_have_text("The latent is in the form: press Compare.")
    page.locator("#source").get_by_text("Prompt").click()

    drop(page, "notes.txt", b"no picture")
    expect_state(page, "error")
    expect(told).to_have_text(re.compile("^notes.txt is not a readable image; use PNG"))
    expect(source).to_have_value("prompt")
    drop(page, "again.png", path.read_bytes())
    expect(page.locator("#photo img")).to_have_attribute("src", re.compile("again.png"))
    page.click("#compare")
    expect_state(page, "done")


@pytest.mark.browser
def test_an_address_fills_the_form_and_runs_nothing(open_page, url, page_store):
    before = {run.id for run in page_store.runs()}
    query = f"prompt={quote('dunes, <b>${1+1}</b>')}&seed=77&scale=4&steps=9&guidance=2.5&aspect=16:9&base=embedded"
    query += "&methods=lua,native"
    page = open_page(address=f"{url}?{query}")
    expect(page.locator("#status .text")).to_contain_text("nothing has run yet")
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("dunes, <b>${1+1}</b>")
    expect(page.locator("#prompt .note")).to_contain_text("ignored: b, 1")
    expect(page.get_by_role("radio", name="4×").first).to_be_checked()
    expect(page.locator("#methods input:checked")).to_have_count(2)
    page.locator("#advanced > button").click()
    expect(page.locator("#seed input")).to_have_value("77")
    expect(page.locator("#steps input[type=number]")).to_have_value("9")
    expect(page.locator("#guidance input[type=number]")).to_have_value("2.5")
    expect(page.locator("#aspect input:checked")).to_have_value("16:9")
    assert {run.id for run in page_store.runs()} == before


@pytest.mark.browser
def test_nothing_known_keeps_the_form(open_page):
    page = open_page()
    prepare(page, "a cat")
    page.click("#compare")
    expect_state(page, "error")
    expect(page.locator("#status .text")).to_contain_text("no known word in 'a cat'; try 'the ")
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("a cat")
    expect(page.locator("#size input[type=number]")).to_have_value("128")


@pytest.mark.browser
def test_a_photo_stands_in_for_the_prompt_and_the_methods_follow(open_page, photo, page_store):
    page = open_page()
    expect(page.locator("#methods")).to_contain_text("Native (rendered large)")
    page.locator("#source").get_by_text("Photo").click()
    expect(page.locator("#prompt")).to_be_hidden()
    expect(page.locator("#methods")).to_contain_text("Native (original)")
    page.set_input_files("#photo input[type=file]", photo(120, 90))
    expect(page.locator("#photo img")).to_be_visible()
    page.click("#compare")
    expect_state(page, "done")
    assert page_store.open(shared_run(page)).document["source"]["kind"] == "photo"
    page.locator("#source").get_by_text("Prompt").click()
    expect(page.locator("#methods")).to_contain_text("Native (rendered large)")
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value(EXAMPLES[0])


def choose_model(page: Page, label: str) -> None:
    page.locator("#base input").click()
    page.get_by_role("option", name=label, exact=True).click()


@pytest.mark.browser
def test_refining_and_the_small_decoder_are_offered_where_there_are_such(open_page):
    page = open_page()
    prepare(page, PROMPT)
    expect(page.locator("#refine")).to_be_hidden()
    for start, refines, small in (
        ("SDXL base", True, False),
        ("FLUX.2 [klein]", False, True),
        ("Embedded", True, False),
        ("Rendered scene", False, False),
    ):
        page.locator("#base input").click()
        page.get_by_role("option", name=re.compile("^" + re.escape(start))).first.click()
        expect(page.locator("#methods").get_by_text("LUA + refine")).to_have_count(int(refines))
        expect(page.locator("#refine")).to_be_visible(visible=refines)
        expect(page.locator("#decoder").get_by_text("Small KL decoder")).to_have_count(int(small))


@pytest.mark.browser
def test_the_diffusion_model_is_one_choice_away(open_page, page_store):
    page = open_page()
    prepare(page, PROMPT)
    expect(page.locator("#about-base")).to_contain_text("Rendered, no diffusion model")
    expect(page.locator("#steps")).to_be_hidden()
    choose_model(page, "Embedded (landscapes)")
    expect(page.locator("#methods")).to_contain_text("Native (sampled large)")
    expect(page.locator("#methods")).not_to_contain_text("Round trip")
    expect(page.locator("#steps input[type=number]")).to_have_value("16")
    expect(page.locator("#force-native")).to_be_visible()
    assert pressed(page) == {"lake", "night"}  # the same words
    choose_model(page, "Rendered scene")
    expect(page.locator("#methods")).to_contain_text("Native (rendered large)")
    expect(page.locator("#steps")).to_be_hidden()
    expect(page.locator("#force-native")).to_be_hidden()
    page.click("#compare")
    expect_state(page, "done")
    expect(page.locator("#timing")).to_contain_text("PSNR")
    expect(page.locator("#timing")).to_contain_text("a rendered scene, no diffusion model")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (390, "light"), (1440, "dark")])
def test_the_form_fits_and_the_button_stays_in_reach(open_page, width, theme):
    page = open_page(width, 844, theme, has_touch=width < 500)
    assert overflow(page) == 0
    page.get_by_role("textbox", name="Prompt").scroll_into_view_if_needed()
    box = page.locator("#compare").bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= 844


@pytest.mark.browser
def test_on_a_phone_the_line_comes_into_view_and_stays_there(open_page):
    page = open_page(390, 844, has_touch=True, is_mobile=True)
    prepare(page, PROMPT)
    page.evaluate("scrollTo(0, 330)")  # the viewer grows with its first picture
    page.locator("#compare").tap()
    expect_state(page, "done")
    expect(page.locator("#status .line")).to_be_in_viewport()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_a_finger_has_to_meet_is_40_px_high(open_page, theme):
    page = open_page(390, 844, theme, has_touch=True, is_mobile=True)
    page.locator("#advanced > button").click()
    page.get_by_role("button", name="Batch: several").click()
    expect(page.locator("#batch-run")).to_be_visible()
    assert overflow(page) == 0
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, a, select, textarea, summary, label:has(> input), input")]
            .filter((e) => !e.matches("[type=radio], [type=checkbox], [type=file]") && e.checkVisibility())
            .map((e) => [e.getBoundingClientRect(), e.closest("[id]").id, e.textContent.trim()])
            .filter(([box]) => box.height && box.height < 39.5)
            .map(([box, ...name]) => [Math.round(box.height), ...name])"""
    )
    assert small == []


@pytest.mark.browser
def test_without_a_generator_scenes_are_rendered_all_the_same(browser, toy_weights, tmp_path):
    with served(toy_weights, tmp_path / "cache", Store(tmp_path / "store", pinned=None)) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#source input:checked")).to_have_value("prompt")
        set_advanced(page, size=128)
        page.locator("#base input").click()
        page.get_by_role("option", name="Embedded (landscapes) · cannot run here").click()
        page.click("#compare")
        expect_state(page, "error")
        expect(page.locator("#status .text")).to_contain_text("weights of generator are missing")
        page.locator("#base input").click()
        page.get_by_role("option", name="Rendered scene", exact=True).click()
        page.click("#compare")
        expect_state(page, "done")
        page.close()
