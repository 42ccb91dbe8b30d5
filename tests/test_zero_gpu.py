"""The engine for ZeroGPU, behind the real `spaces` package: its fork, its pipes, and a toy of the scheduler it asks."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import gradio as gr
import pytest
import spaces
import torch
from test_bases import weights  # noqa: F401  fixture

from lua_demo.catalog.bases import BASES, REAL
from lua_demo.commands.doctor import BaseState
from lua_demo.engine import Engine
from lua_demo.machine import memory
from lua_demo.machine.memory import RESIDENT
from lua_demo.request.job import resolve
from lua_demo.schema import Environment, Progress, Request, Result, Stopped, UserError
from lua_demo.ui import models
from lua_demo.ui.offer import Offer
from lua_demo.ui.zero_gpu import (
    ABORTED,
    LONGEST_S,
    PLACED,
    SHORTEST_S,
    WORKER,
    CutShort,
    ZeroGpuEngine,
    duration,
    to_place,
)

ROOT = Path(__file__).resolve().parent.parent

# `spaces` patches torch for CUDA, which a torch without CUDA has not: it is imported as in a program without torch.
PROGRAM = """
import sys
sys.modules["torch"] = None
import spaces
del sys.modules["torch"]
import json, os, signal, threading, time
from pathlib import Path
import torch
from lua_demo.request.job import resolve
from lua_demo.schema import Progress, Request, Result, Stopped, UserError
from lua_demo.runs.store import Store
from lua_demo.ui.handlers import Handlers
from lua_demo.ui.zero_gpu import THREAD, ZeroGpuEngine

class Dying(ZeroGpuEngine):
    def _events(self, request, place):
        for event in super()._events(request, place):
            yield event
            if isinstance(event, Result):
                os.kill(os.getpid(), signal.SIGKILL)  # as ZeroGPU does after the time that was asked for

weights, photo, mode, folder = sys.argv[1:]
request = Request(photo, 2, 64, ("base", "lua", "bicubic"))
engine = (Dying if mode == "dying" else ZeroGpuEngine)(spaces.GPU, "cpu", weights=weights)
if mode == "bad":
    request = Request(photo, 2, 64, ("base",), prompt="")
    Path(weights, "embedded", "autoencoder", "model.safetensors").unlink()
if mode == "stop":
    stop, seen = threading.Event(), []
    try:
        for event in engine.compare(request, stop):
            seen.append(type(event).__name__)
            if isinstance(event, Result):
                stop.set()
    except Stopped as error:
        print(json.dumps([seen.count("Result"), str(error)]))
elif mode in ("endless", "closed", "waiting"):
    def endless(module, args):
        while True:
            time.sleep(0.01)
            pause(args[0])

    pause, stop, seen = torch.nn.Identity(), threading.Event(), []
    engine.place([request])
    engine.models.network(resolve(request), "lua").register_forward_pre_hook(endless)
    events = engine.compare(request, stop)
    stopped = time.monotonic()

    def set_stop():
        global stopped
        stopped = time.monotonic()
        stop.set()

    def ended(how):
        took = time.monotonic() - stopped
        for thread in threading.enumerate():
            if thread.name == THREAD:
                thread.join(60)
        print(json.dumps([seen.count("Result"), how, took]))

    try:
        for event in events:
            seen.append(type(event).__name__)
            if event == Progress("lua", "upscale", 1, 3) or mode == "waiting":
                if mode == "closed":
                    break
                threading.Timer(0.2, set_stop).start()
        stopped = time.monotonic()
        events.close()
        ended("closed")
    except Stopped as error:
        ended(str(error))
else:
    if mode == "placed":
        engine.place([request])
    names = sorted(kind for kind, _ in engine.models.networks)
    try:
        answers = list(Handlers(engine, Store(folder)).show(resolve(request), threading.Event()))
        status, pictures, timing, share = answers[-1]
        panes = [pane.key for pane in pictures.panes if pane.file]
        print(json.dumps([status.state, status.text, panes, names, sorted(kind for kind, _ in engine.models.networks)]))
    except UserError as error:
        print(json.dumps(["refused", str(error), [], names, []]))
