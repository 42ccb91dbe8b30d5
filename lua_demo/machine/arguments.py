"""The argument parser of every command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from lua_demo.machine.placement import DTYPES
from lua_demo.schema import UserError


class Parser(argparse.ArgumentParser):
    """Errors are one line, and handled where all others are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python3 -m {self.prog} --help")


def machine() -> Parser:
    """A parent parser with the arguments of every command that computes."""
    result = Parser(add_help=False)
    result.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0, mps (default: %(default)s)")
    result.add_argument("--dtype", default="auto", choices=["auto", *DTYPES], help="default: bf16 on CUDA, else fp32")
    result.add_argument("--weights", type=Path, metavar="DIR", help="folder that replaces the shipped weights")
    return result
