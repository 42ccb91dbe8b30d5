"""push_to_hub and hub ids: the client is the real one; a server here speaks the part of the hub's API that it uses."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMIT = "a" * 40

PROGRAM = """
import json, torch
from lua_demo import LUA, SwinIR, load_lua, load_swinir
toy = dict(embed_dim=8, depths=(1,), num_heads=(2,), window_size=4, mlp_ratio=2, head_num_feat=8, scales=(2, 4))
torch.manual_seed(0)
for network, load, made in (
    (LUA, load_lua, LUA(in_chans=16, residual="linear", **toy)),
    (SwinIR, load_swinir, SwinIR(residual="bicubic", **toy)),
):
    name = "somebody/" + network.__name__.lower()
    made.push_to_hub(name, token="hf_toy")
    for loaded in (load(name), network.from_pretrained(name)):
        assert json.dumps(loaded._hub_mixin_config) == json.dumps(made._hub_mixin_config)  # tuples are lists there
        for key, value in made.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[key]), key
print("same")
"""


class Hub(BaseHTTPRequestHandler):
    files: dict[str, bytes]

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        repository = "/".join(self.path.split("/")[3:5])
        if self.path == "/api/repos/create":
            content = json.loads(body)
            self.answer({"url": f"http://{self.headers['Host']}/{content['organization']}/{content['name']}"})
        elif self.path.endswith("/preupload/main"):
            paths = [file["path"] for file in json.loads(body)["files"]]
            self.answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[f"/{repository}/resolve/main/{line['value']['path']}"] = content
            url = f"http://{self.headers['Host']}/{repository}/commit/{COMMIT}"
            self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        else:
            self.answer({"error": f"not part of the toy hub: POST {self.path}"}, 404)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.path.startswith("/api/models/"):
            names = [path.split("/resolve/main/")[1] for path in self.files if path.split("/resolve/")[0] in self.path]
            self.answer({"id": "/".join(self.path.split("/")[3:5]), "sha": COMMIT,
                         "siblings": [{"rfilename": name} for name in names]})  # fmt: skip
        elif self.path in self.files:
            self.answer(self.files[self.path])
        else:
            self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def answer(self, content, status=200, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        etag = {"ETag": f'"{hash(body) & 0xFFFFFFFF:x}"', "X-Repo-Commit": COMMIT}
        for name, value in {**etag, **(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    handler = type("ThisHub", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.files
    server.shutdown()


def test_what_is_pushed_is_loaded_by_its_id(hub, tmp_path):
    address, files = hub
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1",
                   "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("same")
    assert {path.rsplit("/", 1)[1] for path in files} >= {"config.json", "model.safetensors", "README.md"}


ASKING = """
import sys
from lua_demo.schema import UserError
from lua_demo.models.base_model import BaseModel
from lua_demo.catalog.bases import BASES
from lua_demo.machine.memory import RESIDENT
from lua_demo.models.lua import find_lua
from lua_demo.models.vaes import load_network
import torch
calls = []
sys.addaudithook(lambda event, args: calls.append(args) if event == "socket.connect" and args[1][1] == 9 else None)
row = BASES["sdxl"]
for work in (
    lambda: BaseModel(row, row.hub_id, torch.device("cpu"), torch.float32)._use(RESIDENT),
    lambda: load_network("sdxl"),
    lambda: find_lua("flux1"),
):
    try:
        work()
    except UserError as error:
        print(len(calls), error)
    calls.clear()
"""

GETTING = """
from lua_demo.models.weights import hub_file
print(hub_file("somebody/toy", "file.bin").read_bytes().decode())
"""


def program(text: str, address: str, home: Path) -> str:
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
                   "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_that_cannot_be_reached_is_asked_once(tmp_path):
    lines = program(ASKING, "http://127.0.0.1:9", tmp_path).splitlines()
    # For FLUX.1 the published LUA is asked for, and the tiny autoencoder that our own needs.
    assert [line.split()[0] for line in lines] == ["1", "1", "2"]
    assert all("go online" in line for line in lines) and "SDXL base 1.0 could not be downloaded" in lines[0]


def test_what_is_cached_is_taken_while_the_hub_cannot_be_reached(hub, tmp_path):
    address, files = hub
    files["/somebody/toy/resolve/main/file.bin"] = b"content"
    assert program(GETTING, address, tmp_path) == "content"
    assert program(GETTING, "http://127.0.0.1:9", tmp_path) == "content"


class Busy(Hub):
    refused: list[int]

    def do_GET(self):
        if len(self.refused) < 3:
            self.refused.append(503)
            self.answer({"error": "busy"}, 503)
        else:
            super().do_GET()


def test_a_hub_that_is_busy_is_asked_again(tmp_path):
    handler = type("BusyHub", (Busy,), {"files": {"/somebody/toy/resolve/main/file.bin": b"content"}, "refused": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert program(GETTING, f"http://127.0.0.1:{server.server_port}", tmp_path) == "content"
    server.shutdown()
    assert len(handler.refused) == 3
