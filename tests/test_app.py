"""The page's endpoint, driven by gradio_client over HTTP, and its handlers: real engine, toy weights."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import gradio as gr
import numpy as np
import psutil
import pytest
from conftest import CHANNELS
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from lua_demo.engine import Engine
from lua_demo.pictures.latents import save_latent
from lua_demo.report import records
from lua_demo.report.timing import timing_html
from lua_demo.runs.provenance import read_png
from lua_demo.runs.store import Store
from lua_demo.schema import BaseLatent, Environment, Request, Result, Span
from lua_demo.ui.handlers import Handlers

ROOT = Path(__file__).resolve().parent.parent
REFUSED = re.compile("not an uploaded file|not uploaded by a user")  # ours, gradio's
METHODS = ["base", "lua", "swinir", "bicubic", "native"]


def call(client: Client, image: Path | None, **changes):
    settings = {"scale": 2, "methods": METHODS, "size": 64, **changes}
    return client.submit(image=handle_file(image) if image else None, **settings, api_name="/compare")


def form(**changes) -> dict:
    """What the controls of the page hold."""
    return {
        "source": "photo", "prompt": "", "image": None, "latent": None, "scale": 2, "methods": METHODS, "size": 64,
        "seed": 0, "steps": 3, "guidance": 3.0, "aspect": "1:1", "base": "embedded", "decoder": "",
        "force_native": False, "refine": 0.25, **changes,
    }  # fmt: skip


def get(client: Client, path: Path | str) -> bytes:
    """What the server answers to a request for the file at `path`; raises HTTPError when it refuses."""
    return urllib.request.urlopen(f"{client.src}gradio_api/file={path}").read()


def test_last_answer_is_complete_and_lossless(client, photo, toy_weights, page_store):
    path = photo(160, 120)
    answer = call(client, path).result()
    timing = answer["timing"]
    request = Request(str(path), 2, 64, tuple(METHODS))
    expected = {
        event.method: event.image
        for event in Engine("cpu", weights=toy_weights).compare(request)
        if isinstance(event, Result)
    }
    assert answer["status"]["state"] == "done"
    assert [pane["key"] for pane in answer["pictures"]] == METHODS
    for pane in answer["pictures"]:
        assert np.array_equal(np.asarray(Image.open(pane["image"])), expected[pane["key"]])
    assert "Time per stage" in timing and "PSNR" in timing
    run = page_store.open(answer["run"])
    assert run.document["settings"]["methods"] == METHODS and run.source.read_bytes() == path.read_bytes()
    for method in METHODS:
        assert np.array_equal(np.asarray(Image.open(run.pictures()[method])), expected[method])
    offered = [name for name, _ in answer["files"]]
    assert {*(f"{method}.png" for method in METHODS), "comparison.html", "latent.safetensors"} <= set(offered)


def test_files_are_made_when_they_are_asked_for(client, photo, page_store):
    run = call(client, photo(160, 120), methods=["base", "lua"]).result()["run"]
    answer = client.predict(run=run, name="lua.png", view="", api_name="/export")
    path = answer if isinstance(answer, str) else answer["path"]
    assert Path(path).name == "photo_160x120_x2_lua.png"
    made = read_png(path)
    assert made.method == "lua" and made.request.methods == ("base", "lua")
    latent = client.predict(run=run, name="latent.safetensors", view="", api_name="/export")
    latent = latent if isinstance(latent, str) else latent["path"]
    pictures = call(client, None, methods=["lua"], latent=handle_file(latent)).result()["pictures"]
    again = np.asarray(Image.open(pictures[0]["image"]))
    assert np.array_equal(again, np.asarray(Image.open(path)))
    for wrong, name in (("x" * 22, "lua.png"), ("../" + run, "lua.png"), (run, "../run.json"), (None, 3)):
        with pytest.raises(AppError, match=r"no longer kept|there is no file"):
            client.predict(run=wrong, name=name, view="", api_name="/export")


def test_only_runs_can_be_fetched_from_the_stores_folder(client, photo, page_store):
    answer = call(client, photo(160, 120), methods=["base"]).result()
    run = page_store.open(answer["run"])
    assert get(client, run.pictures()["base"]) == run.pictures()["base"].read_bytes()
    secret = page_store.folder.parent / "secret.txt"
    secret.write_text("not for everybody")
    (run.folder / "link.txt").symlink_to(secret)
    outside = [
        secret,
        page_store.folder / ".." / "secret.txt",
        run.folder / "link.txt",
        "/etc/passwd",
        page_store.folder,
    ]
    outside += [f"{run.folder}/../../secret.txt", f"{run.folder}/%2e%2e/%2e%2e/secret.txt", run.folder]
    for path in outside:
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(client, path)
        assert caught.value.code in (403, 404), path
    (run.folder / "link.txt").unlink()


def test_a_latent_of_the_server_is_out_of_reach(client, photo, tmp_path):
    made = save_latent(
        tmp_path / "base.safetensors", BaseLatent(np.zeros((CHANNELS, 8, 8), np.float32), "embedded", (64, 64))
    )
    for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):
        assert REFUSED.search(raw_call(client, latent={"path": str(made), **meta}, methods=["base"], size=64))


def test_results_arrive_one_by_one(client, photo):
    job = call(client, photo(96, 96), methods=["base", "lua", "bicubic"])
    job.result()
    counts = [sum(pane["image"] is not None for pane in answer["pictures"]) for answer in job.outputs()]
    assert counts == sorted(counts) and {1, 2, 3} <= set(counts)
    texts = [answer["status"]["text"] for answer in job.outputs()]
    assert any("upscale, 1 of 3 done" in text for text in texts)


def test_method_without_original_says_why(client, photo):
    answer = call(client, photo(70, 60), methods=["lua", "native"]).result()
    missing = answer["pictures"][1]
    assert missing["image"] is None and "70 x 60" in missing["detail"]
    assert "left out" in answer["timing"] and "native.png" not in dict(answer["files"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": 3}, "scale 3 "),
        ({"scale": "2; rm"}, "scale '2; rm'"),
        ({"methods": ["base", "magic"]}, "method 'magic'"),
        ({"methods": []}, "no method"),
        ({"size": 10**9}, "size 1000000000"),
        ({"size": 63.5}, "size 63.5"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**53}, "to 9007199254740991"),  # above, a browser would send another one without a word
        ({"seed": 2**63 - 1}, "to 9007199254740991"),
    ],
)
def test_bad_values_are_refused_in_the_engines_words(client, photo, changes, words):
    with pytest.raises(AppError) as caught:
        call(client, photo(96, 96), **changes).result()
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [("notes.png", b"not a picture"), ("empty.png", b"")])
def test_bad_files_are_refused_by_name(client, tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AppError, match=name):
        call(client, path).result()


def test_nothing_to_start_from(client):
    with pytest.raises(AppError, match="there is nothing to start from; give the path of a photo"):
        call(client, None).result()


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_files_of_the_server_are_out_of_reach(client, photo, meta):
    assert REFUSED.search(raw_call(client, image={"path": str(photo(96, 96)), **meta}, methods=["base"]))


def raw_call(client: Client, endpoint: str = "compare", **values) -> str:
    """The last answer of the endpoint. By hand: gradio_client would upload files, not name them."""
    url = f"{client.src}gradio_api/call/v2/{endpoint}"
    post = urllib.request.Request(url, json.dumps(values).encode(), {"Content-Type": "application/json"})
    event = json.load(urllib.request.urlopen(post))["event_id"]
    return urllib.request.urlopen(f"{url}/{event}").read().decode().strip().rpartition("event: ")[2]


def test_the_upload_itself_reaches_the_engine(client, tmp_path, page_store):
    picture = Image.fromarray(np.tile(np.arange(96, dtype=np.uint8)[None, :, None], (64, 1, 3)))
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held upright: shown turned by 90 degrees
    path = tmp_path / "upright.jpg"
    picture.save(path, exif=exif)
    answer = call(client, path, methods=["base"], size=48).result()
    assert answer["pictures"][0]["detail"].startswith("32 × 48 px")
    assert page_store.open(answer["run"]).source.read_bytes() == path.read_bytes()


def test_what_is_public(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ["/export", "/models", "/compare", "/upscale"]
    names = [parameter["parameter_name"] for parameter in endpoints["/compare"]["parameters"]]
    assert names == [
        "prompt", "image", "latent", "scale", "methods", "size", "seed", "steps", "guidance", "aspect",
        "base", "decoder", "force_native", "refine",
    ]  # fmt: skip


def test_stop_keeps_what_is_finished(engine, photo, tmp_path):
    shelf = Store(tmp_path / "store", pinned=None)
    handlers, session = Handlers(engine, shelf), gr.Request(session_hash="a")
    answers = handlers.run(form(image=str(photo(96, 96))), session=session)
    for status, *_ in answers:
        if status.done == 1:
            break
    button = threading.Thread(target=handlers.stop, args=(session,))
    handlers.runs["a"].stop.set()  # the button's thread may be late; the run is to stop at its next step either way
    button.start()
    *_, (status, view, timing, share) = answers
    button.join(10)
    assert not button.is_alive()
    assert (status.state, status.text) == ("stopped", "Stopped. 1 of 5 finished.")
    assert [bool(pane.file) for pane in view.panes] == [True, False, False, False, False]
    assert view.panes[1].detail.startswith("Not run") and "Base" in timing
    assert list(share.run.pictures()) == ["base"] and shelf.open(share.run.id)
    assert not handlers.runs


def test_what_fails_leaves_nothing_in_the_store(engine, photo, tmp_path):
    shelf = Store(tmp_path / "store", pinned=None)
    handlers = Handlers(Engine("cpu", weights=tmp_path), shelf)
    with pytest.raises(gr.Error, match="are missing"):
        list(handlers.run(form(image=str(photo(96, 96))), session=gr.Request(session_hash="a")))
    assert list(shelf.folder.iterdir()) == []


def test_stop_with_nothing_running(engine, tmp_path):
    assert Handlers(engine, Store(tmp_path)).stop(gr.Request(session_hash="a")).state == "stopped"


def test_sessions_stop_only_their_own_run(engine, photo, tmp_path):
    handlers = Handlers(engine, Store(tmp_path / "store", pinned=None))
    answers = handlers.run(form(image=str(photo(96, 96)), methods=["base"]), session=gr.Request(session_hash="a"))
    next(answers)
    handlers.stop(gr.Request(session_hash="b"))
    assert list(answers)[-1][0].state == "done"


def test_timing_escapes_and_shares_one_scale(photo):
    spans = Span("encode", 0.1, 0, shared=True), Span("<b>", 0.3, 2**20, cold=True)
    picture = np.zeros((4, 6, 3), np.uint8)
    fast = Result("a", "<i>fast", picture, spans[:1], {"psnr": 30.0, "ms_ssim": None})
    slow = Result("b", "slow", picture, spans, notes=("<script>",))
    environment = Environment("cpu", "float32", {"lua": "<x>"})
    html = timing_html(records.to_json(Request(str(photo(8, 8))), [fast, slow], environment))
    assert [part for part in ("<i>fast", "<b> 0.3", "<script>", "<x>") if part in html] == []
    assert "&lt;i&gt;fast" in html and "&lt;b&gt; 0.3" in html
    assert html.count("flex-grow:250.000") == 2  # 0.1 s of 0.4 s, in both bars
    assert "30.00" in html and "shared" in html and "first run" in html and "6 × 4" in html


def test_importing_the_page_writes_nothing():
    before = set((ROOT / "lua_demo" / "ui").iterdir())
    subprocess.run([sys.executable, "-B", "-c", "import lua_demo.ui.page"], cwd=ROOT, check=True)
    assert set((ROOT / "lua_demo" / "ui").iterdir()) == before


def test_app_serves_this_machine_only_and_offline(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dead_proxy = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    environment = {**os.environ, **dead_proxy, "no_proxy": "127.0.0.1,localhost", "HF_HUB_OFFLINE": "1"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(tmp_path)}
    app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert app.poll() is None, "app.py ended"
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode()
                break
            except OSError:
                time.sleep(0.1)
        assert "Upscale the latent, or the pixels?" in page
        addresses = {c.laddr.ip for c in psutil.Process(app.pid).net_connections() if c.status == psutil.CONN_LISTEN}
        assert addresses == {"127.0.0.1"}
    finally:
        app.terminate()
        app.wait(30)
