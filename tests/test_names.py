"""Folders, names and output: what people's disks hold, terminals that are not UTF-8, and paths that are no files."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from conftest import picture
from PIL import Image

from lua_demo.commands.main import main
from lua_demo.pictures.files import list_images, sort_out
from lua_demo.pictures.reading import load_photo
from lua_demo.report.table import Table
from lua_demo.runs.run import Run
from lua_demo.schema import UserError, printable
from lua_demo.ui.share import download_name

ROOT = Path(__file__).resolve().parent.parent
LATIN = os.fsdecode("Zürich.png".encode("latin-1"))


@pytest.fixture
def command(toy_weights, tmp_path, capsys):
    """command(name, *argv) -> (exit code, what it printed), in this process, at the size of a stamp."""

    def run(name, *argv) -> tuple[int, str]:
        common = ["--device", "cpu", "--weights", toy_weights]
        common += ["--size", 32, "--methods", "base", "--out", tmp_path / "out"] if name in ("compare", "batch") else []
        code = main([str(arg) for arg in [name, *common, *argv]])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


@pytest.fixture
def program(toy_weights, tmp_path):
    """The same as a program of its own, with an encoding for its output."""

    def run(encoding, *argv) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding, "HF_HUB_OFFLINE": "1"}
        common = ["--device", "cpu", "--weights", toy_weights, "--size", "32", "--methods", "base"]
        command = [sys.executable, "-m", "lua_demo", *argv, *common, "--out", tmp_path / "out"]
        return subprocess.run([os.fspath(arg) for arg in command], env=environment, capture_output=True)

    return run


def write(path: Path, side: int = 40) -> Path:
    pillow_heif.register_heif_opener()
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".pgm": "PPM", ".heic": "HEIF", ".jp2": "JPEG2000"}.get(path.suffix.lower(), "PNG")
    Image.fromarray(picture(side, side)).save(path, kind)
    return path


# What a folder holds


def test_what_counts_as_a_photo_in_a_folder(tmp_path):
    names = ["a.jpg", "b.JFIF", "c.jpe", "d.jp2", "e.ppm", "f.pgm", "g.heic", "h.HEIF", "i.tif", "sub/j.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name in ("._a.jpg", ".hidden.png", "notes.txt", "photo.NEF", "no_suffix"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "album.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    photos, line = sort_out(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in photos) == sorted(names)
    assert photos == list_images(tmp_path)
    assert line.startswith("left out 7 files that are no photos: ") and "\n" not in line
    for word in ("2 hidden", "2 .png", "1 .txt", "1 .nef", "1 no suffix"):
        assert word in line
    for path in tmp_path.glob("*"):
        if path not in photos and path.name != "sub":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert sort_out(tmp_path)[1] == ""


def test_batch_of_a_folder_runs_the_readable_ones(command, tmp_path):
    write(tmp_path / "photos" / "a.png")
    write(tmp_path / "photos" / "b.heic")
    (tmp_path / "photos" / "._a.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "photos" / "c.jpg").mkdir()
    (tmp_path / "photos" / "d.cr2").write_bytes(b"II*\0")
    code, told = command("batch", tmp_path / "photos")
    assert code == 0 and "2 items: 2 run" in told
    assert [line for line in told.splitlines() if line.startswith("left out")] == [
        "left out 2 files that are no photos: 1 hidden, 1 .cr2"
    ]


def test_training_goes_on_past_what_it_cannot_read(tmp_path, capsys):
    from lua_demo.train.data import Crops

    write(tmp_path / "a.png", 300)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    assert Crops(tmp_path).names == ["a.png"]
    assert "left out broken.jpg is not a readable image" in capsys.readouterr().err
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match="no photo in"):
        Crops(tmp_path)


# Output and names


def test_a_terminal_that_is_not_utf_8(program, tmp_path):
    write(tmp_path / "photos" / "山 ü 🏔.png")
    for encoding in ("cp1252", "ascii", "utf-8"):
        done = program(encoding, "compare", "--image", tmp_path / "photos" / "山 ü 🏔.png")
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode(errors="replace")
        shutil.rmtree(tmp_path / "out")
    done = program("cp1252", "batch", tmp_path / "photos")
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"1 item: 1 run" in done.stdout


def test_names_that_are_not_utf_8(command, program, tmp_path):
    photos = tmp_path / "photos"
    write(photos / LATIN)
    write(photos / os.fsdecode(b"\xff\xfe.png"))
    for source in (photos, tmp_path / "list.txt"):
        (tmp_path / "list.txt").write_bytes(b"\n".join(os.fsencode(path) for path in photos.iterdir()))
        code, told = command("batch", source)
        assert code == 0 and "2 items: 2 run" in told, told
        told.encode()
        for name in ("results.json", "batch.csv"):
            assert all(path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob(name))
        (folder,) = (tmp_path / "out").glob("Z*")
        assert json.loads((folder / "results.json").read_text())["source"]["file"] == r"Z\xfcrich.png"
        assert main(["export", str(folder), "--html", "--strip"]) == 0
        shutil.rmtree(tmp_path / "out")
    done = program("utf-8", "compare", "--image", photos / LATIN)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["two\nlines.png", "\x1b[31mred\x1b[0m.png", "\u202egnp.exe", "\ttab\r.png"])
def test_names_are_printed_in_one_line(name, command, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / name).write_bytes(b"no picture")
    code, told = command("compare", "--image", tmp_path / "photos" / name)
    assert code == 2 and told.count("\n") == 1 and told.isprintable() is False
    assert not set(told[:-1]) & set("\n\x1b\u202e\t\r")
    write(tmp_path / "photos" / f"{name}.png")
    code, told = command("batch", tmp_path / "photos")
    assert not set(told) & set("\x1b\u202e\t\r") and "1 run" in told


def test_printable():
    assert printable("Zürich 山 🏔 – ok") == "Zürich 山 🏔 – ok"
    assert printable("a\nb\x1b[0m\x00\udcfc\ud800\u2028") == r"a\x0ab\x1b[0m\x00\xfc\ud800\u2028"


@pytest.mark.parametrize(
    ("name", "stem"),
    [("湖.jpg", "湖"), ("Žluťoučký kůň.png", "Žluťoučký_kůň"), ("../x<y>.png", "x_y"), ("***.png", "comparison")],
)
def test_downloads_keep_the_letters_of_names(name, stem, tmp_path):
    document = {"source": {"kind": "photo", "file": name}, "settings": {"scale": 2}}
    assert download_name(Run("", tmp_path, document), "lua.png") == f"{stem}_x2_lua.png"


# Nothing is overwritten


@pytest.mark.parametrize("name", ["base.png", "native.png", "lua.png"])
def test_compare_does_not_write_over_its_source(name, command, tmp_path):
    source = write(tmp_path / "out" / name)
    before = source.read_bytes()
    for given in (source, tmp_path / "out" / ".." / "out" / name):
        code, told = command("compare", "--image", given, "--methods", "base,lua,native")
        assert code == 2 and "would be overwritten" in told
        assert source.read_bytes() == before and [path.name for path in (tmp_path / "out").iterdir()] == [name]
    link = tmp_path / "link.png"
    link.symlink_to(source)
    assert command("compare", "--image", link, "--methods", "base,lua,native")[0] == 2 and source.read_bytes() == before


def test_batch_and_recreate_do_not_write_over_their_sources(command, tmp_path):
    write(tmp_path / "a.png")
    assert command("compare", "--image", tmp_path / "a.png")[0] == 0
    made = tmp_path / "out" / "base.png"
    before = made.read_bytes()
    code, told = command("recreate", made, "--image", tmp_path / "a.png", "--out", tmp_path / "out")
    assert code == 2 and "would be overwritten" in told and made.read_bytes() == before
    source = write(tmp_path / "out" / "base_x2" / "base.png")
    before = source.read_bytes()
    (tmp_path / "list.txt").write_text(str(source))
    code, told = command("batch", tmp_path / "list.txt")
    assert code == 1 and "would be overwritten" in told and source.read_bytes() == before


def test_a_list_is_not_overwritten_by_the_table_nor_a_latent_by_its_map(command, tmp_path):
    listed = tmp_path / "out" / "batch.csv"
    listed.parent.mkdir()
    listed.write_text(f"{write(tmp_path / 'a.png')}\n")
    code, told = command("batch", listed)
    assert code == 2 and "would be overwritten" in told and listed.read_text().endswith("a.png\n")
    assert command("compare", "--image", tmp_path / "a.png")[0] == 0
    latent, made = tmp_path / "out" / "latent.safetensors", tmp_path / "x.safetensors"
    code, told = command("upscale", latent, made, "--map", tmp_path / "out" / ".." / made.name)
    assert code == 2 and "at once" in told and not made.exists()


def test_a_sheet_has_photos_of_one_stem(toy_weights, tmp_path):
    from lua_demo.commands.sheet import sheets
    from lua_demo.engine import Engine

    for name in ("a.png", "a.webp", "sub/a.png"):
        write(tmp_path / "photos" / name, 64)
    (path,) = sheets(Engine("cpu", weights=toy_weights), tmp_path / "photos", tmp_path / "out", (2,), 64, 32)
    rows = np.asarray(Image.open(path)).shape[0] // (32 + 6 + 22)
    assert rows == 3


# Paths that are no files


def test_pipes_and_devices_are_refused(command, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), Path("/dev/stdin")):
        for option in ("--image", "--latent"):
            code, told = command("compare", option, path)
            assert code == 2 and "no regular file" in told, told
        assert command("batch", path)[0] == 2
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'pipe.png'}\n/dev/zero\n")
    code, told = command("batch", tmp_path / "list.txt")
    assert code == 1 and told.count("no regular file") == 2
    (tmp_path / "made").mkdir()
    os.mkfifo(tmp_path / "made" / "results.json")
    assert main(["export", str(tmp_path / "made"), "--html"]) == 2
    item = tmp_path / "out" / "a_x2"
    item.mkdir(parents=True)
    os.mkfifo(item / "results.json")
    (tmp_path / "list.txt").write_text(str(write(tmp_path / "a.png")))
    assert command("batch", tmp_path / "list.txt")[0] == 0 and (item / "results.json").is_file()


def test_a_list_of_odd_paths_fails_line_by_line(command, tmp_path):
    good = write(tmp_path / "a.png")
    write(tmp_path / "b.png")
    (tmp_path / "out" / "b_x2" / "results.json").mkdir(parents=True)
    lines = ["~nouser/x.png", "x" * 5000, "a" * 300 + "/c.png", str(tmp_path), "nowhere.png", "b.png", "a.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    code, told = command("batch", tmp_path / "list.txt")
    assert code == 1 and "7 items: 1 run, 6 failed" in told and "Traceback" not in told
    with (tmp_path / "out" / "batch.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["error"]) for row in rows] == [True] * 6 + [False] and good.is_file()


def test_odd_paths_on_the_command_line(command, toy_weights, tmp_path, capsys):
    image = write(tmp_path / "a.png")
    for odd in ("x" * 5000, "a\0b", "/dev/null/x", ""):
        for argv in (
            ["compare", "--image", odd],
            ["compare", "--latent", odd],
            ["compare", "--image", image, "--weights", odd or "nowhere"],
            ["compare", "--image", image, "--out", odd or image],
            ["batch", odd or "nowhere"],
            ["recreate", odd],
            ["recreate", image, "--image", odd],
            ["upscale", odd, tmp_path / "o.safetensors"],
            ["evaluate", "--images", odd or "nowhere"],
            ["sheet", "--images", odd or "nowhere", "--out", tmp_path / "sheet"],
        ):
            code, told = command(*argv)
            assert code == 2 and told.count("\n") == 1 and told.startswith("lua_demo: "), (argv, told[:300])
        for argv in (["export", odd, "--html"], ["scenes", "--out", odd or image, "--count", "1", "--size", "16"]):
            assert main([str(arg) for arg in argv]) == 2, argv
            assert capsys.readouterr().err.count("\n") == 1, argv


def test_scenes_into_a_file(tmp_path, capsys):
    file = write(tmp_path / "a.png")
    for option in ("--out", "--examples"):
        assert main(["scenes", option, str(file), "--count", "1", "--size", "16"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["scenes", "--sheet", str(file / "x.png")]) == 2


@pytest.mark.parametrize("damage", ["empty", "config", "missing", "cut", "index"])
def test_a_damaged_generator_is_one_line(damage, prompted_weights, tmp_path, capsys):
    weights = shutil.copytree(prompted_weights, tmp_path / "weights")
    generator = weights / "embedded" / "generator"
    if damage == "empty":
        shutil.rmtree(generator)
        generator.mkdir()
    elif damage == "config":
        next(generator.rglob("config.json")).write_text("{")
    elif damage == "missing":
        next(generator.rglob("*.safetensors")).unlink()
    elif damage == "cut":
        file = next(generator.rglob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:100])
    else:
        (generator / "model_index.json").write_text("[1]")
    argv = [
        "compare",
        "--base",
        "embedded",
        "--prompt",
        "a lake",
        "--size",
        "64",
        "--steps",
        "1",
        "--methods",
        "base",
        "--out",
        tmp_path / "o",
    ]
    assert main([str(arg) for arg in [*argv, "--weights", weights, "--device", "cpu"]]) == 2
    told = capsys.readouterr().err
    assert told.splitlines()[-1].startswith("lua_demo: ") and "Traceback" not in told


# The table of a batch


def test_the_table_grows_in_linear_time(tmp_path):
    def seconds(count: int) -> float:
        table, started = Table(tmp_path / "t.csv"), time.perf_counter()
        for number in range(count):
            table.add([{"item": f"item {number}", "source": 'a,"b"\nc \udcfc', "error": "missing"}])
        return time.perf_counter() - started

    written = []
    original = Path.write_bytes

    def counting(self, data):
        written.append(len(data))
        return original(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", counting)
        seconds(500)
    assert len(written) == 1, "only the head is written anew"
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 500 and rows[-1]["item"] == "item 499" and rows[3]["source"] == 'a,"b"\nc \\udcfc'


def test_a_new_column_is_put_into_the_whole_table(tmp_path):
    table = Table(tmp_path / "t.csv")
    for rows in ([{"item": "a"}], [{"item": "b", "odd_s": 1}, {"item": "b2"}], [{"item": "c", "odd_s": 2}]):
        table.add(rows)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["item"], row["odd_s"]) for row in rows] == [("a", ""), ("b", "1"), ("b2", ""), ("c", "2")]


def test_a_photo_beyond_the_limit_of_bytes_is_not_read(tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(UserError, match="the limit"):
        load_photo(tmp_path / "huge.png")
