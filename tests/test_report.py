"""Results as JSON and Markdown."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from lua_demo.report import records
from lua_demo.schema import Environment, Request, Result, Span

ENVIRONMENT = Environment("cpu (toy)", "float32", {"lua": "embedded/lua (abc)"}, {"torch": "2.13"})
IMAGE = np.zeros((20, 30, 3), np.uint8)
RESULTS = [
    Result("base", "Base", IMAGE, (Span("encode", 0.25, 5 << 20, cold=True), Span("decode", 0.5, 7 << 20))),
    Result("lua", "LUA", IMAGE, (Span("encode", 0.25, 5 << 20, shared=True),), {"psnr": 30.126, "ms_ssim": None}),
    Result("native", "Native", None, skipped="the photo is 6 x 4", notes=("upside down",)),
]


def test_rows():
    base, lua, native = records.rows(RESULTS)
    assert (base["file"], base["width"], base["height"]) == ("base.png", 30, 20)
    assert base["total_seconds"] == 0.75 and base["peak_bytes"] == 7 << 20 and base["metrics"] is None
    assert base["stages"][0] == {
        "name": "encode",
        "seconds": 0.25,
        "peak_bytes": 5 << 20,
        "cold": True,
        "shared": False,
    }
    assert lua["metrics"] == {"psnr": 30.126, "ms_ssim": None}
    assert native["file"] is None and native["width"] is None and native["skipped"] == "the photo is 6 x 4"


def test_to_json(tmp_path):
    source = tmp_path / "a.png"
    source.write_bytes(b"123")
    request = Request(str(source), 4, 256, ("base", "lua", "native"), seed=7)
    document = records.to_json(request, RESULTS, ENVIRONMENT)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    digest = hashlib.sha256(b"123").hexdigest()
    assert document["source"] == {"kind": "photo", "file": "a.png", "sha256": digest, "bytes": 3}
    assert document["settings"] == {
        "scale": 4, "size": 256, "seed": 7, "base": "scene", "decoder": "", "methods": ["base", "lua", "native"],
    }  # fmt: skip
    assert (document["device"], document["dtype"]) == ("cpu (toy)", "float32")
    assert document["weights"] == {"lua": "embedded/lua (abc)"} and document["versions"] == {"torch": "2.13"}
    assert list(document["methods"]) == ["base", "lua", "native"]
    inside = json.loads(records.png_metadata(document, "lua")["lua_demo"])
    assert inside["method"] == "lua" and inside["settings"]["scale"] == 4 and inside["metrics"]["psnr"] == 30.126
    assert "methods" not in inside


def test_captions(tmp_path):
    source = tmp_path / "a.png"
    source.write_bytes(b"123")
    document = records.to_json(Request(str(source), methods=("native", "swinir", "base")), RESULTS[::2], ENVIRONMENT)
    assert records.captions(document, "later") == [
        ("native", "Native", "Left out: the photo is 6 x 4"),
        ("swinir", "SwinIR (pixels)", "later"),
        ("base", "Base", "30 × 20 px · 0.75 s"),
    ]


def test_to_markdown():
    text = records.to_markdown(RESULTS, ENVIRONMENT)
    head, _, base, lua = text.splitlines()[:4]
    assert [cell.strip() for cell in head.strip("|").split("|")][-2:] == ["PSNR dB", "MS-SSIM"]
    assert "encode 0.250 (first run), decode 0.500" in base and "0.750" in base and "30 x 20" in base
    assert "encode 0.250*" in lua and "30.13" in lua
    assert "Native: left out: the photo is 6 x 4" in text and "Native: upside down" in text
    assert "cpu (toy), float32; weights: embedded/lua (abc)" in text
