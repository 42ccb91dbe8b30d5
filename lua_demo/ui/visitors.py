"""Who waits for an answer: a visitor whose stream of answers has closed has gone, and what runs for them is stopped.

gradio itself notices it, too, but ends a generator only where it yields the next time, which may take minutes.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

from gradio import Blocks
from starlette.types import ASGIApp, Message, Receive, Scope, Send

GRACE_S = 10.0
"""A client first joins the queue and then opens its stream: this long it may take."""

API = "/gradio_api/"
LARGEST_CANCEL = 10_000  # bytes


class Visitors:
    """The open streams of every session, and what is to be called when the last one of a session closes."""

    def __init__(self) -> None:
        self._streams: Counter[str] = Counter()
        self._leaving: dict[str, list[Callable[[], None]]] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def stream(self, session: str) -> Iterator[None]:
        """A stream of answers to `session`, while it is open."""
        with self._lock:
            self._streams[session] += 1
        try:
            yield
        finally:
            with self._lock:
                self._streams[session] -= 1
                gone = not self._streams[session]
                if gone:
                    del self._streams[session]
            if gone:
                self.left(session)

    def left(self, session: str) -> None:
        """Nobody waits for what runs for `session`."""
        with self._lock:
            leaving = list(self._leaving.get(session, ()))
        for leave in leaving:
            leave()

    @contextlib.contextmanager
    def watch(self, session: str | None, leave: Callable[[], None]) -> Iterator[None]:
        """While in the block, call `leave` when `session` has gone, or has not come after `GRACE_S`."""
        if session is None:
            yield
            return
        with self._lock:
            self._leaving.setdefault(session, []).append(leave)
        late = threading.Timer(GRACE_S, self._check, (session,))
        late.daemon = True
        late.start()
        try:
            yield
        finally:
            late.cancel()
            with self._lock:
                self._leaving[session].remove(leave)
                if not self._leaving[session]:
                    del self._leaving[session]

    def _check(self, session: str) -> None:
        with self._lock:
            there = bool(self._streams[session])
        if not there:
            self.left(session)


class StreamWatch:
    """Middleware of the page's server that reports to its `Visitors` which streams are open and what was cancelled."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visitors = scope["type"] == "http" and visitors_of(scope)
        path = str(scope.get("path", ""))
        if not visitors or API not in path:
            await self.app(scope, receive, send)
        elif scope["method"] == "POST" and path.endswith(f"{API}cancel"):
            await self._cancel(visitors, scope, receive, send)
        elif scope["method"] == "GET" and (session := _session(scope, path)):
            with visitors.stream(session):
                await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _cancel(self, visitors: Visitors, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []
        size, more = 0, True
        while more and size <= LARGEST_CANCEL:
            messages.append(await receive())
            size += len(messages[-1].get("body", b""))
            more = messages[-1].get("more_body", False)
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            body = json.loads(b"".join(message.get("body", b"") for message in messages))
            visitors.left(str(body.get("session_hash")))

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self.app(scope, again, send)


def page_of(scope: Scope) -> Blocks | None:
    """The page that a request is for; None while there is none yet."""
    return getattr(scope.get("app"), "blocks", None)


def visitors_of(scope: Scope) -> Visitors | None:
    return getattr(page_of(scope), "visitors", None)


def _session(scope: Scope, path: str) -> str:
    """Whose stream of answers is asked for; empty for any other request."""
    rest = path.partition(API)[2].split("/")
    if rest == ["queue", "data"]:
        return parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [""])[0]
    if len(rest) >= 3 and rest[0] == "call":
        page = page_of(scope)
        event = page._queue.event_ids_to_events.get(rest[-1]) if page else None
        return event.session_hash if event else rest[-1]
    return ""
