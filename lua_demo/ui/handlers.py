"""What the buttons do: run a comparison and show its parts as they arrive, stop it, write its files."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from lua_demo import images, report
from lua_demo.catalog import METHODS
from lua_demo.engine import Engine
from lua_demo.schema import Progress, Request, Result, Stopped, UserError
from lua_demo.ui.status import Status
from lua_demo.ui.timing_view import timing_html
from lua_demo.ui.viewer import Pane
from lua_demo.validate import validated

# A stop waits this long for the running stage to give way before the page is released anyway.
STOP_PATIENCE_S = 30.0
STAGE_WORDS = {"load": "loading weights", "wait": "waiting for another comparison", "measure": "measuring quality"}
WAITING = Status("waiting", "Waiting for a free place: one comparison runs at a time.")
CRASHED = Status("error", "The comparison broke off with an error of the program; the server's log tells more.")
NEVER_STARTED = Status("stopped", "Stopped. Nothing had started.")


@dataclass
class Run:
    """One comparison of one browser session."""

    stop: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)


def detail(result: Result) -> str:
    if result.image is None:
        return f"Left out: {result.skipped}"
    height, width = result.image.shape[:2]
    seconds = f" · {result.seconds:.2f} s" if result.spans else ""
    return f"{width} × {height} px{seconds}"


def summary(results: Sequence[Result]) -> str:
    times = ", ".join(f"{result.label} {result.seconds:.2f} s" for result in results if result.spans)
    left_out = [result.label for result in results if result.image is None]
    return f"Done. {times or 'Nothing to time'}." + (f" Left out: {', '.join(left_out)}." if left_out else "")


def progress_status(event: Progress) -> Status:
    stage = STAGE_WORDS.get(event.stage, event.stage)
    words = f"{METHODS[event.method].label}: {stage}, {event.done} of {event.total} done"
    return Status("busy", words, event.done, event.total)


class Handlers:
    """The event handlers of one page.

    The outputs are always (status, viewer, timing, downloads), so that a client of the API gets a complete last answer.
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self.runs: dict[str | None, Run] = {}

    def compare(
        self, image: Any, scale: Any, methods: Any, size: Any, seed: Any, session: gr.Request
    ) -> Iterator[tuple[Any, Any, Any, Any]]:
        run = self.runs[session.session_hash] = Run()
        try:
            if not image:
                raise UserError("No photo yet: choose one, or take one of the examples.")
            request = Request(image=image, scale=scale, size=size, methods=methods, seed=seed)
            yield from self.show(validated(request), run.stop)
        except UserError as error:
            yield Status("error", str(error)), gr.skip(), gr.skip(), gr.skip()
            # A toast renders HTML; the status line above got the text as it is.
            raise gr.Error(escape(str(error), quote=False), print_exception=False) from error
        finally:
            run.finished.set()
            if self.runs.get(session.session_hash) is run:
                del self.runs[session.session_hash]

    def show(self, request: Request, stop: threading.Event) -> Iterator[tuple[Any, Any, Any, Any]]:
        # In gradio's own cache, so that files are served where they lie and age with it; the name cannot be guessed.
        folder = Path(get_upload_folder()) / "comparisons" / secrets.token_urlsafe(16)
        environment = self.engine.environment(request.space)
        results: list[Result] = []
        files: dict[str, Path] = {}
        stopped = False
        # The pictures of the run before stay until the first one of this run replaces them.
        views: tuple[Any, Any, Any] = (gr.skip(), gr.skip(), gr.skip())
        busy = Status("busy", "Reading the photo", 0, len(request.methods))
        yield (busy, *views)
        try:
            for event in self.engine.compare(request, stop):
                if isinstance(event, Progress):
                    busy = progress_status(event)
                else:
                    results.append(event)
                    if event.image is not None:
                        folder.mkdir(parents=True, exist_ok=True)
                        files[event.method] = images.save_display(event.image, folder / f"{event.method}.webp")
                    views = (panes(request, results, files), timing_html(results, environment), [])
                yield (busy, *views)
        except Stopped:
            stopped = True
        if results:
            views = (*views[:2], write_downloads(folder, request, results, environment))
        if stopped:
            yield (Status("stopped", f"Stopped. {len(results)} of {len(request.methods)} finished."), *views)
        else:
            yield (Status("done", summary(results)), *views)

    def stop(self, session: gr.Request) -> Any:
        """Stops the running comparison of this session, and returns once it has given way."""
        run = self.runs.get(session.session_hash)
        if run is None:
            return NEVER_STARTED
        run.stop.set()
        run.finished.wait(STOP_PATIENCE_S)
        return gr.skip()

    def crash(self, shown: dict[str, Any]) -> Any:
        """After an error that is no UserError: the line must not go on claiming that something runs."""
        return CRASHED if shown["state"] == "busy" else gr.skip()

    def leave(self, session: gr.Request) -> None:
        """The tab was closed: nobody waits for the result."""
        if run := self.runs.get(session.session_hash):
            run.stop.set()


def panes(request: Request, results: Sequence[Result], files: dict[str, Path]) -> list[Pane]:
    """One pane per asked-for method, in that order; those still to come without a picture."""
    done = {result.method: result for result in results}
    return [
        Pane(method, done[method].label, detail(done[method]), files.get(method))
        if method in done
        else Pane(method, METHODS[method].label, "Still to come")
        for method in request.methods
    ]


def write_downloads(folder: Path, request: Request, results: Sequence[Result], environment: Any) -> list[str]:
    """Full-size PNGs with their parameters inside, and results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    document = report.to_json(request, results, environment)
    paths = []
    for result in results:
        if result.image is not None:
            path = folder / f"{result.method}.png"
            images.save_png(result.image, path, report.png_metadata(document, result.method))
            paths.append(str(path))
    path = folder / "results.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return [*paths, str(path)]
