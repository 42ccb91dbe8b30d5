"""What was computed is shown and kept, whatever happens to the store, the source, or a later method."""

from __future__ import annotations

import base64
import errno
import io
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import network_of
from PIL import Image

from lua_demo.request.job import resolve
from lua_demo.runs import keeping, store
from lua_demo.runs.store import Store
from lua_demo.schema import Request, Result, UserError
from lua_demo.ui.handlers import Handlers
from lua_demo.ui.viewer import View

METHODS = ("base", "lua", "bicubic")
BY_DATA = "data:image/webp;base64,"


@pytest.fixture
def shelf(tmp_path) -> Store:
    return Store(tmp_path / "store", pinned=None)


def last(engine, shelf, path, on_result=lambda count: None):
    """The last answer of the page; `on_result` is called after each picture."""
    seen = 0
    for answer in Handlers(engine, shelf).show(resolve(Request(str(path), 2, 64, METHODS)), threading.Event()):
        status, shown_now, *_ = answer
        shown = sum(bool(pane.file) for pane in shown_now.panes) if isinstance(shown_now, View) else 0
        if status.state == "busy" and shown > seen:
            seen = shown
            on_result(seen)
    return answer


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device", "/secret/place")


@pytest.mark.parametrize("when", ["from the start", "at a picture", "at the end"])
def test_a_store_that_is_full_costs_no_picture(engine, shelf, photo, monkeypatch, when):
    expected = {e.method: e.image for e in engine.compare(Request(str(photo(160, 120)), 2, 64, METHODS))
                if isinstance(e, Result)}  # fmt: skip
    if when == "from the start":
        shelf.folder.parent.mkdir(exist_ok=True)
        shelf.folder.write_text("in the way")
    if when == "at the end":
        monkeypatch.setattr(store, "write_json", full)

    def fill(count):
        if when == "at a picture" and count == 1:
            monkeypatch.setattr(keeping, "write_display", full)

    status, view, timing, share = last(engine, shelf, photo(160, 120), fill)
    assert status.state == "done" and "not kept, so there is no link" in status.text and share is None
    assert "secret" not in status.text and str(shelf.folder) not in status.text and "LUA" in timing
    for pane in view.panes:
        assert pane.file.startswith(BY_DATA) and pane.to_json()["image"] == {"url": pane.file}
        picture = Image.open(io.BytesIO(base64.b64decode(pane.file.removeprefix(BY_DATA))))
        assert np.array_equal(np.asarray(picture), expected[pane.key])
    assert when == "from the start" or list(shelf.folder.iterdir()) == [], "no draft is left"


def test_a_store_that_is_deleted_meanwhile_costs_no_picture(engine, shelf, photo):
    def delete(count):
        if count == 1:
            shutil.rmtree(shelf.folder)

    status, view, _, share = last(engine, shelf, photo(160, 120), delete)
    assert status.state == "done" and "Left out" not in status.text and share is None
    assert "not kept, so there is no link" in status.text and str(shelf.folder) not in status.text
    assert [pane.file.startswith(BY_DATA) for pane in view.panes] == [True] * 3


def test_a_source_that_goes_meanwhile_costs_nothing(engine, shelf, photo):
    path = photo(160, 120)
    status, view, _, share = last(engine, shelf, path, lambda count: path.unlink(missing_ok=True))
    assert status.state == "done" and all(isinstance(pane.file, Path) for pane in view.panes)
    assert list(shelf.open(share.run.id).pictures()) == list(METHODS) and share.run.source is None


@pytest.mark.parametrize(
    ("error", "words"),
    [(RuntimeError("a bug at /secret/place"), "an error of the program"), (UserError("the weights are gone"), "gone.")],
)
def test_a_later_method_that_fails_costs_no_finished_picture(engine, shelf, photo, error, words):
    list(engine.compare(Request(str(photo(160, 120)), 2, 64, METHODS)))

    def fail(module, args):
        raise error

    hook = network_of(engine, "lua").register_forward_pre_hook(fail)
    status, view, _, share = last(engine, shelf, photo(128, 120))
    hook.remove()
    assert status.state == "error" and words in status.text and "1 of 3 finished before." in status.text
    assert "secret" not in status.text
    assert [bool(pane.file) for pane in view.panes] == [True, False, False]
    assert list(shelf.open(share.run.id).pictures()) == ["base"]
    assert engine._lock.acquire(timeout=1), "and the next comparison can run"
    engine._lock.release()
