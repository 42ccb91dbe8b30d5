"""A fault campaign: thousands of damaged files and odd values, each of which must work or be refused in one line.

    python3 -m tests.campaign                       all of it, and a table: tried, opened, refused, wrong
    python3 -m tests.campaign --kinds flips latents --seed 7 --first 100 --count 50

By hand and nightly, not in CI. A case is told by its kind, the seed and its number, so that one that went wrong is run
again alone. Wrong is an exception that is no UserError, a message of several lines, a process that dies or takes more
than `LIMIT` seconds of a core, and what a kind says further. Everything runs on toy weights, in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import torch
from PIL import Image, PngImagePlugin

from lua_demo.catalog.methods import METHODS
from lua_demo.models.weights import load_lua
from lua_demo.networks.lua import LUA
from lua_demo.pictures.images import save_display
from lua_demo.pictures.latent_check import check_size, refuse_foreign
from lua_demo.pictures.latents import load_latent, save_latent
from lua_demo.pictures.reading import load_photo
from lua_demo.report import records
from lua_demo.report.timing import timing_html
from lua_demo.request.inputs import source_of
from lua_demo.request.job import resolve
from lua_demo.request.settings import DEFAULTS, from_query, from_settings, to_settings
from lua_demo.runs import export
from lua_demo.runs.provenance import differences, read_png
from lua_demo.runs.run import read_run
from lua_demo.schema import BaseLatent, Environment, Request, Result, Span, UserError
from lua_demo.ui.opening import request_of
from lua_demo.ui.share import download_name
from lua_demo.ui.showing import panes, summary
from tests.conftest import CHANNELS, TRUNK, drawn, picture

ROOT = Path(__file__).resolve().parent.parent
LIMIT, PATIENCE = 30.0, 240.0  # seconds of a core; of a clock, after which the process is ended
Rng = np.random.Generator
Case = Callable[[Rng, "Box"], Any]


class Wrong(AssertionError):
    """An outcome that is neither right nor refused."""


class Box:
    """What cases start from: good files of every kind, made once, in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        pillow_heif.register_heif_opener()
        image = Image.fromarray(picture(64, 48))
        self.pictures = {}
        for kind, modes in {
            "PNG": "RGB RGBA P L LA 1 I;16", "JPEG": "RGB L CMYK", "WEBP": "RGB RGBA", "AVIF": "RGB",
            "HEIF": "RGB RGBA", "TIFF": "RGB L CMYK I;16 F I 1", "BMP": "RGB P L 1", "GIF": "P", "ICO": "RGBA",
            "PPM": "RGB L", "TGA": "RGB P", "JPEG2000": "RGB L",
        }.items():  # fmt: skip
            for mode in modes.split():
                converted = image.convert("L").convert(mode) if mode in ("I;16", "F", "I") else image.convert(mode)
                self.pictures[f"{kind} {mode}"] = encoded(converted, kind)
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
            self.pictures[f"TIFF {compression}"] = encoded(image, "TIFF", compression=compression)
        self.pictures["JPEG progressive"] = encoded(image, "JPEG", progressive=True)
        self.pictures["GIF animated"] = encoded(image, "GIF", save_all=True, append_images=[image.rotate(9)])
        self.pictures["PNG animated"] = encoded(image, "PNG", save_all=True, append_images=[image.rotate(9)])
        self.right = {name: np.asarray(load_photo(data)) for name, data in self.pictures.items()}
        self.latent = BaseLatent(drawn("embedded", 12)[0].numpy(), "embedded", (96, 96))
        self.latent_file = save_latent(folder / "good.safetensors", self.latent).read_bytes()
        torch.manual_seed(0)
        LUA(in_chans=CHANNELS, **TRUNK).save_pretrained(folder / "lua")
        tensors = torch.load(ROOT / "tests" / "golden" / "lua_tiny.pth", weights_only=True)
        buffer = io.BytesIO()
        torch.save(tensors, buffer)
        self.published = buffer.getvalue()
        self.photo = folder / "photo.png"
        image.save(self.photo)
        self.run = folder / "run"
        self.run.mkdir()
        made = picture(64, 48)
        self.request = Request(str(self.photo), 2, 64, ("base", "lua"))
        spans = (Span("encode", 0.1, 9), Span("decode", 0.2, 9, cold=True))
        scores = {"psnr": 30.0, "ssim": None}
        results = [Result(key, METHODS[key].label, made, spans, scores, notes=("a note",)) for key in ("base", "lua")]
        for result in results:
            save_display(made, self.run / f"{result.method}.webp")
        environment = Environment("cpu", "float32", {"lua": "x (1)"}, {"torch": "2"})
        self.document = records.to_json(self.request, results, environment)
        for row in self.document["methods"].values():
            row["file"] = row["file"].replace(".png", ".webp")
        self.environment = environment


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# Kinds. Each gives what came out, or raises a UserError.


