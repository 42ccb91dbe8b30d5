"""What the button does: run a comparison and show its parts as they arrive."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import gradio as gr

from lua_demo.catalog.methods import Method
from lua_demo.catalog.prompts import EXAMPLES
from lua_demo.machine.memory import is_out_of_memory
from lua_demo.report import records
from lua_demo.report.document import Source
from lua_demo.report.timing import timing_html
from lua_demo.request.job import Job, resolve
from lua_demo.request.settings import FIELDS, of_kind, unchecked
from lua_demo.runs.keeping import Keeping
from lua_demo.runs.store import Store
from lua_demo.schema import Progress, Result, Stopped, UserError
from lua_demo.ui.limits import Limits
from lua_demo.ui.public import PublicEngine
from lua_demo.ui.sessions import CRASHED, Sessions, refusal
from lua_demo.ui.share import Sharing
from lua_demo.ui.showing import summary, view
from lua_demo.ui.status import Status
from lua_demo.ui.viewer import data_url
from lua_demo.ui.zero_gpu import CutShort

NO_SOURCE = {
    "prompt": f"No prompt yet: describe a landscape, like {EXAMPLES[0]!r}, or take one of the examples.",
    "photo": "No photo yet: choose one, or take one of the examples.",
    "latent": "No latent yet: choose a file that was saved from a comparison.",
}
STAGE_WORDS = {"load": "loading weights", "wait": "waiting for another comparison", "measure": "measuring quality"}

Answer = tuple[Any, Any, Any, Any]
log = logging.getLogger(__name__)


def progress_status(event: Progress, methods: Mapping[str, Method]) -> Status:
    """`methods` are the rows of the comparison. A stage that goes step by step fills its method's part of the bar."""
    stage = STAGE_WORDS.get(event.stage) or records.stage(event)
    words = f"{methods[event.method].label}: {stage}, {event.done} of {event.total} done"
    return Status("busy", words, event.done + event.step / max(event.steps, 1), event.total)


class Handlers(Sessions):
    """The event handlers of one page.

    The outputs are always (status, viewer, timing, share), so that a client of the API gets a complete last answer.
    """

    def __init__(self, engine: PublicEngine, store: Store, limits: Limits | None = None):
        super().__init__()
        self.engine, self.store = engine, store
        self.sharing = Sharing(store, limits)

    def run(self, values: Mapping[str, Any], session: gr.Request) -> Iterator[Answer]:
        """Run what the form says: name of a control -> its value. Of prompt, image and latent only the one that
        `values["source"]` names counts.
        """
        with self.running(session) as run:
            try:
                source = values["source"]
                if source not in list(FIELDS):
                    raise UserError(f"there is no source {brief(source)}; choose {', '.join(FIELDS)}")
                given = values[FIELDS[source]]
                if source == "prompt":
                    given = str(given or "").strip()
                if not given:
                    raise UserError(NO_SOURCE[source])
                request = unchecked(of_kind(source, values))
                yield from self.show(resolve(replace(request, **{FIELDS[source]: given})), run.stop)
            except UserError as error:
                yield Status("error", str(error)), gr.skip(), gr.skip(), gr.skip()
                raise refusal(error) from error

    def show(self, job: Job, stop: threading.Event) -> Generator[Answer, None, None]:
        """The answers of a comparison. What is finished stays on the page and is kept, whatever ends the rest; where it
        cannot be kept, the last line says so.
        """
        request = job.request
        source = records.describe_source(request)
        with contextlib.closing(self.engine.compare(job, stop)) as events, Keeping(self.store) as keeping:
            results: list[Result] = []
            files: dict[str, Path | str] = {}
            ended: Status | None = None
            # Of the run before everything stays until the first picture of this run replaces it.
            views: tuple[Any, Any, Any] = (gr.skip(), gr.skip(), gr.skip())
            busy = Status("busy", f"Reading the {request.kind}", 0, len(request.methods))
            yield (busy, *views)
            try:
                for event in events:
                    if isinstance(event, Progress):
                        busy = progress_status(event, job.methods)
                    else:
                        results.append(event)
                        files = self._files(keeping, results, files, source)
                        # Asked for now: a network that was downloaded for this run has its hash only since.
                        document = records.to_json(request, results, self.engine.environment(job), source)
                        views = (view(document, files, missing="Still to come"), timing_html(document), None)
                    yield (busy, *views)
            except Stopped as error:
                words = str(error) if isinstance(error, CutShort) else "Stopped."
                ended = Status("stopped", f"{words} {len(results)} of {len(request.methods)} finished.")
            except Exception as error:
                if not results:
                    raise
                ended = Status("error", f"{broken(error)} {len(results)} of {len(request.methods)} finished before.")
            if results:
                run = keeping.finish(document, request.latent or request.image)
                if run is None:  # the draft is gone, with the pictures in it
                    files = self._files(keeping, results, files, source)
                document = run.document if run else document
                share = self.sharing.share(run) if run else None
                views = (view(document, files, run=run), timing_html(document), share)
            last = ended or Status("done", f"Done. {summary(document)}")
            if results and keeping.missing:
                last = replace(last, text=f"{last.text} The comparison is {keeping.missing}.")
            yield (last, *views)

    def _files(
        self, keeping: Keeping, results: Sequence[Result], before: Mapping[str, Path | str], source: Source
    ) -> dict[str, Path | str]:
        """Method -> its picture: the file that is kept, else the picture itself; `before`: those shown."""
        files = dict(before)
        if results[-1].method not in files and (path := keeping.add(results[-1], source)):
            files[results[-1].method] = path
        if keeping.missing:
            for result in results:
                if result.image is not None and not isinstance(files.get(result.method), str):
                    files[result.method] = data_url(result.image)
        return files


def broken(error: Exception) -> str:
    """Why a comparison ended early, for visitors; an error of the program goes to the log."""
    if isinstance(error, UserError):
        return f"{str(error).rstrip('.')}."
    if is_out_of_memory(error):
        return "Out of memory."
    log.error("a comparison broke off", exc_info=error)
    return CRASHED.text
