"""Overlapping tiles: the same as one piece for what sees little, no seams, smaller ones where memory runs out."""

from __future__ import annotations

import pytest
import torch
from conftest import TRUNK
from torch.nn import functional as F

from lua_demo.models import tiles
from lua_demo.models.tiles import tiled, within_memory
from lua_demo.networks.swinir import SwinIR


def nearest(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (65, 130), (200, 131)])
@pytest.mark.parametrize("multiple", [1, 8])
def test_tiles_of_what_sees_one_pixel_are_the_whole(size, multiple):
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(tiled(nearest, x, 64, 2, multiple), nearest(x))


def test_tiles_begin_where_windows_do_and_are_no_larger_than_asked():
    seen = []

    def run(x: torch.Tensor) -> torch.Tensor:
        seen.append((round(x[0, 0, 0, 0].item()), round(x[0, 1, 0, 0].item()), *x.shape[-2:]))
        return x

    rows, columns = torch.meshgrid(torch.arange(150.0), torch.arange(99.0), indexing="ij")
    tiled(run, torch.stack([rows, columns])[None], 64, 1, multiple=8)
    assert len(seen) > 4 and all(top % 8 == left % 8 == 0 for top, left, *_ in seen)
    assert all(max(height, width) < 64 + 8 for _, _, height, width in seen)


@torch.inference_mode()
def test_a_window_network_has_no_seams():
    torch.manual_seed(0)
    network = SwinIR(**{**TRUNK, "residual": None}).eval()
    x = torch.rand(1, 3, 96, 96)
    whole = network(x, 2)
    difference = (tiled(lambda part: network(part, 2), x, 64, 2, multiple=4) - whole).abs()
    assert difference[..., :60, :60].max() < 1e-5, "before the overlap it is the same"
    steps = difference.diff(dim=-2).abs().mean((0, 1, 3))
    assert difference.max() < 0.2 * whole.std() and steps.max() < 0.05 * whole.std()


def test_in_one_piece_where_it_fits_and_in_the_largest_tiles_otherwise(monkeypatch):
    x, per_pixel = torch.rand(1, 3, 300, 200), 100
    assert within_memory(nearest, x, 2, per_pixel)[1] is None
    monkeypatch.setattr(tiles, "free_bytes", lambda device: 140 * 140 * per_pixel * 4 * 1.1)
    made, side = within_memory(nearest, x, 2, per_pixel)
    assert side == 128
    torch.testing.assert_close(made, nearest(x))


def test_what_runs_out_all_the_same_is_run_again_with_smaller_tiles():
    seen = []

    def run(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[-1])
        if x.shape[-1] > 100:
            raise RuntimeError("could not create a primitive")
        return nearest(x)

    x = torch.rand(1, 3, 160, 160)
    made, side = within_memory(run, x, 2, 1)
    assert side == 64 and seen[:2] == [160, 128]
    torch.testing.assert_close(made, nearest(x))


def test_refused_where_even_the_smallest_does_not_fit(monkeypatch):
    monkeypatch.setattr(tiles, "free_bytes", lambda device: 1000)
    with pytest.raises(torch.OutOfMemoryError, match=r"a tile of 64 px needs .* GiB"):
        within_memory(nearest, torch.rand(1, 3, 100, 100), 2, 100)
    monkeypatch.undo()

    def run(x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no")

    with pytest.raises(torch.OutOfMemoryError):
        within_memory(run, torch.rand(1, 3, 100, 100), 2, 1)
    with pytest.raises(RuntimeError, match="of the program"):
        within_memory(lambda x: (_ for _ in ()).throw(RuntimeError("of the program")), torch.rand(1, 3, 9, 9), 2, 1)
