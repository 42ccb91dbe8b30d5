"""Files of others, downloaded once, checked and kept."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock

from lua_demo.catalog.upscalers import File
from lua_demo.models.weights import first_line, sha256
from lua_demo.schema import UserError


def download(published: File) -> Path:
    """Path of the file, after it was downloaded and checked. A download that broke off is resumed.

    Raises:
        UserError: it cannot be downloaded, or is another file than the published one.
    """
    file = published.path
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(file.with_name(f"{file.name}.lock")):
            if not file.is_file():
                _fetch(published, part)
                part.replace(file)
            if sha256(file) != published.sha256:
                raise UserError(f"{file} is not the published file (by its sha256): remove it and try again")
    except UserError:
        raise
    except Exception as error:  # from httpx, requests or the file system, depending on the version of huggingface_hub
        why = f"{published.url} could not be downloaded ({first_line(error)})"
        raise UserError(f"{why}; go online and try again, or put it at {file}") from error
    return file


def _fetch(published: File, part: Path) -> None:
    """Append to `part` what it lacks; a file of another content is removed."""
    if part.is_file() and part.stat().st_size > published.size:
        part.unlink()
    with part.open("ab") as out:
        name = published.name
        http_get(published.url, out, resume_size=out.tell(), expected_size=published.size, displayed_filename=name)
    if sha256(part) != published.sha256:
        part.unlink()
        raise UserError(
            f"{published.url} gave another file than was published (by its sha256), which was removed; try again"
        )
