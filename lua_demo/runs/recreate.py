"""Make a picture again from what its PNG says, and compare."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from lua_demo.engine import Engine
from lua_demo.paths import EXAMPLES
from lua_demo.pictures.images import DECODE_ERRORS
from lua_demo.report import records
from lua_demo.report.document import Document
from lua_demo.runs import provenance
from lua_demo.runs.provenance import Provenance
from lua_demo.runs.store import Store, sha256
from lua_demo.schema import Result, UserError


@dataclass(frozen=True)
class Recreation:
    """A picture made again.

    Attributes:
        source: the path or the prompt that it was made from.
        result: the new picture.
        same: every pixel is the same.
        verdict: one line for people.
        document: what `records.to_json` says of the new run.
        differences: what is not as it was (weights, versions, device), one line each.
    """

    source: str
    result: Result
    same: bool
    verdict: str
    document: Document
    differences: list[str]


def recreate(path: str | Path, engine: Engine, store: Store, source: str | Path | None = None) -> Recreation:
    """Run the method that made the PNG at `path` on the same source, found by its sha256.

    Looked for are `source`, the files beside the PNG, the runs of `store`, and the examples.

    Raises:
        UserError: no PNG of ours, its source is not found, or what `Engine.compare` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file; give a PNG that lua_demo wrote")
    made = provenance.read_png(path)
    if made is None:
        raise UserError(f"{path} carries no lua_demo metadata; give a PNG that lua_demo wrote")
    # Decoded first: a damaged file is not worth minutes of work.
    before = _pixels(path)
    request = replace(made.request, methods=(made.method,))
    if made.kind != "prompt":
        found = find_source(made, _given(made, source) if source else _candidates(path, store))
        if found is None:
            raise UserError(
                f"{made.file}, the {made.kind} that {path.name} was made from, is not here "
                f"(sha256 {made.sha256[:12]}); give it with --image"
            )
        file = str(found)
        request = replace(request, latent=file) if made.kind == "latent" else replace(request, image=file)
    with contextlib.closing(engine.compare(request)) as events:
        result = next(event for event in events if isinstance(event, Result))
    if result.image is None:
        raise UserError(f"{result.label} could not be run again: {result.skipped}")
    same, verdict = compare_pixels(before, result.image)
    environment = engine.environment(request)
    document = records.to_json(request, [result], environment)
    return Recreation(
        request.prompt or request.latent or request.image,
        result,
        same,
        verdict,
        document,
        # The record names the weights of all methods that ran beside it.
        provenance.differences(made, engine.environment(replace(request, methods=made.request.methods))),
    )


def find_source(made: Provenance, candidates: Iterable[Path]) -> Path | None:
    """The first file among `candidates` that the picture was made from."""
    for path in candidates:
        try:
            if path.stat().st_size == made.bytes and sha256(path) == made.sha256:
                return path
        except OSError:
            continue
    return None


def compare_pixels(before: np.ndarray, now: np.ndarray) -> tuple[bool, str]:
    """Whether two H x W x 3 uint8 pictures are the same, and a line that says how they differ."""
    if before.shape != now.shape:
        sizes = [f"{image.shape[1]} x {image.shape[0]}" for image in (before, now)]
        return False, f"different size: {sizes[0]} then, {sizes[1]} now"
    difference = np.abs(before.astype(np.int16) - now)
    if not difference.any():
        return True, f"same pixels: all {now.shape[1]} x {now.shape[0]}"
    share = 100 * (difference.max(-1) > 0).mean()
    psnr = 10 * np.log10(255**2 / np.square(difference.astype(np.float64)).mean())
    return False, f"different: {share:.2f} % of the pixels, by at most {difference.max()} of 255; PSNR {psnr:.2f} dB"


def _given(made: Provenance, source: str | Path) -> list[Path]:
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{path} is not a file; give the {made.kind} that the picture was made from")
    if find_source(made, [path]) is None:
        raise UserError(f"{path} is not {made.file} as it was then (another sha256); give that file")
    return [path]


def _candidates(path: Path, store: Store) -> Iterator[Path]:
    yield from (beside for beside in sorted(path.parent.iterdir()) if beside.is_file())
    yield from (run.source for run in store.runs() if run.source)
    yield from sorted(EXAMPLES.glob("*"))


def _pixels(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return np.asarray(picture.convert("RGB"))
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise UserError(f"{path.name} is damaged ({error}); use the file as downloaded") from error
