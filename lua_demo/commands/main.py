"""The command line: what `python3 -m lua_demo --help` lists."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

import lua_demo
from lua_demo.catalog.bases import BASES
from lua_demo.catalog.methods import ASPECTS, METHODS, add_own_folder
from lua_demo.catalog.spaces import DECODERS
from lua_demo.commands import columns, evaluate
from lua_demo.engine import Engine
from lua_demo.machine.arguments import Parser, machine
from lua_demo.machine.devices import join
from lua_demo.paths import PINNED
from lua_demo.report import records
from lua_demo.report.document import Document
from lua_demo.report.measures import DISAGREE, NO_LPIPS
from lua_demo.request.job import resolve
from lua_demo.request.settings import unchecked
from lua_demo.runs import batch, export, recreate, store
from lua_demo.runs.outputs import make_folder, refuse_to_overwrite, write_display, write_result, writes, writing
from lua_demo.runs.run import read_run
from lua_demo.schema import Progress, Request, Result, UserError, printable

BEFOREHAND = "computed beforehand by a published upscaler; the page needs its file to make it again"
# Subcommands with a parser of their own, which is imported only when it is asked for.
DELEGATED = {
    "sheet": ("lua_demo.commands.sheet", "contact sheets of details, 1:1 (see: sheet --help)"),
    "train": ("lua_demo.commands.train", "train one of the networks (see: train --help)"),
    "curve": ("lua_demo.commands.curve", "plot what a training gained against its time (see: curve --help)"),
    "average": ("lua_demo.train.average", "the mean of the weights of several trainings (see: average --help)"),
    "ablate": ("lua_demo.train.ablate", "the paper's ablations at a small budget (see: ablate --help)"),
    "upscale": ("lua_demo.commands.upscale", "a latent on disk through LUA, to another file (see: upscale --help)"),
    "doctor": ("lua_demo.commands.doctor", "what can run here, what cannot and why, what is downloaded"),
    "bench": ("lua_demo.commands.bench", "measure speed (see: bench --help)"),
    "scenes": ("lua_demo.commands.scenes", "render landscapes as test pictures (see: scenes --help)"),
    "judge": ("lua_demo.commands.judge", "whether the text-to-latent model does what prompts say (see: judge --help)"),
}


def parser() -> Parser:
    result = Parser(prog="lua_demo", description="Compare upscaling a latent (LUA) with upscaling its pixels (SwinIR).")
    result.add_argument("--version", action="version", version=f"lua_demo {lua_demo.__version__}")
    commands = result.add_subparsers(
        dest="command",
        required=True,
        metavar="{compare,batch,recreate,export,evaluate,sheet,train,ablate,upscale,doctor,bench,scenes,judge}",
    )

    compare = commands.add_parser("compare", parents=[machine()], help="compare the methods on one photo")
    source = compare.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", default="", help="the photo")
    source.add_argument("--latent", default="", metavar="FILE", help="a base latent instead: a latent.safetensors")
    source.add_argument("--prompt", default="", metavar="TEXT", help="a prompt instead: rendered, or sampled")
    compare.add_argument("--scale", type=int, default=2, help="2 or 4 (default: %(default)s)")
    compare.add_argument(
        "--size", type=int, default=512, help="longest side of the base in pixels (default: %(default)s)"
    )
    columns.add_arguments(compare)
    compare.add_argument("--seed", type=int, default=0)
    _add_models(compare)
    compare.add_argument("--out", type=Path, metavar="DIR", help="gets <method>.png, latent.safetensors, results.json")
    compare.add_argument("--pin", metavar="NAME", help="keep it in assets/runs: the page opens with the first of them")
    compare.set_defaults(run=run_compare)

    many = commands.add_parser("batch", parents=[machine()], help="compare on many; the same command resumes")
    many.add_argument("source", type=Path, help="folder of photos, or a text file: a photo or latent per line")
    many.add_argument("--prompts", action="store_true", help="the lines of the text file are prompts")
    many.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets a folder per item, and batch.csv")
    many.add_argument("--scales", type=int, nargs="+", default=[2], help="2, 4 or both (default: 2)")
    many.add_argument("--seeds", type=int, nargs="+", default=[0], help="of everything random (default: 0)")
    many.add_argument("--size", type=int, default=512, help="longest side of the base in pixels (default: %(default)s)")
    columns.add_arguments(many)
    _add_models(many)
    many.set_defaults(run=run_batch)

    again = commands.add_parser("recreate", parents=[machine()], help="make a PNG again and compare the pixels")
    again.add_argument("png", type=Path, help="a PNG that lua_demo wrote")
    again.add_argument("--image", type=Path, metavar="SOURCE", help="what it was made from; else it is looked for")
    again.add_argument("--out", type=Path, metavar="DIR", help="gets the new <method>.png")
    again.set_defaults(run=run_recreate)

    files = commands.add_parser("export", help="one HTML page, a strip or an animation of a finished comparison")
    files.add_argument("folder", type=Path, help="the --out of compare; the files are written into it")
    files.add_argument("--html", action="store_true", help="comparison.html: one file, with the viewer")
    files.add_argument("--strip", action="store_true", help="strip.png: the pictures side by side, labelled")
    files.add_argument("--blink", metavar="A,B", help="blink.webp: two methods in turn")
    files.set_defaults(run=run_export)

    averages = commands.add_parser(
        "evaluate", parents=[machine()], help="average metrics over a folder of photos", epilog=f"{DISAGREE} {NO_LPIPS}"
    )
    truths = averages.add_mutually_exclusive_group(required=True)
    truths.add_argument("--images", metavar="DIR", help="folder of photos")
    truths.add_argument("--scenes", type=int, metavar="N", help="N scenes, rendered at 512 px times the scale")
    averages.add_argument("--scales", type=int, nargs="+", default=[2, 4])
    averages.add_argument("--crop", type=int, default=512, help="side of the centre crops (default: %(default)s)")
    columns.add_arguments(averages, ",".join(evaluate.ORDER))
    averages.add_argument("--json", type=Path, metavar="FILE", help="write averages and per-image values")
    averages.add_argument("--plot", type=Path, metavar="FILE", help="write quality against time as SVG")
    evaluate.add_space_arguments(averages)
    averages.set_defaults(run=run_evaluate)

    for name, (_, text) in DELEGATED.items():
        commands.add_parser(name, help=text, add_help=False)
    return result


def _add_models(command: argparse.ArgumentParser) -> None:
    models = command.add_argument_group("models")
    models.add_argument("--base", default=Request.base, choices=BASES, help="base model (default: %(default)s)")
    models.add_argument(
        "--decoder", default="", choices=["", *DECODERS], help="default: that of the base's latent space"
    )
    sampler = command.add_argument_group("for a prompt")
    sampler.add_argument("--steps", type=int, help="of the sampler (default: what the base's makers advise)")
    sampler.add_argument("--guidance", type=float, help="1: off (default: what the base's makers advise)")
    sampler.add_argument("--force-native", action="store_true", help="sample the target size whatever it takes")
    sampler.add_argument(
        "--refine", type=float, metavar="SHARE",
        help="one more column: LUA, then this share of the steps again at the target size, which may invent texture, "
        "letters and small objects; as 0.25",
    )  # fmt: skip
    sampler.add_argument("--aspect", default="1:1", help=f"out of {', '.join(ASPECTS)} (default: %(default)s)")


def _models(args: argparse.Namespace) -> dict[str, object]:
    """The settings that `_add_models` adds, as far as they are given."""
    names = ("base", "decoder", "steps", "guidance", "aspect", "force_native", "refine")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def run_compare(args: argparse.Namespace) -> int:
    if not args.out and not args.pin:
        raise UserError("nowhere to write to; give --out DIR, or --pin NAME")
    plain = {"scale": args.scale, "size": args.size, "methods": columns.methods_of(args), "seed": args.seed}
    job = resolve(unchecked({"prompt": args.prompt, **plain, **_models(args)}, args.image, args.latent))
    request = job.request
    engine = Engine(args.device, args.dtype, args.weights)
    source = records.describe_source(request)
    results: list[Result] = []
    with contextlib.closing(engine.compare(job)) as events:
        if args.out:
            refuse_to_overwrite([args.out / name for name in writes(request.methods)], args.image, args.latent)
            make_folder(args.out)
        for event in events:
            if isinstance(event, Progress):
                print(
                    f"[{event.done + 1}/{event.total}] {METHODS[event.method].label}: {records.stage(event)}",
                    flush=True,
                )
            else:
                results.append(event)
                environment = engine.environment(job)
                document = records.to_json(request, results, environment, source)
                if args.out:
                    write_result(args.out, event, document)
    folders = [args.out] if args.out else []
    if args.pin:
        folders.append(_pin(args.pin, results, document, request))
    print(f"\n{records.to_markdown(results, environment)}\n\nwritten to {', '.join(map(str, folders))}")
    return 0


def _pin(name: str, results: Sequence[Result], document: Document, request: Request) -> Path:
    """Write a run of `assets/runs`, compressed as far as possible."""
    for key, row in document["methods"].items():
        upscaler = METHODS[key].upscaler
        if upscaler and (upscaler.own or upscaler.published):
            row["notes"].append(BEFOREHAND)
    shelf = store.Store(PINNED)
    with writing(PINNED / name):
        folder = shelf.pin(name)
        for result in results:
            write_display(folder, result, document["source"], effort=6)
        return shelf.finish(folder, document, request.latent or request.image).folder


def run_batch(args: argparse.Namespace) -> int:
    """0 when all items are there, 1 when any failed."""
    sources = batch.read_sources(args.source, args.out, args.prompts)
    refuse_to_overwrite([args.out / batch.TABLE], args.source)
    settings: dict[str, object] = {"size": args.size, "methods": columns.methods_of(args), **_models(args)}
    items = batch.items(sources, settings, args.scales, args.seeds)
    devices = join(args.device)
    engine = Engine(devices.device, args.dtype, args.weights)
    for note in (batch.seeds_note(items, args.seeds), "" if args.prompts else batch.left_out(args.source)):
        if note and devices.is_first:
            print(note)
    outcomes: list[batch.Outcome] = []
    for event in batch.run(engine, items, args.out, devices=devices):
        place = f"[{devices.rank + 1 + devices.count * len(outcomes)}/{len(items)}]"
        if isinstance(event, batch.Outcome):
            outcomes.append(event)
            print(f"{place} {event.item.name}: {event.summary}", flush=True)
        else:
            item, progress = event
            print(f"{place} {item.name}: {METHODS[progress.method].label}: {records.stage(progress)}", flush=True)
    outcomes = devices.collect([replace(outcome, results=()) for outcome in outcomes])
    if devices.is_first:
        print(f"\n{batch.summary(outcomes)}; written to {args.out}, the table is {batch.TABLE}")
    return int(any(outcome.error for outcome in outcomes))


def run_recreate(args: argparse.Namespace) -> int:
    """0 when the pixels are the same, 1 when they are not."""
    if args.out:
        refuse_to_overwrite([args.out / name for name in writes(METHODS)], args.png, args.image or "")
        make_folder(args.out)
    engine = Engine(args.device, args.dtype, args.weights)
    made = recreate.recreate(args.png, engine, store.Store.from_environment(), args.image)
    lines = [f"{made.result.label} from {printable(made.source)}", *made.differences, made.verdict]
    if args.out:
        write_result(args.out, made.result, made.document)
        lines.append(f"written to {args.out}")
    print("\n".join(lines))
    return 0 if made.same else 1


def run_export(args: argparse.Namespace) -> int:
    run = read_run(args.folder, "results.json") or read_run(args.folder)
    if run is None:
        raise UserError(f"{args.folder} holds no finished comparison; give the --out folder of compare")
    wanted: dict[str, Callable[[], bytes]] = {}
    if args.html:
        wanted["comparison.html"] = lambda: export.html(run)
    if args.strip:
        wanted["strip.png"] = lambda: export.strip(run)
    if args.blink:
        one, other = _pair(args.blink)
        wanted["blink.webp"] = lambda: export.blink(run, one, other)
    if not wanted:
        raise UserError("nothing to export; give --html, --strip or --blink A,B")
    for name, make in wanted.items():
        content = make()
        with writing(args.folder):
            (args.folder / name).write_bytes(content)
        print(f"{args.folder / name}: {len(content) / 1e6:.1f} MB")
    return 0


def _pair(text: str) -> tuple[str, ...]:
    pair = columns.split(text)
    if len(pair) != 2:
        raise UserError(f"--blink {text!r} is no pair; give two methods, as lua,swinir")
    return pair


def run_evaluate(args: argparse.Namespace) -> int:
    for file in filter(None, (args.json, args.plot)):
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.open("a").close()
    devices = join(args.device)
    engine = Engine(devices.device, args.dtype, args.weights)
    used = evaluate.use_space(engine, args)
    methods = columns.methods_of(args)
    if args.scenes is None:
        result = evaluate.evaluate(engine, args.images, args.scales, args.crop, methods, args.space, devices)
    else:
        result = evaluate.evaluate_scenes(engine, args.scenes, args.scales, methods, args.space, devices=devices)
    if not devices.is_first:
        return 0
    environment = engine.environment(replace(evaluate.in_space(args.space), methods=methods))
    environment = replace(environment, weights={**environment.weights, **used})
    print(f"{evaluate.to_markdown(result)}\n- {records.machine(environment)}")
    if args.json:
        with writing(args.json):
            document = {**records.environment_json(environment), **result.to_json()}
            args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    if args.plot:
        with writing(args.plot):
            args.plot.write_text(evaluate.to_svg(result), encoding="utf-8")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 2 after a UserError, reported in one line on stderr; 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without 山 or ü shows ? instead of ending the command
            stream.reconfigure(errors="replace")
    # `images.load_photo` refuses what is too large with a line of its own.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    try:
        add_own_folder(os.environ)
        if argv and argv[0] in DELEGATED:
            return importlib.import_module(DELEGATED[argv[0]][0]).main(argv[1:])
        args = parser().parse_args(argv)
        return args.run(args)
    except UserError as error:
        print(f"lua_demo: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"lua_demo: {printable(error.filename)}: {error.strerror}; give another path", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lua_demo: interrupted", file=sys.stderr)
        return 130
