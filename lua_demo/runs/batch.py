"""Many comparisons in one go: a folder for each, one table of all; what is finished is not run again. No gradio."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from lua_demo.catalog.methods import methods_of
from lua_demo.engine import Engine
from lua_demo.machine.cancel import raise_if_set
from lua_demo.machine.devices import ALONE, Devices
from lua_demo.machine.memory import is_out_of_memory
from lua_demo.pictures import images
from lua_demo.pictures.files import read_regular, sort_out
from lua_demo.report import records
from lua_demo.report.document import Document
from lua_demo.report.table import Table, rows
from lua_demo.request.settings import unchecked
from lua_demo.request.validate import validated_settings
from lua_demo.runs.outputs import RESULTS, make_folder, refuse_to_overwrite, write_result, writes, writing
from lua_demo.runs.run import read_run
from lua_demo.schema import Environment, Progress, Request, Result, Stopped, UserError

TABLE = "batch.csv"
LATENT_SUFFIX = ".safetensors"
NAME_LENGTH, FOLDER_LENGTH = 60, 16
MAX_LIST = 64 << 20


@dataclass(frozen=True)
class Item:
    """One comparison of a batch.

    Attributes:
        name: of its folder; no other item of the batch has it.
        source: what it was listed as.
    """

    name: str
    source: str
    request: Request


@dataclass(frozen=True)
class Outcome:
    """An item that is over.

    Attributes:
        document: what its results.json says; None where it failed before its first result.
        results: with the pictures; empty where it was `kept` or has no document.
        kept: an earlier batch had finished it, so it was not run again.
        error: why it failed, in one line; beside a document, with the methods that are missing.
    """

    item: Item
    document: Document | None = None
    results: tuple[Result, ...] = ()
    kept: bool = False
    error: str = ""

    @property
    def halfway(self) -> bool:
        """Whether it failed after its first result, whose pictures are there."""
        return bool(self.error) and self.document is not None

    @property
    def summary(self) -> str:
        if self.document is None:
            return f"failed: {self.error}"
        if self.kept:
            return "finished before, not run again"
        rows = self.document["methods"].values()
        left_out = sum(row["file"] is None for row in rows)
        made = len(rows) - left_out
        words = f"{made} {'picture' if made == 1 else 'pictures'}" + (f", {left_out} left out" if left_out else "")
        return f"{words}; then {self.error}" if self.error else words


def read_sources(source: Path, out: Path, prompts: bool = False) -> list[Request]:
    """What a batch starts from: the photos below a folder, but for those below `out`; or the lines of a text file.

    A line is the path of a photo or of a latent, relative to the file's own folder, or with `prompts` a prompt. Empty
    lines and those that start with # are left out.

    Raises:
        UserError: no folder and no text file, or nothing in it.
    """
    if _is_folder(source) and not prompts:
        found = images.list_images(source)
        paths = [path for path in found if not path.resolve().is_relative_to(out.resolve())]
        if not paths:
            raise UserError(f"all photos of {source} are below {out}, where the results go; choose another --out")
        return [file_source(path) for path in paths]
    wanted = "a text file of prompts" if prompts else "a folder of photos or a text file with their paths"
    content = read_regular(source, wanted, MAX_LIST)
    try:
        # Names of files may be any bytes.
        text = content.decode("utf-8-sig", "strict" if prompts else "surrogateescape")
        listed = entries(text.replace("\r\n", "\n").split("\n"))
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{source} cannot be read as text; give {wanted}")
    if not listed:
        raise UserError(f"{source} lists nothing; give it one {'prompt' if prompts else 'path'} per line")
    if prompts:
        return [Request(prompt=line) for line in listed]
    return [file_source(source.parent / _expanded(line)) for line in listed]


def left_out(source: Path) -> str:
    """One line on the files of a folder of photos that are none; empty where there are none, and for a list."""
    return sort_out(source)[1] if _is_folder(source) else ""


def _is_folder(source: Path) -> bool:
    try:
        return source.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _expanded(line: str) -> Path:
    """With ~ as the home of its user; as it is where there is no such user."""
    try:
        return Path(line).expanduser()
    except RuntimeError:
        return Path(line)


def entries(lines: Iterable[str]) -> list[str]:
    """The lines that say something: neither empty nor a comment."""
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def file_source(path: str | Path) -> Request:
    """What a file stands for: a latent if its name ends in .safetensors, else a photo."""
    name = str(path)
    return Request(latent=name) if name.lower().endswith(LATENT_SUFFIX) else Request(name)


def items(
    sources: Iterable[Request],
    settings: Mapping[str, object],
    scales: Sequence[int] = (2,),
    seeds: Sequence[int] = (0,),
) -> list[Item]:
    """Every source at every scale, and with every seed where a seed changes anything.

    Args:
        sources: of these only what the base comes from counts.
        settings: everything else, by name, but for scale and seed.
    Raises:
        UserError: settings that cannot be run. Whether a source can be used shows when it is its turn.
    """
    requests = []
    for source in sources:
        for scale in scales:
            own = {**settings, "prompt": source.prompt, "scale": scale}
            one = unchecked(own, source.image, source.latent)
            requests += [validated_settings(replace(one, seed=seed)) for seed in seeds_that_matter(one, seeds)]
    requests = list(dict.fromkeys(requests))
    shared = Counter(_name(_short(request), request).lower() for request in requests)
    names: Counter[str] = Counter()
    result = []
    for request in requests:
        name = _name(_short(request), request)
        if shared[name.lower()] > 1:  # some file systems do not distinguish a from A
            name = _name(_long(request), request)
        names[name.lower()] += 1
        number = names[name.lower()]
        result.append(Item(name if number == 1 else f"{name}-{number}", _source(request), request))
    return result


def seeds_that_matter(request: Request, seeds: Sequence[int]) -> Sequence[int]:
    """All of `seeds`, or only the first where the base is given and nothing is drawn."""
    return seeds if request.prompt else seeds[:1]


def seeds_note(items: Sequence[Item], seeds: Sequence[int]) -> str:
    """What to say where more than one of `seeds` was asked for and not all are run; empty otherwise."""
    if len(set(seeds)) < 2 or not any(len(seeds_that_matter(item.request, seeds)) == 1 for item in items):
        return ""
    return f"seeds change nothing for photos and latents: each is run once, with seed {seeds[0]}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many items came to what, in one line."""
    kept, halfway = sum(outcome.kept for outcome in outcomes), sum(outcome.halfway for outcome in outcomes)
    failed = sum(outcome.document is None for outcome in outcomes)
    whole = len(outcomes) - kept - halfway - failed
    parts = [(whole, "run"), (kept, "finished before"), (halfway, "ended halfway"), (failed, "failed")]
    told = ", ".join(f"{number} {word}" for number, word in parts if number)
    return f"{len(outcomes)} {'item' if len(outcomes) == 1 else 'items'}: {told}"


