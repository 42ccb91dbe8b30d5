"""Files of others, downloaded once and kept."""

from __future__ import annotations

from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from huggingface_hub.utils import WeakFileLock
from tqdm import tqdm

from lua_demo.catalog.upscalers import File
from lua_demo.schema import UserError

TIMEOUT_SECONDS = 30
BLOCK = 1 << 20


def download(published: File) -> Path:
    """Where the file is kept, once it is there. A download that broke off goes on where it stopped.

    Raises:
        UserError: it cannot be had, or it breaks off again.
    """
    url, file = published.url, published.path
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(file.with_name(f"{file.name}.lock")):
            if file.is_file():
                return file
            total = _fetch(url, part)
            size = part.stat().st_size
            if size == total:
                return part.replace(file)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url} could not be had ({reason}); go online and try again, or put it at {file}") from error
    if size < total:
        raise UserError(f"{url} broke off after {size} of {total} bytes; try again: the rest is added")
    part.unlink()
    raise UserError(f"{url} gave {size} bytes instead of {total}; what came was removed, try again")


def _fetch(url: str, part: Path) -> int:
    """Append to `part` what it lacks; returns how many bytes the whole file has."""
    start = part.stat().st_size if part.is_file() else 0
    try:
        response = urlopen(Request(url, headers={"Range": f"bytes={start}-"}), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        part.unlink()  # it holds the whole file, or more: not known which
        return _fetch(url, part)
    with response, part.open("ab") as out:
        if response.status != HTTPStatus.PARTIAL_CONTENT:  # the server gives the whole file
            out.truncate(start := 0)
        if response.headers["Content-Length"] is None:
            raise OSError("the server does not say how long it is")
        total = start + int(response.headers["Content-Length"])
        with tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None) as bar:
            while block := response.read(BLOCK):
                out.write(block)
                bar.update(len(block))
    return total
