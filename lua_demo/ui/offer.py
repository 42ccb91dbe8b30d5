"""What a page offers: where others can reach it, no visitor starts a download of many GiB."""

from __future__ import annotations

import os
from collections.abc import Mapping

import gradio as gr

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.methods import METHODS
from lua_demo.catalog.spaces import SPACES
from lua_demo.commands.doctor import BaseState, base_state
from lua_demo.engine import Engine
from lua_demo.request.job import Job
from lua_demo.schema import UserError
from lua_demo.ui.gate import is_loopback

SETTING, ALL = "LUA_DEMO_OFFER", "all"


def downloaded() -> dict[str, str]:
    """Bases and methods whose weights are downloaded when they are first chosen, with their names for people."""
    methods = {key: row.label for key, row in METHODS.items() if row.upscaler and row.upscaler.published}
    return {key: row.label for key, row in BASES.items() if row.hub_id or SPACES[row.space].decoders} | methods


class Offer:
    """Which bases and methods a page offers: those whose weights are on this machine, and those that may be downloaded.

    LUA_DEMO_OFFER names the latter: keys separated by commas, or "all". Without it all may be where only this machine
    reaches the page, and none where others do. `page` is the page, once there is one: what it was launched with counts.
    `placed`: the bases that can sample where all had to be placed before the page opened; None elsewhere.

    Raises:
        UserError: the setting names what does not exist.
    """

    def __init__(self, environment: Mapping[str, str] | None = None):
        self.environment = os.environ if environment is None else environment
        self.page: gr.Blocks | None = None
        self.placed: set[str] | None = None
        text = self.environment.get(SETTING)
        self.named = None if text is None else {key.strip() for key in text.split(",") if key.strip()}
        unknown = (self.named or set()) - {*BASES, *downloaded(), ALL}
        if unknown:
            raise UserError(f"{SETTING} names {sorted(unknown)[0]!r}; choose {ALL} or from {', '.join(downloaded())}")

    @property
    def public(self) -> bool:
        """Whether others than this machine reach the page: a Space, a shared link, a host other than loopback."""
        host = getattr(self.page, "server_name", None) or self.environment.get("GRADIO_SERVER_NAME", "localhost")
        return bool(self.environment.get("SPACE_ID")) or getattr(self.page, "share", False) or not is_loopback(host)

    def refusal_of_base(self, state: BaseState) -> str:
        """Why a base is not offered; empty where it is."""
        if self.placed is not None and BASES[state.base].hub_id and state.base not in self.placed:
            return f"not offered on this page, whose models are loaded before it opens ({SETTING} names more of them)"
        if not state.download_gib or self._may_download(state.base):
            return ""
        return (
            f"not offered on this page, where {state.download_gib:g} GiB would have to be downloaded first (photos "
            "work with the tiny decoder)"
        )

    def refusal_of_method(self, key: str) -> str:
        """Why a method is not offered; empty where it is."""
        row = METHODS[key].upscaler
        missing = row.missing if row else []
        if not missing or self._may_download(key):
            return ""
        megabytes = sum(file.size for file in missing) / 1e6
        return f"not offered on this page, where {megabytes:.0f} MB would have to be downloaded first"

    def check(self, job: Job, engine: Engine) -> None:
        """UserError for what `job` needs and the page does not offer. Of the weights that count as the base's, a
        photo, latent or rendered scene needs the KL decoder, and with the tiny one none. The small one is offered with
        the base.
        """
        for key, method in job.methods.items():
            if reason := self.refusal_of_method(key):
                raise UserError(f"{method.label} is {reason}; choose other methods")
        if (job.samples and job.base.hub_id) or job.decoder in ("kl", "small"):
            state = base_state(job.request.base, engine.models)
            if reason := self.refusal_of_base(state):
                raise UserError(f"{state.label} is {reason}; choose another model")

    def _may_download(self, key: str) -> bool:
        return not self.public if self.named is None else bool({key, ALL} & self.named)
