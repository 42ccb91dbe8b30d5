"""No test picture, nor a near-duplicate of one, may be trained on: the check, and what it found.

Two stages, both on 64 x 64 grey thumbnails. A 64-bit difference hash (dHash: which of two neighbours of a 9 x 8
reduction is brighter) finds candidates among millions in seconds; the correlation of the pixels decides, as skies and
other soft pictures share hashes. Mirrored, cropped, rescaled and recompressed copies are found; rotations are not. No
library takes the place of this: ImageHash has the same dHash, which is the three lines of `_hashes`, but no mirrored
copies, no second look at the pixels, and crops only by segments that are compared pair by pair in Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lua_demo.pictures.images import list_images, load_photos
from lua_demo.schema import UserError

SIDE = 64
MAX_DISTANCE = 12  # of 64 bits; unrelated photos differ in 32 on average
MIN_CORRELATION = 0.9
CHUNK = 4096  # views at once

# Parts of a picture by (left, top, right, bottom) as shares of its sides: all of it, its centre, its quarters, halves.
VIEWS = (
    (0, 0, 1, 1),
    *((margin, margin, 1 - margin, 1 - margin) for margin in (0.05, 0.1, 0.165, 0.25)),
    *((x, y, x + 2 / 3, y + 2 / 3) for x in (0, 1 / 3) for y in (0, 1 / 3)),
    *((x, y, x + 0.5, y + 0.5) for x in (0, 0.5) for y in (0, 0.5)),
    *((x, 0, x + 2 / 3, 1) for x in (0, 1 / 6, 1 / 3)),
    *((0, y, 1, y + 2 / 3) for y in (0, 1 / 6, 1 / 3)),
)


def thumbnail(photo: Image.Image) -> np.ndarray:
    """64 x 64 uint8, grey, whatever the proportions."""
    return np.asarray(photo.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def check(names: Sequence[str], thumbnails: Sequence[np.ndarray], folders: Iterable[str | Path]) -> dict:
    """Compare the training pictures `names` with every picture below `folders`.

    Returns:
        What goes into training.json: `folders`, `test_images`, `training_images`, `compared` pairs of views.
    Raises:
        UserError: a training picture that is, holds or lies in a test picture.
    """
    places = [Path(folder) for folder in folders]
    listed = [path for folder in places for path in list_images(folder)]
    opened = [(path, thumbnail(photo)) for path, photo in load_photos(listed)]
    tests, seen = [path for path, _ in opened], [view for _, view in opened]
    found, compared = [], 0
    # A part of a training picture may be all of a test picture, and the other way round.
    for ours, theirs in ((VIEWS, VIEWS[:1]), (VIEWS[:1], VIEWS)):
        pairs = _matches(thumbnails, ours, seen, theirs)
        found += [(names[one], tests[other].name) for one, other in pairs]
        compared += len(thumbnails) * len(ours) * len(seen) * len(theirs) * 2
    if found:
        named = ", ".join(f"{one} and {other}" for one, other in sorted(set(found))[:3])
        raise UserError(
            f"{len(set(found))} pair(s) of a training and a test picture are near-duplicates ({named}): "
            "take them out of --images or leave that folder out of --test-images"
        )
    return {
        "folders": [folder.name for folder in places],
        "test_images": len(tests),
        "training_images": len(names),
        "compared": compared,
    }


def _matches(
    ours: Sequence[np.ndarray], our_views: Sequence[tuple], theirs: Sequence[np.ndarray], their_views: Sequence[tuple]
) -> set[tuple[int, int]]:
    """(index of one of `ours`, index of one of `theirs`) for every pair in which two views agree, mirrored or not."""
    wanted = [_view(picture, view) for picture in theirs for view in their_views]
    wanted += [picture[:, ::-1] for picture in wanted]
    wanted_hashes, wanted_vectors = _hashes(wanted), _vectors(wanted)
    pairs = set()
    per_chunk = max(1, CHUNK // len(our_views))
    for start in range(0, len(ours), per_chunk):
        views = [_view(picture, view) for picture in ours[start : start + per_chunk] for view in our_views]
        distances = (64 - _hashes(views) @ wanted_hashes.T) / 2
        for one, other in np.argwhere(distances <= MAX_DISTANCE):
            if _vectors([views[one]])[0] @ wanted_vectors[other] >= MIN_CORRELATION:
                index = other % (len(wanted) // 2) // len(their_views)
                pairs.add((start + int(one) // len(our_views), int(index)))
    return pairs


def _view(picture: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """The part `box` of a thumbnail, 32 x 32 float32."""
    left, top, right, bottom = (share * SIDE for share in box)
    pixels = left, top, right, bottom
    return np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX, box=pixels), np.float32)


def _hashes(views: Sequence[np.ndarray]) -> np.ndarray:
    """dHash of each view: its 64 bits as -1 and 1, so that the product of two hashes is 64 - 2 * their distance."""
    small = [np.asarray(Image.fromarray(view).resize((9, 8), Image.Resampling.BOX)) for view in views]
    brighter = np.diff(np.stack(small), axis=2) > 0
    return np.where(brighter, np.float32(1), np.float32(-1)).reshape(len(views), 64)


def _vectors(views: Sequence[np.ndarray]) -> np.ndarray:
    """Each view as a vector of mean 0 and length 1: the product of two is their correlation."""
    flat = np.stack(views).reshape(len(views), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6)
