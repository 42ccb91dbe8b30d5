"""Losses against hand-computed values, gradients that reach what they train, and a loop that resumes."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from safetensors.torch import load_file, save_file

from lua_demo.commands import train as train_command
from lua_demo.models import lua as lua_of_spaces
from lua_demo.models import vaes
from lua_demo.models.weights import load_lua
from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.networks.feature_lua import FeatureLUA, lost, on_latents
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.schema import UserError
from lua_demo.train import ablate, autoencoder, losses, upscaler
from lua_demo.train.data import Crops, shrink
from lua_demo.train.loop import Settings, Stage, learning_rate, read_plan, train
from lua_demo.train.pairs import CachedPairs, FreshPairs

TOY = dict(latent_channels=4, fine=8, coarse=8, encoder_coarse=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
TOY_TRUNK = dict(
    embed_dim=8,
    depths=(2,),
    num_heads=(2,),
    window_size=4,
    mlp_ratio=2,
    head_num_feat=8,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(3):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        coarse.resize((160, 128), Image.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def crops(photos):
    return Crops(photos, smallest=64)


@pytest.fixture
def toy_autoencoder(crops):
    torch.manual_seed(0)
    model = Autoencoder(**TOY)
    model.start_from_pca(crops.batch(16, 32, np.random.default_rng(0)))
    return model


@torch.no_grad()
def shake(model):
    """Move the zero-initialised layers, which let no gradient through to what stands before them."""
    for parameter in model.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))


def test_losses_have_their_hand_computed_values():
    output = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).reshape(1, 1, 2, 2)
    target = torch.tensor([[0.0, 1.0], [2.0, 5.0]]).reshape(1, 1, 2, 2)
    assert losses.l1(output, target).item() == pytest.approx((1 + 2 + 0 + 3) / 4)
    assert losses.l2(output, target).item() == pytest.approx((1 + 4 + 0 + 9) / 4)
    # differences 1 2 / 0 -3: along x 1, -3; along y -1, -5
    assert losses.gradient_l1(output, target).item() == pytest.approx((1 + 3) / 2 + (1 + 5) / 2)
    # orthonormal 2x2 transform: (a+b+c+d, a-b+c-d, a+b-c-d, a-b-c+d) / 2
    magnitudes = [abs(x) / 2 for x in (8, -2, 0, -2)], [abs(x) / 2 for x in (8, -4, -6, 2)]
    assert losses.fft_l1(output, target).item() == pytest.approx(np.abs(np.subtract(*magnitudes)).mean())


def test_seams_count_on_the_borders_of_cells_only():
    difference = torch.zeros(1, 1, 4, 4)
    difference[..., 2] = 3.0  # steps along x: 0, +3 across the line at 2, -3 after it
    assert losses.seam_l1(difference, torch.zeros_like(difference), period=2).item() == pytest.approx(3.0)
    difference = torch.zeros(1, 1, 4, 4)
    difference[..., 1, 0] = 4.0  # inside a cell along x, a step across the line at 2 along y in one of four columns
    assert losses.seam_l1(difference, torch.zeros_like(difference), period=2).item() == pytest.approx(4.0 / 4)


def test_steps_are_uneven_where_one_place_of_a_cell_has_more_of_them():
    """A ramp with the same step at each place of a cell against one with a double step at the border of the cells."""
    even = torch.arange(17.0).expand(2, 3, 17, 17) / 17
    step = torch.tensor([1.0, 1.0, 1.0, 2.0] * 4)
    rough = torch.cat([torch.zeros(1), step.cumsum(0)]).expand(2, 3, 17, 17)
    # squared steps over their mean of 7 / 4: 4 / 7 three times, 16 / 7; along the ramp only, and whatever its height
    expected = (3 * (3 / 7) ** 2 + (9 / 7) ** 2) / 4
    for ramp in (rough, 0.1 * rough):
        assert losses.uneven_steps(ramp, even, period=4).item() == pytest.approx(expected, rel=1e-2)
        assert losses.uneven_steps(ramp.mT, even.mT, period=4).item() == pytest.approx(expected, rel=1e-2)
    assert losses.uneven_steps(rough, rough, period=4).item() == 0
    assert losses.uneven_steps(rough, even, period=3).item() < expected / 4  # no grid of 3 px in it


def test_noise_is_no_way_out_of_uneven_steps():
    """A network learnt to hide the grid under a fine dither when the mean step of the picture was part of the loss."""
    grid = 0.1 * ((torch.arange(512) // 8) % 2).expand(1, 3, 512, 512)
    noise = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0))
    target = grid + torch.rand(grid.shape, generator=torch.Generator().manual_seed(1))
    amount = torch.tensor(0.05, requires_grad=True)
    loss = losses.uneven_steps(grid + amount * noise, target, period=8)
    loss.backward()
    assert loss > 0.1 and amount.grad.abs() * 0.05 < 0.05 * loss


def test_downsampled_l1_by_hand():
    """A constant offset of 0.25 survives any downsampling; a checkerboard is gone."""
    target = torch.zeros(1, 3, 32, 32)
    assert losses.downsampled_l1(target + 0.25, target, 2).item() == pytest.approx(0.25, abs=1e-6)
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 - 0.5
    assert losses.downsampled_l1(target + board, target, 4).item() < 0.02 < losses.l1(target + board, target).item()


def test_highpass_l1_by_hand():
    output = torch.zeros(1, 1, 9, 9)
    output[0, 0, 4, 4] = 1.0
    weights = np.exp(-(np.arange(-2, 3) ** 2) / 2)
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    # 1 minus the centre of the kernel at one pixel, the rest of the kernel around it.
    expected = (1 - kernel[2, 2] + kernel.sum() - kernel[2, 2]) / 81
    assert losses.highpass_l1(output, torch.zeros_like(output)).item() == pytest.approx(expected, rel=1e-5)
    assert losses.highpass_l1(output * 0 + 0.7, output * 0).item() == pytest.approx(0, abs=1e-6)


def test_faintness_by_hand():
    """A board's luma is all detail, but for the little of it that the Gaussian leaves; colour alone has none."""
    y, x = torch.arange(32)[:, None], torch.arange(32)
    board = ((x + y) % 2 - 0.5).expand(1, 3, 32, 32)
    weights = np.exp(-(np.arange(-2, 3) ** 2) / 2)
    gain = 1 - ((weights * [1, -1, 1, -1, 1]).sum() / weights.sum()) ** 2
    assert losses.faintness(0.5 * board, board).item() == pytest.approx(gain**2 * (0.25 - 0.0625), rel=1e-4)
    assert losses.faintness(2 * board, board) == 0
    half = torch.where(x < 16, 0.0, 2.0) * board
    lacking = losses.faintness(half, board).item()
    assert lacking == pytest.approx(gain**2 * 0.25 * 3 / 7, rel=0.1), "more detail elsewhere does not make up for it"
    tint = board * torch.tensor([1 / 0.299, -1 / 0.587, 0]).view(3, 1, 1)
    assert losses.faintness(board * 0, tint).item() == pytest.approx(0, abs=1e-6)
    assert upscaler.faint(board / 2, board, 2) > 0 == upscaler.faint(board / 2, board, 4)


