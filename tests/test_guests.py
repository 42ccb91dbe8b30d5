"""Pictures from outside: kept as a new run, refused where they do not fit, exported and voted on as the others."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lua_demo.pictures import metrics
from lua_demo.report import records
from lua_demo.report.quote import quote
from lua_demo.report.timing import timing_html
from lua_demo.runs import export
from lua_demo.runs.booth import Booth, full_size
from lua_demo.runs.guests import MOST_GUESTS, with_guests
from lua_demo.runs.provenance import read_png
from lua_demo.runs.run import Run
from lua_demo.runs.store import Store
from lua_demo.schema import UserError

HOSTILE = "<img src=x onerror=alert(1)>|`&.png"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def run(store: Store) -> Run:
    return store.open(store.pinned_names()[0])


@pytest.fixture
def native(run: Run) -> np.ndarray:
    return np.asarray(Image.open(run.pictures()["native"]).convert("RGB"))


def saved(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def test_a_guest_is_a_row_of_a_new_run(store, run, native, tmp_path):
    own = (native.astype(int) + 7).clip(0, 255).astype("uint8")
    kept = with_guests(store, run, [(HOSTILE, saved(tmp_path / "x.png", own))])
    assert kept.id != run.id and "guest_1" not in run.document["methods"]
    again = store.open(kept.id)
    assert list(again.document["methods"]) == [*run.document["methods"], "guest_1"]
    assert np.array_equal(np.asarray(Image.open(again.pictures()["guest_1"]).convert("RGB")), own)
    row = again.document["methods"]["guest_1"]
    assert row["metrics"]["psnr"] == pytest.approx(metrics.psnr(own, native))
    assert row["label"] == HOSTILE.removesuffix(".png") and row["guest"]["file"] == Path(HOSTILE).name
    assert again.source == run.source and again.latent.read_bytes() == run.latent.read_bytes()
    for method, path in run.pictures().items():
        assert again.pictures()[method].read_bytes() == path.read_bytes()
    assert records.captions(again.document)[-1][:2] == ("guest_1", row["label"])
    html = timing_html(again.document)
    assert "a picture from outside" in html and "<img" not in html


def test_another_size_is_resampled_with_a_note_and_another_aspect_refused(store, run, native, tmp_path):
    height, width = native.shape[:2]
    large = np.asarray(Image.fromarray(native).resize((width * 2, height * 2), Image.Resampling.BICUBIC))
    kept = with_guests(store, run, [("large.png", saved(tmp_path / "large.png", large))])
    row = kept.document["methods"]["guest_1"]
    assert (row["width"], row["height"]) == (width, height) and row["metrics"]["psnr"] > 28
    assert f"resampled from {width * 2} × {height * 2} px (Lanczos)" in row["notes"]
    before = {path.name for path in store.folder.iterdir()}
    tall = saved(tmp_path / "tall.png", native[:300, :200])
    with pytest.raises(UserError, match=f"tall has 200 × 300 px, another aspect than the {width} × {height} px here"):
        with_guests(store, run, [("tall.png", tall)])
    (tmp_path / "text.png").write_text("nothing")
    with pytest.raises(UserError, match="not a readable image"):
        with_guests(store, run, [("text.png", tmp_path / "text.png")])
    assert {path.name for path in store.folder.iterdir()} == before, "no draft is left behind"


def test_four_are_the_most(store, run, native, tmp_path):
    path = saved(tmp_path / "one.png", native)
    kept = with_guests(store, run, [(f"{i}.png", path) for i in range(MOST_GUESTS)])
    assert list(kept.document["methods"])[-MOST_GUESTS:] == [f"guest_{i}" for i in range(1, MOST_GUESTS + 1)]
    with pytest.raises(UserError, match="4 pictures from outside are the most"):
        with_guests(store, kept, [("one.png", path)])
    with pytest.raises(UserError, match="nothing to keep"):
        with_guests(store, run, [])


def test_exports_and_votes_have_it(store, run, native, tmp_path):
    kept = with_guests(store, run, [("Topaz.png", saved(tmp_path / "x.png", native))])
    names = dict(export.offers(kept))
    assert names["guest_1.png"] == "Topaz, PNG"
    (tmp_path / "guest.png").write_bytes(export.make(kept, "guest_1.png"))
    assert read_png(tmp_path / "guest.png") is None, "nothing here made it"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "guest.png")), native)
    for name in ("comparison.html", "strip.png", "results.zip"):
        assert export.make(kept, name, "right=guest_1&left=lua")
    assert "guest_1" in full_size(kept)
    booth = Booth(store, tmp_path / "copies", random.Random(1))
    while "outside: Topaz" not in (ballot := booth.draw(kept.id)).shown:
        pass
    assert "Topaz" in ballot.labels
    booth.vote(ballot.token, "ab"[ballot.shown.index("outside: Topaz")])
    assert [entry.wins for entry in booth.tally() if "outside: Topaz" in entry.pair]


def test_a_quote_has_times_decoder_device_metrics_seed_and_link(run):
    words = quote(run.document, "?run=x")
    assert re.fullmatch(
        r"\w+ “.+”, 2×, embedded latents, embedded decoder, seed \d+, .*, float32 \(lua_demo .*\)\.",
        words["sentence"],
    )
    assert words["columns"][:3] == ["Size", "Time with decoder", "PSNR dB"] and words["link"] == "?run=x"
    lua = words["rows"]["lua"]
    assert re.fullmatch(r"\d+ × \d+", lua[0]) and re.fullmatch(
        r"[\d.]+ s \(.*encode [\d.]+ \+ upscale [\d.]+ \+ decode [\d.]+\)", lua[1]
    )
    assert all(len(row) == len(words["columns"]) for row in words["rows"].values())
    assert "link" not in quote(run.document)


def test_a_copy_of_a_stored_run_keeps_the_photo(store, run, native, tmp_path):
    draft = store.draft()
    for path in run.pictures().values():
        shutil.copyfile(path, draft / path.name)
    photo = saved(tmp_path / "own.png", native)
    source = {"kind": "photo", "file": "own.png", "sha256": "0" * 64, "bytes": 3}
    stored = store.finish(draft, {**run.document, "source": source}, photo)
    kept = with_guests(store, stored, [("x.png", photo)])
    assert kept.source != stored.source and kept.source.read_bytes() == photo.read_bytes()
