"""The check that no test picture is trained on: what it must find, and what it must let pass."""

from __future__ import annotations

import io

import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageOps

from lua_demo.schema import UserError
from lua_demo.train.duplicates import check, thumbnail


def scene(seed: int, size: tuple[int, int] = (300, 200)) -> Image.Image:
    """A smooth random picture: unlike any other seed's."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def recompressed(photo: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    photo.resize((photo.width * 2 // 3, photo.height * 2 // 3)).save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


CHANGES = {
    "the same": lambda photo: photo,
    "smaller, recompressed": recompressed,
    "mirrored": ImageOps.mirror,
    "brighter": lambda photo: photo.point(lambda value: min(255, value + 30)),
    "its centre": lambda photo: photo.crop((30, 20, 270, 180)),
    "a quarter": lambda photo: photo.crop((150, 100, 300, 200)),
    "a mirrored part": lambda photo: ImageOps.mirror(photo.crop((0, 0, 200, 200))),
}


@pytest.fixture
def tests(tmp_path):
    for seed in range(4):
        scene(seed).save(tmp_path / f"test{seed}.png")
    return tmp_path


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found(tests, change):
    """A training picture that is a changed test picture, and the other way round."""
    thumbnails = [thumbnail(scene(10 + i)) for i in range(5)] + [thumbnail(CHANGES[change](scene(2)))]
    names = [f"train{i}.jpg" for i in range(6)]
    with pytest.raises(UserError, match=r"1 pair.*train5.jpg and test2.png"):
        check(names, thumbnails, [tests])
    CHANGES[change](scene(20)).save(tests / "part.png")
    with pytest.raises(UserError, match=r"train0.jpg and part.png"):
        check(names[:1], [thumbnail(scene(20))], [tests])


def test_other_pictures_pass_and_are_counted(tests):
    others = [thumbnail(scene(100 + i)) for i in range(60)] + [thumbnail(Image.fromarray(picture(90, 60)))]
    found = check([f"{i}.png" for i in range(61)], others, [tests, tests])
    assert (found["test_images"], found["training_images"], found["folders"]) == (8, 61, [tests.name] * 2)


def test_flat_pictures_are_no_copies_of_each_other(tests):
    Image.new("RGB", (64, 64), "navy").save(tests / "flat.png")
    check(["grey.png"], [thumbnail(Image.new("RGB", (80, 50), "grey"))], [tests])
