"""A finished comparison as one file to give away: a page, a strip, an animation. No gradio."""

from __future__ import annotations

import base64
import bisect
import hashlib
import io
import json
import math
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from urllib.parse import parse_qs

from markupsafe import Markup
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from lua_demo.catalog.bases import BASES
from lua_demo.report import claims, records
from lua_demo.report.document import Document, Row, Source
from lua_demo.report.html import render
from lua_demo.report.quote import quote
from lua_demo.report.timing import timing_html
from lua_demo.report.viewer_files import static, viewer_files
from lua_demo.runs.pins import Pin, colour, draw_pin, read_pins
from lua_demo.runs.run import Run
from lua_demo.schema import Request, UserError

PAPER, INK, QUIET = "#ffffff", "#1c1c1c", "#5c5c5c"
BAND, TEXT, SMALL, MARGIN, PIN_LINE = 56, 20, 15, 12, 20  # of the labels, px
STRIP_SIDE = 512
BLINK_MS = 700
BLINK_SIDE = 2048
MIME = {".webp": "image/webp", ".png": "image/png"}


def offers(run: Run) -> list[tuple[str, str]]:
    """What `make` can make of `run`: (name, label for people)."""
    labels = {method: label for method, label, _ in records.captions(run.document)}
    pictures = [(f"{method}.png", f"{labels[method]}, PNG") for method in run.pictures()]
    whole = [
        ("comparison.html", "Page that opens offline (HTML)"),
        ("strip.png", "All in one strip (PNG)"),
        ("blink.webp", "The pair, blinking (WebP)"),
        ("results.zip", "Everything (ZIP)"),
        ("results.json", "Settings and times (JSON)"),
    ]
    latent = [("latent.safetensors", "Base latent (safetensors)")] if run.latent else []
    return [*whole[:1], *pictures, *whole[1:], *latent] if pictures else [whole[-1]]


def make(run: Run, name: str, state: str = "") -> bytes:
    """The file `name` of `offers(run)`; `state` is the viewer's, as in `View.state`.

    Raises:
        UserError: a name that is not offered.
    """
    if name not in dict(offers(run)):
        raise UserError(f"there is no file {name!r}; choose {', '.join(dict(offers(run)))}")
    view = {key: values[0] for key, values in parse_qs(state).items()}
    if name == "comparison.html":
        return html(run, state)
    if name == "strip.png":
        return strip(run, (_number(view.get("x")), _number(view.get("y"))), pins=read_pins(view.get("pins", "")))
    if name == "blink.webp":
        pictures, pair = list(run.pictures()), [view.get("left"), view.get("right")]
        chosen = [key for key in dict.fromkeys([*pair, *records.PAIR, *pictures]) if key in pictures]
        one, other = (chosen * 2)[:2]
        return blink(run, one, other)
    if name == "results.zip":
        return _zip(run)
    if name == "results.json":
        return _results_json(run)
    if name == "latent.safetensors" and run.latent:
        return run.latent.read_bytes()
    return png(run, name.removesuffix(".png"))


def png(run: Run, method: str) -> bytes:
    """The picture of `method` with everything about it inside; one from outside as it is."""
    text = PngImagePlugin.PngInfo()
    if not records.is_guest(run.document["methods"][method]):
        for key, value in records.png_metadata(_portable(run.document), method).items():
            text.add_itxt(key, value)
    return _bytes(_open(run.pictures()[method]), "PNG", compress_level=1, pnginfo=text)


def html(run: Run, state: str = "") -> bytes:
    """One HTML file with the viewer, the pictures, times and settings; it needs no network and no server.

    Args:
        state: how to look at the pictures at first, as in `View.state`.
    Raises:
        UserError: a run without pictures.
    """
    document, pictures = run.document, _pictures(run)
    panes = [
        {"key": key, "label": label, "detail": detail, "image": _data_url(pictures[key]) if key in pictures else None}
        for key, label, detail in records.captions(document)
    ]
    markup, style, code = viewer_files()
    # In JSON inside a script element only "<" can end anything.
    value = {"panes": panes, "state": state, "pair": list(records.PAIR), "truth": claims.truth(document)}
    data = json.dumps({**value, "quote": quote(document)}).replace("<", "\\u003c")
    script = Template(static("export.js")).substitute(viewer=code)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = render(
        "export.html",
        hash=f"sha256-{digest}",
        title=f"{records.source_name(document)}: latent or pixel upscaling",
        style=Markup(f"{static('export.css')}\n{static('timing.css')}\n#viewer {{\n{style}\n}}"),
        summary=_summary(document),
        viewer=Markup(markup),
        timing=timing_html(document, maps=False),
        settings=_settings(document),
        data=Markup(data),
        script=Markup(script),
    )
    return page.encode()


