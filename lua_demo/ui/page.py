"""The page: controls on the left, pictures and times on the right. Layout and wiring only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lua_demo.catalog import METHODS
from lua_demo.engine import Engine
from lua_demo.schema import Request
from lua_demo.ui.handlers import WAITING, Handlers
from lua_demo.ui.inputs import CheckboxGroup, Number, PhotoInput, Radio, Slider
from lua_demo.ui.status import Status, StatusLine
from lua_demo.ui.theme import theme
from lua_demo.ui.viewer import STATIC, CompareViewer

EXAMPLES = Path(__file__).parents[2] / "assets" / "examples"
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
HEADER = """
<header>
  <h1>Upscale the latent, or the pixels?</h1>
  <p>LUA enlarges the latent and decodes once. SwinIR decodes first and enlarges the picture.
  Both start here from the same latent of your photo, with every stage timed.</p>
</header>
"""
CACHE_CHECK_S, CACHE_AGE_S = 3600, 24 * 3600


def example_files() -> list[str]:
    return sorted(str(path) for path in EXAMPLES.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def build_demo(engine: Engine) -> gr.Blocks:
    """The page over one engine; start it with `demo.launch(**launch_options())`."""
    handlers = Handlers(engine)
    default = Request(image="")
    selected = [key for key, method in METHODS.items() if method.default]
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
                    value=selected,
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
            with gr.Column(scale=1, min_width=320, elem_id="results"):
                ready = Status("empty", "Ready. Choose a photo and press Compare.")
                status = StatusLine(ready, label="Status", elem_id="status")
                viewer = CompareViewer(label="Pictures", elem_id="viewer")
                timing = gr.HTML(apply_default_css=False, label="Timing", elem_id="timing")
                downloads = gr.File(label="Downloads", file_count="multiple", interactive=False, elem_id="downloads")

        waiting = start.click(
            lambda: WAITING, None, status, queue=False, show_progress="hidden", api_visibility="private"
        )
        running = waiting.then(
            handlers.compare,
            [photo, scale, methods, size, seed],
            [status, viewer, timing, downloads],
            api_name="compare",
            api_description="Compare upscaling methods on one photo. Answers grow as it runs; the last is complete.",
            show_progress="minimal",
            show_progress_on=status,
            concurrency_id="gpu",
            concurrency_limit=1,
        )
        running.failure(
            handlers.crash, status, status, queue=False, show_progress="hidden", api_visibility="private"
        )
        stopped = stop.click(
            handlers.stop, None, status, queue=False, show_progress="hidden", api_visibility="private"
        )
        # Takes a comparison that had not started out of the queue.
        stopped.then(None, None, None, cancels=[running], api_visibility="private")
        demo.unload(handlers.leave)
    return demo.queue(max_size=20)


def launch_options() -> dict[str, Any]:
    """What `launch` needs for this page to look and behave as designed: local, offline, nothing recorded."""
    return {
        "theme": theme(),
        "css_paths": [STATIC / "page.css"],
        "ssr_mode": False,
        "run_history": False,
        "footer_links": ["api"],
        "show_error": True,
        "share": False,
        "state_session_capacity": 200,
        "max_file_size": "100mb",
    }
