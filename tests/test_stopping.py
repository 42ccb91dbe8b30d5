"""Whoever stops or goes ends the stage that runs, in the app as app.py starts it; whoever fails lets the engine go."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
import httpx
import pytest
import torch
from conftest import engine_of_the_app, network_of, served
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from PIL import PngImagePlugin
from test_app import form

from lua_demo.bench import rehearsal
from lua_demo.catalog.compositions import RENDER
from lua_demo.commands import main as cli
from lua_demo.engine import Engine
from lua_demo.request.job import resolve
from lua_demo.runs import batch
from lua_demo.runs import recreate as recreate_module
from lua_demo.runs.store import Store
from lua_demo.schema import Progress, Request, Stopped
from lua_demo.ui import api as api_module
from lua_demo.ui import visitors as visitors_module
from lua_demo.ui.handlers import Handlers

SECONDS = 5.0
"""That the stage may go on; it takes more than a minute if nobody stops it."""


@pytest.fixture
def slow(toy_weights, photo) -> Iterator[tuple[Engine, threading.Event]]:
    """An engine whose SwinIR takes a minute, module by module; and what is set while it runs."""
    engine, runs = engine_of_the_app(toy_weights), threading.Event()
    list(engine.compare(Request(str(photo(64, 48)), 2, 64, ("swinir",))))
    pause = torch.nn.Identity()

    def wait(module, args):
        runs.set()
        for _ in range(600):
            time.sleep(0.1)
            pause(args[0])

    hook = network_of(engine, "swinir").register_forward_pre_hook(wait)
    yield engine, runs
    hook.remove()


@pytest.fixture
def slow_page(slow, tmp_path) -> Iterator[str]:
    with served(slow[0], tmp_path / "cache", Store(tmp_path / "store", pinned=None)) as url:
        yield url


def free(engine: Engine, seconds: float = SECONDS) -> bool:
    """Whether the engine can be had."""
    taken = engine._lock.acquire(timeout=seconds)
    if taken:
        engine._lock.release()
    return taken


def test_measuring_is_stopped_and_what_it_measured_is_kept(engine, photo):
    """4 megapixels are measured for several seconds."""
    stop, came = threading.Event(), []
    since = 0.0
    with pytest.raises(Stopped):
        for event in engine.compare(Request(str(photo(2048, 2048)), 4, 512, ("base",)), stop):
            if isinstance(event, Progress) and event.stage == "measure":
                threading.Timer(0.3, stop.set).start()
                since = time.monotonic() + 0.3
            came.append(event)
    assert 0 < time.monotonic() - since < SECONDS
    assert came[-1].image is not None and came[-1].metrics is None and "not measured: stopped" in came[-1].notes


@pytest.fixture
def slow_decoder(monkeypatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """What is set while a PNG is decoded; and what ends it, as nothing interrupts a decoder."""
    decodes, ends = threading.Event(), threading.Event()
    load = PngImagePlugin.PngImageFile.load

    def slow(image):
        decodes.set()
        ends.wait(60)
        return load(image)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", slow)
    yield decodes, ends
    ends.set()


def test_reading_a_photo_is_stopped_and_ends_before_the_next(engine, photo, slow_decoder):
    stop, (decodes, ends) = threading.Event(), slow_decoder
    source = str(photo(64, 48))
    asker = threading.Thread(target=lambda: (decodes.wait(60), stop.set()))
    asker.start()
    with pytest.raises(Stopped):
        list(engine.compare(Request(source, 2, 64, ("base",)), stop))
    asker.join()
    assert not ends.is_set() and free(engine, 0.1)
    next_one, came = threading.Event(), []
    request = Request(source, 2, 64, ("base",))
    thread = threading.Thread(target=lambda: came.extend(engine.compare(request, next_one)))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and not came
    ends.set()
    thread.join(60)
    assert came[-1].method == "base"


@pytest.mark.parametrize("way", ["stop", "leave"])
def test_the_stop_button_and_a_closed_tab_end_the_reading(engine, photo, tmp_path, slow_decoder, way):
    handlers, session = Handlers(engine, Store(tmp_path / "store", pinned=None)), gr.Request(session_hash="a")
    values, answers = form(image=str(photo(64, 48)), methods=["base"]), []
    thread = threading.Thread(target=lambda: answers.extend(handlers.run(values, session)))
    thread.start()
    assert slow_decoder[0].wait(60)
    getattr(handlers, way)(session)
    thread.join(SECONDS)
    assert not thread.is_alive() and not slow_decoder[1].is_set()
    assert answers[-1][0].text == "Stopped. 0 of 1 finished."


def test_loading_is_left_and_goes_on_before_another_comparison(toy_weights, photo, monkeypatch):
    engine, stop = engine_of_the_app(toy_weights), threading.Event()
    ends, loads, load_state_dict = threading.Event(), threading.Event(), torch.nn.Module.load_state_dict

    def slow(*args, **options):
        loads.set()
        ends.wait(60)
        return load_state_dict(*args, **options)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", slow)
    asker = threading.Thread(target=lambda: (loads.wait(60), stop.set()))
    asker.start()
    try:
        with pytest.raises(Stopped):
            list(engine.compare(Request(str(photo(64, 48)), 2, 64, ("lua",)), stop))
        assert not ends.is_set() and not free(engine, 0.3)
    finally:
        ends.set()
        asker.join()
    assert free(engine)
    assert [event.method for event in engine.compare(Request(str(photo(64, 48)), 2, 64, ("lua",)))][-1] == "lua"


def test_rendering_is_stopped(engine):
    """A scene of 16 megapixels takes a minute."""
    stop, since = threading.Event(), 0.0
    with pytest.raises(Stopped):
        for event in engine.compare(Request(prompt="mountains", scale=4, size=1024, methods=("base",)), stop):
            assert isinstance(event, Progress)
            if event.stage == RENDER.name:
                threading.Timer(1.0, stop.set).start()
                since = time.monotonic() + 1.0
    assert 0 < time.monotonic() - since < SECONDS


@pytest.mark.parametrize("endpoint", ["/compare", "/upscale"])
def test_a_cancelled_call_ends_the_stage(slow, slow_page, photo, endpoint):
    engine, runs = slow
    client = Client(slow_page, verbose=False, download_files=False)
    methods = {"methods": ["swinir"]} if endpoint == "/compare" else {"method": "swinir"}
    job = client.submit(image=handle_file(photo(64, 48)), size=64, **methods, api_name=endpoint)
    assert runs.wait(60) and not free(engine, 0.1)
    job.cancel()
    assert free(engine)


def ask(url: str, method: str, image: dict) -> tuple[http.client.HTTPConnection, str]:
    connection = http.client.HTTPConnection(urlsplit(url).hostname, urlsplit(url).port)
    body = json.dumps({"image": image, "method": method, "size": 64})
    connection.request("POST", "/gradio_api/call/v2/upscale", body, {"Content-Type": "application/json"})
    return connection, json.load(connection.getresponse())["event_id"]


def uploaded(photo: Callable[[int, int], Path], url: str) -> dict:
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body += photo(64, 48).read_bytes() + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}gradio_api/upload", body, headers)) as answer:
        return {"path": json.load(answer)[0]}


@pytest.mark.parametrize("comes", [True, False])
def test_a_lost_client_ends_the_stage(slow, slow_page, photo, comes, monkeypatch):
    """One whose connection breaks, and one that never comes for its answer."""
    monkeypatch.setattr(visitors_module, "GRACE_S", 1.0)
    engine, runs = slow
    connection, event = ask(slow_page, "swinir", uploaded(photo, slow_page))
    if comes:
        connection.request("GET", f"/gradio_api/call/v2/upscale/{event}")
        answer = connection.getresponse()
        while b'"stage": "upscale"' not in (line := answer.readline()):
            assert line, "it ended"
    assert runs.wait(60)
    if comes:
        assert not free(engine, 1.5), "as long as somebody listens it runs"
    connection.close()
    if comes:
        answer.close()
    assert free(engine)


def test_a_place_in_the_queue_is_given_up_with_its_client(slow, slow_page, photo):
    engine, runs = slow
    first, event = ask(slow_page, "swinir", uploaded(photo, slow_page))
    first.request("GET", f"/gradio_api/call/v2/upscale/{event}")
    with contextlib.closing(first), contextlib.closing(first.getresponse()):
        assert runs.wait(60)
        second, waiting = ask(slow_page, "base", uploaded(photo, slow_page))
        second.request("GET", f"/gradio_api/call/v2/upscale/{waiting}")
        answer = second.getresponse()
        answer.close()
        second.close()
        time.sleep(1.0)
    assert free(engine)
    third, event = ask(slow_page, "base", uploaded(photo, slow_page))
    third.request("GET", f"/gradio_api/call/v2/upscale/{event}")
    with contextlib.closing(third), contextlib.closing(third.getresponse()) as answer:
        assert b"complete" in answer.read()


def test_one_visitor_has_few_places_in_the_queue(slow, photo, tmp_path, monkeypatch):
    engine, runs = slow
    monkeypatch.setenv("LUA_DEMO_MAX_PLACES", "2")
    with served(engine, tmp_path / "cache", Store(tmp_path / "store", pinned=None)) as url:
        one, other = (Client(url, verbose=False, download_files=False) for _ in range(2))
        asked = {"size": 64, "method": "swinir", "api_name": "/upscale"}
        jobs = [one.submit(image=handle_file(photo(64, 48)), **asked)]
        assert runs.wait(60)
        jobs += [one.submit(image=handle_file(photo(64, 48)), **asked)]
        while jobs[1].status().rank is None:
            time.sleep(0.1)
        with pytest.raises(Exception, match=r"400|at most 2 comparisons"):
            one.submit(image=handle_file(photo(64, 48)), **asked).result(30)
        jobs.append(other.submit(image=handle_file(photo(64, 48)), **asked))
        while jobs[2].status().rank is None:
            assert not jobs[2].done(), "another visitor has places of their own"
            time.sleep(0.1)
        jobs[2].cancel()
        # gradio cancels whatever runs of the same function for the same session, and answers once that has ended.
        with contextlib.suppress(httpx.TimeoutException):
            jobs[1].cancel()
    assert free(engine)


def test_all_visitors_together_have_few_places_to_wait(slow, photo, tmp_path, monkeypatch):
    engine, runs = slow
    monkeypatch.setenv("LUA_DEMO_MAX_QUEUE", "1")
    with served(engine, tmp_path / "cache", Store(tmp_path / "store", pinned=None)) as url:
        clients = [Client(url, verbose=False, download_files=False) for _ in range(3)]
        asked = {"size": 64, "method": "swinir", "api_name": "/upscale"}
        first = clients[0].submit(image=handle_file(photo(64, 48)), **asked)
        assert runs.wait(60)
        second = clients[1].submit(image=handle_file(photo(64, 48)), **asked)
        while second.status().rank is None:
            time.sleep(0.1)
        with pytest.raises(Exception, match=r"400|at most 1 comparisons that wait"):
            clients[2].submit(image=handle_file(photo(64, 48)), **asked).result(30)
        for job in (second, first):
            with contextlib.suppress(httpx.TimeoutException):
                job.cancel()
    assert free(engine)


@pytest.mark.parametrize("way", ["stop", "leave"])
def test_the_stop_button_and_a_closed_tab_end_the_stage(slow, photo, tmp_path, way):
    engine, runs = slow
    handlers, session = Handlers(engine, Store(tmp_path / "store", pinned=None)), gr.Request(session_hash="a")
    values = form(image=str(photo(64, 48)), methods=["base", "swinir"])
    answers: list = []
    thread = threading.Thread(target=lambda: answers.extend(handlers.run(values, session)))
    thread.start()
    assert runs.wait(60)
    getattr(handlers, way)(session)
    thread.join(SECONDS)
    assert not thread.is_alive() and free(engine)
    assert answers[-1][0].text == "Stopped. 1 of 2 finished."


def test_the_wait_for_the_engine_heeds_stop(slow, photo):
    engine, stop = slow[0], threading.Event()
    assert engine._lock.acquire(timeout=1)
    try:
        events = engine.compare(Request(str(photo(64, 48)), 2, 64, ("base",)), stop)
        assert next(events).stage == "wait"
        stop.set()
        with pytest.raises(Exception, match="stopped"):
            list(events)
    finally:
        engine._lock.release()


class Broken(RuntimeError):
    pass


def breaks(*_, **__):
    raise Broken("a consumer")


def page(engine, path, store, monkeypatch):
    monkeypatch.setattr("lua_demo.ui.handlers.timing_html", breaks)
    list(Handlers(engine, store).show(resolve(Request(str(path), 2, 64)), threading.Event()))


def page_run(engine, path, store, monkeypatch):
    monkeypatch.setattr("lua_demo.ui.handlers.view", breaks)
    list(Handlers(engine, store).run(form(image=str(path)), gr.Request(session_hash="a")))


def api_compare(engine, path, store, monkeypatch):
    monkeypatch.setattr(api_module, "asdict", breaks)
    api = api_module.Api(Handlers(engine, store))
    list(api.compare(image={"path": str(path)}, size=64, session=gr.Request(session_hash="a")))


def api_upscale(engine, path, store, monkeypatch):
    monkeypatch.setattr(api_module, "asdict", breaks)
    api = api_module.Api(Handlers(engine, store))
    list(api.upscale(image={"path": str(path)}, size=64, session=gr.Request(session_hash="a")))


def a_batch(engine, path, store, monkeypatch):
    monkeypatch.setattr(batch, "write_result", breaks)
    items = batch.items([batch.file_source(path)], {"size": 64})
    list(batch.run(engine, items, store.folder / "out"))


def recreate(engine, path, store, monkeypatch):
    monkeypatch.setattr(cli, "Engine", lambda *_: engine)
    out = path.parent / "made"
    options = ["--size", "64", "--methods", "lua", "--out", str(out), "--weights", str(engine.weights)]
    assert cli.main(["compare", "--image", str(path), *options]) == 0
    monkeypatch.setattr(recreate_module, "isinstance", breaks, raising=False)
    recreate_module.recreate(out / "lua.png", engine, store, path)


def compare(engine, path, store, monkeypatch):
    monkeypatch.setattr(cli, "Engine", lambda *_: engine)
    monkeypatch.setattr(cli, "write_result", breaks)
    cli.main(["compare", "--image", str(path), "--size", "64", "--out", str(path.parent / "out")])


def a_rehearsal(engine, path, store, monkeypatch):
    rehearsal._run(engine, Request(str(path), 2, 64), breaks)


@pytest.mark.parametrize(
    "consumer", [page, page_run, api_compare, api_upscale, a_batch, recreate, compare, a_rehearsal],
    ids=lambda consumer: consumer.__name__,
)  # fmt: skip
def test_a_consumer_that_fails_lets_the_engine_go(engine, photo, tmp_path, monkeypatch, consumer):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert Path(get_upload_folder()) == tmp_path, "so that the photo counts as uploaded"
    with pytest.raises(Broken) as caught:  # which holds the frames, and the stream in them
        consumer(engine, photo(64, 48), Store(tmp_path / "store", pinned=None), monkeypatch)
    assert caught.value and free(engine, 0.5)
