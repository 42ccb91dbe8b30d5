"""Finished comparisons on disk, each under an unguessable id. No torch, no gradio.

A run is a folder: the pictures as lossless files, the base latent, the source, and run.json, which is written last.
Only a folder with run.json can be opened. Several processes may share a store: a run that is still written holds a lock
file, runs are never changed after they are finished, and whatever is deleted is renamed away first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from lua_demo.paths import EXAMPLES, PINNED
from lua_demo.pictures.formats import SUFFIXES
from lua_demo.report.document import Document, Kept, Row, Source
from lua_demo.runs.run import Run, read_run
from lua_demo.schema import UserError

RUN_ID = re.compile(r"[A-Za-z0-9_-]{22}")  # secrets.token_urlsafe(16): 128 bits
PIN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
# Files of the store are served as what their name says, so a source keeps its suffix only if that is a picture's.
SOURCE_SUFFIXES = {*SUFFIXES, ".safetensors"}
DRAFT_SECONDS = 3600.0
OPENED_SECONDS = 3600.0
LOCK = ".lock"
TRASH = ".trash-"

log = logging.getLogger(__name__)


class NotKept(UserError):
    """The store cannot be written. The message names no folder: it is for visitors; the log has the folder."""


class Store:
    """Runs below one folder, and the pinned ones that are part of the checkout.

    Args:
        folder: made when the first run is written.
        quota_bytes: the least recently looked at runs are deleted until all together are below this.
        max_age_s: a run that nobody looked at for so long is deleted.
        pinned: folder of runs that are never deleted, by name; None for none.
    """

    def __init__(
        self,
        folder: str | Path,
        quota_bytes: int = 4 << 30,
        max_age_s: float = 30 * 86400.0,
        pinned: str | Path | None = PINNED,
    ):
        self.folder = Path(folder).expanduser().absolute()
        self.quota_bytes, self.max_age_s = quota_bytes, max_age_s
        self.pinned = Path(pinned) if pinned else None
        self._locks: dict[str, FileLock] = {}
        self._opened: dict[str, float] = {}  # run -> when, by a clock that never jumps

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Store:
        """The store that LUA_DEMO_STORE (folder), LUA_DEMO_STORE_GB and LUA_DEMO_STORE_DAYS describe.

        By default ~/.cache/lua_demo/runs (below XDG_CACHE_HOME where that is set), with 4 GB and 30 days: a link is to
        outlive a restart, which a temporary folder need not. UserError for a limit that is no positive number.
        """
        environment = os.environ if environment is None else environment
        cache = Path(environment.get("XDG_CACHE_HOME") or "~/.cache")
        folder = environment.get("LUA_DEMO_STORE") or cache / "lua_demo" / "runs"
        gigabytes = _limit(environment, "LUA_DEMO_STORE_GB", 4.0)
        return cls(folder, int(gigabytes * 1e9), _limit(environment, "LUA_DEMO_STORE_DAYS", 30.0) * 86400)

    def draft(self) -> Path:
        """A new, empty folder for the files of a run; its name is the id, and it is ours until it is finished or
        discarded. NotKept where it cannot be made.
        """
        self.evict()
        folder = self.folder / secrets.token_urlsafe(16)
        lock = FileLock(folder / LOCK, blocking=False, thread_local=False)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
            lock.acquire()
        except OSError as error:
            self.discard(folder)
            raise self.not_kept(error) from error
        self._locks[folder.name] = lock
        return folder

    def finish(self, draft: Path, document: Document, source: str | Path | None = None) -> Run:
        """Keep `source` beside the files of `draft`, or note which example it is, and write run.json.

        The names of the pictures become those of the files that are there; a method without one keeps None. A source
        that is gone meanwhile is not kept.

        Raises:
            NotKept: it cannot be written; the draft is discarded.
        """
        try:
            there = {path.stem: path.name for path in draft.iterdir()}
            methods: dict[str, Row] = {
                key: {**row, "file": row["file"] and there.get(key)} for key, row in document["methods"].items()
            }
            document = {**document, "methods": methods, "created": int(time.time())}
            document["source"] = {**document["source"], **_keep_source(draft, document["source"], source)}
            write_json(draft / "run.json", document)
        except OSError as error:
            self.discard(draft)
            raise self.not_kept(error) from error
        self._unlock(draft)
        self._note_opened(draft.name)
        self.evict(keep=draft.name)
        return Run(draft.name, draft, document)

    def pin(self, name: str) -> Path:
        """An empty folder for the pinned run of that name, instead of the one that may be there; `finish` it."""
        if not self.pinned or not PIN_NAME.fullmatch(name):
            raise UserError(f"{name!r} is no name for a pinned run; use a-z, 0-9 and dashes, 40 at most")
        shutil.rmtree(self.pinned / name, ignore_errors=True)
        (self.pinned / name).mkdir(parents=True)
        return self.pinned / name

    def discard(self, draft: Path) -> None:
        """Forget a draft; one that is gone already is no error."""
        self._unlock(draft)
        shutil.rmtree(draft, ignore_errors=True)

    def open(self, run_id: object) -> Run | None:
        """The run of that id or pinned name, marked as looked at; None where there is none or it is no id."""
        if not isinstance(run_id, str):
            return None
        if self.pinned and PIN_NAME.fullmatch(run_id) and (run := read_run(self.pinned / run_id, run_id=run_id)):
            return run
        if not RUN_ID.fullmatch(run_id) or not (run := read_run(self.folder / run_id, run_id=run_id)):
            return None
        try:
            os.utime(run.folder / "run.json")
        except OSError:
            # Deleted meanwhile, or on a disk that can only be read: there nothing is deleted either.
            return read_run(run.folder, run_id=run_id)
        self._note_opened(run_id)
        return run

    def runs(self) -> Iterator[Run]:
        """All that can be opened, pinned ones first, unmarked."""
        for parent, pattern in ((self.pinned, PIN_NAME), (self.folder, RUN_ID)):
            for folder in _folders(parent, pattern):
                if run := read_run(folder, run_id=folder.name):
                    yield run

    def pinned_names(self) -> list[str]:
        return [folder.name for folder in _folders(self.pinned, PIN_NAME)]

    def evict(self, keep: str = "") -> None:
        """Delete abandoned drafts, runs past their age, and the oldest while all are above the quota; never `keep`."""
        now, kept = time.time(), []
        for folder in _folders(self.folder, RUN_ID):
            try:
                stamp = folder / "run.json"
                finished = stamp.exists()
                seen = (stamp if finished else folder).stat().st_mtime
                size = sum(path.lstat().st_size for path in folder.iterdir())
            except OSError:
                continue  # another process deleted it
            old = now - seen > (self.max_age_s if finished else DRAFT_SECONDS)
            if old and folder.name != keep and not self._in_use(folder, finished):
                self._delete(folder)
            else:
                kept.append((seen, size, finished, folder))
        total = sum(size for _, size, _, _ in kept)
        for _, size, finished, folder in sorted(kept, key=lambda entry: entry[0]):
            if total <= self.quota_bytes:
                break
            if finished and folder.name != keep:
                self._delete(folder)
                total -= size
        for trash in _folders(self.folder, re.compile(re.escape(TRASH) + r"[0-9a-f]+")):
            shutil.rmtree(trash, ignore_errors=True)  # of a process that ended in between

    def _in_use(self, folder: Path, finished: bool) -> bool:
        """Whether somebody writes or has just opened it, whatever the clock says: clocks jump."""
        if finished:
            return time.monotonic() - self._opened.get(folder.name, -OPENED_SECONDS) < OPENED_SECONDS
        try:
            with FileLock(folder / LOCK, blocking=False):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def _note_opened(self, run_id: str) -> None:
        now = time.monotonic()
        self._opened.pop(run_id, None)
        self._opened[run_id] = now
        while now - next(iter(self._opened.values())) > OPENED_SECONDS:
            del self._opened[next(iter(self._opened))]

    def _unlock(self, draft: Path) -> None:
        if lock := self._locks.pop(draft.name, None):
            with contextlib.suppress(OSError):
                lock.release()
                (draft / LOCK).unlink(missing_ok=True)

    def not_kept(self, error: OSError) -> NotKept:
        """The message for the user instead of `error`; the log also gets the folder."""
        reason = error.strerror or type(error).__name__
        log.warning("%s cannot be written (%s); set LUA_DEMO_STORE to another folder", self.folder, reason)
        return NotKept(f"not kept, so there is no link and no download: the store cannot be written ({reason})")

    def _delete(self, folder: Path) -> None:
        # Renamed first: nobody finds a half-deleted run, and of two processes one gets it.
        trash = self.folder / f"{TRASH}{secrets.token_hex(8)}"
        try:
            folder.rename(trash)
        except OSError:
            return
        shutil.rmtree(trash, ignore_errors=True)


def write_json(path: Path, document: Document) -> None:
    """Write `document` so that a reader finds all of it or nothing."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _keep_source(folder: Path, known: Source, source: str | Path | None) -> Kept:
    """Where the source is from now on: an example of the checkout by name, else a copy in `folder`."""
    if not source:
        return {}
    for example in EXAMPLES.glob("*"):
        if example.stat().st_size == known["bytes"] and sha256(example) == known["sha256"]:
            return {"example": example.name}
    suffix = Path(source).suffix.lower()
    name = f"source{suffix if suffix in SOURCE_SUFFIXES else '.bin'}"
    try:
        shutil.copyfile(source, folder / name)
    except FileNotFoundError:
        return {}
    return {"stored": name}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _folders(parent: Path | None, pattern: re.Pattern[str]) -> list[Path]:
    """The real folders in `parent` whose whole name fits, by name."""
    try:
        entries = sorted(parent.iterdir()) if parent else []
    except OSError:
        return []
    return [path for path in entries if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]


def _limit(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"{name} is {text!r}; give a positive number")
    return value
