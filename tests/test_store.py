"""The result store: what can be opened, what cannot be read, what is deleted; also by two processes at once."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import clock, picture

from lua_demo.catalog.methods import METHODS
from lua_demo.paths import EXAMPLES
from lua_demo.pictures import images
from lua_demo.report import records
from lua_demo.runs import export, store
from lua_demo.runs.run import Run, read_run
from lua_demo.runs.store import NotKept, Store
from lua_demo.schema import Environment, Request, Result, Span, UserError

ROOT = Path(__file__).resolve().parent.parent
DAY = 86400


@pytest.fixture
def shelf(tmp_path) -> Store:
    return Store(tmp_path / "store", pinned=tmp_path / "pinned")


@pytest.fixture
def photo_file(photo) -> Path:
    return photo(40, 30)


def document_of(photo_file: Path, methods: tuple[str, ...] = ("lua", "native")) -> dict:
    spans = (Span("encode", 0.1, 1 << 20), Span("upscale", 0.2, 2 << 20))
    results = [
        Result("lua", "LUA", picture(80, 60), spans, {"psnr": 30.0}),
        Result("native", "N", None, skipped="small"),
    ]
    return records.to_json(Request(str(photo_file), 2, 40, methods), results, Environment("cpu", "float32"))


def write(shelf: Store, photo_file: Path, size: int = 0) -> Run:
    draft = shelf.draft()
    images.save_display(picture(80, 60), draft / "lua.webp")
    (draft / "latent.safetensors").write_bytes(b"x" * size)
    return shelf.finish(draft, document_of(photo_file), photo_file)


def age(run: Run, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(run.folder / "run.json", (then, then))


def left_behind(shelf: Store) -> str:
    """A draft of a process that has ended."""
    program = f"from lua_demo.runs.store import Store; print(Store({str(shelf.folder)!r}).draft())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def another_day(shelf: Store) -> None:
    """As if this process had opened everything long ago."""
    for run in shelf._opened:
        shelf._opened[run] -= store.OPENED_SECONDS


def ids(shelf: Store) -> set[str]:
    return {run.id for run in shelf.runs()}


def test_a_run_comes_back_as_it_was(shelf, photo_file):
    written = write(shelf, photo_file)
    run = Store(shelf.folder, pinned=None).open(written.id)
    assert run.document == written.document == json.loads((run.folder / "run.json").read_text())
    assert list(run.pictures()) == ["lua"] and run.pictures()["lua"].name == "lua.webp"
    assert run.document["methods"]["native"]["file"] is None and run.document["settings"]["methods"] == [
        "lua",
        "native",
    ]
    assert run.source.read_bytes() == photo_file.read_bytes() and run.source.parent == run.folder
    assert run.latent == run.folder / "latent.safetensors"


def test_ids_differ_and_are_long(shelf, photo_file):
    made = {shelf.draft().name for _ in range(20)}
    assert len(made) == 20 and all(store.RUN_ID.fullmatch(name) for name in made)


def test_a_draft_cannot_be_opened(shelf):
    draft = shelf.draft()
    images.save_display(picture(8, 6), draft / "lua.webp")
    assert shelf.open(draft.name) is None and not ids(shelf)


@pytest.mark.parametrize(
    "wrong",
    ["", "..", "../x", "/etc", "a" * 22, "a" * 21 + "/", "a" * 22 + "\n", "..%2f" * 4, "é" * 22, None, 7, "x" * 10**6],
)  # fmt: skip
def test_what_is_no_id_opens_nothing(shelf, photo_file, wrong):
    write(shelf, photo_file)
    assert shelf.open(wrong) is None


def test_no_path_is_built_from_what_is_no_id(tmp_path, shelf, photo_file):
    """A finished run outside the store, reachable by a path, stays out of reach."""
    outside = write(Store(tmp_path / "other"), photo_file)
    write(shelf, photo_file)
    path = os.path.relpath(outside.folder, shelf.folder)
    assert read_run(shelf.folder / path) is not None, "the path itself is right"
    assert shelf.open(path) is None and shelf.open(str(outside.folder)) is None


def test_links_are_not_followed(tmp_path, shelf, photo_file):
    outside, run = write(Store(tmp_path / "other"), photo_file), write(shelf, photo_file)
    (shelf.folder / outside.id).symlink_to(outside.folder)
    assert shelf.open(outside.id) is None and ids(shelf) == {run.id}
    (run.folder / "secret.webp").symlink_to(outside.folder / "lua.webp")
    assert run.file("secret.webp") is None and run.file("lua.webp")
    shelf.max_age_s = -1
    another_day(shelf)
    shelf.evict()
    assert (outside.folder / "run.json").exists() and not (run.folder / "run.json").exists()


@pytest.mark.parametrize(
    "name", ["../run.json", "/etc/passwd", "a/b.webp", "", ".", "..", "lua.webp\n", None, 3, "nothing.webp"]
)
def test_only_plain_files_of_a_run(shelf, photo_file, name):
    assert write(shelf, photo_file).file(name) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["methods"]["lua"].update(stages=[{"name": "encode"}]),
        lambda d: d["methods"]["lua"].update(total_seconds="fast"),
        lambda d: d["methods"]["lua"].update(file=["lua.webp"]),
        lambda d: d["methods"]["lua"].pop("label"),
        lambda d: d.update(methods=[1]),
        lambda d: d.pop("settings"),
        lambda d: d["source"].update(file=None),
        lambda d: d.update(weights={"lua": {}}),
    ],
)
def test_a_document_of_another_shape_is_no_run(shelf, photo_file, change):
    run = write(shelf, photo_file)
    document = json.loads((run.folder / "run.json").read_text())
    change(document)
    (run.folder / "run.json").write_text(json.dumps(document))
    assert shelf.open(run.id) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"methods": 1}', "\x00"])
def test_a_broken_document_is_no_run(shelf, photo_file, text):
    run = write(shelf, photo_file)
    (run.folder / "run.json").write_text(text)
    assert shelf.open(run.id) is None


def test_a_picture_named_outside_is_left_out(shelf, photo_file):
    run = write(shelf, photo_file)
    document = json.loads((run.folder / "run.json").read_text())
    document["methods"]["lua"]["file"] = "../../secret.webp"
    document["source"]["stored"] = "../../secret.webp"
    (run.folder / "run.json").write_text(json.dumps(document))
    assert shelf.open(run.id).pictures() == {} and shelf.open(run.id).source is None


def test_old_runs_and_abandoned_drafts_go(shelf, photo_file):
    old, fresh = write(shelf, photo_file), write(shelf, photo_file)
    abandoned, running = Path(left_behind(shelf)), shelf.draft()
    age(old, shelf.max_age_s + 60)
    another_day(shelf)
    os.utime(abandoned, (0, 0))
    shelf.evict()
    assert ids(shelf) == {fresh.id} and running.exists()
    assert not old.folder.exists() and not abandoned.exists()
    assert {path.name for path in shelf.folder.iterdir()} == {fresh.id, running.name}, "no trash stays"


def test_a_run_that_is_looked_at_stays(shelf, photo_file):
    seen, forgotten = write(shelf, photo_file), write(shelf, photo_file)
    for run in (seen, forgotten):
        age(run, shelf.max_age_s - 60)
    assert shelf.open(seen.id)
    another_day(shelf)
    shelf.max_age_s -= 120
    shelf.evict()
    assert ids(shelf) == {seen.id}


def test_the_oldest_go_until_it_fits(shelf, photo_file):
    runs = [write(shelf, photo_file, size=100_000) for _ in range(4)]
    for index, run in enumerate(runs):
        age(run, (4 - index) * 60)
    shelf.quota_bytes = 250_000
    shelf.evict()
    assert ids(shelf) == {runs[2].id, runs[3].id}
    shelf.quota_bytes = 1
    newest = write(shelf, photo_file)
    assert ids(shelf) == {newest.id}, "the one just made stays, however small the quota"


def test_pinned_runs_stay_and_are_opened_by_name(shelf, photo_file, tmp_path):
    folder = shelf.pin("mountain-lake")
    images.save_display(picture(80, 60), folder / "lua.webp", effort=6)
    shelf.finish(folder, document_of(photo_file), photo_file)
    age(shelf.open("mountain-lake"), 10**9)
    shelf.quota_bytes = shelf.max_age_s = 1
    shelf.evict()
    assert shelf.pinned_names() == ["mountain-lake"] and list(shelf.open("mountain-lake").pictures()) == ["lua"]
    assert np.array_equal(images.load_photo(shelf.open("mountain-lake").pictures()["lua"]), picture(80, 60))
    for name in ("../store", "", "Mountain", "a" * 41):
        with pytest.raises(UserError, match="no name for a pinned run"):
            shelf.pin(name)


def test_an_example_is_not_copied(shelf):
    example = next(EXAMPLES.glob("*.jpg"))
    draft = shelf.draft()
    run = shelf.finish(draft, document_of(example), example)
    assert run.source == example and not list(draft.glob("source*"))


@pytest.mark.parametrize("name", ["page.html", "code.svg", "x.js"])
def test_a_source_is_never_served_as_a_page(shelf, photo_file, tmp_path, name):
    source = tmp_path / name
    source.write_bytes(photo_file.read_bytes())
    draft = shelf.draft()
    assert shelf.finish(draft, document_of(source), source).source.name == "source.bin"


def test_shipped_runs_are_whole():
    pinned = Store("unused").pinned_names()
    assert pinned
    for name in pinned:
        run = Store("unused").open(name)
        wanted = {key for key, row in run.document["methods"].items() if row["skipped"] is None}
        assert set(run.pictures()) == wanted == set(run.document["settings"]["methods"])
        assert run.latent
        if run.document["source"]["kind"] != "prompt":
            assert run.source and store.sha256(run.source) == run.document["source"]["sha256"]
        assert sum(path.stat().st_size for path in run.folder.iterdir()) < 9e6
        for method, path in run.pictures().items():
            size = run.document["methods"][method]["width"], run.document["methods"][method]["height"]
            assert images.load_photo(path).size == size


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotKept, match="the store cannot be written") as caught:
        Store(tmp_path / "file").draft()
    assert str(tmp_path) not in str(caught.value), "visitors learn no folder"


def test_a_full_disk_leaves_no_draft(shelf, photo_file, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    draft = shelf.draft()
    images.save_display(picture(80, 60), draft / "lua.webp")
    monkeypatch.setattr(store, "write_json", full)
    with pytest.raises(NotKept, match=r"there is no link.*\(No space left on device\)"):
        shelf.finish(draft, document_of(photo_file), photo_file)
    assert list(shelf.folder.iterdir()) == []


def test_a_source_that_is_gone_meanwhile_takes_nothing_with_it(shelf, photo_file):
    draft, document = shelf.draft(), document_of(photo_file)
    images.save_display(picture(80, 60), draft / "lua.webp")
    photo_file.unlink()
    run = shelf.open(shelf.finish(draft, document, photo_file).id)
    assert list(run.pictures()) == ["lua"] and run.source is None


@pytest.mark.parametrize("key", [*METHODS, "4x-UltraSharp", "RealESRGAN_x4plus.v2"])
def test_any_key_of_the_catalog_is_a_file_name(shelf, photo_file, key):
    draft, document = shelf.draft(), document_of(photo_file)
    images.save_display(picture(80, 60), draft / f"{key}.webp")
    document["methods"] = {key: document["methods"]["lua"]}
    document["settings"]["methods"] = [key]
    run = shelf.open(shelf.finish(draft, document, photo_file).id)
    assert list(run.pictures()) == [key]
    if key in METHODS:
        assert f"{key}.png" in dict(export.offers(run)) and export.make(run, f"{key}.png")[1:4] == b"PNG"


HOLDS = """
import sys
from lua_demo.runs.store import Store
shelf = Store(sys.argv[1])
print(shelf.draft(), flush=True)
sys.stdin.read()
"""


def test_a_clock_that_jumps_deletes_nothing_that_is_in_use(shelf, photo_file, monkeypatch):
    """Two hours: the draft of another process. 31 days: what was just opened."""
    command = [sys.executable, "-c", HOLDS, str(shelf.folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        draft = Path(process.stdout.readline().strip())
        forgotten, seen = write(shelf, photo_file), write(shelf, photo_file)
        another_day(shelf)
        assert shelf.open(seen.id)
        later = time.time() + 31 * DAY
        monkeypatch.setattr(store, "time", clock(time=lambda: later))
        shelf.evict()
        assert draft.is_dir() and ids(shelf) == {seen.id} and not forgotten.folder.exists()
        process.stdin.close()
    shelf.evict()
    assert not draft.exists(), "its process has ended"


def test_settings_of_the_environment(tmp_path):
    by_default = Store.from_environment({"XDG_CACHE_HOME": str(tmp_path)})
    assert by_default.folder == tmp_path / "lua_demo" / "runs"
    assert (by_default.quota_bytes, by_default.max_age_s) == (4_000_000_000, 30 * DAY)
    chosen = {"LUA_DEMO_STORE": str(tmp_path / "bucket"), "LUA_DEMO_STORE_GB": "0.5", "LUA_DEMO_STORE_DAYS": "7"}
    shelf = Store.from_environment(chosen)
    assert (shelf.folder, shelf.quota_bytes, shelf.max_age_s) == (tmp_path / "bucket", 500_000_000, 7 * DAY)
    for text in ("many", "0", "-1", "nan", "inf"):
        with pytest.raises(UserError, match=r"LUA_DEMO_STORE_GB.*positive"):
            Store.from_environment({"LUA_DEMO_STORE_GB": text})


BUSY = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lua_demo.runs.store import Store
shelf, document = Store(sys.argv[2], quota_bytes=400_000, pinned=None), json.loads(sys.stdin.read())
for _ in range(40):
    draft = shelf.draft()
    (draft / "lua.webp").write_bytes(Path(sys.argv[4]).read_bytes())
    (draft / "latent.safetensors").write_bytes(b"x" * 50_000)
    run = shelf.finish(draft, document, Path(sys.argv[3]))
    opened = shelf.open(run.id)
    assert opened is None or opened.document == run.document
    for other in shelf.runs():
        shelf.open(other.id)
"""


def test_two_processes_share_a_folder(tmp_path, photo_file):
    """Both write, read and delete for a while; in the end all that is there is whole, and below the quota."""
    folder = tmp_path / "shared"
    made = images.save_display(picture(80, 60), tmp_path / "lua.webp")
    command = [sys.executable, "-c", BUSY, str(ROOT), str(folder), str(photo_file), str(made)]
    pipes = dict.fromkeys(("stdin", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen(command, **pipes, text=True) for _ in range(2)]
    for process in processes:
        errors = process.communicate(json.dumps(document_of(photo_file)), timeout=300)[1]
        assert process.returncode == 0, errors
    shelf = Store(folder, quota_bytes=400_000, pinned=None)
    shelf.evict()
    left = list(folder.iterdir())
    assert 1 <= len(left) <= 8 and {path.name for path in left} == ids(shelf)
    assert all(run.pictures() and run.source for run in shelf.runs())