def cuts(rng: Rng, box: Box) -> Any:
    data = box.pictures[str(rng.choice(list(box.pictures)))]
    return load_photo(data[: int(rng.integers(len(data)))])


def flips(rng: Rng, box: Box) -> Any:
    return load_photo(flipped(rng, box.pictures[str(rng.choice(list(box.pictures)))]))


def flipped(rng: Rng, data: bytes) -> bytes:
    """Bits turned, bytes set, runs of noise, parts doubled or left out; mostly near the start, where headers are."""
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        end = len(made) if rng.random() < 0.5 else min(len(made), 120)
        at = int(rng.integers(end))
        how = rng.integers(5)
        if how == 0:
            made[at] ^= 1 << int(rng.integers(8))
        elif how == 1:
            made[at] = int(rng.choice([0, 1, 127, 128, 255]))
        elif how == 2:
            made[at : at + 8] = rng.bytes(min(8, len(made) - at))
        elif how == 3:
            made[at:at] = made[at : at + int(rng.integers(1, 40))]
        else:
            del made[at : at + int(rng.integers(1, 40))]
        if not made:
            break
    return bytes(made)


CHUNKS = [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"pHYs", b"tIME", b"bKGD", b"sPLT", b"hIST", b"iCCP", b"cHRM", b"caBX"]
STARTS = [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0\1\2", b"MPF\0",
          b"JFIF\0", b"Photoshop 3.0\0008BIM", b"FPXR\0", b"Adobe"]  # fmt: skip


def side_data(rng: Rng, box: Box) -> Any:
    """Garbage beside the pixels leaves them as they are."""
    plain = [name for name in box.pictures if name.startswith(("PNG", "JPEG ", "WEBP")) and "animated" not in name]
    name = str(rng.choice(plain))
    data, content = box.pictures[name], rng.bytes(int(rng.choice([0, 1, 3, 7, 40, 900, 60_000])))
    if name.startswith("PNG"):
        if rng.random() < 0.3:
            content = b"name\0\0" + zlib.compress(bytes(int(rng.integers(1 << 22))))
        chunk = CHUNKS[int(rng.integers(len(CHUNKS)))]
        extra = struct.pack(">I", len(content)) + chunk + content
        extra += struct.pack(">I", zlib.crc32(chunk + content) ^ int(rng.integers(2)))
        at = 33 if rng.random() < 0.5 else len(data) - 12
    elif name.startswith("JPEG"):
        start = STARTS[int(rng.integers(len(STARTS)))]
        content = (start + content)[: 10 if start == b"Adobe" else 65_000]
        extra = struct.pack(">BBH", 255, int(rng.choice([*range(0xE0, 0xF0), 0xFE])), len(content) + 2) + content
        at = 2
    else:
        extra, at = b"EXIF" + struct.pack("<I", len(content)) + content + bytes(len(content) % 2), len(data)
        data = data[:4] + struct.pack("<I", len(data) + len(extra) - 8) + data[8:]
    made = np.asarray(load_photo(data[:at] + extra + data[at:]))
    if not np.array_equal(made, box.right[name]):
        raise Wrong(f"the pixels of {name} changed")
    return made


ODD = [None, True, False, -1, 0, 1, 2, 3, 7, 2.0, 2.5, 1e308, -1e308, float("nan"), float("inf"), 2**53 + 1,
       2**63 - 1, 2**63, 10**400, "", " ", "2", "x" * 20_000, "\ud800", "a\0b", "a\nb", "../..", "<b>", "%s", [],
       [[]], {}, {"a": 1}, [None], ["lua"], ["lua", "lua"], ["\ud800"], b"x", 1j, object(), (), range(3), "embedded",
       "sdxl", "1:1", "16:9", "kl", "tiny", "a lake at night"]  # fmt: skip


