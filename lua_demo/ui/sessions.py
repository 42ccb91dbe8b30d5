"""What runs for which browser session, so that the Stop button of a session ends only that."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

import gradio as gr

from lua_demo.schema import Stopped, UserError
from lua_demo.ui.status import Status
from lua_demo.ui.visitors import Visitors

# A stop waits this long for the running stage to give way before the page is released anyway.
STOP_PATIENCE_S = 30.0
WAITING = Status("waiting", "Waiting for a free place: one comparison runs at a time.")
CRASHED = Status("error", "The comparison ended with an error of the program; see the server's log.")
NEVER_STARTED = Status("stopped", "Stopped. Nothing had started.")


@dataclass
class Session:
    """What runs for one browser session."""

    stop: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)


class Sessions:
    """At most one thing runs per session: what starts while another one runs takes its place.

    `visitors`, once a page sets it, reports who has gone: what runs for them is stopped.
    """

    def __init__(self) -> None:
        self.runs: dict[str | None, Session] = {}
        self.visitors: Visitors | None = None

    @contextlib.contextmanager
    def running(self, session: gr.Request) -> Iterator[Session]:
        before, run = self.runs.get(session.session_hash), Session()
        self.runs[session.session_hash] = run
        if before:
            before.stop.set()
        watched = self.visitors.watch(session.session_hash, run.stop.set) if self.visitors else contextlib.nullcontext()
        try:
            with watched:
                yield run
        finally:
            run.finished.set()
            if self.runs.get(session.session_hash) is run:
                del self.runs[session.session_hash]

    def stop(self, session: gr.Request) -> Status | dict[str, Any]:
        """Stops what runs for this session, and returns once it has given way."""
        run = self.runs.get(session.session_hash)
        if run is None:
            return NEVER_STARTED
        run.stop.set()
        run.finished.wait(STOP_PATIENCE_S)
        return gr.skip()

    def crash(self, shown: object) -> Status | dict[str, Any]:
        """After an error that is no UserError: the line must not go on claiming that something runs."""
        state = shown.get("state") if isinstance(shown, dict) else None
        return CRASHED if state in ("busy", "waiting") else gr.skip()

    def leave(self, session: gr.Request) -> None:
        """The tab was closed: nobody waits for the result."""
        if run := self.runs.get(session.session_hash):
            run.stop.set()


def refusal(error: UserError | Stopped) -> gr.Error:
    """What to raise instead of `error`, for the page and for clients. A toast renders HTML."""
    return gr.Error(escape(str(error), quote=False), print_exception=False)