def test_faintness_enlarges_detail_that_is_there():
    """Beside a squared error, what is known of a picture (a board) is best at 1 / (1 - w) where much is unknown."""
    y, x = torch.arange(32.0)[:, None], torch.arange(32.0)
    board, stripes = (((pattern % 2) - 0.5).expand(1, 3, 32, 32) for pattern in (x + y, y))
    target = board + 4 * stripes
    high = losses.faintness(board * 0, board) / losses.l2(board * 0, board)  # what of the board is detail
    size = (1 / (1 - 0.4 * high)).requires_grad_(True)
    output = size * board
    error = losses.l2(output, board)  # the stripes, unknown, add the same to it whatever the size
    (error + 0.4 * losses.faintness(output, target)).backward()
    assert size.item() > 1.5 and size.grad.abs() < 1e-3


@pytest.mark.parametrize("side", [6, 9, 10])
def test_eagle_step_by_step(side):
    """Against the definition, written out with loops in numpy and the full transform."""
    rng = np.random.default_rng(0)
    pictures = rng.random((2, 3, side, side)).astype(np.float32)
    scharr = np.array([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]])
    maps = []
    for image in pictures:
        luma = np.pad(np.tensordot((0.299, 0.587, 0.114), image, 1), 1, mode="edge")
        directions = []
        for kernel in (scharr, scharr.T):
            gradient = np.zeros((side, side))
            for y in range(side):
                for x in range(side):
                    gradient[y, x] = (luma[y : y + 3, x : x + 3] * kernel).sum()
            n = side // 3
            directions.append(
                [[gradient[3 * i : 3 * i + 3, 3 * j : 3 * j + 3].var(ddof=1) for j in range(n)] for i in range(n)]
            )
        maps.append(np.abs(np.fft.fft2(directions)))
    frequency = np.fft.fftfreq(side // 3)
    mask = 1 - np.exp(-(frequency[:, None] ** 2 + frequency**2) / (2 * 0.5**2))
    expected = sum((np.abs(maps[0][d] - maps[1][d]) * mask).mean() for d in range(2))
    output, target = torch.from_numpy(pictures)[:, None]
    assert losses.eagle(output, target).item() == pytest.approx(expected, rel=1e-4)
    assert losses.eagle(output, output).item() == 0


@pytest.mark.parametrize("term", [losses.highpass_l1, losses.eagle, lambda x, y: losses.downsampled_l1(x, y, 2)])
def test_terms_are_finite_and_differentiable_where_output_and_target_agree(term):
    output = torch.full((1, 3, 12, 12), 0.5, requires_grad=True)
    term(output, torch.full((1, 3, 12, 12), 0.5)).backward()
    assert torch.isfinite(output.grad).all()


def test_shrink_is_pillows_bicubic():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    ours = shrink(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, 2)[0].permute(1, 2, 0).numpy() * 255
    pillow = np.asarray(Image.fromarray(pixels).resize((24, 16), Image.BICUBIC))
    assert np.abs(ours - pillow).max() <= 1.0


def test_pca_start_reconstructs_as_pca_does(toy_autoencoder, crops):
    image = crops.batch(8, 64, np.random.default_rng(5))
    patches = torch.nn.functional.pixel_unshuffle(image, 8).movedim(1, -1).flatten(0, -2)
    basis = torch.pca_lowrank(patches, q=4, niter=8)[2]
    mean = patches.mean(0)
    best = losses.l2((patches - mean) @ basis @ basis.T + mean, patches).item()
    ours = losses.l2(toy_autoencoder.decode(toy_autoencoder.encode(image)), image).item()
    assert best * 0.99 <= ours < 2 * best  # the basis comes from other crops of the same photos


def test_normalise_changes_the_latents_scale_and_nothing_else(toy_autoencoder, crops, tmp_path):
    image = crops.batch(8, 64, np.random.default_rng(5))
    before, latent = toy_autoencoder.decode(toy_autoencoder.encode(image)), toy_autoencoder.encode(image)
    toy_autoencoder.normalise(latent.mean().item(), latent.std().item())
    toy_autoencoder.save_pretrained(tmp_path)
    loaded = Autoencoder.from_pretrained(tmp_path, strict=True)
    assert loaded.encode(image).std().item() == pytest.approx(1, abs=1e-4)
    assert loaded.encode(image).mean().item() == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close(loaded.decode(loaded.encode(image)), before, atol=1e-5, rtol=0)


def test_every_term_of_the_autoencoder_reaches_its_weights(toy_autoencoder, crops, monkeypatch):
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    task = autoencoder.AutoencoderTask(crops, crops.batch(2, 64, np.random.default_rng(1)), toy_autoencoder)
    shake(task.model)
    stage = Stage("s", 1, dict(autoencoder.WEIGHTS), crop=64, batch=2)
    for name in stage.weights:
        task.model.zero_grad()
        for seed in range(6):  # each draws one of the scales
            task.losses(stage, np.random.default_rng(seed))[name].backward()
        parts = task.model if name == "upscaled" else task.model.autoencoder
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parts.parameters()), name


