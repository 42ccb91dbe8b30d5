"""What the server refuses before gradio sees it, asked over HTTP of the page that app.py starts."""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from conftest import served
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from lua_demo.paths import ASSETS
from lua_demo.runs.store import Store
from lua_demo.ui.gate import UploadGuard, host_name, is_loopback
from lua_demo.ui.limits import LIMITS, Limits, setting
from lua_demo.ui.visitors import API

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def limited(toy_weights, tmp_path, monkeypatch):
    """A page with the limits of a public one."""
    monkeypatch.setenv("LUA_DEMO_MAX_UPLOADS", "8")
    monkeypatch.setenv("LUA_DEMO_MAX_UPLOAD_MB", "0.18")
    with served(toy_weights, tmp_path / "cache", Store(tmp_path / "store", pinned=None)) as address:
        yield address


def ask(url: str, host: str, path: str = "/") -> int:
    connection = http.client.HTTPConnection(urlsplit(url).hostname, urlsplit(url).port)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    return connection.getresponse().status


def test_a_local_page_answers_to_names_of_this_machine_only(url):
    port = urlsplit(url).port
    for name in ("localhost", "127.0.0.1", "[::1]", "demo.localhost", "127.0.0.2", "LOCALHOST"):
        assert ask(url, f"{name}:{port}") == ask(url, name) == 200, name
    for name in ("evil.example", "127.0.0.1.evil.example", "192.168.0.7", "", "localhost.evil.example"):
        for path in ("/", "/config", "/gradio_api/info"):
            assert ask(url, f"{name}:{port}", path) == 403, name


