"""Many scenes as files: pictures with captions, a contact sheet, the examples of the app."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from lua_demo.catalog.prompts import EXAMPLES as PROMPTS
from lua_demo.scenes.from_prompt import scene_from
from lua_demo.scenes.render import render
from lua_demo.scenes.scene import Scene, captions, sample_scene
from lua_demo.schema import UserError

_WIDE, _SQUARE = (2048, 1536), (2048, 2048)
# The photos that the app offers.
EXAMPLES = {
    "mountain-lake": (Scene("lake", "grass", "clouds", "sunset", -58, 11, seed=1000), _WIDE),
    "dunes": (Scene("dunes", "sand", "clouds", "sunset", -70, 11, palette="golden", seed=2004), _WIDE),
    "misty-forest": (Scene("forest", "grass", "fog", "dawn", -62, 11, seed=3005), _SQUARE),
    "alpine-meadow": (Scene("mountains", "grass", "clouds", "noon", 75, 36, seed=4003), _WIDE),
    "islands": (Scene("sea", "grass", "clouds", "noon", -75, 40, seed=6000), _WIDE),
    "milky-way": (Scene("lake", "snow", "clear", "night", 60, 20, moon=False, palette="azure", seed=5013), _WIDE),
}
SHEET, THUMBNAIL = 64, 192


def scenes(count: int, seed: int) -> Iterator[Scene]:
    """`count` random scenes; the first n are the same whatever `count`."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for _ in range(count):
        yield sample_scene(rng)


def write_picture(scene: Scene, size: int, path: Path) -> None:
    """Render `scene` to `path`, or not at all: an interrupted run leaves no half file."""
    unfinished = path.with_suffix(".unfinished")
    Image.fromarray(render(scene, size)).save(unfinished, "PNG", compress_level=1)
    unfinished.replace(path)


def write_corpus(folder: Path, count: int, size: int, seed: int, workers: int = 1) -> None:
    """Write `count` PNGs and captions.jsonl: a line per picture with its file, captions and scene.

    Goes on where it stopped: a picture that is there is not rendered again. Runs in `workers` processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{k:06d}.png": scene for k, scene in enumerate(scenes(count, seed))}
    rows = [{"file": name, "captions": captions(scene), "scene": scene.to_dict()} for name, scene in wanted.items()]
    listing = "".join(json.dumps(row) + "\n" for row in rows)
    there = (folder / "captions.jsonl").read_text(encoding="utf-8") if (folder / "captions.jsonl").exists() else ""
    if not (listing.startswith(there) or there.startswith(listing)):
        raise UserError(f"{folder} holds other scenes; give another --out or delete it")
    (folder / "captions.jsonl").write_text(listing, encoding="utf-8")
    missing = [(scene, size, folder / name) for name, scene in wanted.items() if not (folder / name).exists()]
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(write_picture, *job) for job in missing]
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="picture", disable=None):
            job.result()


def write_sheet(path: Path, seed: int, count: int = SHEET, size: int = THUMBNAIL) -> None:
    """Write `count` random scenes as one square picture."""
    _write_together(path, list(scenes(count, seed)), int(np.ceil(np.sqrt(count))), size)


def write_prompts(path: Path, seed: int, size: int = 400) -> None:
    """Write the scenes of the page's example prompts as one picture, four in a row."""
    _write_together(path, [scene_from(prompt, seed).scene for prompt in PROMPTS], 4, size)


def _write_together(path: Path, wanted: Sequence[Scene], across: int, size: int) -> None:
    """Thumbnails are rendered at twice their size."""
    path.parent.mkdir(parents=True, exist_ok=True)  # before minutes of rendering, where it cannot be made
    sheet = Image.new("RGB", (across * size, -(-len(wanted) // across) * size))
    for k, scene in enumerate(wanted):
        sheet.paste(Image.fromarray(render(scene, 2 * size)).reduce(2), (k % across * size, k // across * size))
    sheet.save(path, quality=90, optimize=True)


def write_examples(folder: Path) -> None:
    """Write EXAMPLES as JPEG, quality 95, without chroma subsampling."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (scene, size) in EXAMPLES.items():
        Image.fromarray(render(scene, size)).save(folder / f"{name}.jpg", quality=95, subsampling=0, optimize=True)
        print(folder / f"{name}.jpg")