"""


class Scheduler(BaseHTTPRequestHandler):
    """The part of ZeroGPU's device API that `spaces` uses."""

    asked: list[dict]
    quota_left = True
    lends_after = 0.0  # seconds

    def do_POST(self):
        address = urlsplit(self.path)
        self.asked.append(
            {"path": address.path, **{name: values[0] for name, values in parse_qs(address.query).items()}}
        )
        if address.path != "/schedule":
            self.answer({}, 200)
        elif self.quota_left:
            time.sleep(self.lends_after)
            self.answer({"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "toy", "allowToken": "token"}, 200)
        else:
            self.answer({"left": 3, "wait": 3600}, 429)

    def answer(self, content, status):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def space(toy_weights, photo, tmp_path):
    """run(mode, of the scheduler) -> (what PROGRAM printed, what the scheduler was asked)."""

    def run(mode: str, **scheduler):
        handler = type("ThisScheduler", (Scheduler,), {"asked": [], **scheduler})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / "cgroup").write_text("0::/toy\n")
        environment = {
            **os.environ, "SPACES_ZERO_GPU": "true", "ZEROGPU_PROC_SELF_CGROUP_PATH": str(tmp_path / "cgroup"),
            "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{server.server_port}", "NO_PROXY": "127.0.0.1",
            "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        given = [str(toy_weights), str(photo(150, 110)), mode, str(tmp_path / "store")]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *given],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        server.shutdown()
        server.server_close()
        assert done.returncode == 0, done.stderr
        # The library's threads print, too.
        return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("["))), handler.asked

    return run


def test_a_comparison_runs_in_the_process_that_has_the_gpu(space):
    (state, text, panes, placed, later), asked = space("placed")
    assert (state, panes) == ("done", ["base", "lua", "bicubic"]), text
    assert placed == ["autoencoder", "bicubic", "lua"] == later
    assert [entry["path"] for entry in asked] == ["/schedule", "/allow", "/release"], "one GPU for the whole run"
    assert asked[2]["fail"] == "false"


def test_the_main_process_keeps_out_of_the_computing(space):
    (state, _, _, placed, later), _ = space("not placed")
    assert state == "done" and placed == [] and later == ["autoencoder", "bicubic", "lua"], "loaded, before a GPU came"


def test_what_came_before_the_gpu_was_taken_away_is_kept(space):
    (state, text, panes, _, _), asked = space("dying")
    assert (state, panes) == ("stopped", ["base"])
    assert "GPU was taken away" in text and "GPU task aborted" in text and "1 of 3" in text
    assert asked[-1]["fail"] == "true"


def test_a_quota_that_is_used_up_is_said(space):
    (state, text, *_), asked = space("plain", quota_left=False)
    assert state == "refused" and "no GPU for this" in text and "ZeroGPU quota exceeded" in text
    assert [entry["path"] for entry in asked] == ["/schedule"]


def test_a_stop_is_heeded_at_the_next_event(space):
    (results, text), asked = space("stop")
    assert results == 1 and "stopped" in text and asked[-1]["path"] == "/release"


def test_a_stop_ends_the_stage_that_runs_in_the_other_process(space):
    """It would never end by itself, and no further event would come."""
    (results, text, took), asked = space("endless")
    assert (results, text) == (1, "stopped on request") and took < 3, took
    assert [entry["path"] for entry in asked] == ["/schedule", "/allow", "/release"] and asked[2]["fail"] == "false"


def test_whoever_goes_ends_the_stage_too(space):
    (results, text, took), asked = space("closed")
    assert (results, text) == (1, "closed") and asked[-1]["path"] == "/release" and took < 3, took


def test_a_stop_ends_the_wait_for_a_gpu_and_one_that_comes_late_is_given_back(space):
    (results, text, took), asked = space("waiting", lends_after=6.0)
    assert (results, text) == (0, "stopped on request") and took < 3, took
    assert [entry["path"] for entry in asked] == ["/schedule", "/allow", "/release"]


@pytest.fixture
def zero(toy_weights) -> ZeroGpuEngine:
    return ZeroGpuEngine(spaces.GPU, "cpu", weights=toy_weights)


def test_everything_that_crosses_is_plain(zero, photo):
    request = Request(str(photo(150, 110)), 2, 64, ("base", "lua", "swinir", "native"))
    assert pickle.loads(pickle.dumps(request)) == request
    for event in zero._events(request, 0):
        crossed = pickle.dumps(event)
        words = [argument for _, argument, _ in pickletools.genops(crossed) if isinstance(argument, str)]
        assert not any(word.startswith("torch.") for word in words), "no class of torch"
        assert type(pickle.loads(crossed)) is type(event) and isinstance(event, (Progress, Result, Environment))