@pytest.mark.parametrize(("keep", "kept"), [("all", 9), ("base", 4), ("", 0)])
def test_latents_can_be_kept_while_the_decoder_is_trained(keep, kept, toy_autoencoder, crops, tmp_path, monkeypatch):
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    held_out = crops.batch(2, 64, np.random.default_rng(1))
    network = autoencoder.widened(toy_autoencoder, 9, crops)
    task = autoencoder.AutoencoderTask(crops, held_out, network, keep=keep)
    latent = network.encode(held_out).detach()
    decoded = network.decode(latent).detach()
    train(task, [Stage("s", 3, dict(autoencoder.WEIGHTS), crop=64, batch=2)], Settings(tmp_path, bf16=False))
    after = task.model.autoencoder
    changed = (after.encode(held_out) - latent).abs().amax((0, 2, 3)) > 0
    assert changed.tolist() == [False] * kept + [True] * (9 - kept)
    assert not torch.allclose(after.decode(latent), decoded)
    saved = Autoencoder.from_pretrained(tmp_path / "model").encode(held_out)  # in float16
    torch.testing.assert_close(saved[:, :kept], latent[:, :kept], atol=0.01, rtol=0)


@pytest.mark.parametrize("steps", [(9,), (6, 9)])
@torch.no_grad()
def test_channels_for_detail_leave_the_others_as_they_are(steps, toy_autoencoder, crops, monkeypatch):
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    shake(toy_autoencoder)
    lua = upscaler.new_lua(4)
    upscaler.fit_skips(lua, toy_autoencoder, crops)
    shake(lua)
    wide, wide_lua = toy_autoencoder, lua
    for channels in steps:
        wide = autoencoder.widened(wide, channels, crops)
        wide_lua = autoencoder.widened_lua(wide_lua, wide, crops)
    assert (wide.latent_channels, wide.detail_channels, wide_lua.in_chans) == (9, 5, 9)
    image = crops.batch(8, 64, np.random.default_rng(3))
    latent = wide.encode(image)
    torch.testing.assert_close(latent[:, :4], toy_autoencoder.encode(image), atol=0, rtol=0)
    assert (latent[:, 4:].std((0, 2, 3)) / autoencoder.DETAIL_STD - 1).abs().max() < 0.3
    round_trips = [(x.decode(x.encode(image)) - image).square().mean() for x in (wide, toy_autoencoder)]
    assert round_trips[0] < 0.7 * round_trips[1]
    for scale in lua.scales:
        small = shrink(image, scale)
        pairs = (wide, wide_lua), (toy_autoencoder, lua)
        errors = [(x.decode(y(x.encode(small), scale)) - image).square().mean() for x, y in pairs]
        assert errors[0] < errors[1]


