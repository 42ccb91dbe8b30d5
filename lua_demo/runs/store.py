"""Finished comparisons on disk, each under an unguessable id. No torch, no gradio.

A run is a folder: the pictures as lossless files, the base latent, the source, and run.json, which is written last.
Only a folder with run.json can be opened. Several processes may share a store: nothing is locked, runs are never
changed after they are finished, and whatever is deleted is renamed away first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lua_demo.paths import EXAMPLES, PINNED
from lua_demo.schema import Span, UserError

RUN_ID = re.compile(r"[A-Za-z0-9_-]{22}")  # secrets.token_urlsafe(16): 128 bits
PIN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
FILE_NAME = re.compile(r"[a-z0-9_]{1,40}\.[a-z0-9]{1,12}")
# Files of the store are served as what their name says, so a source keeps its suffix only if that is a picture's.
SOURCE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".safetensors"}
DRAFT_SECONDS = 3600.0
TRASH = ".trash-"
SOURCE_KEYS = {"kind": str, "file": str, "sha256": str, "bytes": int}

Document = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished comparison.

    Attributes:
        id: what a link names; empty for a folder that is in no store.
        folder: where its files are.
        document: what `report.to_json` gives, with the names of the files here; in a store also `created` (seconds
            since 1970), and in `source` the file that holds it (`stored`) or the example that it is (`example`).
    """

    id: str
    folder: Path
    document: Document

    def file(self, name: object) -> Path | None:
        """The plain file `name` of this run; None for anything else, links and paths included."""
        if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
            return None
        path = self.folder / name
        return path if path.is_file() and not path.is_symlink() else None

    def pictures(self) -> dict[str, Path]:
        """Method -> its picture, for those that there are."""
        files = {method: self.file(row["file"]) for method, row in self.document["methods"].items()}
        return {method: path for method, path in files.items() if path}

    @property
    def source(self) -> Path | None:
        """The photo or latent that it was made from; None where it is not kept."""
        source = self.document["source"]
        if (name := source.get("example")) and name in {path.name for path in EXAMPLES.glob("*")}:
            return EXAMPLES / name
        return self.file(source.get("stored"))

    @property
    def latent(self) -> Path | None:
        return self.file("latent.safetensors")


def read_run(folder: Path, name: str = "run.json", run_id: str = "") -> Run | None:
    """The run in `folder`; None where there is no finished, well-formed one."""
    path = folder / name
    if folder.is_symlink() or path.is_symlink():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Run(run_id, folder, document) if _well_formed(document) else None
    except (OSError, ValueError, RecursionError):
        return None


def _well_formed(document: Any) -> bool:
    """Whether everything that readers rely on is there, of its type."""
    try:
        for row in document["methods"].values():
            spans = [Span(**stage) for stage in row["stages"]]
            texts = [row["label"], *row["notes"], *(span.name for span in spans)]
            numbers = [row["total_seconds"], *(span.seconds for span in spans), *(span.peak_bytes for span in spans)]
            numbers += [value for value in (row["metrics"] or {}).values() if value is not None]
            numbers += [row["peak_bytes"] or 0]
            if row["file"] is not None:
                numbers += [row["width"], row["height"]]
                texts.append(row["file"])
            texts += [] if row["skipped"] is None else [row["skipped"]]
            if not all(isinstance(text, str) for text in texts):
                return False
            if not all(isinstance(number, (int, float)) for number in numbers):
                return False
        settings, texts = document["settings"], [document["device"], document["dtype"]]
        texts += [*settings["methods"], *document["weights"].values(), *document["versions"].values()]
        source = document["source"]
        known = all(isinstance(source[key], kind) for key, kind in SOURCE_KEYS.items())
        return known and all(isinstance(text, str) for text in texts)
    except (KeyError, TypeError, AttributeError):
        return False


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
        """A new, empty folder for the files of a run; its name is the id. UserError where it cannot be made."""
        self.evict()
        folder = self.folder / secrets.token_urlsafe(16)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"{self.folder} cannot be written ({reason}); set LUA_DEMO_STORE to another folder"
            ) from error
        return folder

    def finish(self, draft: Path, document: Document, source: str | Path | None = None) -> Run:
        """Keep `source` beside the files of `draft`, or note which example it is, and write run.json.

        The names of the pictures become those of the files that are there; a method without one keeps None.
        """
        there = {path.stem: path.name for path in draft.iterdir()}
        methods = {key: {**row, "file": row["file"] and there.get(key)} for key, row in document["methods"].items()}
        document = {**document, "methods": methods, "created": int(time.time())}
        document["source"] = {**document["source"], **_keep_source(draft, document["source"], source)}
        write_json(draft / "run.json", document)
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
            return None  # deleted meanwhile
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
            if now - seen > (self.max_age_s if finished else DRAFT_SECONDS) and folder.name != keep:
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


def _keep_source(folder: Path, known: Mapping[str, Any], source: str | Path | None) -> dict[str, str]:
    """Where the source is from now on: an example of the checkout by name, else a copy in `folder`."""
    if not source:
        return {}
    for example in EXAMPLES.glob("*"):
        if example.stat().st_size == known["bytes"] and sha256(example) == known["sha256"]:
            return {"example": example.name}
    suffix = Path(source).suffix.lower()
    name = f"source{suffix if suffix in SOURCE_SUFFIXES else '.bin'}"
    shutil.copyfile(source, folder / name)
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
