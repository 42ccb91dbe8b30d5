"""What the button does: run a comparison and show its parts as they arrive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lua_demo import images, report
from lua_demo.catalog import METHODS
from lua_demo.engine import Engine
from lua_demo.latents import save_latent
from lua_demo.schema import Progress, Request, Result, Stopped, UserError
from lua_demo.store import Store
from lua_demo.timing_view import timing_html
from lua_demo.ui.sessions import Sessions, refusal
from lua_demo.ui.share import Sharing
from lua_demo.ui.showing import panes, summary
from lua_demo.ui.status import Status
from lua_demo.validate import validated

STAGE_WORDS = {"load": "loading weights", "wait": "waiting for another comparison", "measure": "measuring quality"}

Answer = tuple[Any, Any, Any, Any]


def progress_status(event: Progress) -> Status:
    stage = STAGE_WORDS.get(event.stage, event.stage)
    words = f"{METHODS[event.method].label}: {stage}, {event.done} of {event.total} done"
    return Status("busy", words, event.done, event.total)


class Handlers(Sessions):
    """The event handlers of one page.

    The outputs are always (status, viewer, timing, share), so that a client of the API gets a complete last answer.
    """

    def __init__(self, engine: Engine, store: Store):
        super().__init__()
        self.engine, self.store = engine, store
        self.sharing = Sharing(store)

    def compare(
        self,
        image: Any = None,
        scale: Any = Request.scale,
        methods: Any = Request.methods,
        size: Any = Request.size,
        seed: Any = Request.seed,
        latent: Any = None,
        session: gr.Request | None = None,
    ) -> Iterator[Answer]:
        with self.running(session) as run:
            try:
                if not image and not latent:
                    raise UserError("No photo yet: choose one, or take one of the examples.")
                request = Request(image or "", scale, size, methods, seed=seed, latent=latent or "")
                yield from self.show(validated(request), run.stop)
            except UserError as error:
                yield Status("error", str(error)), gr.skip(), gr.skip(), gr.skip()
                raise refusal(error) from error

    def show(self, request: Request, stop: threading.Event) -> Iterator[Answer]:
        events = self.engine.compare(request, stop)
        environment, source = self.engine.environment(request.space), report.describe_source(request)
        results: list[Result] = []
        files: dict[str, Path] = {}
        stopped = False
        # Of the run before everything stays until the first picture of this run replaces it.
        views: tuple[Any, Any, Any] = (gr.skip(), gr.skip(), gr.skip())
        busy = Status("busy", "Reading the photo", 0, len(request.methods))
        yield (busy, *views)
        draft = self.store.draft()
        try:
            for event in events:
                if isinstance(event, Progress):
                    busy = progress_status(event)
                else:
                    results.append(event)
                    if event.image is not None:
                        files[event.method] = images.save_display(event.image, draft / f"{event.method}.webp")
                    document = report.to_json(request, results, environment, source)
                    views = (panes(document, files, missing="Still to come"), timing_html(document), None)
                yield (busy, *views)
        except Stopped:
            stopped = True
        finally:
            if not results:
                self.store.discard(draft)
        if results:
            for latent in [result.latent for result in results if result.latent][:1]:
                save_latent(draft / "latent.safetensors", latent, source)
            run = self.store.finish(draft, document, request.latent or request.image)
            views = (panes(run.document, files), timing_html(run.document), self.sharing.share(run))
        if stopped:
            yield (Status("stopped", f"Stopped. {len(results)} of {len(request.methods)} finished."), *views)
        else:
            yield (Status("done", f"Done. {summary(document)}"), *views)