def run(
    engine: Engine,
    items: Sequence[Item],
    out: Path,
    stop: threading.Event | None = None,
    devices: Devices = ALONE,
) -> Generator[tuple[Item, Progress] | Outcome, None, None]:
    """Compare item by item. Below `out` each gets a folder as `compare --out` writes it; batch.csv grows with them.

    An item whose folder is finished is not run again, if settings, source, weights and dtype are the same. One that
    cannot be run fails alone. What an item had finished when it failed, or when the batch ended, is its outcome.

    Args:
        devices: the processes that share the items; batch.csv, written by the first, has all of them in the end.
    Raises:
        UserError: `out` cannot be written, or the weights cannot be loaded: that concerns all items.
        Stopped: `stop` was set; what is finished stays.
    """
    make_folder(out)
    table: list[list[dict[str, object]]] = []
    written = Table(out / TABLE)
    for item in devices.share_of(items):
        raise_if_set(stop)
        with contextlib.closing(_item(engine, item, engine.environment(item.request), out / item.name, stop)) as events:
            for event in events:
                if isinstance(event, Outcome):
                    table.append(rows(item.name, item.source, item.request, event.document, event.error))
                    if devices.is_first:
                        with writing(out):
                            written.add(table[-1])
                yield event
    if devices.count > 1:
        everything = list(chain.from_iterable(devices.collect(table)))
        if devices.is_first:
            with writing(out):
                Table(out / TABLE).add(everything)


