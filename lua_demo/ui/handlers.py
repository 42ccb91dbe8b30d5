"""What the button does: run a comparison and show its parts as they arrive."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import gradio as gr

from lua_demo.catalog.methods import Method
from lua_demo.catalog.prompts import EXAMPLES
from lua_demo.engine import Engine
from lua_demo.pictures import images
from lua_demo.pictures.latents import save_latent
from lua_demo.report import records
from lua_demo.report.timing import timing_html
from lua_demo.request.job import Job, resolve
from lua_demo.request.settings import FIELDS, of_kind, unchecked
from lua_demo.runs.store import Store
from lua_demo.schema import Progress, Result, Stopped, UserError
from lua_demo.ui.sessions import Sessions, refusal
from lua_demo.ui.share import Sharing
from lua_demo.ui.showing import panes, summary
from lua_demo.ui.status import Status
from lua_demo.ui.zero_gpu import CutShort

NO_SOURCE = {
    "prompt": f"No prompt yet: describe a landscape, like {EXAMPLES[0]!r}, or take one of the examples.",
    "photo": "No photo yet: choose one, or take one of the examples.",
    "latent": "No latent yet: choose a file that was saved from a comparison.",
}
STAGE_WORDS = {"load": "loading weights", "wait": "waiting for another comparison", "measure": "measuring quality"}

Answer = tuple[Any, Any, Any, Any]


def progress_status(event: Progress, methods: Mapping[str, Method]) -> Status:
    """`methods` are the rows of the comparison. A stage that goes step by step fills its method's part of the bar."""
    stage = STAGE_WORDS.get(event.stage) or records.stage(event)
    words = f"{methods[event.method].label}: {stage}, {event.done} of {event.total} done"
    return Status("busy", words, event.done + event.step / max(event.steps, 1), event.total)


class Handlers(Sessions):
    """The event handlers of one page.

    The outputs are always (status, viewer, timing, share), so that a client of the API gets a complete last answer.
    """

    def __init__(self, engine: Engine, store: Store):
        super().__init__()
        self.engine, self.store = engine, store
        self.sharing = Sharing(store)

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

    def show(self, job: Job, stop: threading.Event) -> Iterator[Answer]:
        request = job.request
        events = self.engine.compare(job, stop)
        source = records.describe_source(request)
        results: list[Result] = []
        files: dict[str, Path] = {}
        stopped = ""
        # Of the run before everything stays until the first picture of this run replaces it.
        views: tuple[Any, Any, Any] = (gr.skip(), gr.skip(), gr.skip())
        busy = Status("busy", f"Reading the {request.kind}", 0, len(request.methods))
        yield (busy, *views)
        draft = self.store.draft()
        try:
            for event in events:
                if isinstance(event, Progress):
                    busy = progress_status(event, job.methods)
                else:
                    results.append(event)
                    if event.image is not None:
                        files[event.method] = images.save_display(event.image, draft / f"{event.method}.webp")
                    # Asked for now: a network that was downloaded for this run has its hash only since.
                    document = records.to_json(request, results, self.engine.environment(job), source)
                    views = (panes(document, files, missing="Still to come"), timing_html(document), None)
                yield (busy, *views)
        except Stopped as error:
            stopped = str(error) if isinstance(error, CutShort) else "Stopped."
        finally:
            if not results:
                self.store.discard(draft)
        if results:
            for latent in [result.latent for result in results if result.latent][:1]:
                save_latent(draft / "latent.safetensors", latent, source)
            run = self.store.finish(draft, document, request.latent or request.image)
            views = (panes(run.document, files), timing_html(run.document), self.sharing.share(run))
        if stopped:
            yield (Status("stopped", f"{stopped} {len(results)} of {len(request.methods)} finished."), *views)
        else:
            yield (Status("done", f"Done. {summary(document)}"), *views)
