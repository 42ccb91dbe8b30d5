"""What a finished comparison may say about speed and quality: plain text, or why it says nothing. No HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.methods import METHODS
from lua_demo.catalog.spaces import SPACES
from lua_demo.schema import Request

Row = Mapping[str, Any]

SUBJECT = "lua"
PATHS = {"lua": "LUA path", "swinir": "SwinIR path", "native": "native path"}
DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
TRUTH = next(key for key, method in METHODS.items() if method.is_truth)
BEST = {"psnr": max, "ssim": max, "ms_ssim": max, "vif": max, "colour_shift": min, "colour_drift": min}
NO_TRUTH = {
    "photo": "the photo has fewer pixels than the result, so there is no original to measure against",
    "latent": "a latent has no original to measure against",
    "prompt": "a prompt has no original to measure against",
}


def speed(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(claim, where it holds) of LUA against SwinIR and against native, for what was timed on both sides.

    A ratio of a first run at a size, which includes one-time set-up, to a later one would say nothing; instead of it
    there is a line that says so, and no condition.
    """
    rows = document["methods"]
    return [
        _ratio(document, reference)
        for reference in PATHS
        if reference != SUBJECT and all(key in rows and rows[key]["total_seconds"] > 0 for key in (SUBJECT, reference))
    ]


def _ratio(document: Mapping[str, Any], reference: str) -> tuple[str, str]:
    ours, theirs = document["methods"][SUBJECT], document["methods"][reference]
    name, other = PATHS[SUBJECT], PATHS[reference]
    if first_run(ours) != first_run(theirs):
        cold = name if first_run(ours) else other
        return f"No ratio of {name} and {other}: only the {cold} was a first run at this size. Compare once more.", ""
    first, second = ours["total_seconds"], theirs["total_seconds"]
    factor = f"{max(first, second) / min(first, second):.2g}"
    words = "equally fast" if factor == "1" else f"{float(factor):g}× {'faster' if first < second else 'slower'}"
    conditions = [
        decoder(document["settings"]),
        document["device"],
        DTYPES.get(document["dtype"], document["dtype"]),
        "first run at this size" if first_run(ours) else "warm",
    ]
    if not first_run(ours) and any(stage["cold"] for stage in (*ours["stages"], *theirs["stages"])):
        conditions.append("shared stages as first timed")
    return f"{name} {seconds(first)}, {other} {seconds(second)}: {words}", ", ".join(conditions)


def decoder(settings: Mapping[str, Any]) -> str:
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
    return BEST[name](values) if name in BEST and len(values) > 1 else None


def no_metrics(document: Mapping[str, Any]) -> str:
    """Why nothing is measured, once a method has run; empty where something is or still may be."""
    rows, kind = document["methods"], document["source"]["kind"]
    ran = {key for key, row in rows.items() if row["file"] is not None}
    may_come = kind == "photo" and TRUTH in ran
    if not ran or may_come or any(row["metrics"] for row in rows.values()):
        return ""
    return f"No PSNR, SSIM or colour shift: {NO_TRUTH.get(kind, NO_TRUTH['photo'])}."
