"""What the page starts from: a link to a stored run, a link with settings, a dropped picture of ours, an example."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import gradio as gr

from lua_demo.catalog.methods import METHODS, Method, methods_of
from lua_demo.catalog.prompts import EXAMPLES as PROMPTS
from lua_demo.paths import EXAMPLES
from lua_demo.pictures.reading import size_of
from lua_demo.report.timing import timing_html
from lua_demo.request.settings import FIELDS, OF_PROMPTS, from_query, from_settings
from lua_demo.runs.batch import LATENT_SUFFIX
from lua_demo.runs.provenance import Provenance, read_png
from lua_demo.runs.recreate import find_source
from lua_demo.runs.run import Run
from lua_demo.runs.store import Store
from lua_demo.schema import Request, UserError
from lua_demo.ui.form import USE_SETTINGS, methods_for
from lua_demo.ui.inputs import uploaded
from lua_demo.ui.models import decoder_for
from lua_demo.ui.share import Sharing
from lua_demo.ui.showing import summary, view
from lua_demo.ui.status import Status

GONE = "This comparison is no longer kept, or the link is not complete. Here is an example instead."
EXAMPLE = "An example, computed beforehand from a {kind}. For your own, fill in the form and press Compare."
EMPTY = "Ready. Fill in the form and press Compare."
FILLED = "The settings of the link are in the form; nothing has run yet. Change what you like, then press Compare."
DROPPED = "The {} is in the form: press Compare."
OURS = (
    f"The photo is a {{}} picture made by lua_demo. Press Compare to enlarge it, or {USE_SETTINGS!r} to fill the form."
)
NOT_OURS = "The photo holds no settings: only a PNG that was downloaded from here does."
MAX_STATE = 500  # characters of a viewer's state


class Opening:
    """Handlers that show what is there already, and fill the form.

    Args:
        controls: names of the form's controls, as in `form.Form`, in the order of the outputs.
    """

    def __init__(self, store: Store, controls: Iterable[str]):
        self.store, self.sharing, self.controls = store, Sharing(store), tuple(controls)

    def form(self, request: Request, source: str = "", **changes: Any) -> list[Any]:
        """The controls as `request` has them; what means nothing for its source, by default its kind, stays."""
        source = source or request.kind
        stays = {*FIELDS.values(), *OF_PROMPTS} - {FIELDS[source], *(OF_PROMPTS if source == "prompt" else ())}
        values = {name: gr.skip() if name in stays else getattr(request, name, None) for name in self.controls}
        values |= {"source": source, "methods": methods_for(source, request.base, request.methods)}
        values["decoder"] = decoder_for(request.base, request.decoder)
        values[FIELDS[source]] = values[FIELDS[source]] or None
        return list((values | changes).values())

    def show(self, run: Run, status: Status, state: str = "", go: bool = True) -> list[Any]:
        pictures = view(run.document, run.pictures(), state, run)
        return [status, pictures, timing_html(run.document), self.sharing.share(run, go)]

    def link(self, visit: gr.Request) -> list[Any]:
        """Status, viewer, timing, share and the form for the page's address."""
        query = dict(visit.query_params)
        if "run" in query:
            if run := self.store.open(query["run"]):
                made = time.strftime("%Y-%m-%d", time.gmtime(run.document.get("created", 0)))
                status = Status("done", f"Compared on {made}. {summary(run.document)}")
                return [*self.show(run, status, query.get("view", "")[:MAX_STATE]), *self.form(request_of(run))]
            return self.example(Status("stopped", GONE))
        try:
            settings = from_query(query)
            prompted = any(name in settings for name in OF_PROMPTS)
            source = {"prompt": settings.get("prompt") or PROMPTS[0]} if prompted else {}
            request = from_settings(settings | source, image="" if prompted else initial(self.store).image)
        except UserError as error:
            return self.example(Status("error", f"The settings of the link were not used: {error}"))
        return [Status("empty", FILLED), [], "", None, *self.form(request)] if settings else self.example()

    def example(self, status: Status | None = None) -> list[Any]:
        # The form has these settings from the start: filling it now could undo what a quick visitor has chosen.
        form = [gr.skip() for _ in self.controls]
        if run := first_pinned(self.store):
            example = Status("empty", EXAMPLE.format(kind=run.document["source"]["kind"]))
            return [*self.show(run, status or example, go=False), *form]
        return [status or Status("empty", EMPTY), [], "", None, *form]

    def chosen(self, photo: str | None) -> Status | dict[str, Any]:
        """Status once a photo was chosen: says that a PNG of ours is a photo, whose settings can be used as well."""
        try:
            made = read_png(photo) if photo else None
        except UserError as error:
            return Status("error", f"{error}. Here it is an ordinary photo.")
        if made is None:
            return gr.skip()
        return Status("empty", OURS.format(method_of(made).label))

    def offered(self, photo: str | None) -> dict[str, Any]:
        """The button below the photo: it is there while the photo is a PNG of ours whose settings can be used here."""
        try:
            made = read_png(photo) if photo else None
        except UserError:
            made = None
        return gr.update(visible=made is not None)

    def restored(self, photo: str | None, shared: object) -> list[Any]:
        """Status and form with the settings of a PNG of ours; with its prompt or source too, where that is here."""
        skip = [gr.skip() for _ in self.controls]
        try:
            made = read_png(photo) if photo else None
        except UserError as error:
            return [Status("error", str(error)), *skip]
        if made is None:
            return [Status("error", NOT_OURS), *skip]
        words = f"The settings of this {method_of(made).label} picture are back in the form."
        if made.kind == "prompt":
            return [
                Status("empty", f"{words} So is its prompt: press Compare to run it again."),
                *self.form(made.request),
            ]
        # Only what the reader has before them or what is public: a hash is no proof that one may see the file.
        shown = self.store.open(shared.get("run")) if isinstance(shared, dict) else None
        own = [shown.source] if shown and shown.source else []
        source = find_source(made, [*own, *sorted(EXAMPLES.glob("*"))])
        if source:
            form = self.form(made.request, made.kind, **{FIELDS[made.kind]: str(source)})
            return [Status("empty", f"{words} So is {made.file}: press Compare to run it again."), *form]
        missing = f"It was made from {made.file}, which is not here: choose that {made.kind} to run it again."
        form = self.form(made.request, made.kind, **{FIELDS[made.kind]: gr.skip()})
        return [Status("empty", f"{words} {missing}"), *form]

    def dropped(self, event: gr.EventData, methods: Iterable[str] | None) -> list[Any]:
        """Status and form for a file that was dropped on the page: what the form starts from, then as `chosen`."""
        name, path = (str(getattr(event, key, "")) for key in ("name", "path"))
        skip = [gr.skip() for _ in self.controls]
        if not path:
            return [Status("error", f"{name} could not be uploaded; it may be too large: shrink it first."), *skip]
        kind = "latent" if name.lower().endswith(LATENT_SUFFIX) else "photo"
        path, said = uploaded(kind, path), gr.skip()
        if kind == "photo":
            try:
                size_of(path)  # its header: pixels are decoded where comparisons wait in line
            except UserError as error:
                return [Status("error", str(error)), *skip]
            said = self.chosen(path)
        start = {"source": kind, FIELDS[kind]: path, "methods": methods_for(kind, "", methods)}
        form = [start.get(name, gr.skip()) for name in self.controls]
        return [Status("empty", DROPPED.format(kind)) if said == gr.skip() else said, *form]


def method_of(made: Provenance) -> Method:
    """The row of the method that made a picture."""
    return methods_of(made.kind, made.request.base)[made.method]


def first_pinned(store: Store) -> Run | None:
    """The run that a fresh page shows."""
    return next((run for name in store.pinned_names() if (run := store.open(name))), None)


def initial(store: Store) -> Request:
    """What the form holds before anything else comes."""
    run = first_pinned(store)
    return request_of(run) if run else Request()


def request_of(run: Run) -> Request:
    """The request that made `run`, without the columns that are not here; the default one where that cannot be run."""
    latent = run.document["source"]["kind"] == "latent"
    settings = run.document["settings"]
    if isinstance(columns := settings.get("methods"), list):
        settings = {**settings, "methods": [key for key in columns if isinstance(key, str) and key in METHODS]}
    try:
        return from_settings(settings, **{"latent" if latent else "image": str(run.source or "")})
    except UserError:
        return Request()
