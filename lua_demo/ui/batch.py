"""The section below the comparison: several prompts or photos in one go, a table, a gallery, a zip."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import zipfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from reprlib import repr as brief
from typing import Any, cast

import gradio as gr
from gradio.utils import get_upload_folder

from lua_demo.catalog.methods import methods_of
from lua_demo.engine import Engine
from lua_demo.report.records import PAIR, source_name
from lua_demo.request.settings import of_kind
from lua_demo.runs import batch
from lua_demo.runs.keeping import Keeping
from lua_demo.runs.run import Run
from lua_demo.runs.store import Store
from lua_demo.schema import Progress, Request, Stopped, UserError
from lua_demo.ui.batch_table import Entry, item_label, table_html
from lua_demo.ui.handlers import broken, progress_status
from lua_demo.ui.limits import Limits, visitor_of
from lua_demo.ui.public import PublicEngine
from lua_demo.ui.sessions import Sessions, refusal
from lua_demo.ui.status import Status

MAX_ITEMS = 20
READY = Status("empty", f"Ready. Up to {MAX_ITEMS} comparisons in one go.")
NOTHING = {
    "prompt": "No prompts yet: write some, one per line.",
    "photo": "No photos yet: choose some, or one for each comparison that you want.",
}

Answer = tuple[Any, ...]


class Batches(Sessions):
    """The event handlers of the section.

    The outputs of `run` are (status, table, choice of the method in the gallery, ids of the stored runs, zip button,
    the column with all but the status).
    """

    def __init__(self, engine: PublicEngine, store: Store, limits: Limits | None = None):
        super().__init__()
        self.engine, self.store, self.limits = engine, store, limits or Limits(lambda: False)

    def run(self, values: Mapping[str, Any], session: gr.Request) -> Iterator[Answer]:
        """Run the prompts with every seed, or the files, as `values["source"]` says: "prompt" or "photo".

        `values` holds the controls of the section and the settings that it takes from the form, by name.
        """
        with self.running(session) as run:
            try:
                kind = "prompt" if values["source"] == "prompt" else "photo"
                if kind == "prompt":
                    lines = batch.entries(str(values["prompts"] or "").splitlines())
                    sources, drawn = [Request(prompt=line) for line in lines], numbers(values["seeds"])
                else:
                    sources, drawn = [batch.file_source(file) for file in values["files"] or ()], [Request.seed]
                if not sources:
                    raise UserError(NOTHING[kind])
                items = batch.items(sources, of_kind(kind, values), [values["scale"]], drawn)
                if len(items) > MAX_ITEMS:
                    raise UserError(
                        f"{len(items)} comparisons are more than the {MAX_ITEMS} that the page takes at once; leave "
                        "some out, or run python3 -m lua_demo batch"
                    )
                self.limits.check_room()
                self.limits.spend("batches", visitor_of(session), len(items))
                yield from self.show(items, run.stop)
            except UserError as error:
                yield (Status("error", str(error)), *[gr.skip()] * 5)
                raise refusal(error) from error

    def show(self, items: Sequence[batch.Item], stop: threading.Event) -> Generator[Answer, None, None]:
        request = items[0].request
        steps = len(request.methods)
        total = len(items) * steps
        # In gradio's own cache: it ages with it, and burdens no quota.
        folder = Path(get_upload_folder()) / "batches" / secrets.token_urlsafe(16)
        work, archive = folder / "items", folder / f"lua_demo_batch_x{request.scale}.zip"
        entries: list[Entry] = []
        ended: Status | None = None
        labels = [(methods_of(request.kind, request.base)[key].label, key) for key in request.methods]
        choice = gr.update(choices=labels, value=preferred(request))
        yield (
            Status("busy", f"Reading the {request.kind}s", 0, total),
            "",
            choice,
            [],
            gr.skip(),
            gr.update(visible=False),
        )
        try:
            work.mkdir(parents=True)
            with (
                zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file,
                contextlib.closing(batch.run(cast(Engine, self.engine), items, work, stop)) as events,
            ):
                try:
                    for event in events:
                        if isinstance(event, batch.Outcome):
                            entries.append(self.keep(event))
                            _pack(file, work / event.item.name)
                            busy = Status("busy", f"{len(entries)} of {len(items)} done", len(entries) * steps, total)
                            yield busy, *self.views(entries), gr.skip(), gr.update(visible=True)
                        else:
                            yield _progress(*event, len(entries), len(items)), *[gr.skip()] * 5
                except Stopped:
                    ended = Status("stopped", f"Stopped. {over(entries, len(items))}")
                except Exception as error:
                    if isinstance(error, OSError) or not entries:
                        raise
                    words = broken(error).replace(str(folder), "the server's disk")
                    ended = Status("error", f"{words} {over(entries, len(items))}")
                if entries:
                    file.write(work / batch.TABLE, batch.TABLE)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            words = f"The server's disk cannot be written ({reason}), so there is no archive."
            ended = Status("error", f"{words} {over(entries, len(items))}")
            shutil.rmtree(folder, ignore_errors=True)
        except UserError as error:
            raise UserError(str(error).replace(str(folder), "the server's disk")) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        button = gr.update(visible=False)
        if archive.is_file():
            megabytes = archive.stat().st_size / 1e6
            # Without entries its column stays hidden.
            label = f"Download all, with batch.csv (ZIP, {megabytes:.1f} MB)"
            button = gr.update(label=label, value=str(archive), visible=True)
        last = ended or Status("done", f"{batch.summary([entry.outcome for entry in entries])}.")
        if lost := [entry.missing for entry in entries if entry.missing]:
            last = replace(last, text=f"{last.text} {len(lost)} of them are {lost[-1]}.")
        yield last, *self.views(entries), button, gr.update(visible=bool(entries))

    def keep(self, outcome: batch.Outcome) -> Entry:
        """Store what an item made, so that its row can link to it; what cannot be stored has no link."""
        if outcome.document is None:
            return Entry(outcome)
        with Keeping(self.store) as keeping:
            for result in outcome.results:
                keeping.add(result, outcome.document["source"])
            request = outcome.item.request
            run = keeping.finish(outcome.document, request.latent or request.image)
        return Entry(outcome, run.id if run else "", keeping.missing)

    def views(self, entries: Sequence[Entry]) -> tuple[Any, Any, Any]:
        """Table, no change of the gallery's method, ids of the stored runs."""
        return table_html(entries), gr.skip(), [entry.run for entry in entries if entry.run]

    def gallery(self, runs: Sequence[str], method: str) -> list[tuple[Path, str]]:
        """The pictures that one method made, as the lossless files that they are."""
        shown = [run for run in map(self.store.open, runs) if run]
        return [(run.pictures()[method], caption(run)) for run in shown if method in run.pictures()]


