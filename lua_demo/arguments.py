"""The argument parser of every command."""

from __future__ import annotations

import argparse
from typing import NoReturn

from lua_demo.schema import UserError


class Parser(argparse.ArgumentParser):
    """Errors are one line, and handled where all others are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python3 -m {self.prog} --help")