def test_channels_that_cannot_be_added_are_refused(toy_autoencoder, crops, photos, tmp_path):
    with pytest.raises(UserError, match="4 adds no channels to the 4"):
        autoencoder.widened(toy_autoencoder, 4, crops)
    with pytest.raises(UserError, match="leave --lua out"):
        autoencoder.widened_lua(upscaler.LUA(4, 8, [2], [2], 4, scales=[2], residual="bicubic"), toy_autoencoder, crops)
    with pytest.raises(UserError, match="--channels is for the autoencoder"):
        train_command.main(
            ["lua", "--channels", "8", "--images", str(photos), "--out", str(tmp_path), "--device", "cpu"]
        )


def test_photos_too_small_for_the_sample_sheets_are_named(photos):
    with pytest.raises(UserError, match=r"256 px.*--samples"):
        train_command.sample_crops(photos)


@pytest.mark.parametrize("what", ["autoencoder", "lua"])
def test_latents_of_nothing_are_not_kept(what, photos, tmp_path):
    with pytest.raises(UserError, match=r"--keep-latents .* --init"):
        train_command.main([what, "--keep-latents", "--images", str(photos), "--out", str(tmp_path), "--device", "cpu"])


def upscaler_task(kind, network, crops, monkeypatch):
    """A toy task on fresh crops; "features": of a LUA between layers of a random tiny autoencoder of 4 channels."""
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    tiny = None
    if kind == "features":
        torch.manual_seed(0)
        network = tiny = TinyAutoencoder(4)
    model = upscaler.new_lua_for(None if tiny else network.latent_channels)
    few = dict(batches=2, count=4) if tiny else {}  # its features take time
    upscaler.fit_skips(model, network, crops, tiny, **few)
    pairs = FreshPairs(network, crops, model.scales)
    return upscaler.UpscalerTask(model, network, pairs, crops.batch(2, 64, np.random.default_rng(1)), tiny)


def test_a_trunk_may_be_wider():
    narrow, wide = upscaler.new_lua(4, width=64), upscaler.new_swinir(width=96)
    assert narrow.layers[0].conv.in_channels == 64 and wide.layers[0].conv.in_channels == 96
    assert narrow.layers[0].residual_group["blocks"][0].attn.relative_position_bias_table.shape[1] == 2
    for width in (100, 0):
        with pytest.raises(UserError, match="heads of 32"):
            upscaler.trunk(width)


@pytest.mark.parametrize(("space", "dtype"), [("embedded", torch.float16), ("sdxl", torch.bfloat16)])
def test_upscalers_are_saved_in_16_bits_and_training_goes_on_in_float32(
    space, dtype, toy_autoencoder, crops, monkeypatch, tmp_path
):
    task = upscaler_task("lua", toy_autoencoder, crops, monkeypatch)
    task.save(task.model, tmp_path, {"space": space})
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {dtype}
    loaded = load_lua(tmp_path)
    for saved, trained in zip(loaded.parameters(), task.model.parameters(), strict=True):
        assert saved.dtype == trained.dtype == torch.float32
        torch.testing.assert_close(saved, trained, rtol=2**-8, atol=1e-7)


LATENT = [*upscaler.LATENT_TERMS]
PIXEL = [*upscaler.PIXEL_TERMS, *upscaler.SCALED_TERMS, upscaler.LOST]


@pytest.mark.parametrize(
    ("kind", "term"),
    [(kind, term) for kind in ("lua", "features") for term in LATENT + PIXEL],
)
def test_every_term_reaches_every_weight_of_the_upscaler(kind, term, toy_autoencoder, crops, monkeypatch):
    task = upscaler_task(kind, toy_autoencoder, crops, monkeypatch)
    shake(task.model)
    task.losses(Stage("s", 1, {term: 1.0}, crop=64, batch=2), np.random.default_rng(0))[term].backward()
    for name, parameter in task.model.named_parameters():
        reached = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert reached == (term != "faint" or "x4" not in name), name
    assert all(p.grad is None for p in task.network.parameters()), "the autoencoder is frozen"


