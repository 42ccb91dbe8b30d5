"""The page: controls on the left, pictures and times on the right. Layout and wiring only."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lua_demo.catalog import METHODS
from lua_demo.engine import Engine
from lua_demo.report import PAIR
from lua_demo.store import EXAMPLES, Store
from lua_demo.ui.api import COMPARE, Api
from lua_demo.ui.batch import batch_section
from lua_demo.ui.handlers import Handlers
from lua_demo.ui.inputs import CheckboxGroup, LatentInput, Number, PhotoInput, Radio, Slider
from lua_demo.ui.opening import EMPTY, Opening, initial
from lua_demo.ui.sessions import WAITING
from lua_demo.ui.share import ShareRow
from lua_demo.ui.status import Status, StatusLine
from lua_demo.ui.theme import theme
from lua_demo.ui.viewer import STATIC, CompareViewer, static
from lua_demo.ui.voting import voting_section

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
HEADER = """
<header>
  <h1>Upscale the latent, or the pixels?</h1>
  <p>LUA enlarges the latent and decodes once. SwinIR decodes first and enlarges the picture.
  Both start here from the same latent of your photo, with every stage timed.</p>
</header>
"""
DOWNLOAD_FAILED = "() => { document.querySelector('#share [data-ref=download]').dispatchEvent(new Event('failed')); }"
CACHE_CHECK_S, CACHE_AGE_S = 3600, 24 * 3600


def example_files() -> list[str]:
    return sorted(str(path) for path in EXAMPLES.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def build_demo(engine: Engine, store: Store | None = None) -> gr.Blocks:
    """The page over one engine; start it with `demo.launch(**launch_options())`.

    `store` keeps the finished comparisons; by default the one that the environment describes.
    """
    store = store or Store.from_environment()
    # Served where they are, without a copy; all of these folders can be read by whoever knows a file's whole path.
    gr.set_static_paths([store.folder, *([store.pinned] if store.pinned else []), EXAMPLES])
    handlers = Handlers(engine, store)
    default = initial(store)
    with gr.Blocks(
        title="LUA demo: latent or pixel upscaling",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(CACHE_CHECK_S, CACHE_AGE_S),
    ) as demo:
        gr.HTML(HEADER, apply_default_css=False, elem_id="header")
        with gr.Row(elem_id="layout"):
            with gr.Column(scale=0, min_width=320, elem_id="controls"):
                photo = PhotoInput(
                    default.image or None,
                    label="Photo",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    buttons=[],
                    height=204,
                    elem_id="photo",
                )
                if files := example_files():
                    gr.Examples(files, photo, label="Examples", examples_per_page=12, elem_id="examples")
                scale = Radio([("2×", 2), ("4×", 4)], value=default.scale, label="Enlarge by", elem_id="scale")
                methods = CheckboxGroup(
                    [(method.label, key) for key, method in METHODS.items()],
                    value=list(default.methods),
                    label="Methods",
                    elem_id="methods",
                )
                with gr.Row(elem_id="buttons"):
                    start = gr.Button("Compare", variant="primary", elem_id="compare", min_width=120, scale=2)
                    stop = gr.Button("Stop", variant="secondary", elem_id="stop", min_width=80, scale=1)
                with gr.Accordion("Advanced", open=False, elem_id="advanced"):
                    size = Slider(
                        128,
                        1024,
                        value=default.size,
                        step=8,
                        label="Base size, px",
                        info="Longest side of the picture that is enlarged.",
                        elem_id="size",
                    )
                    seed = Number(default.seed, precision=0, label="Seed", elem_id="seed")
                    latent = LatentInput(
                        label="Base latent, instead of a photo",
                        file_types=[".safetensors"],
                        height=150,
                        elem_id="latent",
                    )
            with gr.Column(scale=1, min_width=320, elem_id="results"):
                status = StatusLine(Status("empty", EMPTY), label="Status", elem_id="status")
                viewer = CompareViewer(
                    label="Pictures", pair=PAIR, placeholder=static("placeholder.html"), elem_id="viewer"
                )
                share = ShareRow(label="Link and files", elem_id="share")
                timing = gr.HTML(
                    apply_default_css=False, js_on_load=static("timing.js"), label="Timing", elem_id="timing"
                )
                voting_section(store, share)

        batch_section(demo, engine, store)

        # By the names of the request's fields, in the order of the parameters of `Handlers.compare`.
        controls = {
            "image": photo, "scale": scale, "methods": methods, "size": size, "seed": seed, "latent": latent,
        }  # fmt: skip
        form, views = list(controls.values()), [status, viewer, timing, share]
        opening, quiet = Opening(store, controls), {"show_progress": "hidden", "api_visibility": "private"}
        demo.load(opening.link, None, [*views, *form], queue=False, **quiet)
        photo.upload(opening.dropped, [photo, share], [status, *form], queue=False, **quiet)
        # A photo or a latent, whichever came last.
        photo.change(lambda image: None if image else gr.skip(), photo, latent, queue=False, **quiet)
        latent.upload(lambda: None, None, photo, queue=False, **quiet)
        made = share.submit(handlers.sharing.download, None, share, **quiet)
        made.failure(None, None, None, js=DOWNLOAD_FAILED, api_visibility="private")

        waiting = start.click(
            lambda: WAITING, None, status, queue=False, show_progress="hidden", api_visibility="private"
        )
        running = waiting.then(
            handlers.compare,
            form,
            views,
            api_name="compare",
            api_description=COMPARE,
            show_progress="minimal",
            show_progress_on=status,
            concurrency_id="gpu",
            concurrency_limit=1,
        )
        running.failure(handlers.crash, status, status, queue=False, show_progress="hidden", api_visibility="private")
        stopped = stop.click(handlers.stop, None, status, queue=False, show_progress="hidden", api_visibility="private")
        # Takes a comparison that had not started out of the queue.
        stopped.then(None, None, None, cancels=[running], api_visibility="private")
        gr.api(handlers.sharing.export, api_name="export")
        Api(engine).register()
        demo.unload(handlers.leave)
    return demo.queue(max_size=20)


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
    }
