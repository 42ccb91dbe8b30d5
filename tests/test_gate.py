"""What the server refuses before gradio sees it, asked over HTTP of the page that app.py starts."""

from __future__ import annotations

import http.client
import json
import secrets
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest
from conftest import served

from lua_demo.runs.store import Store
from lua_demo.ui.gate import host_name, is_loopback


@pytest.fixture(scope="module")
def limited(toy_weights, tmp_path_factory):
    """A page with the limits of a public one."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"UPLOADS": "8", "UPLOAD_MB": "0.18", "PLACES": "2", "QUEUE": "3"}.items():
            patch.setenv(f"LUA_DEMO_MAX_{name}", value)
        folder = tmp_path_factory.mktemp("limited")
        with served(toy_weights, folder / "cache", Store(folder / "store", pinned=None)) as address:
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


@pytest.mark.parametrize(
    ("header", "name", "local"),
    [("[::1]:7860", "::1", True), ("localhost:1", "localhost", True), ("Evil.example", "evil.example", False),
     ("127.0.0.1.", "127.0.0.1.", True), ("::1", "", False), ("0.0.0.0", "0.0.0.0", False)],
)  # fmt: skip
def test_names_in_the_host_header(header, name, local):
    assert host_name(header) == name and is_loopback(name) is local
