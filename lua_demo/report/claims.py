"""What a finished comparison may say about speed and quality: plain text, or why it says nothing. No HTML."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.methods import METHODS, SWINIR_NOTE, methods_of
from lua_demo.catalog.spaces import SPACES
from lua_demo.report.document import Document, Row
from lua_demo.report.measures import METRICS
from lua_demo.request.settings import Settings
from lua_demo.schema import Request

SUBJECT, SAME_TRUNK, NATIVE = "lua", "swinir", "native"
"""What the claims are about; the pixel upscaler of the same architecture; what is sampled at the target size."""

DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
TRUTH = next(key for key, method in METHODS.items() if method.is_truth)
NO_TRUTH = {
    "photo": "the photo has fewer pixels than the result, so there is no original to measure against",
    "latent": "a latent has no original to measure against",
    "prompt": "a prompt has no original to measure against",
}


def truth(document: Document) -> str:
    """The method that the others are measured against: the photo itself, or a scene that was rendered large. Empty
    where there is none: what was sampled large from a prompt is one more sample, not an original.
    """
    row = document["methods"].get(TRUTH)
    method = methods_of(document["source"]["kind"], document["settings"].get("base", "")).get(TRUTH)
    return TRUTH if method and method.is_truth and row and row["file"] is not None else ""


def headline(document: Document) -> tuple[str, str] | None:
    """(claim, where it holds): time and quality of LUA's path, of the pixel upscaler of the same architecture, and of
    the best pixel upscaler on show, so that no claim rests on a slow rival; of native, where that was sampled.

    The best is the one with the highest PSNR; without an original every pixel upscaler is named. None where LUA, or all
    others, were not timed. Where some were first runs, which include one-time set-up, the claim says which.
    """
    timed = {key: row for key, row in document["methods"].items() if _timed(row)}
    pixels = {key: row for key, row in timed.items() if is_pixel_upscaler(row)}
    if SUBJECT not in timed or not (pixels or NATIVE in timed):
        return None
    ours = timed[SUBJECT]
    shown = {key: row for key, row in timed.items() if key in (SUBJECT, SAME_TRUNK, NATIVE) or key in pixels}
    some_cold = len({first_run(row) for row in shown.values()}) > 1
    told = functools.partial(_told, ours=ours, mark=some_cold)
    parts = [f"LUA path {told(ours)}"]
    best = _best_of(pixels)
    named = [best] if best else [key for key in pixels if key != SAME_TRUNK]
    if SAME_TRUNK in pixels:
        also = ", best of pixels" if best == SAME_TRUNK and len(pixels) > 1 else ""
        parts.append(f"{_name(pixels[SAME_TRUNK])}, same trunk{also}, {told(pixels[SAME_TRUNK])}")
    for key in named:
        if key != SAME_TRUNK:
            before = "best of pixels: " if best and len(pixels) > 1 else ""
            parts.append(f"{before}{_name(pixels[key])} {told(pixels[key])}")
    if NATIVE in timed:
        parts.append(f"native path {told(timed[NATIVE])}")
    return "; ".join(parts), ", ".join(_conditions(document, list(shown.values()), some_cold))


def _timed(row: Row) -> bool:
    """Whether a stage of this method alone was timed; of a rendered scene only stages that all methods share are."""
    return row["total_seconds"] > 0 and not all(stage["shared"] for stage in row["stages"])


def is_pixel_upscaler(row: Row) -> bool:
    """Whether the base was decoded first and then enlarged. By its stages, so of a stored comparison, too."""
    return enlarges_pixels([stage["name"] for stage in row["stages"]])


def enlarges_pixels(stages: Sequence[str]) -> bool:
    """As `is_pixel_upscaler`, by the names of the stages in order."""
    return "decode" in stages and "upscale" in stages[stages.index("decode") :]


def _best_of(pixels: Mapping[str, Row]) -> str | None:
    """The pixel upscaler with the best PSNR; None where not all were measured."""
    values = {key: (row["metrics"] or {}).get("psnr") for key, row in pixels.items()}
    known = {key: value for key, value in values.items() if value is not None}
    return None if not known or len(known) < len(values) else max(known, key=known.__getitem__)


def _told(row: Row, ours: Row, mark: bool) -> str:
    """ "12.4 s, -0.9 dB": seconds, and PSNR against LUA's; "first run" where others were not."""
    words = [seconds(row["total_seconds"])]
    one, other = ((entry["metrics"] or {}).get("psnr") for entry in (row, ours))
    if row is not ours and one is not None and other is not None:
        words.append(f"{one - other:+.1f} dB".replace("-", "−"))
    return ", ".join(words) + (" (first run)" if mark and first_run(row) else "")


def _name(row: Row) -> str:
    return row["label"].removesuffix(" (pixels)")


def _conditions(document: Document, rows: Sequence[Row], some_cold: bool) -> list[str]:
    conditions = [
        decoder(document["settings"]),
        document["device"],
        DTYPES.get(document["dtype"], document["dtype"]),
    ]
    if some_cold:
        conditions.append("a first run at this size includes one-time set-up: compare once more")
    else:
        conditions.append("first run at this size" if first_run(rows[0]) else "warm")
        if not first_run(rows[0]) and any(stage["cold"] for row in rows for stage in row["stages"]):
            conditions.append("shared stages as first timed")
    if sum((row["metrics"] or {}).get("psnr") is not None for row in rows) > 1:
        conditions.append("dB: PSNR minus that of LUA")
    if any(SWINIR_NOTE in row["notes"] for row in rows):
        conditions.append("no verdict on SwinIR, whose own trunk was trained for minutes")
    return conditions


def decoder(settings: Settings) -> str:
    """What decoded, in words: "embedded decoder", "tiny decoder"."""
    base = BASES.get(settings.get("base", Request.base))
    if base is None:
        return "unknown decoder"
    known = SPACES[base.space].decoders
    return known.get(settings.get("decoder") or next(iter(known), ""), f"{base.space} decoder")


def first_run(row: Row) -> bool:
    """Whether a stage of the method's own includes one-time set-up. What is shared weighs the same on both sides."""
    own = [stage for stage in row["stages"] if not stage["shared"]]
    return any(stage["cold"] for stage in own)


def seconds(value: float) -> str:
    """Three digits where there are three: "0.54 s", "16.8 s", "102 s"."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} s"


def best(rows: Mapping[str, Row], name: str) -> float | None:
    """The best value of a metric among the methods that compete; None where fewer than two do.

    What is made from the original (the autoencoder's ceiling) does not compete.
    """
    values = [
        value
        for key, row in rows.items()
        if not (key in METHODS and METHODS[key].needs_truth) and (value := (row["metrics"] or {}).get(name)) is not None
    ]
    better = METRICS[name].better
    return better(values) if better and len(values) > 1 else None


def no_metrics(document: Document) -> str:
    """Why nothing is measured, once a method has run; empty where something is or still may be."""
    rows, kind = document["methods"], document["source"]["kind"]
    ran = {key for key, row in rows.items() if row["file"] is not None}
    known = methods_of(kind, document["settings"].get("base", ""))
    may_come = kind != "latent" and any(key in ran and known[key].is_truth for key in known)
    if not ran or may_come or any(row["metrics"] for row in rows.values()):
        return ""
    return f"No measure of quality: {NO_TRUTH.get(kind, NO_TRUTH['photo'])}."