def odd(rng: Rng) -> Any:
    return ODD[int(rng.integers(len(ODD)))]


def api_values(rng: Rng, box: Box) -> Any:
    """What is taken can be described, kept as JSON and sent to a browser."""
    fields: dict[str, Any] = {"image": str(box.photo)} if rng.random() < 0.5 else {"prompt": "a lake at night"}
    for name in rng.choice(["image", "latent", *DEFAULTS], int(rng.choice([1, 1, 1, 2, 3]))):
        fields[str(name)] = odd(rng)
    job = resolve(Request(**fields))
    source_of(job)
    records.describe_source(job.request)
    text = json.dumps(to_settings(job.request), ensure_ascii=False, allow_nan=False)
    text.encode()
    if resolve(job.request) != job:
        raise Wrong("what was taken is not taken as it is")
    return job


def links(rng: Rng, box: Box) -> Any:
    query = {str(name): str(odd(rng)) for name in rng.choice([*DEFAULTS, "run", "view"], int(rng.integers(1, 5)))}
    settings = from_query(query)
    prompted = {"prompt": settings.get("prompt") or "a lake"} if "prompt" in settings else {}
    return from_settings({**settings, **prompted}, image="" if prompted else str(box.photo))


def edited(rng: Rng, value: Any) -> Any:
    """A copy of nested lists and dicts with one place that is odd, missing, doubled or of another name."""
    value = json.loads(json.dumps(value))
    places = [(None, None)]

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    if isinstance(value, (dict, list)):
        walk(value)
    parent, key = places[int(rng.integers(len(places)))]
    replacement = json_of(odd(rng))
    if parent is None:
        return replacement
    how = rng.integers(4)
    if how == 0:
        del parent[key]
    elif how == 1 and isinstance(parent, dict):
        parent[str(odd(rng))[:50]] = parent.pop(key)
    else:
        parent[key] = replacement
    return value


def json_of(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)


def run_edits(rng: Rng, box: Box) -> Any:
    """A run that opens can be shown, opened in the form and exported."""
    document = edited(rng, {**box.document, "created": 1_700_000_000})
    if rng.random() < 0.3:
        document = edited(rng, document)
    text = json.dumps(document)
    if rng.random() < 0.1:
        text = flipped(rng, text.encode()).decode("utf-8", "replace")
    (box.run / "run.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    run = read_run(box.run)
    if run is None:
        raise UserError("no run")
    shown = panes(run.document, run.pictures())
    summary(run.document), timing_html(run.document), request_of(run)
    time.gmtime(run.document.get("created", 0))
    for name, _ in export.offers(run):
        download_name(run, name)
        export.make(run, name)
    return shown


def metadata(rng: Rng, box: Box) -> Any:
    """A PNG that says how it was made."""
    content = edited(rng, json.loads(records.png_metadata(box.document, "lua")[records.METADATA_KEY]))
    text = json.dumps(content)
    if rng.random() < 0.15:
        text = flipped(rng, text.encode()).decode("latin-1")
    info = PngImagePlugin.PngInfo()
    info.add_itxt(records.METADATA_KEY, text, zip=bool(rng.random() < 0.3))
    path = box.folder / "made.png"
    path.write_bytes(encoded(Image.fromarray(picture(8, 8)), "PNG", pnginfo=info))
    made = read_png(path)
    return made and (differences(made, box.environment), to_settings(made.request))


def latents(rng: Rng, box: Box) -> Any:
    path = box.folder / "x.safetensors"
    how = rng.random()
    if how < 0.3:
        path.write_bytes(flipped(rng, box.latent_file))
    elif how < 0.4:
        path.write_bytes(box.latent_file[: int(rng.integers(len(box.latent_file)))])
    else:
        length = int.from_bytes(box.latent_file[:8], "little")
        header = edited(rng, json.loads(box.latent_file[8 : 8 + length]))
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + box.latent_file[8 + length :])
    latent = load_latent(path)
    refuse_foreign(latent, "embedded")
    check_size(latent)
    return latent