def test_a_refusal_in_the_other_process_keeps_its_words(zero, toy_weights, photo, monkeypatch):
    def broken(*_):
        raise UserError("the weights are gone; get them again")

    monkeypatch.setattr(zero.models, "vae", broken)
    crossed = [
        pickle.loads(pickle.dumps(event)) for event in zero._events(Request(str(photo(64, 48)), 2, 64, ("lua",)), 0)
    ]
    assert isinstance(crossed[-1], UserError) and str(crossed[-1]) == "the weights are gone; get them again"
    with pytest.raises(UserError, match="the weights are gone"):
        list(zero.compare(Request(str(photo(64, 48)), 2, 64, ("lua",))))


def test_an_error_of_the_program_is_told_as_that(zero, photo, monkeypatch, capsys):
    """Not as "no GPU": only the name of its type would come across by itself."""

    def broken(*_):
        raise KeyError("no such layer")

    monkeypatch.setattr(zero.models, "vae", broken)
    with pytest.raises(RuntimeError, match="KeyError: 'no such layer'"):
        list(zero._from_lent_gpu(resolve(Request(str(photo(64, 48)), 2, 64, ("lua",))), None))
    assert "in broken" in capsys.readouterr().err, "the log of the other process has where"


def test_what_the_other_process_used_is_what_the_record_says(zero, photo, monkeypatch):
    request = Request(str(photo(64, 48)), 2, 64, ("base", "lua"))
    monkeypatch.setattr(zero.models, "names", lambda job: {"lua": "the stand-in, which only was there"})
    told = [type(event) for event in zero._events(request, 0) if not isinstance(event, Progress)]
    assert told == [Environment, Result, Result]
    list(zero._from_lent_gpu(resolve(request), None))
    monkeypatch.undo()
    assert zero.environment(request).weights == {"lua": "the stand-in, which only was there"}
    assert zero.environment(resolve(request)) == zero.environment(request)
    assert "stand-in" not in str(zero.environment(replace(request, size=128)))


def test_bases_are_placed_beside_each_other_as_far_as_they_fit(weights, monkeypatch, capsys):  # noqa: F811
    zero = ZeroGpuEngine(spaces.GPU, "cpu", weights=weights)
    zero.place([Request(prompt="a lake", base=base, size=64) for base in (REAL, "sdxl")])
    assert zero.placed == {REAL, "sdxl"}
    assert {key: base.plan for key, base in zero.models.bases.items()} == {REAL: RESIDENT, "sdxl": RESIDENT}
    just_one = int(RESIDENT.device(zero.models.bases[REAL].need((64, 64))) * memory.MARGIN) + 1
    full = ZeroGpuEngine(spaces.GPU, "cpu", weights=weights)
    monkeypatch.setattr(memory, "free_bytes", lambda device: just_one)
    full.place([Request(prompt="a lake", base=base, size=64) for base in (REAL, "flux2-dev")])
    assert full.placed == {REAL}
    assert "not placed: FLUX.2 [dev] needs" in capsys.readouterr().out


def test_what_is_placed_stays_whatever_the_process_with_the_gpu_is_asked_for_next(weights):  # noqa: F811
    """It serves one visitor after another."""
    zero = ZeroGpuEngine(spaces.GPU, "cpu", weights=weights)
    zero.place([Request(prompt="a lake", base=base, size=64) for base in (REAL, "sdxl")])
    for base in ("sdxl", "embedded", "scene"):
        request = Request(prompt="a lake", base=base, size=64, steps=1, methods=("base",))
        list(zero._events(request, 0))
    assert not zero.models.make_room()
    assert {key: base.plan for key, base in zero.models.bases.items()} == {REAL: RESIDENT, "sdxl": RESIDENT}


def test_what_is_missing_is_loaded_before_a_gpu_is_asked_for(toy_weights, photo):
    """A download would take its seconds."""
    zero = ZeroGpuEngine(lambda **_: lambda work: work, "cpu", weights=toy_weights)
    loaded = {}

    def lent(request, place):
        loaded["then"] = sorted(kind for kind, _ in zero.models.networks)
        yield from ()

    zero._lent = lent
    told = list(zero._from_lent_gpu(resolve(Request(str(photo(64, 48)), 2, 64, ("base", "lua", "cnn"))), None))
    assert [event.stage for event in told] == ["load", "wait"] and loaded["then"] == ["autoencoder", "cnn", "lua"]
    told = list(zero._from_lent_gpu(resolve(Request(str(photo(64, 48)), 2, 64, ("base", "lua"))), None))
    assert [event.stage for event in told] == ["wait"]


