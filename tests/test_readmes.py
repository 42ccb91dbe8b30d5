"""The READMEs: short, their links lead somewhere, and the command line takes every command that they show."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from lua_demo.commands.main import main

ROOT = Path(__file__).resolve().parent.parent
READMES = sorted([ROOT / "README.md", *(ROOT / "lua_demo").rglob("README.md"), *(ROOT / "assets").rglob("README.md")])
NAMES = [str(path.relative_to(ROOT)) for path in READMES]


BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)


def commands(text: str) -> list[str]:
    """What follows `-m lua_demo` in code blocks, and in code spans that have options (others are names)."""
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", BLOCK.sub("", text)) if " --" in span]
    found = [re.search(r"(?:python3|accelerate launch|torchrun .*) -m lua_demo (.+)", line) for line in lines]
    return [match[1].strip() for match in found if match]


class Parsed(Exception):
    """The arguments were taken."""


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


def test_commands_are_found():
    found = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {"compare", "batch", "upscale", "recreate", "doctor", "bench", "evaluate"} <= {c.split()[0] for c in found}


@pytest.mark.parametrize("path", READMES, ids=NAMES)
def test_the_command_line_takes_what_is_shown(path, monkeypatch, capsys):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, *arguments):
        parse(self, *arguments)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    for command in commands(path.read_text(encoding="utf-8")):
        try:
            code = main(shlex.split(command, comments=True))
        except Parsed:
            continue
        except SystemExit as ended:  # --help
            code = ended.code
        assert code == 0, f"{command}: {capsys.readouterr().err}"


@pytest.mark.parametrize("path", READMES, ids=NAMES)
def test_links_lead_somewhere(path):
    """Relative ones, with the heading that they name."""
    for target in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", path.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target
