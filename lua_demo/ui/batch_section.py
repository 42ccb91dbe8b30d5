"""The controls of the batch section and their wiring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr
from markupsafe import Markup

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.methods import can_refine
from lua_demo.catalog.prompts import EXAMPLES
from lua_demo.catalog.spaces import DECODERS
from lua_demo.pictures.formats import SUFFIXES
from lua_demo.runs.batch import LATENT_SUFFIX
from lua_demo.runs.store import Store
from lua_demo.schema import Request
from lua_demo.ui.batch import MAX_ITEMS, READY, Batches
from lua_demo.ui.form import SCALES, Form, method_choices, methods_for
from lua_demo.ui.inputs import CheckboxGroup, FilesInput, Radio
from lua_demo.ui.public import PublicEngine
from lua_demo.ui.sessions import WAITING
from lua_demo.ui.status import StatusLine

TAKEN = ("size", "base", "decoder", "steps", "guidance", "aspect", "force_native", "refine")
"""Controls of the form that a batch is run with, too."""


def batch_section(demo: gr.Blocks, engine: PublicEngine, store: Store, form: Form) -> None:
    """Build the section where this is called, inside `demo`, and wire it. `form` has the rest of the settings."""
    batches, default = Batches(engine, store, getattr(demo, "limits", None)), Request()
    batches.visitors = getattr(demo, "visitors", None)
    with gr.Accordion("Batch: several prompts or photos in one go", open=False, elem_id="batch"):
        with gr.Row(elem_id="batch-layout"):
            with gr.Column(scale=0, min_width=320, elem_id="batch-controls"):
                source = Radio(
                    [("Prompts", "prompt"), ("Photos", "photo")],
                    value="prompt",
                    label="Start from",
                    container=False,
                    elem_id="batch-source",
                    elem_classes="segments",
                )
                with gr.Column(elem_classes="of-prompt"):
                    prompts = gr.Textbox(
                        "\n".join(EXAMPLES[:3]),
                        lines=5,
                        max_lines=12,
                        label="Prompts, one per line",
                        elem_id="batch-prompts",
                    )
                    seeds = gr.Textbox(
                        "0", label="Seeds, each for every prompt", info="Like 0, 1, 2", elem_id="batch-seeds"
                    )
                with gr.Column(elem_classes="of-photo"):
                    files = FilesInput(
                        label=f"Photos or base latents, up to {MAX_ITEMS}",
                        file_count="multiple",
                        file_types=[*SUFFIXES, LATENT_SUFFIX],
                        height=204,
                        elem_id="batch-files",
                    )
                scale = Radio(SCALES, value=default.scale, label="Enlarge by", elem_id="batch-scale")
                methods = CheckboxGroup(
                    method_choices("prompt", form.controls["base"].value),
                    value=list(default.methods),
                    label="Methods",
                    elem_id="batch-methods",
                )
                taken = {name: form.controls[name] for name in TAKEN}
                told = gr.HTML(apply_default_css=False, label="Settings from Advanced", elem_id="batch-taken")
                with gr.Row():
                    start = gr.Button(
                        "Run", variant="primary", elem_id="batch-run", elem_classes="go", min_width=120, scale=2
                    )
                    stop = gr.Button("Stop", elem_id="batch-stop", elem_classes="halt", min_width=80, scale=1)
            with gr.Column(scale=1, min_width=320, elem_id="batch-results"):
                status = StatusLine(READY, label="Status of the batch", elem_id="batch-status")
                with gr.Column(visible=False) as found:
                    table = gr.HTML(apply_default_css=False, label="Results of the batch", elem_id="batch-table")
                    choice = Radio([], label="Pictures by", elem_id="batch-choice")
                    gallery = gr.Gallery(
                        label="Pictures",
                        columns=4,
                        height="auto",
                        object_fit="contain",
                        interactive=False,
                        buttons=["download", "fullscreen"],
                        elem_id="batch-gallery",
                    )
                    archive = gr.DownloadButton("Download all (ZIP)", visible=False, elem_id="batch-zip")
        runs = gr.State([])

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    kind = [source, form.controls["base"]]
    gr.on([source.input, kind[1].change], methods_for, [*kind, methods], methods, queue=False, **quiet)
    own = {"source": source, "prompts": prompts, "seeds": seeds, "files": files, "scale": scale, "methods": methods}
    names = {control: name for name, control in (own | taken).items()}

    def run(given: dict, session: gr.Request) -> Iterator[Any]:
        yield from batches.run({names[control]: value for control, value in given.items()}, session)

    def settings_html(given: dict) -> str:
        return taken_html({names[control]: value for control, value in given.items()})

    settled = [demo.load, source.change, *(control.change for control in taken.values())]
    gr.on(settled, settings_html, {source, *taken.values()}, told, queue=False, trigger_mode="always_last", **quiet)
    waiting = start.click(lambda: WAITING, None, status, queue=False, **quiet)
    running = waiting.then(
        run,
        set(names),
        [status, table, choice, runs, archive, found],
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=status,
        concurrency_id="gpu",
        concurrency_limit=1,
    )
    running.failure(batches.crash, status, status, queue=False, **quiet)
    stopped = stop.click(batches.stop, None, status, queue=False, **quiet)
    stopped.then(None, None, None, cancels=[running], api_visibility="private")
    gr.on([runs.change, choice.input], batches.gallery, [runs, choice], gallery, queue=False, **quiet)
    demo.unload(batches.leave)


def taken_html(values: Mapping[str, Any]) -> str:
    """Which settings a batch takes from the form, as they are now."""
    prompted, base, decoder = values["source"] == "prompt", values["base"], values["decoder"]
    sampled = prompted and base in BASES and not BASES[base].renders
    what = "Size, sampling and model" if sampled else "Size and model"
    parts = [f"{values['size']} px"]
    parts += [values["aspect"]] if prompted else []
    parts += [f"{values['steps']} steps", f"guidance {values['guidance']}"] if sampled else []
    parts.append(BASES[base].label if base in BASES else base)
    parts += [DECODERS[decoder]] if decoder in DECODERS else []
    parts += [f"refine {values['refine']}"] if prompted and can_refine(base) else []
    parts += ["native however long it takes"] if sampled and values["force_native"] else []
    return Markup("<p>{} as under <b>Advanced</b> above: {}.</p>").format(what, ", ".join(map(str, parts)))