def test_all_models_cannot_be_placed():
    with pytest.raises(UserError, match=r"LUA_DEMO_OFFER=all is for a machine of your own; .* name those"):
        to_place(Offer({"LUA_DEMO_OFFER": "all"}))


def test_a_base_that_was_not_placed_is_not_offered():
    """Its weights would be loaded within the seconds for which a GPU is lent."""
    offer = Offer({"SPACE_ID": "somebody/demo", "LUA_DEMO_OFFER": "sdxl"})
    here = BaseState("sdxl", "SDXL", True, "", "cached", 0.0, "")
    assert offer.refusal_of_base(here) == ""
    offer.placed = {REAL}
    assert "loaded before it opens" in offer.refusal_of_base(here)
    assert (
        offer.refusal_of_base(replace(here, base=REAL)) == offer.refusal_of_base(replace(here, base="embedded")) == ""
    )
    assert [request.base for request in to_place(offer)[len(PLACED) :]] == ["sdxl"]


@pytest.mark.parametrize(("device", "runs", "base"), [("cuda", True, REAL), ("cuda", False, Request().base),
                                                      ("cpu", True, Request().base)])  # fmt: skip
def test_what_a_fresh_page_opens_with(device, runs, base, monkeypatch):
    state = BaseState(REAL, "Z-Image", runs, "", "cached", 0.0, "")
    monkeypatch.setattr(models, "states", lambda engine: {REAL: state})
    start = models.on_this_machine(SimpleNamespace(device=torch.device(device)), Request(scale=4))
    assert (start.base, start.scale) == (base, 4)
    if base == REAL:
        assert (start.size, start.steps, start.guidance) == (512, BASES[REAL].steps, BASES[REAL].guidance)


def test_what_cannot_be_run_is_refused_before_a_gpu_is_asked_for(zero, photo, tmp_path):
    with pytest.raises(UserError, match="scale 3"):
        zero.compare(Request(str(photo(64, 48)), 3))
    with pytest.raises(UserError, match=r"gone\.png"):
        zero.compare(Request(str(tmp_path / "gone.png")))


def test_off_zero_gpu_it_is_the_engine(zero, engine, photo):
    request = Request(str(photo(150, 110)), 2, 64, ("base", "lua"))
    ours, theirs = ([e for e in one.compare(request) if isinstance(e, Result)] for one in (zero, engine))
    assert [(a.image == b.image).all() for a, b in zip(ours, theirs, strict=True)] == [True, True]
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        list(zero.compare(request, stop))


@pytest.mark.parametrize(
    ("title", "message", "expected", "words"),
    [
        (WORKER, ABORTED, CutShort, "The GPU was taken away"),
        (WORKER, "KeyError", RuntimeError, "ended with KeyError"),
        ("ZeroGPU quota exceeded", "try tomorrow", CutShort, "quota exceeded"),
    ],
)
def test_only_what_takes_the_gpu_away_reads_so(zero, photo, monkeypatch, title, message, expected, words):
    """An error of the program comes across as its name only, under the same title as a GPU that was taken away."""

    def lent(request, place):
        yield from zero._events(request, place)
        raise gr.Error(message, title=title)

    monkeypatch.setattr(zero, "_lent", lent)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    with pytest.raises(RuntimeError, match=words) as caught:
        list(zero.compare(Request(str(photo(64, 48)), 2, 64, ("base",))))
    assert type(caught.value) is expected


def test_the_duration_follows_the_work():
    assert duration(Request("a.png")) == SHORTEST_S
    prompted = {base: duration(Request(prompt="hills", base=base, methods=("base", "lua"), steps=28)) for base in BASES}
    assert all(SHORTEST_S <= seconds <= LONGEST_S for seconds in prompted.values())
    assert prompted["scene"] <= prompted["embedded"] < prompted["flux1-dev"] <= prompted["flux2-dev"]
    one, more = (
        duration(Request(prompt="hills", base="flux1-dev", steps=28, methods=m)) for m in (("lua",), ("lua", "native"))
    )
    assert one < more


def test_it_is_an_engine_for_the_page(zero):
    assert isinstance(zero, Engine)