def checkpoints(rng: Rng, box: Box) -> Any:
    how = rng.random()
    if how < 0.4:
        path = box.folder / "x.pth"
        content = flipped(rng, box.published)
        path.write_bytes(content if rng.random() < 0.7 else box.published[: int(rng.integers(len(box.published)))])
        return load_lua(path)
    folder = box.folder / "edited"
    folder.mkdir(exist_ok=True)
    weights, config = (box.folder / "lua" / "model.safetensors").read_bytes(), box.folder / "lua" / "config.json"
    given = json.loads(config.read_text())
    if how < 0.7:
        given = edited(rng, given)
    else:
        weights = flipped(rng, weights)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(given), encoding="utf-8")
    network = load_lua(folder)
    with torch.inference_mode():
        network(torch.zeros(1, network.in_chans, 3, 5), network.scales[0])
    return network


KINDS: dict[str, tuple[Case, int]] = {
    "cuts": (cuts, 450),
    "flips": (flips, 650),
    "side data": (side_data, 350),
    "api values": (api_values, 350),
    "links": (links, 150),
    "run edits": (run_edits, 450),
    "metadata": (metadata, 200),
    "latents": (latents, 250),
    "checkpoints": (checkpoints, 150),
}


def run_one(kind: str, seed: int, number: int, box: Box) -> tuple[str, str]:
    """("opened", "refused" or "wrong", what went wrong)."""
    rng = np.random.default_rng([zlib.crc32(kind.encode()), seed, number])
    started = time.process_time()
    try:
        KINDS[kind][0](rng, box)
        outcome, told = "opened", ""
    except UserError as error:
        outcome, told = "refused", ""
        if "\n" in str(error) or not str(error):
            outcome, told = "wrong", f"the message is not one line: {str(error)[:200]!r}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        outcome, told = "wrong", f"{type(error).__name__}: {str(error)[:200]} ({place})"
    if (seconds := time.process_time() - started) > LIMIT:
        outcome, told = "wrong", f"{seconds:.0f} s of a core"
    return outcome, told


def work(cases: list[tuple[str, int]], seed: int, answers: Any) -> None:
    """In a process of its own, which may die."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        box = Box(Path(folder))
        for kind, number in cases:
            answers.send((kind, number, None, ""))
            answers.send((kind, number, *run_one(kind, seed, number, box)))


def campaign(cases: list[tuple[str, int]], seed: int, tell: Callable[[str], None] = print) -> dict[str, Counter]:
    """Run `cases`; how many of each kind were opened, refused and wrong."""
    found: dict[str, Counter] = defaultdict(Counter)
    context = multiprocessing.get_context("spawn")
    while cases:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(cases, seed, there), daemon=True)
        process.start()
        there.close()
        running, done = None, 0
        try:
            while here.poll(PATIENCE):
                kind, number, outcome, told = here.recv()
                running = (kind, number) if outcome is None else None
                if outcome:
                    done += 1
                    found[kind][outcome] += 1
                    if outcome == "wrong":
                        tell(f"wrong: {kind} {number} (seed {seed}): {told}")
        except EOFError:
            pass
        process.kill()
        process.join()
        if running is None and done < len(cases):
            raise SystemExit(f"the process ended between two cases, after {done}")
        if running:
            tell(f"wrong: {running[0]} {running[1]} (seed {seed}): the process died or took more than {PATIENCE:.0f} s")
            found[running[0]]["wrong"] += 1
            done += 1
        cases = cases[done:]
    return found


def table(found: dict[str, Counter]) -> str:
    outcomes = ("opened", "refused", "wrong")
    rows = [(kind, sum(counts.values()), *(counts[key] for key in outcomes)) for kind, counts in found.items()]
    rows.append(("all", *(sum(row[i] for row in rows) for i in range(1, 5))))
    return records.markdown_table([["kind", "tried", *outcomes], *([str(x) for x in row] for row in rows)])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each kind")
    parser.add_argument("--count", type=int, help="cases of each kind (default: as many as make 3,000 in all)")
    args = parser.parse_args(argv)
    cases = [
        (kind, number)
        for kind in args.kinds
        for number in range(args.first, args.first + (args.count or KINDS[kind][1]))
    ]
    started = time.monotonic()
    found = campaign(cases, args.seed)
    print(f"{table(found)}\n\n{time.monotonic() - started:.0f} s")
    return int(any(counts["wrong"] for counts in found.values()))


if __name__ == "__main__":
    sys.exit(main())