def over(entries: Sequence[Entry], items: int) -> str:
    """How many items of a batch that ended early are there."""
    halfway = sum(entry.outcome.halfway for entry in entries)
    words = f"{len(entries) - halfway} of {items} were over"
    return f"{words}, of {halfway} more some pictures are there." if halfway else f"{words}."


def numbers(text: object) -> list[int]:
    """Whole numbers, separated by commas or spaces."""
    try:
        found = [int(word) for word in str(text or "").replace(",", " ").split()]
    except ValueError:
        found = []
    if not found:
        raise UserError(f"the seeds {brief(text)} are no whole numbers; give some like 0, 1, 2")
    return found


def caption(run: Run) -> str:
    name, settings = source_name(run.document), run.document["settings"]
    return f"{name}, seed {settings['seed']}" if settings.get("prompt") else name


def preferred(request: Request) -> str:
    """The method that the gallery shows at first."""
    return next(key for key in (*reversed(PAIR), *request.methods) if key in request.methods)


def _progress(item: batch.Item, event: Progress, done: int, items: int) -> Status:
    inner = progress_status(event, methods_of(item.request.kind, item.request.base))
    words = f"{done + 1} of {items}, {item_label(item)}: {inner.text}"
    return Status("busy", words, done * event.total + inner.done, items * event.total)


def _pack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Move the files of an item into the archive."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        archive.write(path, f"{folder.name}/{path.name}")
    shutil.rmtree(folder, ignore_errors=True)