@pytest.mark.parametrize("mends", [0, 1, 4])
def test_pictures_are_judged_as_back_projection_will_leave_them(mends, toy_autoencoder, crops, monkeypatch):
    """Where the LUA has it; what is left to mend is a loss of its own."""
    task = upscaler_task("features", toy_autoencoder, crops, monkeypatch)
    if mends:
        model = upscaler.with_back_projection(task.model, mends)
        task = upscaler.UpscalerTask(model, task.network, task.pairs, task.samples, task.tiny)
    shake(task.model)
    stage = Stage("s", 1, {"pixel_l2": 1.0, upscaler.LOST: 1.0}, crop=64, batch=2)
    found = task.losses(stage, np.random.default_rng(0))
    batch = task.pairs.batch(2, 64, np.random.default_rng(0), torch.device("cpu"))
    wanted = torch.zeros(2)
    for scale, latent in batch.inputs.items():
        picture = task.network.decode(on_latents(task.model, task.tiny, back_project=0)(latent, scale))
        missing = lost(picture, task.network.decode(latent).clamp(0, 1), scale)
        mended = picture + lost(picture, task.network.decode(latent).clamp(0, 1), scale, mends) if mends else picture
        wanted += torch.stack([(mended - batch.image).square().mean(), missing.abs().mean()]) / 2
    torch.testing.assert_close(torch.stack([found["pixel_l2"], found[upscaler.LOST]]), wanted)


def test_every_stage_of_the_curriculum_has_its_terms_and_the_papers_weights():
    I, II, III = upscaler.LUA_STAGES  # noqa: E741
    assert I.weights == {"latent_l1": 1.0, "latent_fft": 0.1}
    assert II.weights == {**I.weights, "downsampled": 0.1, "highpass": 0.05}
    assert III.weights == {"pixel_l1": 10.0, "pixel_fft": 1.0, "eagle": 5e-5}
    assert (I.betas, II.betas, III.betas) == ((0.9, 0.995), (0.9, 0.995), (0.9, 0.99))
    assert not upscaler.has_pixels([I]) and upscaler.has_pixels([II]) and upscaler.has_pixels([III])


def test_stages_beside_the_papers_run_where_they_are_named(tmp_path):
    command = ["lua", "--images", str(tmp_path), "--out", str(tmp_path), "--stages"]
    first, pixel = train_command.chosen_stages(train_command.parser().parse_args([*command, "I,pixel"]))
    assert first == upscaler.LUA_STAGES[0] and upscaler.has_pixels([pixel]) and pixel.draws_one_head(0)
    assert [
        stage.name for stage in train_command.chosen_stages(train_command.parser().parse_args([*command, "III"]))
    ] == ["III"]
    with pytest.raises(UserError, match="no stage 'III'"):
        train_command.chosen_stages(train_command.parser().parse_args(["swinir", *command[1:], "III"]))


def test_one_head_is_trained_at_the_end_of_a_stage(toy_autoencoder, crops, monkeypatch):
    task = upscaler_task("lua", toy_autoencoder, crops, monkeypatch)
    stage = Stage("s", 10, {"latent_l1": 1.0}, crop=64, batch=2, one_head=0.4)

    def trained(step, seed):
        task.model.zero_grad(set_to_none=True)
        task.losses(stage, np.random.default_rng(seed), step)["latent_l1"].backward()
        return {name for name, head in task.model.heads.items() if head.conv_last.weight.grad is not None}

    assert trained(5, 0) == {"x2", "x4"}
    late = [trained(6, seed) for seed in range(12)]
    assert all(len(heads) == 1 for heads in late) and set().union(*late) == {"x2", "x4"}


def test_learning_rate_warms_up_and_halves():
    stage = Stage("s", 1000, {}, lr=1.0)
    rates = {0: 0.01, 99: 1, 100: 1, 499: 1, 500: 0.5, 750: 0.25, 900: 0.125}
    assert {step: learning_rate(stage, step, 100) for step in rates} == rates
    rates = {0: 0.01, 99: 1, 100: 1, 550: 0.5, 910: 0.1, 991: 0.01}
    falling = dataclasses.replace(stage, linear=True)
    assert {step: learning_rate(falling, step, 100) for step in rates} == pytest.approx(rates)


def test_interrupted_training_resumes_to_the_same_weights(crops, tmp_path, monkeypatch):
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    stages = [
        Stage("a", 3, {"l1": 1.0}, crop=32, batch=2),
        Stage("b", 3, {"l1": 1.0, "upscaled": 1.0}, crop=64, batch=2),
    ]

    class Interrupted(autoencoder.AutoencoderTask):
        def losses(self, stage, rng, step):
            if (stage.name, self.calls) == ("b", 4):
                raise KeyboardInterrupt
            self.calls += 1
            return super().losses(stage, rng, step)

    def task(cls=autoencoder.AutoencoderTask):
        torch.manual_seed(0)
        model = Autoencoder(**TOY)
        model.start_from_pca(crops.batch(16, 32, np.random.default_rng(0)))
        result = cls(crops, crops.batch(2, 32, np.random.default_rng(1)), model)
        result.calls = 0
        return result

    settings = [Settings(tmp_path / name, bf16=False, save_every=2, sample_every=3) for name in ("whole", "broken")]
    train(task(), stages, settings[0])
    with pytest.raises(KeyboardInterrupt):
        train(task(Interrupted), stages, settings[1])
    assert torch.load(tmp_path / "broken" / "state.pt", weights_only=True)["done"] == 4
    train(task(), stages, settings[1])
    whole, broken = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "broken"))
    assert whole["done"] == broken["done"] == 6
    for part in ("model", "average"):
        for name, value in whole[part].items():
            torch.testing.assert_close(broken[part][name], value, msg=f"{part} {name}")
    with pytest.raises(UserError, match="other stages"):
        train(task(), stages[:1], settings[1])
    assert (tmp_path / "whole" / "samples" / "0000006.png").stat().st_size > 0
    assert json.loads((tmp_path / "whole" / "model" / "training.json").read_text())["steps"] == 6


