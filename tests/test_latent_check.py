"""Whose latent is it, and where does it leave the range: on drawn latents and, where the data is there, on photos'."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import CHANNELS, TRUNK, drawn
from PIL import Image

from lua_demo.catalog.spaces import SPACES
from lua_demo.models.upscalers import bicubic
from lua_demo.models.vaes import VAE, load_network
from lua_demo.networks.lua import LUA
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.pictures.images import list_images, load_photo, to_tensor
from lua_demo.pictures.latent_check import (
    RANGE,
    SOFTNESS,
    STATISTICS,
    Statistics,
    closest_space,
    load_statistics,
    outside,
    refuse_foreign,
    save_statistics,
    soft_bound,
)
from lua_demo.pictures.latents import save_latent
from lua_demo.report.records import rows
from lua_demo.schema import BaseLatent, Request, Result, UserError
from lua_demo.train import statistics

SHARED = Path(__file__).resolve().parents[2] / "shared"
KNOWN = [space for space, row in SPACES.items() if not row.tiny_file]
"""Those whose autoencoder was at hand when the statistics were made."""

PAIRS = [(a, b) for a in KNOWN for b in KNOWN if a != b]


def test_the_shipped_statistics_are_of_all_spaces():
    found = load_statistics()
    assert found.keys() == set(KNOWN) and STATISTICS.stat().st_size < 100_000
    for space, row in found.items():
        assert row.channels == SPACES[space].channels
        assert (row.low < row.high).all() and (torch.linalg.eigvalsh(row.scatter) > 0).all()


@pytest.mark.parametrize("space", KNOWN)
def test_a_latent_of_the_space_is_taken(space):
    for seed in range(5):
        refuse_foreign(drawn(space, seed=seed), space)


@pytest.mark.parametrize(("space", "claimed"), PAIRS)
def test_a_latent_of_another_space_is_refused(space, claimed):
    latent = drawn(space)
    same = SPACES[space].channels == SPACES[claimed].channels
    words = f"looks like a latent of the space {space}, not {claimed}" if same else "channels; latents of the space"
    with pytest.raises(UserError, match=words):
        refuse_foreign(latent, claimed)
    tagged = BaseLatent(latent[0].numpy(), space, (192, 192))
    with pytest.raises(UserError, match=f"mine is a latent of the space '{space}', not {claimed}"):
        refuse_foreign(tagged, claimed, "mine")
    lying = BaseLatent(latent[0].numpy(), claimed, (192, 192))
    with pytest.raises(UserError, match=words):
        refuse_foreign(lying, claimed)


def test_the_engine_refuses_a_latent_whose_tag_is_wrong(engine, tmp_path):
    engine.provide("sd3", "tiny", VAE(TinyAutoencoder(16)))
    for space, words in (("sd3", None), ("flux1", r"in\.safetensors looks like a latent of the space flux1")):
        lying = BaseLatent(drawn(space, 12)[0].numpy(), "sd3", (96, 96))
        file = str(save_latent(tmp_path / "in.safetensors", lying))
        request = Request(latent=file, methods=("base",), base="sd35-medium", decoder="tiny")
        if words is None:
            assert [event.method for event in engine.compare(request) if isinstance(event, Result)] == ["base"]
        else:
            with pytest.raises(UserError, match=words):
                list(engine.compare(request))


def test_a_space_that_does_not_exist_is_said():
    with pytest.raises(UserError, match="'sd9' does not exist; choose embedded, sd1"):
        refuse_foreign(drawn("sd1"), "sd9")


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 2)])
def test_small_latents_are_taken_too(size):
    refuse_foreign(load_statistics()["sdxl"].low.new_zeros(1, 4, *size), "sdxl")


def test_the_share_and_the_map_say_what_is_outside():
    row = load_statistics()["sd1"]
    latent = ((row.low + row.high) / 2)[None, :, None, None].repeat(2, 1, 3, 5)
    assert outside(latent, "sd1").shape == (2, 3, 5) and outside(latent, "sd1").sum() == 0
    latent[1, 2, 0, 4] = row.high[2] + 0.01
    latent[1, 3, 0, 4] = row.low[3] - 0.01
    where = outside(latent, "sd1")
    assert where[1, 0, 4] == 0.5 and where.sum() == 0.5
    with pytest.raises(UserError, match=r"shape \(1, 16, 2, 2\); one of the space sd1 is B x 4 x h x w"):
        outside(torch.zeros(1, 16, 2, 2), "sd1")


def test_the_soft_bound_changes_only_what_is_outside():
    row = load_statistics()["flux1"]
    low, high = row.low[None, :, None, None], row.high[None, :, None, None]
    steps = torch.linspace(-2, 3, 501).view(1, 1, 1, -1)
    latent = low + steps * (high - low)
    bent = soft_bound(latent, "flux1")
    inside = outside(latent, "flux1")[0, 0] == 0
    assert 90 < inside.sum() < 110 and torch.equal(bent[..., inside], latent[..., inside])
    reach = SOFTNESS * (high - low)
    assert (bent >= low - reach).all() and (bent <= high + reach).all()
    assert (bent.diff(dim=-1) >= 0).all()
    latent.requires_grad_()
    soft_bound(latent, "flux1").sum().backward()
    assert torch.allclose(latent.grad[..., inside], torch.ones(())) and (latent.grad >= 0).all()
    assert soft_bound(latent.detach().bfloat16(), "flux1").dtype == torch.bfloat16


def test_statistics_are_measured_kept_and_added_to(tmp_path):
    torch.manual_seed(0)
    made = Statistics.of(torch.randn(8, 16, 20, 20) * torch.arange(1, 17).view(1, -1, 1, 1) + 3)
    assert (made.mean - 3).abs().max() < 1.2 and made.scatter.shape == (16, 16)
    spread = made.scatter.diagonal().sqrt() / torch.arange(1, 17)
    assert spread.std() < 0.05 * spread.mean()
    inside = ((made.low < 3) & (made.high > 3)).all()
    assert inside and 0.99 < RANGE < 1
    save_statistics({"one": made}, tmp_path / "file.safetensors")
    save_statistics({"two": Statistics.of(torch.randn(4, 4, 9, 9))}, tmp_path / "file.safetensors")
    found = load_statistics(tmp_path / "file.safetensors")
    assert list(found) == ["one", "two"] and torch.equal(found["one"].scatter, made.scatter)
    assert found["two"].channels == 4 and len(found["two"].mean) == 36


def test_the_command_makes_them_from_photos(photo, tmp_path, capsys):
    for size in ((150, 140), (900, 400), (100, 300)):
        photo(*size)
    out = tmp_path / "made.safetensors"
    assert statistics.main(["--images", str(tmp_path), "--spaces", "embedded", "--out", str(out)]) == 0
    assert "embedded, from 2 photos" in capsys.readouterr().out
    assert load_statistics(out)["embedded"].channels == CHANNELS
    (tmp_path / "empty").mkdir()
    photo(20, 20).rename(tmp_path / "empty" / "small.png")
    with pytest.raises(UserError, match="at least 128 px"):
        statistics.main(["--images", str(tmp_path / "empty")])


@pytest.fixture(scope="module")
def kodak() -> torch.Tensor:
    """The middle 256 x 256 of every second image."""
    photos = [load_photo(path) for path in list_images(SHARED / "data" / "kodak")[::2]]
    corners = [(photo.width // 2 - 128, photo.height // 2 - 128) for photo in photos]
    crops = [p.crop((x, y, x + 256, y + 256)) for p, (x, y) in zip(photos, corners, strict=True)]
    return torch.cat([to_tensor(crop) for crop in crops])


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize("space", KNOWN)
def test_every_photo_is_told_in_every_space(space, kodak):
    """All pairs of spaces of the same channels; the others are told by their channels."""
    network = load_network(space, SHARED / "weights" / "tae" if SPACES[space].tiny else None)
    plain = torch.stack([torch.full((3, 128, 128), value) for value in (0.0, 0.5, 1.0)])
    with torch.inference_mode():
        latents, flat = network.encode(kodak), network.encode(plain)
    assert len(latents) == 12 and outside(latents, space).mean() < 0.01
    rivals = [other for other in KNOWN if SPACES[other].channels == SPACES[space].channels]
    wrong = [(i, c) for i in range(12) for c in rivals if closest_space(latents[i : i + 1], c) != space]
    assert wrong == []
    for latent in flat:
        refuse_foreign(latent[None], space)
    soft = load_photo(list_images(SHARED / "data" / "kodak")[3]).resize((48, 32)).resize((192, 128), Image.BICUBIC)
    with torch.inference_mode():
        refuse_foreign(network.encode(to_tensor(soft)), space)


def test_a_comparison_tells_the_share_of_the_enlarged_latent(engine, tmp_path):
    """Of latents within the range and beyond it: the number for programs, a note for people where it is large."""
    inside = drawn("embedded", 12)
    row = load_statistics()["embedded"]
    inside = inside.clamp(row.low[None, :, None, None], row.high[None, :, None, None]) / 2
    far = inside.clone()
    far[..., :6, :] = row.high[None, :, None, None] * 4
    for latent, large in ((inside, False), (far, True)):
        given = BaseLatent(latent[0].numpy(), "embedded", (96, 96))
        file = save_latent(tmp_path / "in.safetensors", given)
        request = Request(latent=str(file), methods=("base", "bicubic", "swinir"))
        made = {event.method: event for event in engine.compare(request) if isinstance(event, Result)}
        expected = outside(bicubic(latent, 2), "embedded").mean()
        assert made["bicubic"].outside == pytest.approx(float(expected), abs=1e-6)
        assert (made["bicubic"].outside > 0.4) == large
        assert any("outside the range of photos" in note for note in made["bicubic"].notes) == large
        assert made["base"].outside is None and made["swinir"].outside is None
        assert [row["outside"] for row in rows(list(made.values()))] == [None, made["bicubic"].outside, None]


def test_lua_from_a_photo_tells_its_share(engine, photo):
    network = LUA(in_chans=CHANNELS, **TRUNK)
    with torch.no_grad():
        network.heads["x2"].conv_last.bias[:8] = 100
    engine.provide("embedded", "lua", network)
    request = Request(str(photo(64, 48)), size=64, methods=("lua",))
    (lua,) = (event for event in engine.compare(request) if isinstance(event, Result))
    assert lua.outside == pytest.approx(8 / CHANNELS, abs=0.01)
    assert any(note.startswith(f"{lua.outside:.1%} of the enlarged latent is outside") for note in lua.notes)
