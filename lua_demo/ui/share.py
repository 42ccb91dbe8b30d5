"""The row below the pictures: the link to this comparison, and its files, made when somebody asks for them."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder

from lua_demo.report import records
from lua_demo.report.viewer_files import static
from lua_demo.runs import export
from lua_demo.runs.run import Run
from lua_demo.runs.store import RUN_ID, Store
from lua_demo.schema import UserError
from lua_demo.ui.component import Private
from lua_demo.ui.limits import Limits, visitor_of
from lua_demo.ui.showing import address

KEPT = "Anyone with the link sees the pictures, the settings and the {source}. "
FILE = "Anyone with the link sees the pictures, the settings and the {source}, with all that its file contains. "
UNTIL = "It is kept until nobody has opened it for {days:.0f} days."
PINNED = "An example that is part of this demo."


@dataclass(frozen=True)
class Share:
    """A comparison that can be shared.

    Attributes:
        go: somebody asked for it, so the page's address becomes its link.
        file: one that was just made and is to be downloaded.
    """

    run: Run
    note: str
    go: bool = True
    file: Path | None = None


class ShareRow(gr.HTML, metaclass=Private):
    """Shows a `Share`; hidden without one. Triggers `submit` with run, name and state when a file is asked for."""

    def __init__(self, value: Share | None = None, **kwargs: Any):
        super().__init__(
            value,
            html_template=static("share.html"),
            css_template=static("share.css"),
            js_on_load=static("share.js"),
            apply_default_css=False,
            **kwargs,
        )

    def postprocess(self, value: Share | None) -> dict[str, Any] | None:  # type: ignore[override]  # gradio's is str
        if value is None:
            return None
        return {
            "run": value.run.id,
            "base": address(),
            "note": value.note,
            "go": value.go,
            "files": export.offers(value.run),
            "file": FileData(path=str(value.file), orig_name=value.file.name).model_dump() if value.file else None,
            "made": secrets.token_hex(4) if value.file else "",  # the same file again is a new value
        }


class Sharing:
    """Links to stored runs, and the files that are made of them."""

    def __init__(self, store: Store, limits: Limits | None = None):
        self.store, self.limits = store, limits or Limits(lambda: False)

    def share(self, run: Run, go: bool = True, file: Path | None = None) -> Share:
        if not RUN_ID.fullmatch(run.id):
            return Share(run, PINNED, go, file)
        days = self.store.max_age_s / 86400
        kind = run.document["source"]["kind"]
        note = (KEPT if kind == "prompt" else FILE).format(source=kind) + UNTIL.format(days=days)
        return Share(run, note, go, file)

    def download(self, event: gr.EventData, session: gr.Request) -> Share:
        """Make the file that the row's button asks for."""
        run, name, state, go = (getattr(event, key, None) for key in ("run", "name", "state", "go"))
        run, path = self._make(run, name, state, session)
        return self.share(run, bool(go), path)

    def export(
        self,
        run: str,
        name: str,
        view: str = "",
        session: gr.Request = None,  # type: ignore[assignment]  # filled in by gradio, which knows it by this type
    ) -> dict:
        """One file of a finished comparison. `run` and `name` as in the last output of /compare (run, files)."""
        path = self._make(run, name, view, session)[1]
        return FileData(path=str(path), orig_name=path.name).model_dump()

    def _make(self, run_id: object, name: object, state: object, session: gr.Request) -> tuple[Run, Path]:
        try:
            run = self.store.open(run_id)
            if run is None:
                raise UserError("this comparison is no longer kept; compare again")
            state = state[:500] if isinstance(state, str) else ""
            # In gradio's own cache, so that it is served as a download, ages with it, and burdens no quota.
            digest = hashlib.sha256(f"{name} {state}".encode()).hexdigest()[:16]
            folder = Path(get_upload_folder()) / "exports" / run.id / digest
            path = folder / download_name(run, str(name))
            if not path.is_file():
                self.limits.check_room()
                self.limits.spend("exports", visitor_of(session))
                _write(path, export.make(run, str(name), state))
            return run, path
        except UserError as error:
            raise gr.Error(escape(str(error), quote=False), print_exception=False) from error


def _write(path: Path, content: bytes) -> None:
    """Write a file, or nothing. UserError where there is no room or it cannot be written."""
    temporary = path.parent / secrets.token_hex(8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise not_written(error) from error


def not_written(error: OSError) -> UserError:
    """What visitors read instead of `error`, which names folders of the server."""
    return UserError(f"the file could not be written ({error.strerror or type(error).__name__}); try again later")


def download_name(run: Run, name: str) -> str:
    """Which photo or prompt, which scale, which file: "mountain-lake_x2_lua.png". Letters of all scripts are kept."""
    source = run.document["source"]
    stem = records.source_name(run.document) if source["kind"] == "prompt" else Path(source["file"]).stem
    stem = re.sub(r"[^\w-]+", "_", stem)[:60].strip("_") or "comparison"
    scale = re.sub(r"[^0-9]", "", str(run.document["settings"].get("scale", "")))
    return f"{stem}_x{scale}_{re.sub(r'[^a-z0-9_.]', '_', name[:40])}"
