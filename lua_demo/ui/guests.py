"""What "Keep with this comparison" under the viewer does with pictures from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lua_demo.runs.guests import with_guests
from lua_demo.runs.store import Store
from lua_demo.schema import UserError
from lua_demo.ui.inputs import uploaded
from lua_demo.ui.opening import MAX_STATE, Opening
from lua_demo.ui.sessions import refusal
from lua_demo.ui.status import Status

KEPT = "Kept: the link below opens the comparison with {names}."
BROKEN = "what was to be kept has the wrong form; load the page again"


class Guests:
    """The handler of the viewer's `upload` event; the outputs are (status, viewer, timing, share)."""

    def __init__(self, store: Store, opening: Opening):
        self.store, self.opening = store, opening

    def keep(self, event: gr.EventData, shared: object) -> list[Any]:
        """Make a new run with the uploaded files and show it where the old one was."""
        try:
            files, state = getattr(event, "files", None), getattr(event, "state", "")
            if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
                raise UserError(BROKEN)
            given = [(str(file.get("name")), Path(uploaded("the picture", str(file.get("path"))))) for file in files]
            run = self.store.open(shared.get("run")) if isinstance(shared, dict) else None
            if run is None:
                raise UserError("this comparison is no longer kept; compare again")
            kept = with_guests(self.store, run, given)
        except UserError as error:
            raise refusal(error) from error
        added = [row["label"] for key, row in kept.document["methods"].items() if key not in run.document["methods"]]
        status = Status("done", KEPT.format(names=", ".join(added)))
        return self.opening.show(kept, status, str(state)[:MAX_STATE])