def test_a_proxy_in_front_of_a_local_page_can_be_named(toy_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("LUA_DEMO_HOSTS", "plain.test, demo.example")
    with served(toy_weights, tmp_path / "cache", Store(tmp_path / "store", pinned=None)) as url:
        assert ask(url, "demo.example") == ask(url, "Plain.Test:80") == 200 and ask(url, "other.example") == 403


def test_a_public_page_answers_to_any_name(toy_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/lua")
    with served(toy_weights, tmp_path / "cache", Store(tmp_path / "store", pinned=None)) as url:
        assert ask(url, "somebody-lua.hf.space") == 200


def upload(url: str, files: int, size: int = 10) -> tuple[int, str]:
    boundary = secrets.token_hex(16)
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="x.txt"\r\n\r\n{"x" * size}\r\n'
    body = (part * files + f"--{boundary}--\r\n").encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}gradio_api/upload", body, headers)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_uploads_are_counted_and_refused_beyond_the_limits(limited):
    status, told = upload(limited, 1, 200_000)
    assert status == 413 and "LUA_DEMO_MAX_UPLOAD_MB" in told
    status, told = upload(limited, 3)
    assert status == 200 and len(json.loads(told)) == 3
    status, told = upload(limited, 900)
    assert status == 413 and "at most 8 uploaded files per visitor and hour" in told and "Traceback" not in told
    assert upload(limited, 5)[0] == 200 and upload(limited, 1)[0] == 413


def test_a_page_without_limits_takes_many(url):
    assert upload(url, 30)[0] == 200


OUTSIDE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


def send(url: str, path: str, content: dict) -> str:
    body = urllib.request.Request(f"{url}gradio_api/{path}", json.dumps(content).encode(), JSON)
    try:
        with urllib.request.urlopen(body) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def last_answer(url: str, session: str) -> str:
    with urllib.request.urlopen(f"{url}gradio_api/queue/data?session_hash={session}") as answers:
        return next(line.decode() for line in answers if b"process_completed" in line or b"unexpected" in line)


@pytest.mark.parametrize("value", [OUTSIDE, None, "\0", {"a": 1}, [1], [[1]]], ids=repr)
def test_nothing_that_is_sent_leaves_a_traceback_or_names_a_folder_of_the_server(url, capfd, value):
    """Whatever a handler, gradio's own ones included, gets instead of what the page sends."""
    with urllib.request.urlopen(f"{url}config") as answer:
        handlers = [entry for entry in json.load(answer)["dependencies"] if entry["backend_fn"]]
    assert len(handlers) > 20
    for handler in handlers:
        session = secrets.token_hex(8)
        for data in ([value] * len(handler["inputs"]), []):
            event = {"path": "/etc/passwd", "name": "x", "run": 3}
            content = {"data": data, "fn_index": handler["id"], "session_hash": session, "event_data": event}
            if handler["queue"] is False:
                said = send(url, "run/predict", content)
            elif "event_id" in (said := send(url, "queue/join", content)):
                said = last_answer(url, session)
            log = "".join(capfd.readouterr())
            for text in (said, log):
                assert "Traceback" not in text and str(ASSETS.parent) not in text and gettempdir() not in text, handler


def refused(call: Callable[[], object]) -> str:
    """What the page says when it refuses; the test fails where it does not."""
    with pytest.raises(AppError) as caught:
        call()
    return str(caught.value)


def many_uploads(url: str, client: Client, photo: Path) -> str:
    assert upload(url, 2)[0] == 200
    return upload(url, 1)[1]


def a_large_upload(url: str, client: Client, photo: Path) -> str:
    assert upload(url, 1)[0] == 200
    return upload(url, 1, 60_000)[1]


def a_full_cache(url: str, client: Client, photo: Path) -> str:
    image = handle_file(photo)
    assert upload(url, 1, 60_000)[0] == 200
    run = Store(photo.parent / "none").pinned_names()[0]
    exported = refused(lambda: client.predict(run=run, name="results.json", api_name="/export"))
    uploaded = upload(url, 1)[1]
    assert exported == uploaded and image
    return uploaded


def a_large_base(url: str, client: Client, photo: Path) -> str:
    client.predict(image=handle_file(photo), method="bicubic", size=64, api_name="/upscale")
    return refused(lambda: client.predict(image=handle_file(photo), method="bicubic", size=65, api_name="/upscale"))


def a_large_photo(url: str, client: Client, photo: Path) -> str:
    with Image.open(photo) as opened:
        opened.resize((64, 48)).save(photo.with_name("small.png"))
    given = {"method": "bicubic", "size": 64, "api_name": "/upscale"}
    client.predict(image=handle_file(photo.with_name("small.png")), **given)
    return refused(lambda: client.predict(image=handle_file(photo), **given))


def many_exports(url: str, client: Client, photo: Path) -> str:
    run = Store(photo.parent / "none").pinned_names()[0]
    for name in ("results.json", "lua.png", "lua.png"):  # what is there already is not made again
        client.predict(run=run, name=name, api_name="/export")
    return refused(lambda: client.predict(run=run, name="base.png", api_name="/export"))


def many_votes(url: str, client: Client, photo: Path) -> str:
    run = Store(photo.parent / "none").pinned_names()[0]
    for _ in range(2):
        client.predict(client.predict(run, api_name="/vote_pair")["token"], "a", api_name="/vote")
    token = client.predict(run, api_name="/vote_pair")["token"]
    return refused(lambda: client.predict(token, "a", api_name="/vote"))


OVER_HTTP = {
    "uploads": ("2", many_uploads), "upload_mb": ("0.05", a_large_upload), "cache_gb": ("0.00005", a_full_cache),
    "size": ("64", a_large_base), "megapixels": ("0.01", a_large_photo), "exports": ("2", many_exports),
    "votes": ("2", many_votes),
}  # fmt: skip
ELSEWHERE = {
    "queue": "test_stopping.py: needs an engine that is busy",
    "places": "test_stopping.py: needs an engine that is busy",
    "batches": "test_batch_page.py: has no endpoint",
}


def test_every_limit_has_a_test_of_the_page_that_enforces_it():
    assert sorted([*OVER_HTTP, *ELSEWHERE]) == sorted(LIMITS)


@pytest.mark.parametrize("name", OVER_HTTP)
def test_the_page_takes_what_is_within_a_limit_and_refuses_more(name, toy_weights, photo, tmp_path, monkeypatch):
    value, go_beyond = OVER_HTTP[name]
    monkeypatch.setenv(setting(name), value)
    with served(toy_weights, tmp_path / "cache", Store(tmp_path / "store")) as url:
        client = Client(url, verbose=False, download_files=False)
        said = go_beyond(url, client, photo(160, 120))
    assert f"at most {float(value):g} {LIMITS[name].what}" in said and setting(name) in said


@pytest.mark.parametrize("begun", [False, True])
def test_an_upload_that_cannot_be_written_is_refused_in_one_line(begun):
    sent = []

    async def full(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/place")

    async def send(message):
        sent.append(message)

    page = SimpleNamespace(limits=Limits(lambda: False))
    scope = {"type": "http", "method": "POST", "path": f"{API}upload", "headers": [], "app": page}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lua_demo.ui.gate.limits_of", lambda scope: page.limits)
        call = UploadGuard(full)(scope, None, send)
        if begun:
            with pytest.raises(OSError):
                asyncio.run(call)
            return
        asyncio.run(call)
    assert sent[0]["status"] == 507 and b"No space left" in sent[1]["body"] and b"secret" not in sent[1]["body"]


@pytest.mark.parametrize(
    ("header", "name", "local"),
    [("[::1]:7860", "::1", True), ("localhost:1", "localhost", True), ("Evil.example", "evil.example", False),
     ("127.0.0.1.", "127.0.0.1.", True), ("::1", "", False), ("0.0.0.0", "0.0.0.0", False)],
)  # fmt: skip
def test_names_in_the_host_header(header, name, local):
    assert host_name(header) == name and is_loopback(name) is local
