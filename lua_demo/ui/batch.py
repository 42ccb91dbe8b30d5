"""The section below the comparison: several photos in one go, a table, a gallery, a zip."""

from __future__ import annotations

import secrets
import shutil
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from lua_demo import batch
from lua_demo.catalog import METHODS
from lua_demo.engine import Engine
from lua_demo.outputs import write_display
from lua_demo.report import PAIR
from lua_demo.schema import Progress, Request, Stopped, UserError
from lua_demo.store import Store
from lua_demo.ui.batch_table import Entry, table_html
from lua_demo.ui.handlers import progress_status
from lua_demo.ui.inputs import CheckboxGroup, FilesInput, Radio, Slider
from lua_demo.ui.sessions import WAITING, Sessions, refusal
from lua_demo.ui.status import Status, StatusLine

MAX_FILES = 20
READY = Status("empty", f"Ready. Choose up to {MAX_FILES} photos.")

Answer = tuple[Any, ...]


class Batches(Sessions):
    """The event handlers of the section.

    The outputs of `run` are (status, table, choice of the method in the gallery, ids of the stored runs, zip button,
    the column with all but the status).
    """

    def __init__(self, engine: Engine, store: Store):
        super().__init__()
        self.engine, self.store = engine, store

    def run(self, files: Any, scale: Any, methods: Any, size: Any, session: gr.Request) -> Iterator[Answer]:
        with self.running(session) as run:
            try:
                yield from self.show(files, scale, methods, size, run.stop)
            except UserError as error:
                yield (Status("error", str(error)), *[gr.skip()] * 5)
                raise refusal(error) from error

    def show(
        self, files: Sequence[str], scale: Any, methods: Any, size: Any, stop: threading.Event
    ) -> Iterator[Answer]:
        if not files:
            raise UserError("No photos yet: choose some, or one for each comparison that you want.")
        if len(files) > MAX_FILES:
            raise UserError(
                f"{len(files)} files are more than the {MAX_FILES} that the page takes at once; leave some out, or run "
                "python3 -m lua_demo batch"
            )
        items = batch.items(map(batch.file_source, files), Request(size=size, methods=methods), [scale])
        request = items[0].request
        steps = len(request.methods)
        total = len(items) * steps
        # In gradio's own cache: it ages with it, and burdens no quota.
        folder = Path(get_upload_folder()) / "batches" / secrets.token_urlsafe(16)
        work, archive = folder / "items", folder / f"lua_demo_batch_x{request.scale}.zip"
        entries: list[Entry] = []
        stopped = False
        labels = [(METHODS[key].label, key) for key in request.methods]
        choice = gr.update(choices=labels, value=preferred(request))
        yield Status("busy", "Reading the photos", 0, total), "", choice, [], gr.skip(), gr.update(visible=False)
        try:
            work.mkdir(parents=True)
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
                try:
                    for event in batch.run(self.engine, items, work, stop):
                        if isinstance(event, batch.Outcome):
                            entries.append(self.keep(event))
                            _pack(file, work / event.item.name)
                            busy = Status("busy", f"{len(entries)} of {len(items)} done", len(entries) * steps, total)
                            yield busy, *self.views(entries), gr.skip(), gr.update(visible=True)
                        else:
                            yield _progress(*event, len(entries), len(items)), *[gr.skip()] * 5
                except Stopped:
                    stopped = True
                if entries:
                    file.write(work / batch.TABLE, batch.TABLE)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        megabytes = archive.stat().st_size / 1e6
        # Without entries its column stays hidden.
        button = gr.update(
            label=f"Download all, with batch.csv (ZIP, {megabytes:.1f} MB)", value=str(archive), visible=True
        )
        told = f"{batch.summary([entry.outcome for entry in entries])}."
        if stopped:
            told = f"Stopped. {len(entries)} of {len(items)} were over."
        last = Status("stopped" if stopped else "done", told)
        yield last, *self.views(entries), button, gr.update(visible=bool(entries))

    def keep(self, outcome: batch.Outcome) -> Entry:
        """Store what came out, so that its row can link to it."""
        if outcome.document is None:
            return Entry(outcome)
        draft = self.store.draft()
        try:
            for result in outcome.results:
                write_display(draft, result, outcome.document["source"])
            return Entry(outcome, self.store.finish(draft, outcome.document, outcome.item.source).id)
        except BaseException:
            self.store.discard(draft)
            raise

    def views(self, entries: Sequence[Entry]) -> tuple[Any, Any, Any]:
        """Table, no change of the gallery's method, ids of the stored runs."""
        return table_html(entries), gr.skip(), [entry.run for entry in entries if entry.run]

    def gallery(self, runs: Sequence[str], method: Any) -> list[tuple[Path, str]]:
        """The pictures that one method made, as the lossless files that they are."""
        shown = [run for run in map(self.store.open, runs) if run]
        return [(run.pictures()[method], run.document["source"]["file"]) for run in shown if method in run.pictures()]


def preferred(request: Request) -> str:
    """The method that the gallery shows at first."""
    return next(key for key in (*reversed(PAIR), *request.methods) if key in request.methods)


def _progress(item: batch.Item, event: Progress, done: int, items: int) -> Status:
    inner = progress_status(event)
    words = f"{done + 1} of {items}, {Path(item.source).name}: {inner.text}"
    return Status("busy", words, done * event.total + event.done, items * event.total)


def _pack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Move the files of an item into the archive."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        archive.write(path, f"{folder.name}/{path.name}")
    shutil.rmtree(folder, ignore_errors=True)


def batch_section(demo: gr.Blocks, engine: Engine, store: Store) -> None:
    """Build the section where this is called, inside `demo`, and wire it."""
    batches, default = Batches(engine, store), Request()
    with gr.Accordion("Batch: several photos in one go", open=False, elem_id="batch"):
        with gr.Row(elem_id="batch-layout"):
            with gr.Column(scale=0, min_width=320, elem_id="batch-controls"):
                files = FilesInput(
                    label=f"Photos or base latents, up to {MAX_FILES}",
                    file_count="multiple",
                    file_types=["image", batch.LATENT_SUFFIX],
                    height=204,
                    elem_id="batch-files",
                )
                scale = Radio([("2×", 2), ("4×", 4)], value=default.scale, label="Enlarge by", elem_id="batch-scale")
                methods = CheckboxGroup(
                    [(method.label, key) for key, method in METHODS.items()],
                    value=list(default.methods),
                    label="Methods",
                    elem_id="batch-methods",
                )
                size = Slider(128, 1024, value=default.size, step=8, label="Base size, px", elem_id="batch-size")
                with gr.Row():
                    start = gr.Button("Run", variant="primary", elem_id="batch-run", min_width=120, scale=2)
                    stop = gr.Button("Stop", elem_id="batch-stop", min_width=80, scale=1)
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

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    waiting = start.click(lambda: WAITING, None, status, queue=False, **quiet)
    running = waiting.then(
        batches.run,
        [files, scale, methods, size],
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
