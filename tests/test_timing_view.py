"""What stands beside the pictures: claims, bars and the table, drawn from the document of a comparison."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lua_demo.report import claims
from lua_demo.report.timing import timing_html


def stage(name: str, seconds: float, cold: bool = False, shared: bool = False) -> dict[str, Any]:
    return {"name": name, "seconds": seconds, "peak_bytes": 3 << 20, "cold": cold, "shared": shared}


def row(*stages: dict[str, Any], file: str | None = "x.webp", **more: Any) -> dict[str, Any]:
    return {
        "label": "Label", "file": file, "width": 8, "height": 6, "stages": list(stages), "notes": [], "skipped": None,
        "total_seconds": sum(entry["seconds"] for entry in stages), "peak_bytes": 3 << 20 if stages else None,
        "metrics": None, **more,
    }  # fmt: skip


def document(kind: str = "photo", **methods: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": {"kind": kind}, "settings": {"space": "embedded", "methods": list(methods)}, "methods": methods,
        "device": "cpu (Toy)", "dtype": "float32", "weights": {},
    }  # fmt: skip


ENCODE = stage("encode", 0.04, shared=True)
LUA = row(ENCODE, stage("upscale", 0.2), stage("decode", 0.3))
SWINIR = row(ENCODE, stage("decode", 0.1), stage("upscale", 16.66))
COLD_LUA = row(ENCODE, stage("upscale", 0.6, cold=True), stage("decode", 0.3))
COLD_SWINIR = row(ENCODE, stage("decode", 0.1), stage("upscale", 16.66, cold=True))


def test_a_claim_names_decoder_device_dtype_and_warmth():
    claim = ("LUA path 0.54 s, SwinIR path 16.8 s: 31× faster", "embedded decoder, cpu (Toy), fp32, warm")
    assert claims.speed(document(lua=LUA, swinir=SWINIR)) == [claim]
    assert f"<b>{claim[0]}</b> <span>{claim[1]}</span>" in timing_html(document(lua=LUA, swinir=SWINIR))
    ((_, where),) = claims.speed(document(lua=COLD_LUA, swinir=COLD_SWINIR))
    assert where.endswith("fp32, first run at this size")


def test_shared_stages_of_a_first_run_are_told():
    cold = row(stage("encode", 0.04, cold=True, shared=True), *LUA["stages"][1:])
    ((_, where),) = claims.speed(document(lua=cold, swinir=SWINIR))
    assert where.endswith("warm, shared stages as first timed")


@pytest.mark.parametrize(("lua", "swinir", "cold"), [(COLD_LUA, SWINIR, "LUA path"), (LUA, COLD_SWINIR, "SwinIR path")])
def test_no_ratio_of_a_first_run_and_a_later_one(lua, swinir, cold):
    ((claim, where),) = claims.speed(document(lua=lua, swinir=swinir))
    assert claim.startswith("No ratio") and f"only the {cold} was a first run" in claim and where == ""
    assert not re.search(r"faster|slower", timing_html(document(lua=lua, swinir=swinir)))


@pytest.mark.parametrize(
    "methods",
    [
        {"lua": LUA},
        {"swinir": SWINIR},
        {"lua": LUA, "swinir": row(file=None, skipped="no")},
        {"lua": LUA, "native": row()},
    ],
)
def test_no_claim_where_a_side_was_not_timed(methods):
    assert claims.speed(document(**methods)) == []


def test_native_that_was_sampled_is_compared_and_slower_is_said():
    native = row(stage("generate", 0.2), stage("decode", 0.07))
    ((claim, _),) = claims.speed(document("prompt", lua=LUA, native=native))
    assert claim == "LUA path 0.54 s, native path 0.27 s: 2× slower"
    same = row(stage("generate", 0.53))
    assert claims.speed(document("prompt", lua=LUA, native=same))[0][0].endswith(": equally fast")


def test_a_photo_has_no_time_and_says_so():
    html = timing_html(document(lua=LUA, native=row()))
    assert html.count("not timed: it is the photo itself") == 1


def test_cold_stages_are_marked_and_explained_only_where_there_are_some():
    cold = timing_html(document(lua=COLD_LUA))
    assert cold.count('class="seg upscale cold"') == 1 and "includes one-time set-up" in cold
    assert "one-time set-up" not in timing_html(document(lua=LUA))


def measured(psnr: float | None, shift: float | None) -> dict[str, Any]:
    return row(stage("decode", 0.1), metrics={"psnr": psnr, "colour_shift": shift})


def test_the_best_value_knows_its_direction_and_ignores_the_ceiling():
    methods = {"lua": measured(31, 0.4), "swinir": measured(30, 0.2), "roundtrip": measured(40, 0.1)}
    assert (claims.best(methods, "psnr"), claims.best(methods, "colour_shift")) == (31, 0.2)
    html = timing_html(document(**methods))
    assert re.findall(r"<b>([\d.]+)</b><small>best", html) == ["31.00", "0.20"]
    assert claims.best({"lua": measured(31, None), "swinir": measured(None, 1)}, "psnr") is None


def test_error_maps_are_offered_for_what_was_measured_beside_a_viewer():
    methods = {"lua": measured(31, 0.4), "base": row(stage("decode", 0.1)), "native": row()}
    assert re.findall(r'data-error-map="(\w+)"', timing_html(document(**methods))) == ["lua"]
    assert "data-error-map" not in timing_html(document(**methods), maps=False)
    del methods["native"]
    assert "data-error-map" not in timing_html(document(**methods))


@pytest.mark.parametrize(
    ("kind", "words"), [("photo", "fewer pixels"), ("latent", "a latent has no"), ("prompt", "a prompt has no")]
)
def test_why_there_are_no_metrics(kind, words):
    assert words in timing_html(document(kind, lua=LUA))
    assert words not in timing_html(document(kind, lua=measured(31, 0.4)))
    assert claims.no_metrics(document(kind)) == "" and claims.no_metrics(document("photo", native=row())) == ""
