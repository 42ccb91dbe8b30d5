"""Files that people name: only regular ones are read, and folders are searched for photos."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lua_demo.pictures.formats import SUFFIXES
from lua_demo.schema import UserError

MAX_BYTES = 1 << 30
MOST_NAMED, MOST_SHOWN = 5, 200


def read_regular(path: str | Path, wanted: str, limit: int = MAX_BYTES) -> bytes:
    """The content of a file. A pipe or a device would be waited for, and might never end.

    Args:
        path: of the file.
        wanted: what to give instead, as "a photo".
        limit: bytes.
    Raises:
        UserError: not there, not readable, no regular file, or larger than `limit`.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UserError(f"{shortened(path)} is no regular file; give the path of {wanted}")
            if found.st_size > limit:
                raise UserError(
                    f"{shortened(path)} has {found.st_size >> 20} MiB; the limit for {wanted} is {limit >> 20} MiB"
                )
            return file.read(min(found.st_size, limit) + 1)  # room for all of it is reserved at once
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{shortened(path)} cannot be read ({reason}); give the path of {wanted}") from error


def _without_waiting(path: str, flags: int) -> int:
    """Opening a pipe waits for its writer otherwise."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def shortened(path: str | Path) -> str:
    """A path as errors name it: by its name, since a visitor of the page is not to see where the server keeps files."""
    text = Path(path).name or str(path)
    return text if len(text) <= MOST_SHOWN else f"...{text[-MOST_SHOWN:]}"


def list_images(folder: str | Path) -> list[Path]:
    """The picture files below `folder`, by path. UserError when it is no folder or holds none."""
    return sort_out(folder)[0]


def sort_out(folder: str | Path) -> tuple[list[Path], str]:
    """The picture files below `folder`, by path, and one line on the files that are none; empty without any.

    Hidden files do not count: macOS puts a ._a.jpg beside a.jpg on foreign disks.

    Raises:
        UserError: no folder, or no picture in it.
    """
    folder = Path(folder)
    try:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give a folder of photos")
        entries = sorted(path for path in folder.rglob("*") if path.is_file() or not path.is_dir())
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{shortened(folder)} cannot be read ({reason}); give a folder of photos") from error
    visible = [path for path in entries if not path.name.startswith(".")]
    photos = [path for path in visible if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not photos:
        raise UserError(f"{folder} holds no photo ({', '.join(SUFFIXES)}); give a folder of photos")
    chosen = set(photos)
    return photos, _left_out([path for path in entries if path not in chosen])


def _left_out(paths: Sequence[Path]) -> str:
    if not paths:
        return ""
    kinds = Counter("hidden" if path.name.startswith(".") else path.suffix.lower() or "no suffix" for path in paths)
    told = [f"{count} {kind}" for kind, count in kinds.most_common(MOST_NAMED)]
    rest = len(paths) - sum(count for _, count in kinds.most_common(MOST_NAMED))
    files = "file that is no photo" if len(paths) == 1 else "files that are no photos"
    return f"left out {len(paths)} {files}: {', '.join(told + ([f'{rest} others'] if rest else []))}"
