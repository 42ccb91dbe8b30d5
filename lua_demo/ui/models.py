"""The choice of the base model and its decoder: what each needs, and why one cannot run here."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from lua_demo.catalog.bases import BASES, REAL
from lua_demo.catalog.spaces import SPACES
from lua_demo.commands.doctor import BaseState, base_states
from lua_demo.report.html import render
from lua_demo.schema import Request
from lua_demo.ui.public import PublicEngine, relative


def decoder_choices(base: str) -> list[tuple[str, str]]:
    """(label, key) of the decoders of a base's latent space."""
    decoders = SPACES[BASES[base].space].decoders
    return [("Default", ""), *((f"{label[0].upper()}{label[1:]}", key) for key, label in decoders.items())]


def states(engine: PublicEngine) -> dict[str, BaseState]:
    """Base -> whether it is offered and can run here, as things are now, without folders of the server; nothing is
    loaded.
    """
    found = base_states(engine.models)
    public = partial(relative, weights=engine.weights)
    told = {state.base: replace(state, how=public(state.how), weights=public(state.weights)) for state in found}
    refused = {key: reason for key, state in told.items() if (reason := engine.offer.refusal_of_base(state))}
    return told | {key: replace(told[key], runs=False, how=why, access="") for key, why in refused.items()}


def on_this_machine(engine: PublicEngine, start: Request) -> Request:
    """`start` with the base that a fresh page has here: a published one on a GPU that it fits and a page that offers
    it, else that of `start`.
    """
    if engine.device.type != "cuda" or not states(engine)[REAL].runs:
        return start
    row = BASES[REAL]
    return replace(start, base=REAL, size=row.sizes[0], steps=row.steps, guidance=row.guidance, decoder="")


def choice(state: BaseState) -> tuple[str, str]:
    """(label, key) for a list of models."""
    need = f" · {state.download_gib:g} GiB to download" if state.download_gib else ""
    return state.label + (need if state.runs else " · cannot run here"), state.base


def note_html(state: BaseState) -> str:
    """What there is to know before one is chosen."""
    row = BASES[state.base]
    if row.renders:
        lines = [
            "Rendered, no diffusion model: the words of the prompt set a scene, the seed draws the rest.",
            "Native is the same scene at the target size: what the others are measured against.",
            f"{'Runs here' if state.runs else 'Cannot run here'}: {state.how}.",
            f"{state.download_gib:g} GiB to download." if state.download_gib else "",
            f"First {state.access}." if state.access else "",
        ]
        return render("base_note.html", runs=state.runs, lines=[line for line in lines if line])
    if not row.hub_id:
        where = "Its weights are part of this checkout." if state.runs else "Its weights are not in this checkout."
        return render("base_note.html", runs=True, lines=[f"{where} Runs on any CPU."])
    lines = [
        f"{'Runs here' if state.runs else 'Cannot run here'}: {state.how}.",
        f"{state.download_gib:g} GiB to download." if state.download_gib else "Its weights are on this machine.",
        f"Licence: {state.licence}.",
        f"Not checked against the model's card: {', '.join(state.unverified)}." if state.unverified else "",
        f"First {state.access}." if state.access else "",
    ]
    return render("base_note.html", runs=state.runs, lines=[line for line in lines if line])


def decoder_for(base: object, decoder: str = "") -> dict[str, Any]:
    """What the control of the decoders becomes for a base: hidden where its space has one decoder only."""
    if base not in BASES:
        return gr.update(visible=False, value="")
    decoders = SPACES[BASES[base].space].decoders
    value = decoder if decoder in decoders else ""
    return gr.update(choices=decoder_choices(base), visible=bool(decoders), value=value)


def advised(base: str) -> tuple[Any, Any, Any]:
    """Decoder, steps and guidance once a base was chosen: what its makers advise."""
    row = BASES.get(base)
    return (decoder_for(base), row.steps, row.guidance) if row else (gr.skip(),) * 3