def _item(
    engine: Engine, item: Item, environment: Environment, folder: Path, stop: threading.Event | None
) -> Generator[tuple[Item, Progress] | Outcome, None, None]:
    """Progress, then the outcome. An error that ends the batch is raised after the outcome of what was finished."""
    request = item.request
    try:
        source = records.describe_source(request)
    except (OSError, ValueError):
        source = None  # the engine refuses it with a better message
    if source and (document := finished(folder, records.to_json(request, [], environment, source))):
        yield Outcome(item, document, kept=True)
        return
    results: list[Result] = []
    document, loading = None, False
    try:
        with contextlib.closing(engine.compare(request, stop)) as events:
            refuse_to_overwrite([folder / name for name in writes(request.methods)], request.image, request.latent)
            make_folder(folder)
            with writing(folder):
                (folder / RESULTS).unlink(missing_ok=True)  # of other settings: never beside new pictures
            for event in events:
                loading = isinstance(event, Progress) and event.stage == "load"
                if isinstance(event, Progress):
                    yield item, event
                else:
                    results.append(event)
                    document = records.to_json(request, results, environment, source)
                    write_result(folder, event, document)
    except Exception as error:
        # A latent is checked right after the weights are there; everything else that fails then, fails for all.
        alone = isinstance(error, UserError) and not (loading and not request.latent)
        # The folder of the results is known to whoever gave it, and visitors of the page must not see it.
        words = reason(error).replace(f"{folder.parent}/", "")
        if results:
            missing = [methods_of(request.kind, request.base)[key].label for key in request.methods[len(results) :]]
            words += f"; missing: {', '.join(missing)}" if missing else ""
        if alone or results:
            yield Outcome(item, document, tuple(results), error=words)
        if not alone:
            raise
        return
    yield Outcome(item, document, tuple(results))


def reason(error: Exception) -> str:
    """Why an item ended early, in one line."""
    if isinstance(error, (UserError, Stopped)):
        return str(error)
    return "out of memory" if is_out_of_memory(error) else "an error of the program"


def finished(folder: Path, wanted: Document) -> Document | None:
    """The results in `folder` if they are whole and of the settings, source, weights and dtype of `wanted`."""
    run = read_run(folder, RESULTS)
    if run is None:
        return None
    found = run.document
    same = found["settings"] == wanted["settings"] and found["source"]["sha256"] == wanted["source"]["sha256"]
    same = same and found["weights"] == wanted["weights"] and found["dtype"] == wanted["dtype"]
    made = {method for method, row in found["methods"].items() if row["file"]}
    whole = set(found["methods"]) == set(wanted["settings"]["methods"]) and set(run.pictures()) == made
    return found if same and whole else None


def _source(request: Request) -> str:
    return request.prompt or request.image or request.latent


def _short(request: Request) -> str:
    return request.prompt or Path(_source(request)).stem


def _long(request: Request) -> str:
    """Differs for a.png and a.jpg, a/1.png and b/1.png, and two long prompts; a later batch finds it again."""
    if request.prompt:
        return f"{hashlib.sha256(request.prompt.encode()).hexdigest()[:8]}-{request.prompt}"
    path = Path(_source(request))
    return f"{path.parent.name[:FOLDER_LENGTH]}-{path.name}"


def _name(text: str, request: Request) -> str:
    """A folder name that says what is in it; at most `NAME_LENGTH` characters are of the source."""
    readable = re.sub(r"[^\w-]+", "_", text)[:NAME_LENGTH].strip("_") or "item"
    return f"{readable}_x{request.scale}" + (f"_s{request.seed}" if request.prompt else "")
