"""The form: what a comparison starts from, and how it is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.methods import ASPECTS, MAX_GUIDANCE, MAX_STEPS, can_refine, methods_of
from lua_demo.catalog.prompts import EXAMPLES
from lua_demo.catalog.spaces import SPACES
from lua_demo.paths import EXAMPLES as PHOTOS
from lua_demo.schema import Request
from lua_demo.ui.inputs import Checkbox, CheckboxGroup, Dropdown, LatentInput, Number, PhotoInput, Radio, Slider
from lua_demo.ui.models import advised, choice, decoder_choices, note_html, states
from lua_demo.ui.prompt import PromptInput
from lua_demo.ui.public import PublicEngine

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
SOURCES = [("Prompt", "prompt"), ("Photo", "photo"), ("Latent file", "latent")]
SCALES = [("2×", 2), ("4×", 4)]
# The page shows the words that are known only where the vocabulary is limited: in scenes and the embedded model.
TELL_BASE = "(base) => { document.querySelector('#prompt').dataset.base = base; return base; }"
USE_SETTINGS = "Use the settings of this picture"
ROLL = "() => Math.floor(Math.random() * 2 ** 31)"


@dataclass(frozen=True)
class Form:
    """`controls`, by name: "source" (one of `methods.KINDS`), then fields of `Request`.

    `restore` fills them from the photo, where that is a picture of ours.
    """

    controls: dict[str, Any]
    start: gr.Button
    stop: gr.Button
    restore: gr.Button

    def values(self, given: Mapping[Any, Any]) -> dict[str, Any]:
        """Name -> value, of what gradio hands over by component."""
        return {name: given[control] for name, control in self.controls.items() if control in given}


def method_choices(source: str, base: str) -> list[tuple[str, str]]:
    """(label, key) of the methods for what starts from `source` with that base model."""
    return [(method.label, key) for key, method in methods_of(source, base).items()]


def methods_for(source: str, base: str, chosen: Iterable[str] | None) -> dict[str, Any]:
    """What the control of the methods becomes for that source and base: those of `chosen` that there are stay."""
    known = methods_of(source, base)
    return gr.update(choices=method_choices(source, base), value=[method for method in chosen or () if method in known])


def photo_examples() -> list[str]:
    return sorted(str(path) for path in PHOTOS.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def build_form(engine: PublicEngine, default: Request) -> Form:
    """Build the form where this is called, with the settings of `default`."""
    source = Radio(
        SOURCES, value="prompt", label="Start from", container=False, elem_id="source", elem_classes="segments"
    )
    with gr.Column(elem_id="from-prompt", elem_classes="of-prompt"):
        prompt = PromptInput(default.prompt or EXAMPLES[0], label="Prompt", elem_id="prompt")
        with gr.Row(elem_id="seeds"):
            seed = Number(default.seed, precision=0, label="Seed", elem_id="seed", min_width=120, container=False)
            dice = gr.Button("Roll", elem_id="dice", min_width=84, scale=0)
    with gr.Column(elem_classes="of-photo"):
        image = PhotoInput(
            default.image or None,
            label="Photo",
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            buttons=[],
            height=204,
            elem_id="photo",
        )
        restore = gr.Button(USE_SETTINGS, visible=False, size="sm", elem_id="restore")
        if files := photo_examples():
            gr.Examples(files, image, label="Examples", examples_per_page=12, elem_id="examples")
    with gr.Column(elem_classes="of-latent"):
        latent = LatentInput(
            label="Base latent (safetensors)", file_types=[".safetensors"], height=150, elem_id="latent"
        )
    scale = Radio(SCALES, value=default.scale, label="Enlarge by", elem_id="scale")
    methods = CheckboxGroup(
        method_choices("prompt", default.base),
        value=[method for method in default.methods if method in methods_of("prompt", default.base)],
        label="Methods",
        elem_id="methods",
    )
    with gr.Row(elem_id="buttons"):
        start = gr.Button("Compare", variant="primary", elem_id="compare", elem_classes="go", min_width=120, scale=2)
        stop = gr.Button("Stop", elem_id="stop", elem_classes="halt", min_width=80, scale=1)
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
        with gr.Column(elem_classes="of-prompt", elem_id="sampling"):
            aspect = Radio(list(ASPECTS), value=default.aspect, label="Width : height", elem_id="aspect")
            with gr.Column(visible=not BASES[default.base].renders) as sampler:
                steps = Slider(1, MAX_STEPS, value=default.steps, step=1, label="Steps", elem_id="steps")
                guidance = Slider(
                    1,
                    MAX_GUIDANCE,
                    value=default.guidance,
                    step=0.5,
                    label="Guidance",
                    info="How closely it follows the prompt; 1 turns it off.",
                    elem_id="guidance",
                )
            refine = Slider(
                0.05,
                1,
                value=default.refine,
                step=0.05,
                label="Refine",
                info="Share of the steps that run again after LUA, in the column LUA + refine. More invents more.",
                visible=can_refine(default.base),
                elem_id="refine",
            )
        can_run = states(engine)
        base = Dropdown([*map(choice, can_run.values())], value=default.base, label="Model", elem_id="base")
        about = gr.HTML(note_html(can_run[default.base]), apply_default_css=False, elem_id="about-base")
        decoder = Radio(
            decoder_choices(default.base),
            value=default.decoder,
            label="Decoder",
            visible=bool(SPACES[BASES[default.base].space].decoders),
            elem_id="decoder",
        )
        with gr.Column(elem_classes="of-prompt", visible=not BASES[default.base].renders) as forcing:
            force_native = Checkbox(
                default.force_native, label="Sample native however long it takes", elem_id="force-native"
            )
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def told(key: str) -> tuple[Any, Any, Any, Any]:
        sampled = gr.update(visible=key in BASES and not BASES[key].renders)
        about = note_html(can_run[key]) if key in can_run else ""
        return about, sampled, sampled, gr.update(visible=can_refine(key))

    base.change(told, base, [about, sampler, forcing, refine], js=TELL_BASE, **quiet)
    base.input(advised, base, [decoder, steps, guidance], **quiet)
    # Only what the reader changes: a link brings its own choice of methods.
    gr.on([source.input, base.input], methods_for, [source, base, methods], methods, **quiet)
    dice.click(None, None, seed, js=ROLL, **quiet)
    controls = {
        "source": source, "prompt": prompt, "image": image, "latent": latent, "scale": scale, "methods": methods,
        "size": size, "seed": seed, "steps": steps, "guidance": guidance, "aspect": aspect,
        "base": base, "decoder": decoder, "force_native": force_native, "refine": refine,
    }  # fmt: skip
    return Form(controls, start, stop, restore)
