"""Who has gone: what runs for them is stopped at once."""

from __future__ import annotations

import threading

import gradio as gr
import pytest

from lua_demo.ui import visitors as visitors_module
from lua_demo.ui.sessions import Sessions
from lua_demo.ui.visitors import Visitors


@pytest.fixture
def sessions() -> Sessions:
    result = Sessions()
    result.visitors = Visitors()
    return result


def test_the_last_stream_that_closes_stops_what_runs(sessions):
    with sessions.visitors.stream("a"), sessions.running(gr.Request(session_hash="a")) as run:
        with sessions.visitors.stream("a"), sessions.visitors.stream("b"):
            pass
        assert not run.stop.is_set(), "one is open still"
    with sessions.running(gr.Request(session_hash="a")) as run:
        with sessions.visitors.stream("a"):
            assert not run.stop.is_set()
        assert run.stop.is_set()


def test_other_sessions_run_on(sessions):
    with sessions.running(gr.Request(session_hash="a")) as run:
        with sessions.visitors.stream("b"):
            pass
        sessions.visitors.left("b")
        assert not run.stop.is_set()


def test_a_client_that_never_comes_for_its_answer_has_gone(sessions, monkeypatch):
    monkeypatch.setattr(visitors_module, "GRACE_S", 0.05)
    with sessions.running(gr.Request(session_hash="a")) as run:
        assert run.stop.wait(10)
    with sessions.visitors.stream("a"), sessions.running(gr.Request(session_hash="a")) as run:
        assert not run.stop.wait(0.3)


def test_a_second_run_of_a_session_ends_the_first(sessions):
    session = gr.Request(session_hash="a")
    with sessions.running(session) as first, sessions.running(session) as second:
        assert first.stop.is_set() and not second.stop.is_set()
        stopper = threading.Thread(target=sessions.stop, args=(session,))
        stopper.start()
        assert second.stop.wait(10)
    stopper.join(10)
    assert not stopper.is_alive() and not sessions.runs and not sessions.visitors._leaving
