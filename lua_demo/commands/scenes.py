"""`python3 -m lua_demo scenes`: pictures with captions, a contact sheet, the examples of the app."""

from __future__ import annotations

from pathlib import Path

from lua_demo.machine.arguments import Parser
from lua_demo.runs.outputs import writing
from lua_demo.scenes.corpus import SHEET, write_corpus, write_examples, write_prompts, write_sheet
from lua_demo.schema import UserError


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Raises:
        UserError: for options that make no picture.
    """
    parser = Parser(prog="lua_demo scenes", description="Render procedural landscapes with captions.")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write PNGs and captions.jsonl here")
    parser.add_argument("--count", type=int, default=16, help="number of scenes (default 16)")
    parser.add_argument("--size", type=int, default=512, help="side in pixels (default 512)")
    parser.add_argument("--seed", type=int, default=0, help="which scenes (default 0)")
    parser.add_argument("--workers", type=int, default=1, help="processes that render (default 1)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help=f"write {SHEET} scenes as one picture here")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="write the page's example prompts as one picture")
    parser.add_argument("--examples", type=Path, metavar="DIR", help="write the app's example photos here")
    options = parser.parse_args(argv)
    if not (options.out or options.sheet or options.prompts or options.examples):
        raise UserError("Nothing to write: give --out DIR, --sheet PNG, --prompts FILE or --examples DIR.")
    if options.count < 1:
        raise UserError(f"--count {options.count} makes no picture: give 1 or more.")
    if not 16 <= options.size <= 8192:
        raise UserError(f"--size {options.size} is out of range: give 16 to 8192 pixels.")
    if options.workers < 1:
        raise UserError(f"--workers {options.workers} renders nothing: give 1 or more.")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed} is negative: give 0 or more.")
    if options.out:
        with writing(options.out):
            write_corpus(options.out, options.count, options.size, options.seed, options.workers)
    if options.sheet:
        with writing(options.sheet):
            write_sheet(options.sheet, options.seed)
    if options.prompts:
        with writing(options.prompts):
            write_prompts(options.prompts, options.seed)
    if options.examples:
        with writing(options.examples):
            write_examples(options.examples)
    return 0
