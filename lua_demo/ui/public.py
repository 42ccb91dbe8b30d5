"""What the page and its clients may read of an engine, and have it do: no folder of the server, no large download."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from lua_demo.catalog.methods import METHODS
from lua_demo.catalog.upscalers import download_folder
from lua_demo.engine import Engine, Events
from lua_demo.pictures.reading import size_of
from lua_demo.request.job import Job, resolve
from lua_demo.schema import Request, Result, UserError
from lua_demo.ui.limits import Limits
from lua_demo.ui.offer import Offer


class PublicEngine:
    """`engine`, which names files in its messages relative to the folder of weights, or to a cache, and refuses what
    is not offered.
    """

    def __init__(self, engine: Engine):
        self.engine, self.offer = engine, Offer()
        self.limits = Limits(lambda: self.offer.public)
        self.offer.placed = getattr(engine, "placed", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def compare(self, request: Request | Job, stop: threading.Event | None = None) -> Events:
        """As `Engine.compare`."""
        with self._telling():
            job = request if isinstance(request, Job) else resolve(request)
            self.offer.check(job, self.engine)
            self.limits.check("size", job.request.size)
            if job.request.kind == "photo":
                self.check_photo(job.request.image)
            events = self.engine.compare(job, stop)
        return self._public(events)

    def _public(self, events: Events) -> Events:
        with contextlib.closing(events), self._telling():
            for event in events:
                if isinstance(event, Result) and event.skipped:
                    event = replace(event, skipped=relative(event.skipped, self.engine.weights))
                yield event

    def check_photo(self, path: str) -> None:
        """UserError for a photo that is none, or has more pixels than the page takes, judged by its header."""
        width, height = size_of(path)
        self.limits.check("megapixels", width * height / 1e6)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            raise UserError(relative(str(error), self.engine.weights)) from error


def relative(text: str, weights: Path) -> str:
    """`text` with the paths below `weights`, the hub's cache, ours and those of own upscalers relative to these."""
    own = {Path(row.upscaler.own).parent for row in METHODS.values() if row.upscaler and row.upscaler.own}
    for folder in (weights, HF_HUB_CACHE, download_folder(), *own):
        text = text.replace(f"{folder}/", "")
    return text
