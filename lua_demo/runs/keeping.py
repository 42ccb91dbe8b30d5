"""A comparison that is written into a store while it runs: failures are reported, and no picture is lost."""

from __future__ import annotations

import errno
from pathlib import Path

from lua_demo.report.document import Document, Source
from lua_demo.runs.outputs import write_display
from lua_demo.runs.run import Run
from lua_demo.runs.store import NotKept, Store
from lua_demo.schema import Result


class Keeping:
    """The draft of one comparison; a context that discards it unless it was finished.

    Attributes:
        missing: why it is not kept, in one line for visitors; empty as long as it is.
        run: what was finished.
    """

    def __init__(self, store: Store):
        self.store, self.missing = store, ""
        self.run: Run | None = None
        self._draft: Path | None = None
        self._written: list[Path] = []

    def __enter__(self) -> Keeping:
        try:
            self._draft = self.store.draft()
        except NotKept as error:
            self.missing = str(error)
        return self

    def __exit__(self, *_: object) -> None:
        if self.run is None:
            self._give_up()

    def add(self, result: Result, source: Source) -> Path | None:
        """Write what a stored run holds of `result`; the picture, None where there is none or it is not kept.

        `source` is what `records.describe_source` gives.
        """
        if self._draft is None:
            return None
        try:
            path = write_display(self._draft, result, source)
            self._written += [path] if path else []
            return path
        except OSError as error:
            self._give_up(str(self.store.not_kept(error)))
            return None

    def finish(self, document: Document, source: str) -> Run | None:
        """As `Store.finish`; None where it is not kept, or a picture that was written is gone."""
        if self._draft is not None and not all(path.is_file() for path in self._written):
            self._give_up(str(self.store.not_kept(FileNotFoundError(errno.ENOENT, "its folder was deleted"))))
        if self._draft is not None:
            try:
                self.run = self.store.finish(self._draft, document, source)
            except NotKept as error:
                self._give_up(str(error))
        return self.run

    def _give_up(self, reason: str = "") -> None:
        self.missing = reason or self.missing
        if self._draft is not None:
            self.store.discard(self._draft)
            self._draft = None
