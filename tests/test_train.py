"""Losses against hand-computed values, gradients that reach what they train, and a loop that resumes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.schema import UserError
from lua_demo.train import autoencoder, cli, losses, upscaler
from lua_demo.train.data import Crops, shrink
from lua_demo.train.loop import Settings, Stage, learning_rate, train

TOY = dict(latent_channels=4, fine=8, coarse=8, encoder_coarse=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
TOY_TRUNK = dict(
    embed_dim=8,
    depths=(2,),
    num_heads=(2,),
    window_size=4,
    mlp_ratio=2,
    head_num_feat=8,
    scales=(2, 4),
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


@pytest.mark.parametrize("kind", ["lua", "swinir"])
@pytest.mark.parametrize("term", ["latent_l1", "latent_fft", "pixel_l1", "gradient", "pixel_fft"])
def test_every_term_reaches_every_weight_of_the_upscaler(kind, term, toy_autoencoder, crops, tmp_path, monkeypatch):
    if kind == "swinir" and term.startswith("latent"):
        pytest.skip("SwinIR has no latent")
    toy_autoencoder.save_pretrained(tmp_path)
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    task = upscaler.UpscalerTask(kind, crops, crops.batch(2, 64, np.random.default_rng(1)), str(tmp_path))
    shake(task.model)
    task.losses(Stage("s", 1, {term: 1.0}, crop=64, batch=2), np.random.default_rng(0))[term].backward()
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in task.vae.parameters()), "the autoencoder is frozen"


def test_learning_rate_warms_up_and_halves():
    stage = Stage("s", 1000, {}, lr=1.0)
    rates = {0: 0.01, 99: 1, 100: 1, 499: 1, 500: 0.5, 750: 0.25, 900: 0.125}
    assert {step: learning_rate(stage, step, 100) for step in rates} == rates


def test_interrupted_training_resumes_to_the_same_weights(crops, tmp_path, monkeypatch):
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    stages = [
        Stage("a", 3, {"l1": 1.0}, crop=32, batch=2),
        Stage("b", 3, {"l1": 1.0, "upscaled": 1.0}, crop=64, batch=2),
    ]

    class Interrupted(autoencoder.AutoencoderTask):
        def losses(self, stage, rng):
            if (stage.name, self.calls) == ("b", 4):
                raise KeyboardInterrupt
            self.calls += 1
            return super().losses(stage, rng)

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
    monkeypatch.setattr(cli, "sample_crops", lambda folder: Crops(photos, 64).batch(2, 64, np.random.default_rng(0)))
    monkeypatch.setattr(autoencoder, "STAGES", [Stage("s", 4, {"l1": 1.0, "upscaled": 0.3}, crop=64, batch=2)])
    monkeypatch.setattr(upscaler, "LUA_STAGES", [Stage("s", 4, {"latent_l1": 1.0, "pixel_l1": 1.0}, crop=64, batch=2)])
    common = ["--images", str(photos), "--device", "cpu", "--steps", "2"]
    assert cli.main(["autoencoder", "--out", str(tmp_path / "a"), *common]) == 0
    assert upscaler.LUA.from_pretrained(tmp_path / "a" / "model" / "lua").in_chans == 4
    assert cli.main(["lua", "--out", str(tmp_path / "l"), "--autoencoder", str(tmp_path / "a" / "model"), *common]) == 0
    assert json.loads((tmp_path / "l" / "model" / "training.json").read_text())["steps"] == 2
    with pytest.raises(UserError, match="no stage 'nope'; choose from s"):
        cli.main(["lua", "--out", str(tmp_path / "x"), *common, "--stages", "nope"])
    model = upscaler.LUA.from_pretrained(tmp_path / "l" / "model", strict=True)
    assert model(torch.zeros(1, 4, 3, 5), 4).shape == (1, 4, 12, 20)


def test_a_folder_without_usable_photos_is_named(tmp_path, photos):
    with pytest.raises(UserError, match="not a folder"):
        Crops(tmp_path / "missing")
    with pytest.raises(UserError, match="holds no photo"):
        Crops(tmp_path)
    with pytest.raises(UserError, match="both sides >= 512"):
        Crops(photos, smallest=512)


def test_lua_starts_from_the_best_linear_upscaler(toy_autoencoder, crops, tmp_path, monkeypatch):
    """Before any training it decodes closer to the target than a bicubically enlarged latent."""
    toy_autoencoder.save_pretrained(tmp_path)
    monkeypatch.setattr(upscaler, "TRUNK", TOY_TRUNK)
    task = upscaler.UpscalerTask("lua", crops, crops.batch(2, 64, np.random.default_rng(1)), str(tmp_path))
    image = crops.batch(8, 64, np.random.default_rng(99))
    with torch.inference_mode():
        for scale in upscaler.SCALES:
            latent = task.vae.encode(shrink(image, scale))
            bicubic = torch.nn.functional.interpolate(latent, scale_factor=scale, mode="bicubic")
            errors = [losses.l2(task.vae.decode(z), image).item() for z in (task.model(latent, scale), bicubic)]
            assert errors[0] < errors[1]
