"""The command line: compare, evaluate, train, scenes."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

import lua_demo
from lua_demo import evaluate, images, report
from lua_demo.arguments import Parser
from lua_demo.catalog import METHODS
from lua_demo.engine import Engine
from lua_demo.placement import DTYPES
from lua_demo.schema import Progress, Request, Result, UserError

# Subcommands with a parser of their own, which is imported only when it is asked for.
DELEGATED = {
    "train": ("lua_demo.train.cli", "train one of the embedded networks (see: train --help)"),
    "scenes": ("lua_demo.scenes", "render landscapes as test pictures (see: scenes --help)"),
}


def parser() -> Parser:
    result = Parser(prog="lua_demo", description="Compare upscaling a latent (LUA) with upscaling its pixels (SwinIR).")
    result.add_argument("--version", action="version", version=f"lua_demo {lua_demo.__version__}")
    commands = result.add_subparsers(dest="command", required=True, metavar="{compare,evaluate,train,scenes}")

    machine = Parser(add_help=False)
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:0, mps (default: %(default)s)")
    machine.add_argument("--dtype", default="auto", choices=["auto", *DTYPES], help="default: bf16 on CUDA, else fp32")
    machine.add_argument("--weights", type=Path, metavar="DIR", help="folder that replaces the shipped weights")

    compare = commands.add_parser("compare", parents=[machine], help="compare the methods on one photo")
    compare.add_argument("--image", required=True, help="the photo")
    compare.add_argument("--scale", type=int, default=2, help="2 or 4 (default: %(default)s)")
    compare.add_argument(
        "--size", type=int, default=512, help="longest side of the base in pixels (default: %(default)s)"
    )
    default = ",".join(key for key, row in METHODS.items() if row.default)
    compare.add_argument("--methods", default=default, help=f"out of {','.join(METHODS)} (default: %(default)s)")
    compare.add_argument("--seed", type=int, default=0)
    compare.add_argument("--out", required=True, type=Path, metavar="DIR", help="gets <method>.png and results.json")
    compare.set_defaults(run=run_compare)

    averages = commands.add_parser("evaluate", parents=[machine], help="average metrics over a folder of photos")
    averages.add_argument("--images", required=True, metavar="DIR", help="folder of photos")
    averages.add_argument("--scales", type=int, nargs="+", default=[2, 4])
    averages.add_argument("--crop", type=int, default=512, help="side of the centre crops (default: %(default)s)")
    averages.add_argument("--methods", default=",".join(evaluate.ORDER), help="default: %(default)s")
    averages.add_argument("--vif", action="store_true", help="visual information fidelity too; slow")
    averages.add_argument("--json", type=Path, metavar="FILE", help="write averages and per-image values")
    averages.set_defaults(run=run_evaluate)

    for name, (_, text) in DELEGATED.items():
        commands.add_parser(name, help=text, add_help=False)
    return result


def run_compare(args: argparse.Namespace) -> int:
    request = Request(args.image, args.scale, args.size, _split(args.methods), seed=args.seed)
    engine = Engine(args.device, args.dtype, args.weights)
    stream = engine.compare(request)
    results: list[Result] = []
    with _writing(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    for event in stream:
        if isinstance(event, Progress):
            print(f"[{event.done + 1}/{event.total}] {METHODS[event.method].label}: {event.stage}", flush=True)
        else:
            results.append(event)
            environment = engine.environment(request.space)
            document = report.to_json(request, results, environment)
            with _writing(args.out):
                if event.image is not None:
                    metadata = report.png_metadata(document, event.method)
                    images.save_png(event.image, args.out / f"{event.method}.png", metadata)
                (args.out / "results.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"\n{report.to_markdown(results, environment)}\n\nwritten to {args.out}")
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    if args.json:
        with _writing(args.json):
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.open("a").close()
    engine = Engine(args.device, args.dtype, args.weights)
    result = evaluate.evaluate(engine, args.images, args.scales, args.crop, _split(args.methods), args.vif)
    environment = engine.environment()
    print(f"{evaluate.to_markdown(result)}\n- {report.machine(environment)}")
    if args.json:
        with _writing(args.json):
            document = {**report.environment_json(environment), **result.to_json()}
            args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def _split(methods: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in methods.split(",") if part.strip())


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Failures to write below a path that the user gave are the user's to solve."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); choose another place") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 after a UserError, told in one line on stderr; 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # `images.load_photo` refuses what is too large with a line of its own.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    try:
        if argv and argv[0] in DELEGATED:
            return importlib.import_module(DELEGATED[argv[0]][0]).main(argv[1:])
        args = parser().parse_args(argv)
        return args.run(args)
    except UserError as error:
        print(f"lua_demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lua_demo: interrupted", file=sys.stderr)
        return 130
