"""`python3 -m lua_demo bench`."""

from __future__ import annotations

import json
import platform
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import diffusers
import torch

import lua_demo
from lua_demo.bench import app, cpu, gpu, networks, paths, plot, rehearsal, text
from lua_demo.bench.architectures import ARCHITECTURES
from lua_demo.bench.ceilings import Ceiling, ceilings
from lua_demo.bench.clock import Timing
from lua_demo.bench.goals import CPU, GPU, Row
from lua_demo.catalog.bases import BASES
from lua_demo.machine.arguments import Parser
from lua_demo.machine.placement import DTYPES, device_label, resolve_device, resolve_dtype
from lua_demo.runs.outputs import writing
from lua_demo.schema import UserError

MEASURED = {name: DTYPES[name] for name in ("fp32", "bf16")}
"""The dtypes whose ceilings are measured."""


def parser() -> Parser:
    result = Parser(prog="lua_demo bench", description="Measure speed: against baselines, the machine, along paths.")
    length = result.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="small sizes, under 3 minutes on two cores (the default)")
    length.add_argument("--full", action="store_true", help="larger sizes; half an hour on two cores")
    result.add_argument("--app", action="store_true", help="only: the app's times against the benchmark's")
    result.add_argument("--scale-plot", type=Path, metavar="PNG", help="only: cost and memory against size, drawn")
    result.add_argument("--published", action="store_true", help="plot the published LUA, not the shipped one")
    result.add_argument(
        "--rehearse", nargs="+", metavar="BASE", choices=[*ARCHITECTURES, "all"],
        help="only: base models (keys of the README's table, or all) at their real architecture with random weights "
        "through the whole path: what fits and what each stage takes here. No download; written to a temporary folder",
    )  # fmt: skip
    result.add_argument("--steps", type=int, help="of --rehearse (default: what each model's makers advise)")
    result.add_argument(
        "--size", type=int, help="of --rehearse: longest side of the base in px (default: 512 and 1024, where offered)"
    )
    result.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    result.add_argument("--dtype", default="auto", choices=["auto", *DTYPES], help="of paths and plot")
    result.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    return result


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    device = resolve_device(args.device)
    dtype = resolve_dtype(args.dtype, device)
    start = time.perf_counter()
    facts = machine(device)
    document: dict[str, object] = {"machine": facts}
    for out in (args.json, args.scale_plot):
        if out:
            with writing(out):
                out.parent.mkdir(parents=True, exist_ok=True)
                out.open("a").close()
    print(f"{' · '.join(str(value) for value in facts.values())}\n", flush=True)
    try:
        if args.app:
            measured = app.measure(args.device, args.dtype)
            print(text.of_app(measured))
            document["app"] = asdict(measured)
        elif args.rehearse:
            _rehearse(args, device, dtype, document)
        elif args.scale_plot:
            document["scale"] = _plot(args, device, dtype)
        else:
            _compare(device, dtype, args.full, document)
    finally:  # what was measured before an interruption is kept
        document["seconds"] = seconds = time.perf_counter() - start
        print(f"\n{seconds:.0f} s")
        if args.json:
            with writing(args.json):
                args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def machine(device: torch.device) -> dict[str, str]:
    """Hardware, driver and versions."""
    result = {
        "device": device_label(device),
        "date": time.strftime("%Y-%m-%d"),
        "lua_demo": f"lua_demo {lua_demo.__version__}",
        "torch": f"torch {torch.__version__}",
        "diffusers": f"diffusers {diffusers.__version__}",
        "python": f"Python {platform.python_version()}",
    }
    if device.type == "cuda":
        result["cuda"] = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        result["memory"] = f"{torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"
    return result


def _plot(args: Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, object]:
    name = "full" if args.published else "shipped"
    by_side, by_batch = plot.measure(networks.lua(name), device, dtype)
    label = f"LUA ({'published' if args.published else 'embedded'}), {str(dtype).removeprefix('torch.')}"
    with writing(args.scale_plot):
        plot.draw(by_side, by_batch, f"{label}, {device_label(device)}", args.scale_plot)
    for point in (*by_side, *by_batch):
        print(f"{point.batch} x {point.side} x {point.side}, x{point.scale}: {point.seconds:.3f} s, "
              f"{point.peak_bytes / 2**20:,.0f} MiB")  # fmt: skip
    return {"network": name, "by_side": [p.to_json() for p in by_side], "by_batch": [p.to_json() for p in by_batch]}


def _rehearse(args: Namespace, device: torch.device, dtype: torch.dtype, document: dict[str, object]) -> None:
    """Adds what was measured as "rehearsals", with {"base", "refused"} for each base that could not be run."""
    result: list[dict[str, object]] = []
    document["rehearsals"] = result
    rounds = 2 if device.type == "cuda" else 1  # the first one compiles
    for base in ARCHITECTURES if "all" in args.rehearse else dict.fromkeys(args.rehearse):
        sizes = (args.size,) if args.size else rehearsal.sizes_of(BASES[base])
        try:
            for done in rehearsal.rehearse(base, sizes, device, dtype, args.steps, rounds):
                print(f"\n{text.of_rehearsal(done)}", flush=True)
                result.append(done.to_json())
        except UserError as error:
            print(f"{base} was not run: {error}\n", flush=True)
            result.append({"base": base, "refused": str(error)})


def _compare(device: torch.device, dtype: torch.dtype, full: bool, document: dict[str, object]) -> None:
    """Adds to `document` what is measured, as soon as it is there; on CUDA a row that fails stays one row."""
    limits: dict[str, Ceiling] = {name: ceilings(device, kind) for name, kind in MEASURED.items()}
    document["ceilings"] = {name: asdict(limit) for name, limit in limits.items()}
    print(f"{text.of_ceilings(limits)}\n", flush=True)
    on_gpu = device.type == "cuda"
    told: list[dict[str, object]] = []
    document["rows"] = told

    def tell(row: Row) -> None:
        told.append({**asdict(row), "verdict": row.verdict})
        print(text.of_row(row), flush=True)

    measured = gpu.measure(device, limits["bf16"], tell) if on_gpu else cpu.measure(limits, full)
    elsewhere = [Row(key, goal) for key, goal in (CPU if on_gpu else GPU).items()]
    rows = measured.rows + elsewhere
    document["rows"] = [{**asdict(row), "verdict": row.verdict} for row in rows]
    document["work"] = {name: {"flop": flop, "floor": floor} for name, (flop, floor) in measured.work.items()}
    timed: dict[str, object] = {name: timing.to_json() for name, timing in measured.timings.items()}
    document["timings"] = timed
    print(f"\n{text.of_timings(measured.timings, measured.work)}\n\n{text.of_rows(rows)}\n", flush=True)
    found: list[paths.Path] = []
    stages: dict[str, Timing] = {}
    failed: dict[str, str] = {}
    for decoders, base, scale in paths.plan(device, full):
        more, timings = paths.measure(device, dtype, base, scale, decoders, "shipped", 1, failed)
        found += more
        stages |= timings
        timed |= {name: timing.to_json() for name, timing in timings.items()}
    document["paths"] = [path.to_json() for path in found]
    document["failed"] = failed
    print(f"{text.of_timings(stages, {})}\n\n{text.of_paths(found)}")
    for name, why in failed.items():
        print(f"{name}: {why}")
