"""What stands beside the pictures: claims, bars and the table, drawn from the document of a comparison."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from lua_demo.catalog.methods import SWINIR_NOTE
from lua_demo.report import claims
from lua_demo.report.measures import DISAGREE, METRICS
from lua_demo.report.scatter import Dot, dots_of, scatter
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


def quality(path: dict[str, Any], psnr: float, **more: Any) -> dict[str, Any]:
    return {**path, "metrics": {"psnr": psnr}, **more}


CNN = row(ENCODE, stage("decode", 0.1), stage("upscale", 0.9), label="CNN (pixels)")


def test_a_claim_gives_time_and_quality_against_the_same_trunk_and_the_best_of_pixels():
    rows = {
        "lua": quality(LUA, 29.02), "swinir": quality(SWINIR, 28.08, label="SwinIR (pixels)"), "cnn": quality(CNN, 29.4)
    }  # fmt: skip
    claim, where = claims.headline(document(**rows))
    assert claim == "LUA path 0.54 s; SwinIR, same trunk, 16.8 s, −0.9 dB; best of pixels: CNN 1.04 s, +0.4 dB"
    assert where == "embedded decoder, cpu (Toy), fp32, warm, dB: PSNR minus that of LUA"
    html = timing_html(document(**rows))
    assert claim in html and where in html
    rows["swinir"] = quality(rows["swinir"], 30.0)
    claim, _ = claims.headline(document(**rows))
    assert claim == "LUA path 0.54 s; SwinIR, same trunk, best of pixels, 16.8 s, +1.0 dB"


def test_a_claim_beside_our_swinir_says_that_it_is_no_verdict():
    noted = {**SWINIR, "notes": [SWINIR_NOTE]}
    assert "no verdict on SwinIR" in claims.headline(document(lua=LUA, swinir=noted))[1]
    assert "verdict" not in claims.headline(document(lua=LUA, swinir=SWINIR))[1], "another one's weights"
    assert "verdict" not in claims.headline(document(lua=LUA, cnn=CNN))[1]


def test_without_an_original_no_pixel_upscaler_is_called_the_best():
    """Neither the slowest nor the fastest stands for all: each is named."""
    rows = {"lua": LUA, "swinir": {**SWINIR, "label": "SwinIR (pixels)"}, "cnn": CNN, "dat": {**SWINIR, "label": "DAT"}}
    claim, where = claims.headline(document("prompt", **rows))
    assert claim == "LUA path 0.54 s; SwinIR, same trunk, 16.8 s; CNN 1.04 s; DAT 16.8 s"
    assert where.endswith("fp32, warm")


def test_a_claim_says_whether_runs_were_the_first():
    cold = row(stage("encode", 0.04, cold=True, shared=True), *LUA["stages"][1:])
    assert claims.headline(document(lua=cold, swinir=SWINIR))[1].endswith("warm, shared stages as first timed")
    assert claims.headline(document(lua=COLD_LUA, swinir=COLD_SWINIR))[1].endswith("fp32, first run at this size")
    claim, where = claims.headline(document(lua=COLD_LUA, swinir=SWINIR))
    assert claim.startswith("LUA path 0.94 s (first run); Label, same trunk, 16.8 s") and claim.count("first run") == 1
    assert "one-time set-up: compare once more" in where


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
    assert claims.headline(document(**methods)) is None


def test_native_that_was_sampled_is_named():
    native = row(stage("generate", 0.2), stage("decode", 0.07))
    claim, _ = claims.headline(document("prompt", lua=LUA, native=native))
    assert claim == "LUA path 0.54 s; native path 0.27 s"


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


def test_the_plot_has_a_dot_per_method_that_competes():
    base = row(ENCODE, stage("decode", 0.1), label="Base")
    rows = {
        "lua": quality(LUA, 29.02), "cnn": quality(CNN, 29.4), "base": quality(base, 27.8), "bicubic": LUA,
        "roundtrip": quality(LUA, 40), "native": row(),
    }  # fmt: skip
    dots = dots_of(document(**rows))
    assert [(dot.label, dot.kind, dot.psnr) for dot in dots] == [
        ("Label", "latent", 29.02), ("CNN (pixels)", "pixels", 29.4), ("Base", "other", 27.8)
    ]  # fmt: skip
    html = timing_html(document(**rows))
    assert html.count("<title>") == 3 and 'class="scatter"' in html
    assert "<svg" not in timing_html(document(lua=quality(LUA, 29.02), native=row()))


def test_better_is_higher_and_slower_is_further_right():
    dots = [Dot("slow & good", 12.0, 30.0, "pixels"), Dot("fast & bad", 0.5, 28.0, "latent")]
    root = ElementTree.fromstring(str(scatter({"x2": dots, "alone": dots[:1]}, standalone=True)))
    tag = "{http://www.w3.org/2000/svg}"
    titles = [group.find(f"{tag}title").text for group in root.iter(f"{tag}g") if group.find(f"{tag}title") is not None]
    assert titles == ["slow & good: 12 s, 30.00 dB", "fast & bad: 0.5 s, 28.00 dB"]
    square = next(shape for shape in root.iter(f"{tag}rect") if float(shape.get("width")) > 8)
    circle = [shape for shape in root.iter(f"{tag}circle")][-1]
    assert float(square.get("x")) > float(circle.get("cx")) and float(square.get("y")) < float(circle.get("cy"))
    assert "alone" not in ElementTree.tostring(root, "unicode")


def test_what_lies_far_below_does_not_squeeze_the_others():
    dots = [Dot("a", 0.3, 36.0), Dot("b", 1.0, 36.4), Dot("c", 5.0, 35.5), Dot("far", 0.2, 28.2)]
    svg = str(scatter({"": dots}, standalone=True))
    assert "far ↓ 28.2" in svg and ">36.0<" in svg and ">35.6<" in svg and ">28" not in svg.replace("↓ 28.2", "")


def test_labels_do_not_cover_each_other():
    """Methods whose times and qualities nearly agree."""
    dots = [Dot(f"Method {number}", 1.0 + 0.02 * number, 29.0 + 0.01 * number) for number in range(5)]
    root = ElementTree.fromstring(str(scatter({"": dots}, standalone=True)))
    labels = [text for text in root.iter("{http://www.w3.org/2000/svg}text") if (text.text or "").startswith("Method")]
    spots = [(float(label.get("x")), float(label.get("y")), label.get("text-anchor")) for label in labels]
    assert len(set(spots)) == 5
    assert all(abs(a[1] - b[1]) >= 9 or a[2] != b[2] for n, a in enumerate(spots) for b in spots[:n])


def test_each_number_is_explained_once():
    html = timing_html(document(lua=measured(31, 0.4)))
    assert METRICS["psnr"].means in html and METRICS["flip"].means not in html
    assert DISAGREE in html and "pip install torchvision" in html
    assert "pip install torchvision" not in timing_html(document(lua={**LUA, "metrics": {"lpips": 0.1}}))
