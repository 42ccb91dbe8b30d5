"""run.json and results.json that somebody edited: a run opens and everything of it works, or it is none."""

from __future__ import annotations

import json

import pytest
from campaign import Box
from PIL import ImageDraw

from lua_demo.runs import export
from lua_demo.runs.run import read_run


@pytest.fixture(scope="module")
def box(tmp_path_factory) -> Box:
    return Box(tmp_path_factory.mktemp("box"))


def opened(box, change):
    document = json.loads(json.dumps({**box.document, "created": 1_700_000_000}))
    change(document)
    (box.run / "run.json").write_text(json.dumps(document))
    return read_run(box.run)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["settings"].pop("scale"),
        lambda d: d["settings"].update(scale="2"),
        lambda d: d["settings"].update(base={"a": 1}),
        lambda d: d["settings"].update(methods=["base"]),
        lambda d: d["settings"].update(methods="base"),
        lambda d: d["methods"].update({"other": d["methods"]["lua"]}),
        lambda d: d["methods"]["lua"]["stages"][0].pop("shared"),
        lambda d: d["methods"]["lua"]["stages"][0].update(more=1),
        lambda d: d["methods"]["lua"]["stages"][0].update(seconds=10**400),
        lambda d: d["methods"]["lua"].update(total_seconds=float("nan")),
        lambda d: d["methods"]["lua"].update(label="\ud800"),
        lambda d: d["methods"]["lua"].update(label="x" * 20_000),
        lambda d: d["methods"]["lua"].update(width=10**20),
        lambda d: d.update(created=10**20),
        lambda d: d.update(created=-5),
        lambda d: d.update(created="now"),
        lambda d: d["source"].update(kind="film"),
    ],
)
def test_what_readers_cannot_use_is_no_run(change, box):
    """Found by the campaign."""
    assert opened(box, lambda document: None) is not None
    assert opened(box, change) is None


def test_a_long_line_is_not_measured_letter_by_letter(box, monkeypatch):
    run = opened(box, lambda d: d["methods"]["lua"].update(label="a long label " * 150))
    measured, original = [], ImageDraw.ImageDraw.textlength

    def counting(pen, text, *rest):
        measured.append(text)
        return original(pen, text, *rest)

    monkeypatch.setattr(ImageDraw.ImageDraw, "textlength", counting)
    assert export.strip(run)[:4] == b"\x89PNG"
    assert len(measured) < 100


def test_a_label_of_two_lines_is_written_in_one(box):
    run = opened(box, lambda d: d["methods"]["lua"].update(label="two\nlines"))
    assert export.strip(run)[:4] == b"\x89PNG"
