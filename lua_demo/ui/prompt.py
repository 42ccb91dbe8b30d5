"""The prompt: a text, the words that the model knows as buttons, and examples."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lua_demo.catalog.methods import MAX_PROMPT
from lua_demo.catalog.prompts import EXAMPLES, FILLERS, LINKS, SYNONYMS, VOCABULARY, WORDS
from lua_demo.report.html import render
from lua_demo.report.viewer_files import static
from lua_demo.ui.component import Private

# What a button adds where its word alone says nothing, or reads badly.
ADDS = {
    "no": "no moon",
    "clear": "clear sky",
    "natural": "natural colours",
    "golden": "golden light",
    "rose": "rose light",
    "blue": "blue light",
}
LABELS = {"no": "no moon"}
# As `prompts.understand` has it: what is said -> the words that are meant.
MEANINGS = {said: meant.split() for said, meant in SYNONYMS.items()} | {word: [word] for word in WORDS}
MEANINGS |= {word: [] for word in FILLERS}


class PromptInput(gr.HTML, metaclass=Private):
    """A text field whose value is its text, unchecked. Triggers `submit` on Enter.

    While somebody writes it shows which words are understood and which are ignored, by the tables of `prompts`.
    """

    def __init__(self, value: str = "", **kwargs: Any):
        super().__init__(
            value,
            html_template=render(
                "prompt.html",
                longest=MAX_PROMPT,
                vocabulary=VOCABULARY,
                adds=ADDS,
                labels=LABELS,
                examples=EXAMPLES,
            ),
            css_template=static("prompt.css"),
            js_on_load=static("prompt.js"),
            apply_default_css=False,
            meanings=MEANINGS,
            links=LINKS,
            places=VOCABULARY["place"],
            **kwargs,
        )
