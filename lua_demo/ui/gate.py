"""What the page's server refuses before gradio sees it: foreign names of a local page, uploads beyond the limits."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from email.message import Message as Header
from ipaddress import ip_address
from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lua_demo.schema import UserError
from lua_demo.ui.limits import LIMITS, Limits, address_of
from lua_demo.ui.visitors import API, page_of

HOSTS = "LUA_DEMO_HOSTS"
FOREIGN = f"This page answers to localhost only. To reach it by another name, list that in {HOSTS} of the server."
NO_UPLOAD = "the file was not uploaded by a user of this page; upload it first"
NO_INPUT = "the input is not what this page takes; reload the page, or see its API page"
log = logging.getLogger(__name__)


class HostGuard:
    """Middleware: a page that only this machine reaches answers to names of this machine only.

    Else any web site could have a browser here ask the page, by a name of its own that it makes point to 127.0.0.1 (DNS
    rebinding). LUA_DEMO_HOSTS names further hosts, separated by commas: of a proxy in front of the page.
    """

    def __init__(self, app: ASGIApp, environment: Mapping[str, str] | None = None):
        self.app = app
        text = (os.environ if environment is None else environment).get(HOSTS, "")
        self.hosts = {name.strip().lower() for name in text.split(",") if name.strip()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits = limits_of(scope)
        if scope["type"] in ("http", "websocket") and limits and not limits.public():
            name = host_name(Headers(scope=scope).get("host", ""))
            if not is_loopback(name) and name not in self.hosts:
                await PlainTextResponse(FOREIGN, 403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class UploadGuard:
    """Middleware: uploads are counted while they come in, and refused once they are too many or too large."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits = limits_of(scope)
        uploads = scope["type"] == "http" and scope["method"] == "POST"
        if not uploads or not limits or not scope["path"].endswith(f"{API}upload"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        visitor = address_of(headers, (scope.get("client") or ("",))[0])
        try:
            limits.check_room()
            limits.check("upload_mb", int(headers.get("content-length") or 0) / 1e6)
            limits.spend("uploads", visitor, 0)
        except (UserError, ValueError) as error:
            await PlainTextResponse(str(error), 413)(scope, receive, send)
            return
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, _counted(receive, _boundary(headers), limits, visitor), sent)
        except OSError as error:
            log.warning("an upload could not be written: %s", error.strerror)
            if begun:
                raise
            await PlainTextResponse(f"the file could not be kept ({error.strerror}); try again later", 507)(
                scope, receive, send
            )


def _counted(receive: Receive, boundary: bytes, limits: Limits, visitor: str) -> Receive:
    """`receive`, raising what gradio answers as "too large" once a limit is passed. Each file is one part."""
    size, rest = 0, b""
    begins = boundary + b"\r\n"

    async def counted() -> Message:
        nonlocal size, rest
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        text = rest + chunk
        parts = text.count(begins) if boundary else 0
        rest = text[1 - len(begins) :]  # the start of what the next chunk may complete
        try:
            limits.check("upload_mb", size / 1e6)
            limits.spend("uploads", visitor, parts)
        except UserError as error:
            raise MultiPartException(f"maximum allowed size exceeded: {error}") from error
        return message

    return counted


def _boundary(headers: Headers) -> bytes:
    header = Header()
    header["content-type"] = headers.get("content-type", "")
    return f"--{header.get_boundary('')}".encode() if header.get_boundary("") else b""


def limit_places(page: gr.Blocks, limits: Limits) -> None:
    """Refuse places in the queue of `page` beyond the limits: of all visitors together, and of one.

    gradio's own bound is a constant, whereas a page may become public after it was built.
    """
    queue = page._queue
    push = queue.push

    async def limited(body: Any, request: Any, username: str | None) -> Any:
        visitor = _queued_by(request, body.session_hash)
        waiting = [event for line in queue.event_queue_per_concurrency_id.values() for event in line.queue]
        running = [event for events in queue.active_jobs for event in events or () if event.alive]
        own = [event for event in (*waiting, *running) if _queued_by(event.request, event.session_hash) == visitor]
        for name, taken in (("queue", len(waiting)), ("places", len(own))):
            if taken >= limits.of(name):
                return False, LIMITS[name].refusal(name, limits.of(name)), "error"
        return await push(body, request, username)

    queue.push = limited  # type: ignore[method-assign]


def refuse_quietly(page: gr.Blocks) -> None:
    """Refuse in one line what a visitor sent and no handler can take, before one is called.

    For most of that gradio prints a traceback, and with a file that is not an upload it names folders of the server.
    """
    preprocess, process = page.preprocess_data, page.process_api

    def refused(error: Exception) -> gr.Error:
        log.warning("input refused: %s", type(error).__name__)
        log.debug("input refused", exc_info=error)
        return gr.Error(NO_INPUT, print_exception=False)

    async def untraced(block_fn: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await process(block_fn, *args, **kwargs)
        except gr.Error as error:  # a message to the visitor, of ours or of gradio
            error.print_exception = False
            raise
        except Exception as error:
            handler = page.fns[block_fn] if isinstance(block_fn, int) else block_fn
            if not handler.fn.__module__.startswith("gradio."):
                raise  # an error of our program
            raise refused(error) from None  # gradio's own, of examples, takes what it is given as it is

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return await preprocess(*args, **kwargs)
        except gr.Error:
            raise
        except InvalidPathError:
            raise gr.Error(NO_UPLOAD, print_exception=False) from None
        except Exception as error:
            raise refused(error) from None

    page.preprocess_data, page.process_api = guarded, untraced  # type: ignore[method-assign]


def _queued_by(request: object, session: str | None) -> str:
    client = getattr(request, "client", None)
    return address_of(getattr(request, "headers", {}), getattr(client, "host", "")) or str(session)


def limits_of(scope: Scope) -> Limits | None:
    return getattr(page_of(scope), "limits", None)


def host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    name = header.strip().lower()
    return name.partition("]")[0].removeprefix("[") if name.startswith("[") else name.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether a name or address stands for this machine."""
    host = host.strip("[]").rstrip(".")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
