"""The benchmark: its baselines compute the same, its counts are right, and it measures what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lua_demo import LUA, SwinIR
from lua_demo.bench import cpu, gpu, networks, paths, plot, text
from lua_demo.bench.ceilings import Ceiling, ceilings
from lua_demo.bench.clock import Timing, interleaved
from lua_demo.bench.counts import count, work
from lua_demo.bench.goals import CPU, GPU, Goal, Row
from lua_demo.bench.reference import Reference, build_mask
from lua_demo.commands import bench as bench_command

CPU_DEVICE = torch.device("cpu")
TOY = dict(embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4, head_num_feat=8, scales=(2, 4))
LIMIT = Ceiling(gemm=1e9, conv=2e9, copy=1e12, gemm_by="nothing")


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("residual", [None, "bicubic", "linear"])
@pytest.mark.parametrize("kind", [LUA, SwinIR])
def test_reference_computes_the_same(kind, residual, cached):
    torch.manual_seed(0)
    network = kind(**TOY, residual=residual).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    reference, x = Reference(network, cached), torch.rand(2, network.in_chans, 9, 12)
    with torch.inference_mode():
        for scale in (2, 4, 2):
            expected = network(x, scale)
            assert (reference(x, scale) - expected).norm() / expected.norm() < 1e-5


def test_masks_of_the_reference():
    assert not build_mask(8, 12, 4, 0).any()
    mask = build_mask(8, 12, 4, 2)
    assert mask.shape == (6, 16, 16) and not mask[0].any() and set(mask.unique().tolist()) == {0.0, -100.0}


def test_the_reference_builds_masks_in_every_forward_unless_they_are_kept():
    network, x = LUA(**TOY).eval(), torch.rand(1, 16, 8, 8)

    def masks(reference: Reference) -> int:
        reference(x, 2)
        return sum(name == "masked_fill" for name in _names(lambda: reference(x, 2)))

    assert masks(Reference(network)) == 4 and masks(Reference(network, cached=True)) == 0


def _names(run) -> list[str]:
    with torch.no_grad(), torch.profiler.profile() as profiled:
        run()
    return [event.name.removeprefix("aten::") for event in profiled.events()]


def test_variants_run_in_turn():
    ran = []
    found = interleaved({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 2, CPU_DEVICE, warm_up=1)
    assert "".join(ran) == "ab" * 5
    assert [len(timing.samples) for timing in found.values()] == [4, 4]


def test_median_and_spread():
    timing = Timing([1.0, 2.0, 1.0, 2.0, 1.0, 2.0])
    assert timing.seconds == 1.5 and timing.spread == pytest.approx(1 / 1.5)
    assert Timing([3.0]).spread == 0


def test_counts_see_what_is_built_and_read_on_the_host():
    x = torch.rand(4, 4)
    assert (count(lambda: x @ x).built, count(lambda: x @ x).host) == (0, 0)
    assert count(lambda: torch.arange(3)).built == 1
    assert count(lambda: x.sum().item()).host == 1
    assert count(lambda: x.repeat(3, 3)).largest == 144


def test_the_attention_that_ran_is_named():
    network, x = LUA(**TOY).eval(), torch.rand(1, 16, 8, 8)
    assert count(lambda: network(x, 2)).attention == ("flash (CPU)",)
    assert count(lambda: Reference(network)(x, 2)).attention == ("math",)


def test_work_of_one_convolution():
    flop, floor = work(nn.Conv2d(8, 16, 3, padding=1), lambda net, x: net(x), (1, 8, 10, 10), LIMIT, 4)
    assert flop == 2 * 9 * 8 * 16 * 100 and floor == pytest.approx(flop / LIMIT.conv)


def test_work_of_the_published_lua_is_that_of_the_paper_designs():
    """0.114 TFLOP at 32 x 32, of which shifted windows at the borders save a little (counts of `speed.md`)."""
    with torch.device("meta"):
        network = networks.lua("full")
    flop, _ = work(network, lambda net, x: net(x, 2), (1, 16, 32, 32), LIMIT, 4)
    assert 0.95 * 0.114e12 < flop <= 0.1141e12


def test_ceilings_are_positive_and_named():
    found = ceilings(CPU_DEVICE, torch.float32)
    assert found.gemm > 0 and found.conv > 0 and found.copy > 0 and found.gemm_by in ("torch.mm", "oneDNN")


@pytest.mark.parametrize(
    ("goal", "value", "verdict"),
    [
        (Goal("", 2, 3), 3.5, "target met"), (Goal("", 2, 3), 2.5, "must met"), (Goal("", 2, 3), 1.5, "MISSED"),
        (Goal("", 3, 2, most=True), 1.5, "target met"), (Goal("", 3, 2, most=True), 4, "MISSED"),
        (Goal(""), 1, "reported"), (Goal("", None, 1), 0.5, "reported"), (Goal("", 2, 3), None, "not measured"),
    ],
)  # fmt: skip
def test_verdicts(goal, value, verdict):
    assert Row("X", goal, value).verdict == verdict


def test_structure_holds():
    """C8: it does not depend on the machine, so it is held here, too."""
    rows = []
    cpu._structure(lambda *row: rows.append(row), "S")
    assert rows[0][:2] == ("C8", 0.0) and "flash (CPU)" in rows[0][2]


def test_paths_are_sums_of_their_stages():
    found, stages = paths.measure(CPU_DEVICE, torch.float32, 64, 2, ("embedded", "tiny"), "shipped", 1)
    seconds = {name.removeprefix("64->128 shipped "): timing.seconds for name, timing in stages.items()}
    for path in found:
        assert path.lua == seconds["LUA"] + seconds[f"{path.decoder} 128"]
        assert path.pixels == seconds[f"{path.decoder} 64"] + seconds["SwinIR"]
        assert path.native == seconds[f"{path.decoder} 128"]
    assert [path.decoder for path in found] == ["embedded", "tiny"]
    assert "0.5" not in text.of_paths([]) and "embedded | shipped | 64 -> 128" in text.of_paths(found)


def test_all_three_decoders_are_compared_on_every_device():
    for device in ("cpu", "cuda"):
        shown = [name for names, _, _ in paths.plan(torch.device(device), full=False) for name in names]
        assert set(shown) == set(paths.DECODERS)


def test_share_of_the_way_from_latent_to_picture_in_a_base():
    """G15 and G16, on a small FLUX transformer; the stages of the way are given."""
    flux = networks.flux(
        CPU_DEVICE, torch.bfloat16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    assert flux.dtype == torch.bfloat16 == networks.flux_step(flux, 64)().dtype
    assert networks.flux_step(flux, 64)().shape == (1, 16, 64)
    stages = {"2048 published LUA": 1.0, "2048 published KL 2048": 2.0}
    stages |= {"4096 published LUA": 3.0, "4096 published KL 4096": 9.0}
    sheet = gpu.Sheet(CPU_DEVICE, LIMIT, lambda row: None)
    sheet.timings = {f"1024->{name}": Timing([seconds]) for name, seconds in stages.items()}
    gpu._base(sheet, flux)
    small, large = (28 * sheet.timings[f"FLUX.1-dev step {side}"].seconds for side in (1024, 2048))
    assert sheet.rows["G15"].value == pytest.approx(100 * 3 / (small + 3))
    assert sheet.rows["G15b"].value == pytest.approx(100 * 12 / (small + 12))
    assert sheet.rows["G16"].value == pytest.approx((large + 2) / (small + 3))


def test_scale_plot_and_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plot, "SIZES", (8, 16))
    monkeypatch.setattr(plot, "BATCHES", (1,))
    picture, numbers = tmp_path / "a" / "scale.png", tmp_path / "scale.json"
    assert bench_command.main(["--device", "cpu", "--scale-plot", str(picture), "--json", str(numbers)]) == 0
    document = json.loads(numbers.read_text())
    assert [(p["side"], p["scale"]) for p in document["scale"]["by_side"]] == [(8, 2), (16, 2), (8, 4), (16, 4)]
    assert all(p["seconds"] > 0 and p["peak_bytes"] > 0 for p in document["scale"]["by_side"])
    assert document["machine"]["torch"] == f"torch {torch.__version__}"
    colours = {tuple(pixel) for pixel in np.asarray(Image.open(picture)).reshape(-1, 3)}
    assert {(0x16, 0x68, 0xB8), (0xC2, 0x41, 0x0C), (255, 255, 255)} <= colours
    assert "1 x 16 x 16, x4:" in capsys.readouterr().out


def test_rows_that_were_not_measured_say_so():
    shown = text.of_rows([Row(key, goal) for table in (CPU, GPU) for key, goal in table.items()])
    assert shown.count("not measured") == len(CPU) + len(GPU)
    assert "| G10 | peak memory of the KL decode to 4096 px, bf16 |  | <= 60 GB | <= 40 GB |" in shown
