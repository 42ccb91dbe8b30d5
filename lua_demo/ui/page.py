"""The page: controls on the left, pictures and times on the right. Layout and wiring only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from lua_demo.catalog.methods import add_own_folder
from lua_demo.engine import Engine
from lua_demo.paths import EXAMPLES
from lua_demo.pictures import metrics
from lua_demo.report.records import PAIR
from lua_demo.runs.store import Store
from lua_demo.ui.api import Api
from lua_demo.ui.batch_section import batch_section
from lua_demo.ui.drop import PageDrop
from lua_demo.ui.form import TELL_BASE, build_form
from lua_demo.ui.gate import HostGuard, UploadGuard, limit_places, refuse_quietly
from lua_demo.ui.guests import Guests
from lua_demo.ui.handlers import Handlers
from lua_demo.ui.models import on_this_machine
from lua_demo.ui.opening import EMPTY, Opening, initial
from lua_demo.ui.preview import needs_preview
from lua_demo.ui.public import PublicEngine
from lua_demo.ui.sessions import WAITING
from lua_demo.ui.share import ShareRow
from lua_demo.ui.status import Status, StatusLine
from lua_demo.ui.theme import theme
from lua_demo.ui.viewer import STATIC, CompareViewer, static
from lua_demo.ui.visitors import StreamWatch, Visitors
from lua_demo.ui.voting import voting_section

HEADER = """
<header>
  <h1>Upscale the latent, or the pixels?</h1>
  <p>LUA enlarges the latent and decodes once. SwinIR decodes first and enlarges the picture.
  Both start here from the same latent, of your prompt or your photo, with every stage timed.</p>
</header>
"""
DOWNLOAD_FAILED = "() => { document.querySelector('#share [data-ref=download]').dispatchEvent(new Event('failed')); }"
QUEUE = 10**6  # `limits` decides who may wait
CACHE_CHECK_S, CACHE_AGE_S = 3600, 24 * 3600


def with_preview(photo: str | None) -> str | dict[str, Any] | None:
    """The photo once more, where the field cannot draw what was chosen and is to show a preview."""
    return photo if needs_preview(photo) else gr.skip()


def build_demo(engine: Engine, store: Store | None = None) -> gr.Blocks:
    """The page over one engine; start it with `demo.launch(**launch_options())`.

    `store` keeps the finished comparisons; by default the one that the environment describes.
    """
    add_own_folder(os.environ)
    store = store or Store.from_environment()
    # Served where they are, without a copy; all of these folders can be read by whoever knows a file's whole path.
    gr.set_static_paths([store.folder, *([store.pinned] if store.pinned else []), EXAMPLES])
    public = PublicEngine(engine)
    handlers = Handlers(public, store, public.limits)
    with gr.Blocks(
        title="LUA demo: latent or pixel upscaling",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(CACHE_CHECK_S, CACHE_AGE_S),
    ) as demo:
        public.offer.page = demo
        demo.limits, demo.visitors = public.limits, Visitors()  # for the middleware
        handlers.visitors = demo.visitors
        gr.HTML(HEADER, apply_default_css=False, js_on_load=static("names.js"), elem_id="header")
        with gr.Row(elem_id="layout"):
            with gr.Column(scale=0, min_width=320, elem_id="controls"):
                form = build_form(public, on_this_machine(public, initial(store)))
            with gr.Column(scale=1, min_width=320, elem_id="results"):
                status = StatusLine(Status("empty", EMPTY), label="Status", elem_id="status")
                viewer = CompareViewer(
                    label="Pictures", pair=PAIR, placeholder=static("placeholder.html"), elem_id="viewer"
                )
                share = ShareRow(label="Link and files", elem_id="share")
                timing = gr.HTML(
                    apply_default_css=False, js_on_load=static("timing.js"), label="Timing", elem_id="timing"
                )
                voting_section(store, share, public.limits)

        batch_section(demo, public, store, form)
        drop = PageDrop(label="Drop", elem_id="drop")

        controls, views = list(form.controls.values()), [status, viewer, timing, share]
        opening = Opening(store, form.controls)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        demo.load(opening.link, None, [*views, *controls], queue=False, **quiet)
        demo.load(None, form.controls["base"], None, js=TELL_BASE, **quiet)
        demo.load(metrics.prepare, None, None, queue=False, **quiet)  # while the visitor is reading
        viewer.upload(Guests(store, opening).keep, share, views, queue=False, **quiet)
        photo = form.controls["image"]
        photo.upload(opening.chosen, photo, status, queue=False, **quiet)
        photo.change(opening.offered, photo, form.restore, queue=False, **quiet)
        form.restore.click(opening.restored, [photo, share], [status, *controls], queue=False, **quiet)
        photo.upload(with_preview, photo, photo, concurrency_limit=1, **quiet)
        drop.upload(opening.dropped, form.controls["methods"], [status, *controls], queue=False, **quiet)
        made = share.submit(handlers.sharing.download, None, share, **quiet)
        made.failure(None, None, None, js=DOWNLOAD_FAILED, api_visibility="private")

        starts = [form.start.click, form.controls["prompt"].submit]

        def run(given: dict, session: gr.Request) -> Iterator[Any]:
            yield from handlers.run(form.values(given), session)

        waiting = gr.on(starts, lambda: WAITING, None, status, queue=False, **quiet)
        running = waiting.then(
            run,
            set(controls),
            views,
            api_visibility="private",
            show_progress="minimal",
            show_progress_on=status,
            concurrency_id="gpu",
            concurrency_limit=1,
        )
        running.failure(handlers.crash, status, status, queue=False, **quiet)
        stopped = form.stop.click(handlers.stop, None, status, queue=False, **quiet)
        # Takes a comparison that had not started out of the queue.
        stopped.then(None, None, None, cancels=[running], api_visibility="private")
        gr.api(handlers.sharing.export, api_name="export")
        Api(handlers).register()
        demo.unload(handlers.leave)
    demo.queue(max_size=QUEUE)
    limit_places(demo, public.limits)
    refuse_quietly(demo)
    return demo


def launch_options() -> dict[str, Any]:
    """What `launch` needs for this page to look and behave as designed: local, offline, nothing recorded."""
    return {
        "theme": theme(),
        "css_paths": [STATIC / "page.css", STATIC / "timing.css", STATIC / "batch.css", STATIC / "voting.css"],
        "ssr_mode": False,
        "run_history": False,
        "footer_links": ["api"],
        "show_error": True,
        "share": False,
        "state_session_capacity": 200,
        "max_file_size": "100mb",
        "app_kwargs": {"middleware": [Middleware(HostGuard), Middleware(UploadGuard), Middleware(StreamWatch)]},
    }