def test_command_trains_an_autoencoder_and_then_lua_on_it(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    monkeypatch.setattr(autoencoder, "Autoencoder", lambda: Autoencoder(**TOY))
    monkeypatch.setattr(
        train_command, "sample_crops", lambda folder: Crops(photos, 64).batch(2, 64, np.random.default_rng(0))
    )
    monkeypatch.setattr(autoencoder, "STAGES", [Stage("s", 4, {"l1": 1.0, "upscaled": 0.3}, crop=64, batch=2)])
    monkeypatch.setattr(upscaler, "LUA_STAGES", [Stage("s", 4, {"latent_l1": 1.0, "pixel_l1": 1.0}, crop=64, batch=2)])
    common = ["--images", str(photos), "--device", "cpu", "--steps", "2"]
    assert train_command.main(["autoencoder", "--out", str(tmp_path / "a"), *common]) == 0
    assert upscaler.LUA.from_pretrained(tmp_path / "a" / "model" / "lua").in_chans == 4
    monkeypatch.setitem(vaes.SPACES, "embedded", vaes.Space("toy", 4))
    on = ["--vae", str(tmp_path / "a" / "model"), "--cached", "5", *common]
    assert train_command.main(["lua", "--out", str(tmp_path / "l"), *on]) == 0
    facts = json.loads((tmp_path / "l" / "model" / "training.json").read_text())
    assert (facts["steps"], facts["start"], facts["near_duplicates"]) == (2, "new", None)
    assert "steps_per_s" in json.loads((tmp_path / "l" / "log.jsonl").read_text().splitlines()[-1])
    assert train_command.main(["lua", "--out", str(tmp_path / "m"), "--init", str(tmp_path / "l" / "model"), *on]) == 0
    assert json.loads((tmp_path / "m" / "model" / "training.json").read_text())["start"].startswith("from ")
    with pytest.raises(UserError, match="no stage 'nope'; choose from s"):
        train_command.main(["lua", "--out", str(tmp_path / "x"), *common, "--stages", "nope"])
    model = upscaler.LUA.from_pretrained(tmp_path / "l" / "model", strict=True)
    assert model(torch.zeros(1, 4, 3, 5), 4).shape == (1, 4, 12, 20)


def test_command_trains_and_adapts_a_lua_of_a_published_space(photos, tmp_path, monkeypatch):
    """A tiny autoencoder of SDXL's kind, from files; the trunk of a LUA of another space; the curriculum's stages."""
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    monkeypatch.setattr(upscaler, "fit_skips", partial(upscaler.fit_skips, batches=2, count=4))
    monkeypatch.setattr(
        train_command, "sample_crops", lambda folder: Crops(photos, 64).batch(1, 64, np.random.default_rng(0))
    )
    tiny = TinyAutoencoder(4)
    for half in ("encoder", "decoder"):
        save_file(getattr(tiny, half).state_dict(), tmp_path / f"taesdxl_{half}.safetensors")
    upscaler.new_lua(16).save_pretrained(tmp_path / "embedded" / "lua")
    (tmp_path / "embedded" / "lua" / "training.json").write_text('{"what": "lua"}')

    def command(out, *options):
        return ["lua", "--space", "sdxl", "--vae", str(tmp_path), "--images", str(photos), "--out", str(tmp_path / out),
                "--crop", "64", "--batch", "1", "--cached", "2", "--device", "cpu", "--steps", "3",
                *options]  # fmt: skip

    embedded = ["--init", str(tmp_path / "embedded" / "lua")]
    for out, options in {"on features": [], "plain": ["--plain"]}.items():
        assert train_command.main(command(out, *embedded, *options)) == 0
        facts = json.loads((tmp_path / out / "model" / "training.json").read_text())
        assert facts["start"] == "trunk of embedded/lua, adapted from embedded" and facts["space"] == "sdxl"
        assert [stage["name"] for stage in facts["stages"]] == ["I", "II", "III"]
        assert (
            train_command.space_of(str(tmp_path / out / "model")) == "sdxl"
            and train_command.space_of("owner/name") is None
        )
    assert load_lua(tmp_path / "plain" / "model").in_chans == 4
    lua = lua_of_spaces.lua_from(tmp_path / "on features" / "model", "sdxl", tiny=tiny)
    assert isinstance(lua.network, FeatureLUA) and lua(torch.zeros(1, 4, 3, 5), 2).shape == (1, 4, 6, 10)
    assert not lua.back_project
    for before, out, options in [("on features", "more", ["--back-project", "2"]), ("more", "kept", [])]:
        start = ["--init", str(tmp_path / before / "model"), "--stages", "pixel"]
        assert train_command.main(command(out, *start, *options)) == 0
        facts = json.loads((tmp_path / out / "model" / "training.json").read_text())
        assert facts["start"] == f"from {before}/model"
        assert lua_of_spaces.lua_from(tmp_path / out / "model", "sdxl", tiny=tiny).back_project == 2
    with pytest.raises(UserError, match="--back-project is for a LUA between layers"):
        train_command.main(command("o", "--plain", "--back-project", "4"))
    with pytest.raises(UserError, match="--width 64 is for a new model"):
        train_command.main(command("o", *embedded, "--width", "64"))
    with pytest.raises(UserError, match="--tiny is for a LUA of a published space"):
        train_command.main(command("o", "--plain", "--tiny", str(tmp_path)))
    with pytest.raises(UserError, match="4 channels at stride 8, but space sd3 has 16"):
        train_command.main([*command("o"), "--space", "sd3", "--vae", str(tmp_path / "taesdxl_encoder.safetensors")])


def test_command_refuses_to_train_on_test_pictures(photos, tmp_path, capsys):
    start = ["autoencoder", "--images", str(photos), "--out", str(tmp_path / "o"), "--crop", "64", "--device", "cpu"]
    with pytest.raises(UserError, match=r"3 pair.*0.png and 0.png"):
        train_command.main([*start, "--test-images", str(photos)])
    assert not (tmp_path / "o").exists()


def test_ablation_resumes_and_stands_beside_the_paper(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    monkeypatch.setattr(autoencoder, "Autoencoder", lambda: Autoencoder(**TOY))
    monkeypatch.setattr(vaes, "load_autoencoder", lambda source: Autoencoder(**TOY))
    monkeypatch.setitem(vaes.SPACES, "embedded", vaes.Space("toy", 4))
    small = [dataclasses.replace(stage, crop=64, batch=1) for stage in autoencoder.STAGES]
    monkeypatch.setattr(autoencoder, "STAGES", small)
    monkeypatch.setattr(ablate, "sample_crops", lambda folder: Crops(photos, 64).batch(1, 64, np.random.default_rng(0)))
    tests = tmp_path / "tests"
    tests.mkdir()
    Image.fromarray(picture(70, 66)).save(tests / "a.png")
    command = ["--images", str(photos), "--test-images", str(tests), "--out", str(tmp_path / "out"), "--steps", "3",
               "--crop", "64", "--test-crop", "64", "--batch", "1", "--cached", "2", "--device", "cpu"]  # fmt: skip
    assert ablate.main([*command, "--cells", "latent-l1,only-x4"]) == 0
    monkeypatch.setattr(ablate, "train", _only_once(tmp_path / "out"))
    assert ablate.main(command) == 0
    table = capsys.readouterr().out.split("\n\n")[-1].strip().splitlines()
    assert len(table) == 2 + 8 and table[0].startswith("| | x2, PSNR dB")
    assert "28.53 | 26.16" in table[2] and "32.54 | 27.94" in table[6] and "31.92 | 27.71" in table[7]
    assert all(len(line.split("|")) == 7 for line in table) and "- | - |" in table[9]
    plans = {
        name: [s.name for s in ablate.stages_of(name, ablate.parser().parse_args(command))] for name in ablate.CELLS
    }
    assert plans["II+III"] == ["II", "III"] and plans["only-x2"] == ["I", "II", "III"]
    with pytest.raises(UserError, match="other settings"):
        ablate.main([*command[:-2], "--batch", "2", "--cells", "latent-l1"])


def _only_once(out):
    """`train`, failing for what is finished."""

    def run(task, stages, settings):
        assert not (settings.out / "result.json").exists(), f"{settings.out} is finished"
        train(task, stages, settings)

    return run


def test_a_folder_without_usable_photos_is_named(tmp_path, photos):
    with pytest.raises(UserError, match="not a folder"):
        Crops(tmp_path / "missing")
    with pytest.raises(UserError, match="holds no photo"):
        Crops(tmp_path)
    with pytest.raises(UserError, match="both sides >= 512"):
        Crops(photos, smallest=512)


def test_lua_starts_from_the_best_linear_upscaler(toy_autoencoder, crops, monkeypatch):
    """Before any training it decodes closer to the target than a bicubically enlarged latent."""
    task = upscaler_task("lua", toy_autoencoder, crops, monkeypatch)
    image = crops.batch(8, 64, np.random.default_rng(99))
    with torch.inference_mode():
        for scale in upscaler.SCALES:
            latent = task.network.encode(shrink(image, scale))
            bicubic = torch.nn.functional.interpolate(latent, scale_factor=scale, mode="bicubic")
            errors = [losses.l2(task.network.decode(z), image).item() for z in (task.model(latent, scale), bicubic)]
            assert errors[0] < errors[1]


def test_a_feature_lua_starts_close_to_what_decoding_and_enlarging_give(crops, monkeypatch):
    """Its features, of crops that the fit has not seen, explain most of the variance of those to be had."""
    task = upscaler_task("features", None, crops, monkeypatch)
    image = crops.batch(8, 64, np.random.default_rng(99))
    with torch.inference_mode():
        for scale in upscaler.SCALES:
            latent = task.network.encode(shrink(image, scale))
            picture = task.network.decode(latent).clamp(0, 1)
            larger = torch.nn.functional.interpolate(picture, scale_factor=scale, mode="bicubic").clamp(0, 1)
            wanted = task.tiny.look(larger)
            found = task.model(task.tiny.read(latent), scale)
            assert losses.l2(found, wanted) < 0.5 * wanted.var(dim=(0, 2, 3)).mean()


def test_a_lua_is_adapted_to_another_space_with_its_trunk_kept(monkeypatch):
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    before = upscaler.new_lua(16)
    shake(before)
    after = upscaler.adapted(before, 4)
    assert after.in_chans == 4 and after(torch.zeros(1, 4, 3, 5), 2).shape == (1, 4, 6, 10)
    assert changed(before, after) == BELONG_TO_A_SPACE
    same = upscaler.adapted(before, 16)
    assert not torch.equal(same.conv_first.weight, before.conv_first.weight), "another space of as many channels"


def test_a_trunk_moves_between_latents_and_features(monkeypatch):
    """From the plain LUA of one space to a FeatureLUA of another, on to a third, and back."""
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    before = upscaler.new_lua(16)
    shake(before)
    on_features = upscaler.adapted(before, None)
    assert on_features(torch.zeros(1, 64, 12, 20), 4).shape == (1, 64, 24, 40)
    assert changed(before, on_features) == BELONG_TO_A_SPACE | HEADS
    shake(on_features)
    assert changed(on_features, upscaler.adapted(on_features, None)) == BELONG_TO_A_SPACE
    back = upscaler.adapted(on_features, 4)
    assert back(torch.zeros(1, 4, 3, 5), 2).shape == (1, 4, 6, 10)
    assert changed(on_features, back) == BELONG_TO_A_SPACE | HEADS


BELONG_TO_A_SPACE = {
    "conv_first.weight", "conv_first.bias", "skips.x2.conv", "skips.x4.conv", "heads.x2.conv_last",
    "heads.x4.conv_last",
}  # fmt: skip


HEADS = {f"heads.x{scale}.{part}" for scale in (2, 4) for part in ("conv_before", "upsample")}


def changed(before, after):
    """The layers of `after` that are not those of `before`."""
    old, new = before.state_dict(), after.state_dict()
    names = {
        name
        for name in new
        if name not in old or new[name].shape != old[name].shape or not torch.equal(new[name], old[name])
    }
    return {".".join(name.split(".")[:3]) for name in names}


def test_a_checkpoint_from_before_a_field_existed_resumes():
    text = '[{"name": "s", "steps": 5, "weights": {"l1": 1}, "lr": 0.1, "crop": 8, "batch": 2, "betas": [0.9, 0.99]}]'
    assert read_plan(text) == [Stage("s", 5, {"l1": 1}, 0.1, 8, 2)]


def test_cached_pairs_are_the_encoders_own(toy_autoencoder, crops, tmp_path, monkeypatch):
    def cache(**changes):
        settings = {"scales": (2, 4), "size": 64, "count": 20, "pixels": True, **changes}
        return CachedPairs(tmp_path, toy_autoencoder, crops, **settings)

    pairs = cache()
    batch = pairs.batch(6, 64, np.random.default_rng(0), torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(batch.target, toy_autoencoder.encode(batch.image), atol=5e-3, rtol=2e-3)
        for scale, latent in batch.inputs.items():
            expected = toy_autoencoder.encode(shrink(batch.image, scale))
            torch.testing.assert_close(latent, expected, atol=2e-2, rtol=1e-2)  # the picture was rounded to 8 bits
    assert len(np.unique(pairs.arrays["target"][:, 0, 0, 0])) > 15, "every row is a crop of its own"
    assert cache(pixels=False).batch(1, 64, np.random.default_rng(0), torch.device("cpu")).image is None

    with monkeypatch.context() as patch:
        patch.setattr(CachedPairs, "_build", lambda *_: pytest.fail("it is there already"))
        again = cache().batch(6, 64, np.random.default_rng(0), torch.device("cpu"))
    assert torch.equal(again.target, batch.target) and torch.equal(again.image, batch.image)
    (pairs.folder / "cache.json").unlink()
    assert cache().folder == pairs.folder and (pairs.folder / "cache.json").is_file(), "a cut-off cache is made anew"
    with torch.no_grad():
        next(toy_autoencoder.parameters()).add_(1)
    assert cache().folder != pairs.folder, "another autoencoder, other latents"
