"""Which methods a command compares: --methods and --upscaler."""

from __future__ import annotations

import argparse
from pathlib import Path

from lua_demo.catalog.methods import METHODS, OWN_FOLDER, add_own


def add_arguments(command: argparse.ArgumentParser, default: str = "") -> None:
    """--methods, by default those that the table selects, and --upscaler."""
    default = default or ",".join(key for key, row in METHODS.items() if row.default)
    command.add_argument("--methods", default=default, help=f"out of {','.join(METHODS)} (default: %(default)s)")
    command.add_argument(
        "--upscaler", type=Path, action="append", default=[], metavar="FILE",
        help="a pixel upscaler of your own, read by spandrel: a column by the file's name; repeatable (also: a folder "
        f"in {OWN_FOLDER})",
    )  # fmt: skip


def methods_of(args: argparse.Namespace) -> tuple[str, ...]:
    """The methods of --methods, then that of --refine, then the files of --upscaler, which become columns."""
    refine = ["refine"] if getattr(args, "refine", None) is not None else []
    return tuple(dict.fromkeys([*split(args.methods), *refine, *add_own(args.upscaler)]))


def split(methods: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in methods.split(",") if part.strip())
