"""What a PNG says of itself, from friend or foe."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from lua_demo.catalog.methods import methods_of
from lua_demo.pictures import images
from lua_demo.report import records
from lua_demo.runs import provenance
from lua_demo.runs.provenance import read_png
from lua_demo.schema import Environment, Request, Result, UserError

ENVIRONMENT = Environment("cpu (toy)", "float32", {"lua": "embedded/lua (abc)"}, {"torch": "2.13"})


@pytest.fixture
def content(photo) -> dict:
    result = Result("lua", "LUA", picture(80, 60))
    request = Request(str(photo(40, 30)), 4, 40, ("lua", "native"), seed=5)
    return json.loads(records.png_metadata(records.to_json(request, [result], ENVIRONMENT), "lua")["lua_demo"])


@pytest.fixture
def png(tmp_path):
    """png(text) -> a PNG that carries it."""

    def write(text: str) -> Path:
        images.save_png(picture(8, 6), tmp_path / "x.png", {"lua_demo": text})
        return tmp_path / "x.png"

    return write


def test_it_says_what_was_asked_for(content, png, photo):
    made = read_png(png(json.dumps(content)))
    assert made.request == Request("", 4, 40, ("lua", "native"), seed=5) and made.method == "lua"
    assert (made.kind, made.file, made.bytes) == ("photo", "photo_40x30.png", photo(40, 30).stat().st_size)
    assert made.made_with == {
        "device": "cpu (toy)", "dtype": "float32", "torch": "2.13", "weights of lua": "embedded/lua (abc)",
    }  # fmt: skip
    assert provenance.differences(made, ENVIRONMENT) == []
    elsewhere = Environment("cpu (toy)", "bfloat16", {"lua": "embedded/lua (def)"})
    assert provenance.differences(made, elsewhere) == [
        "dtype: made with float32, here bfloat16",
        "torch: made with 2.13, here none",
        "weights of lua: made with embedded/lua (abc), here embedded/lua (def)",
    ]


def test_other_pictures_say_nothing(tmp_path, photo, content):
    assert read_png(photo(40, 30)) is None
    Image.fromarray(picture(8, 6)).save(tmp_path / "a.jpg", comment=json.dumps(content))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    assert [read_png(tmp_path / name) for name in ("a.jpg", "empty.png", "text.png")] == [None] * 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '"x"',
        "{}",
        "[" * 100_000,
        '{"source": {}, "settings": {}}',
        "NaN",
        "\x00",
        "1" * 5000,
    ],
)
def test_broken_json(png, text):
    with pytest.raises(UserError, match=r"metadata of x\.png is broken"):
        read_png(png(text))


def paths(value, path=()):
    """The keys to every value in nested dicts."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield (*path, key)
            yield from paths(below, (*path, key))


READ = {("source",), ("settings",), ("method",), ("device",), ("dtype",), ("weights",), ("versions",)}
READ |= {("source", name) for name in ("kind", "file", "sha256", "bytes")} | {("weights", "lua"), ("versions", "torch")}


@pytest.mark.parametrize("wrong", [None, [], {}, 3.5, "x", ["x"], {"x": {}}, float("nan"), 10**30, True, "x" * 100_000])
def test_wrong_types_anywhere(content, png, wrong):
    """Whatever a value is replaced by, the answer is a checked provenance or one line."""
    assert set(paths(content)) >= READ
    for path in paths(content):
        changed = json.loads(json.dumps(content))
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = wrong
        try:
            made = read_png(png(json.dumps(changed)))
        except UserError as error:
            assert len(str(error)) < 400 and "\n" not in str(error)
        else:
            assert made.method in methods_of(made.kind) and made.request.scale in (2, 4)
            assert all(isinstance(text, str) for text in [made.kind, made.file, made.sha256, *made.made_with.values()])
            assert isinstance(made.bytes, int) and "/" not in made.file and len(made.file) <= 200


@pytest.mark.parametrize("path", sorted(READ))
def test_what_is_missing_is_refused(content, png, path):
    if path in {("weights", "lua"), ("versions", "torch")}:
        return
    place = content
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    with pytest.raises(UserError, match="broken"):
        read_png(png(json.dumps(content)))


def test_settings_are_checked_as_everywhere(content, png):
    for settings, words in (({"scale": 3}, "scale 3 does not exist"), ({"methods": ["magic"]}, "'magic'")):
        content["settings"] = settings
        with pytest.raises(UserError, match=words):
            read_png(png(json.dumps(content)))
    content["settings"], content["method"] = {}, "magic"
    with pytest.raises(UserError, match="a method that is not known here"):
        read_png(png(json.dumps(content)))


def test_a_prompt_comes_back_with_its_settings(png):
    request = Request(prompt="a lake at night", base="embedded", seed=5, steps=7, methods=("lua", "native"))
    document = records.to_json(request, [Result("native", "N", picture(80, 60))], ENVIRONMENT)
    text = records.png_metadata(document, "native")["lua_demo"]
    made = read_png(png(text))
    assert made.request == request and (made.kind, made.file, made.method) == ("prompt", "", "native")
    for wrong in ({"kind": "photo"}, {"kind": "magic"}):
        content = json.loads(text)
        content["source"] |= wrong
        with pytest.raises(UserError, match="broken"):
            read_png(png(json.dumps(content)))


def test_a_huge_text_is_refused(content, png):
    content["notes"] = ["x" * provenance.MAX_CHARACTERS]
    with pytest.raises(UserError, match="not what lua_demo writes"):
        read_png(png(json.dumps(content)))


def test_a_compressed_bomb_is_no_provenance(png, tmp_path):
    """200 MB of text in 200 kB: Pillow stops unpacking, and the file is an ordinary picture to us."""
    whole = png("{}").read_bytes()
    data = b"lua_demo\0\0" + zlib.compress(b"[" * 200_000_000, 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    (tmp_path / "bomb.png").write_bytes(whole[:33] + chunk + whole[33:])
    assert read_png(tmp_path / "bomb.png") is None


def test_random_damage(content, png):
    """No byte that is changed makes it raise anything but a UserError."""
    good = bytearray(png(json.dumps(content)).read_bytes())
    random = np.random.default_rng(0)
    path, answers = png(json.dumps(content)), set()
    for _ in range(300):
        bad = good.copy()
        for at in random.integers(0, len(bad), 3):
            bad[at] = random.integers(256)
        path.write_bytes(bad)
        try:
            answers.add(type(read_png(path)))
        except UserError:
            answers.add(UserError)
    assert type(None) in answers