def strip(
    run: Run, centre: tuple[float, float] = (0.5, 0.5), side: int = STRIP_SIDE, pins: Sequence[Pin] = ()
) -> bytes:
    """A PNG with the same crop of every picture, side by side at the target size, pixel by pixel, with labels.

    Args:
        centre: (x, y) of the crop in [0, 1].
        side: most pixels of a crop on each axis.
        pins: spots of the whole picture; marked where they are in the crop, their colours below each crop.
    Raises:
        UserError: a run without pictures.
    """
    pictures = {method: _open(path) for method, path in _pictures(run).items()}
    size = _largest(pictures)
    crop = min(side, size[0]), min(side, size[1])
    left, top = (
        round(min(max(middle * full - part / 2, 0), full - part))
        for middle, full, part in zip(centre, size, crop, strict=True)
    )
    shown = [entry for entry in records.captions(run.document) if entry[0] in pictures]
    listing = len(pins) * PIN_LINE
    height = crop[1] + BAND + BAND // 2 + MARGIN + listing
    sheet = Image.new("RGB", (len(shown) * (crop[0] + MARGIN) + MARGIN, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (method, label, detail) in enumerate(shown):
        x = MARGIN + index * (crop[0] + MARGIN)
        sheet.paste(_at(pictures[method], size).crop((left, top, left + crop[0], top + crop[1])), (x, BAND))
        _write(pen, (x, 6), label, TEXT, INK, crop[0])
        _write(pen, (x, 31), detail, SMALL, QUIET, crop[0])
        for number, pin in enumerate(pins, 1):
            at = pin[0] * size[0] - left, pin[1] * size[1] - top
            if all(0 <= value < part for value, part in zip(at, crop, strict=True)):
                draw_pin(pen, (x + at[0], BAND + at[1]), number)
            words = f"{number}: {' '.join(map(str, colour(pictures[method], pin)))}"
            _write(pen, (x, BAND + crop[1] + 6 + (number - 1) * PIN_LINE), words, SMALL, INK, crop[0])
    where = f"{crop[0]} × {crop[1]} px of {size[0]} × {size[1]}, pixel by pixel, from {left}, {top}"
    line = f"{_summary(run.document)} · {where} · {run.document['device']}"
    _write(pen, (MARGIN, BAND + crop[1] + 8 + listing), line, SMALL, QUIET, sheet.width - 2 * MARGIN)
    return _bytes(sheet, "PNG", optimize=True)


def blink(run: Run, one: str, other: str, side: int = BLINK_SIDE) -> bytes:
    """An animated, lossless WebP that shows two methods in turn, each with its name below; over `side` px the middle.

    Raises:
        UserError: the run has no picture of one of them.
    """
    paths = _pictures(run)
    for method in (one, other):
        if method not in paths:
            raise UserError(f"there is no picture of {method!r}; choose two of {', '.join(paths)}")
    pictures = {method: _open(paths[method]) for method in (one, other)}
    size = _largest(pictures)
    crop = min(side, size[0]), min(side, size[1])
    left, top = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    texts = {method: (label, detail) for method, label, detail in records.captions(run.document)}
    frames = []
    for method, picture in pictures.items():
        frame = Image.new("RGB", (crop[0], crop[1] + BAND), PAPER)
        frame.paste(_at(picture, size).crop((left, top, left + crop[0], top + crop[1])))
        pen, (label, detail) = ImageDraw.Draw(frame), texts[method]
        _write(pen, (MARGIN, crop[1] + 5), label, TEXT, INK, crop[0] - 2 * MARGIN)
        _write(pen, (MARGIN, crop[1] + 30), detail, SMALL, QUIET, crop[0] - 2 * MARGIN)
        frames.append(frame)
    return _bytes(
        frames[0], "WEBP", lossless=True, quality=0, method=0, minimize_size=False,
        save_all=True, append_images=frames[1:], duration=BLINK_MS, loop=0,
    )  # fmt: skip


def _portable(document: Document) -> Document:
    """The document of a stored run as `records.to_json` gave it: nothing of the place where it is stored."""
    methods: dict[str, Row] = {
        key: {**row, "file": row["file"] and f"{key}.png"} for key, row in document["methods"].items()
    }
    known = document["source"]
    source: Source = {
        "kind": known["kind"],
        "file": known["file"],
        "sha256": known["sha256"],
        "bytes": known["bytes"],
    }
    portable: Document = {**document, "source": source, "methods": methods}
    portable.pop("created", None)
    return portable


def _results_json(run: Run) -> bytes:
    return (json.dumps(_portable(run.document), indent=2) + "\n").encode()


def _zip(run: Run) -> bytes:
    """The results folder that the command line writes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # stored: pictures do not get smaller
        for method in run.pictures():
            archive.writestr(f"{method}.png", png(run, method))
        if run.latent:
            archive.write(run.latent, run.latent.name)
        archive.writestr("results.json", _results_json(run))
    return buffer.getvalue()


def _number(text: str | None) -> float:
    try:
        value = float(text or "0.5")
    except ValueError:
        value = 0.5
    return value if 0 <= value <= 1 else 0.5


def _pictures(run: Run) -> dict[str, Path]:
    pictures = run.pictures()
    if not pictures:
        raise UserError("this comparison has no pictures; compare again")
    return pictures


def _open(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _largest(pictures: Mapping[str, Image.Image]) -> tuple[int, int]:
    return max((picture.size for picture in pictures.values()), key=lambda size: size[0] * size[1])


def _at(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A smaller picture gets larger pixels, not new ones."""
    return picture if picture.size == size else picture.resize(size, Image.Resampling.NEAREST)


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, colour: str, width: int) -> None:
    """One line of `text`, cut off where it is wider than `width` px."""
    font, text = ImageFont.load_default(size), _plain(" ".join(text.split()))
    text = text[:width]  # no letter is narrower than a pixel
    if pen.textlength(text, font) > width:
        fitting = bisect.bisect_right(
            range(len(text)), width, key=lambda n: math.ceil(pen.textlength(f"{text[:n]}...", font))
        )
        text = f"{text[: max(0, fitting - 1)]}..."
    pen.text(place, text, colour, font)


def _plain(text: str) -> str:
    """Only what Pillow's own font can draw: accents fall, other scripts become question marks."""
    apart = unicodedata.normalize("NFKD", text.replace("×", "x"))
    letters = (letter for letter in apart if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() or letter == "·" else "?" for letter in letters)


def _bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _data_url(path: Path) -> dict[str, str]:
    content = base64.b64encode(path.read_bytes()).decode()
    return {"url": f"data:{MIME.get(path.suffix, 'application/octet-stream')};base64,{content}"}


def _summary(document: Document) -> str:
    settings = document["settings"]
    base = BASES.get(settings.get("base", Request.base))
    latents = f" in {base.space} latents" if base else ""
    return f"{records.source_name(document)}, {settings['scale']}×{latents}"


def _settings(document: Document) -> list[tuple[str, str]]:
    values = {name: value for name, value in document["settings"].items() if value not in ("", None)}
    source = document["source"]
    lines = [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)) for name, value in values.items()
    ]
    if source["file"]:  # a prompt is among the settings
        lines += [(source["kind"], f"{source['file']}, {source['bytes']} bytes, sha256 {source['sha256']}")]
    lines += [("device", document["device"]), ("dtype", document["dtype"])]
    lines += [(f"weights of {role}", text) for role, text in document["weights"].items()]
    return lines + [(f"{name} version", text) for name, text in document["versions"].items()]
