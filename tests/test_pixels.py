"""The pixel upscalers and their training: exact sizes, starts that change nothing, bases decoded once, curves."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from lua_demo.commands import curve
from lua_demo.commands import train as cli
from lua_demo.models import vaes
from lua_demo.models.weights import load_cnn, load_swinir
from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.networks.cnn import CNN
from lua_demo.networks.lua import LUA
from lua_demo.networks.swinir import SwinIR
from lua_demo.schema import UserError
from lua_demo.train import pixels, stems, upscaler
from lua_demo.train.data import Crops, shrink
from lua_demo.train.decoded import DecodedPhotos
from lua_demo.train.held_out import HeldOut
from lua_demo.train.loop import Settings, Stage, train
from lua_demo.train.optimiser import Optimiser, matrix

TOY = dict(latent_channels=4, fine=8, coarse=8, encoder_coarse=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
TRUNK = dict(embed_dim=16, depths=(2,), num_heads=(2,), window_size=4, mlp_ratio=2, scales=(2, 4))
TERMS = [*upscaler.PIXEL_TERMS, *upscaler.SCALED_TERMS]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(3):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        grain = rng.normal(0, 12, (136, 168, 3))
        picture = np.asarray(coarse.resize((168, 136), Image.BICUBIC)) + grain
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def crops(photos):
    return Crops(photos, smallest=64)


@pytest.fixture(scope="module")
def network(crops):
    torch.manual_seed(0)
    model = Autoencoder(**TOY)
    model.start_from_pca(crops.batch(16, 32, np.random.default_rng(0)))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def decoded(network, crops, tmp_path_factory):
    return DecodedPhotos(tmp_path_factory.mktemp("bases"), network, crops, (2, 4))


def small(kind):
    torch.manual_seed(0)
    return CNN(8, 2) if kind == "cnn" else SwinIR(**TRUNK, head_num_feat=0, stem=2, unshuffle=2, residual="bicubic")


def task(kind, network, decoded, crops):
    held_out = HeldOut(network, crops.batch(2, 64, np.random.default_rng(1)), (2, 4))
    return pixels.PixelTask(small(kind), decoded, held_out, held_out)


@torch.no_grad()
def shake(model, by=0.05):
    for parameter in model.parameters():
        parameter.add_(by * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("kind", ["cnn", "swinir"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 12), (16, 9)])
@torch.no_grad()
def test_sizes_are_exact_and_training_starts_from_bicubic(kind, height, width):
    image = torch.rand(2, 3, height, width)
    for scale, out in small(kind).forward_scales(image, (2, 4)).items():
        larger = F.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)
        torch.testing.assert_close(out, larger)
    model = shake(small(kind))
    assert not torch.allclose(model(image, 2), F.interpolate(image, scale_factor=2, mode="bicubic"))
    torch.testing.assert_close(model(image, 4), model.forward_scales(image, (2, 4))[4])


@torch.no_grad()
def test_odd_sizes_are_those_of_the_larger_picture_cropped():
    model, image = shake(CNN(8, 2)), torch.rand(1, 3, 11, 14)
    padded = model(F.pad(image, (0, 0, 0, 1), mode="replicate"), 2)
    bicubic = [F.interpolate(x, scale_factor=2, mode="bicubic") for x in (image, image[..., :8, :])]
    correction = padded[..., :22, :] - F.interpolate(
        F.pad(image, (0, 0, 0, 1), mode="replicate"), scale_factor=2, mode="bicubic"
    )[..., :22, :]  # fmt: skip
    torch.testing.assert_close(model(image, 2), bicubic[0] + correction)


def test_what_a_cnn_cannot_do_is_named():
    with pytest.raises(UserError, match="no head for scale 3: choose 2 or 4"):
        CNN(8, 1)(torch.rand(1, 3, 8, 8), 3)
    with pytest.raises(UserError, match="1 x 4 x 8 x 8: give RGB"):
        CNN(8, 1)(torch.rand(1, 4, 8, 8), 2)
    with pytest.raises(UserError, match="scales are 2 or more"):
        CNN(8, 1, scales=(1, 2))


def test_a_saved_cnn_loads_strictly(tmp_path):
    model = shake(CNN(8, 2))
    model.save_pretrained(tmp_path)
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(load_cnn(tmp_path)(image, 2), model(image, 2))
    with pytest.raises(UserError, match="it holds CNN: use load_cnn"):
        load_swinir(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["blocks.1.conv2.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"1 missing, as blocks\.1\.conv2\.bias"):
        load_cnn(tmp_path)
    with pytest.raises(RuntimeError, match="Missing key"):
        CNN.from_pretrained(tmp_path)


def test_configurations_of_older_models_have_no_stem():
    for model in (SwinIR(**TRUNK, head_num_feat=8), LUA(in_chans=4, **TRUNK, head_num_feat=8)):
        assert not [name for name in model.state_dict() if "stem" in name] and model.unshuffle == 1


@torch.no_grad()
def test_a_new_stem_changes_nothing_at_first():
    lua, latent = shake(LUA(in_chans=4, **TRUNK, head_num_feat=8, residual="linear")), torch.randn(1, 4, 6, 5)
    longer = stems.with_stem(lua, 3)
    assert len(longer.stem) == 3 and longer._hub_mixin_config["stem"] == 3
    torch.testing.assert_close(longer(latent, 2), lua(latent, 2))
    assert stems.with_stem(lua, None) is lua
    with pytest.raises(UserError, match="--stem 2, but the model has 3 blocks"):
        stems.with_stem(longer, 2)


@torch.no_grad()
def test_a_swinir_starts_from_the_first_blocks_of_a_cnn(decoded):
    cnn, model, image = shake(CNN(8, 3)), small("swinir"), torch.rand(1, 3, 48, 48)
    stems.start_from_cnn(model, cnn, decoded, side=16, batches=20, count=16)
    folded = F.pixel_unshuffle(image - 0.5, 2)
    features = cnn.blocks[:2](cnn.conv_first(folded))
    inside = (..., slice(8, 16), slice(8, 16))  # beyond it the zeros around the picture stand for different greys
    torch.testing.assert_close(model._trunk(image - model.mean)[:, :8][inside], features[inside], atol=1e-4, rtol=1e-4)
    for scale in (2, 4):
        base, target = decoded.batch(32, 16, scale, np.random.default_rng(9))
        larger = F.interpolate(base, scale_factor=scale, mode="bicubic")
        assert (model(base, scale) - target).square().mean() < 0.99 * (larger - target).square().mean()
    whole = CNN(8, 2)
    shake(whole)
    stems.start_from_cnn(model, whole, decoded, side=16)
    inside = (..., slice(32, 64), slice(32, 64))
    torch.testing.assert_close(model(image, 2)[inside], whole(image, 2)[inside], atol=1e-4, rtol=1e-3)
    with pytest.raises(UserError, match=r"2 blocks of 16 channels .* from 1 blocks"):
        stems.start_from_cnn(model, CNN(8, 1), decoded)
    with pytest.raises(UserError, match="same unshuffle"):
        stems.start_from_cnn(SwinIR(**TRUNK, head_num_feat=8, stem=2, unshuffle=2), cnn, decoded)


def test_bases_are_the_decoded_photos(decoded, network, crops):
    photo = torch.from_numpy(crops.groups[0][0][:128, :160].copy()).permute(2, 0, 1)[None] / 255
    for scale in (2, 4):
        made = network.decode(network.encode(shrink(photo, scale))).clamp(0, 1)
        kept = torch.from_numpy(decoded._picture(f"x{scale}", 0, 0, scale).copy()).permute(2, 0, 1)[None] / 255
        torch.testing.assert_close(kept, made, atol=0.6 / 255, rtol=0)


def test_bases_lie_on_their_targets(decoded):
    """With averages of the photos in the place of bases."""
    averaged = copy.copy(decoded)
    averaged.arrays = {"image": decoded.arrays["image"]}
    for scale in (2, 4):
        flat = []
        for number in range(len(decoded.groups[0])):
            photo = torch.from_numpy(decoded._picture("image", 0, number, 1).copy()).permute(2, 0, 1).float()
            flat.append(F.avg_pool2d(photo, scale).round().byte().permute(1, 2, 0).flatten())
        averaged.arrays[f"x{scale}"] = torch.cat(flat).numpy()
        bases, targets = averaged.batch(16, 16, scale, np.random.default_rng(0))
        assert bases.shape == (16, 3, 16, 16)
        torch.testing.assert_close(bases, F.avg_pool2d(targets, scale), atol=0.6 / 255, rtol=0)


def test_bases_are_made_once(decoded, network, crops, tmp_path):
    before = (decoded.folder / "index.json").stat().st_mtime_ns
    again = DecodedPhotos(decoded.folder.parent, network, crops, (2, 4))
    assert again.folder == decoded.folder and (again.folder / "index.json").stat().st_mtime_ns == before
    other = Autoencoder(**TOY)
    assert DecodedPhotos(tmp_path, other, crops, (2, 4)).folder.name != decoded.folder.name


@pytest.mark.parametrize("kind", ["cnn", "swinir"])
@pytest.mark.parametrize("term", TERMS)
def test_every_term_reaches_every_weight(kind, term, network, decoded, crops):
    training = task(kind, network, decoded, crops)
    shake(training.model, 0.01)
    training.losses(Stage("s", 1, {term: 1.0}, crop=16, batch=2), np.random.default_rng(0))[term].backward()
    for name, parameter in training.model.named_parameters():
        reached = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert reached == (term != "faint" or "x4" not in name), name


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
@pytest.mark.parametrize("kind", ["cnn", "swinir"])
def test_training_gains_on_pictures_kept_apart_and_resumes(kind, optimiser, network, decoded, crops, tmp_path):
    stages = [Stage("s", 40, {"pixel_l1": 1.0}, lr=3e-3, crop=16, batch=4, one_head=1.0, linear=True)]

    def settings(name):
        return Settings(
            tmp_path / name, bf16=False, optimiser=optimiser, ema=0.5, warmup=5, save_every=20, sample_every=40,
            facts={"space": "embedded"},
        )  # fmt: skip

    class Interrupted(pixels.PixelTask):
        def losses(self, stage, rng, step):
            if step == 30:
                raise KeyboardInterrupt
            return super().losses(stage, rng, step)

    training = task(kind, network, decoded, crops)
    train(training, stages, settings("whole"))
    point = curve.read(tmp_path / "whole" / "log.jsonl")[-1]
    assert sum(point.gains.values()) > 0.03 and point.pixels == training.pixels(stages[0]) * 40
    broken = task(kind, network, decoded, crops)
    broken.__class__ = Interrupted
    with pytest.raises(KeyboardInterrupt):
        train(broken, stages, settings("broken"))
    train(task(kind, network, decoded, crops), stages, settings("broken"))
    for one, other in zip(*(load(tmp_path / name) for name in ("whole", "broken")), strict=True):
        torch.testing.assert_close(one, other)


def load(folder):
    return torch.load(folder / "state.pt", weights_only=True)["model"].values()


def test_muon_takes_the_matrices_of_the_trunk_and_adam_the_rest():
    model = small("swinir").to(memory_format=torch.channels_last)
    optimiser = Optimiser(model, "muon")
    names = {name for name, weight in model.named_parameters() if any(weight is one for one in optimiser.large)}
    assert {"stem.0.conv1.weight", "layers.0.conv.weight"} < names
    assert "layers.0.residual_group.blocks.0.attn.qkv.weight" in names
    assert "conv_after_body.weight" in names and "conv_first.weight" not in names
    assert not [name for name in names if name.startswith("heads") or "table" in name or "norm" in name]
    weight = model.stem[0].conv1.weight
    assert matrix(weight).data_ptr() == weight.data_ptr() and matrix(weight).shape == (16, 144)
    with pytest.raises(UserError, match="no optimiser 'sgd'; choose adam or muon"):
        Optimiser(model, "sgd")


def test_command_trains_a_cnn_and_a_swinir_from_it(network, photos, tmp_path, monkeypatch, capsys):
    network.save_pretrained(tmp_path / "vae")
    monkeypatch.setitem(vaes.SPACES, "embedded", vaes.Space("toy", 4))
    monkeypatch.setattr(upscaler, "TRUNK", {key: TRUNK[key] for key in TRUNK if key != "scales"} | {"head_num_feat": 8})
    monkeypatch.setattr(pixels, "WIDTH", 8)
    stages = [Stage("s", 2, {"pixel_l1": 1.0}, crop=16, batch=2)]
    monkeypatch.setattr(pixels, "CNN_STAGES", stages)
    monkeypatch.setattr(pixels, "SWINIR_STAGES", stages)
    apart = tmp_path / "apart"
    apart.mkdir()
    rng = np.random.default_rng(9)
    Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(apart / "noise.png")
    common = ["--images", str(photos), "--samples", str(apart), "--held-out", str(apart), "--device", "cpu",
              "--vae", str(tmp_path / "vae"), "--cache", str(tmp_path / "bases")]  # fmt: skip
    assert cli.main(["cnn", "--out", str(tmp_path / "c"), *common]) == 0
    model = str(tmp_path / "c" / "model")
    assert cli.main(["swinir", "--stem", "2", "--stem-from", model, "--out", str(tmp_path / "s"), *common]) == 0
    facts = json.loads((tmp_path / "s" / "model" / "training.json").read_text())
    assert facts["start"] == "new, stem of c/model" and facts["near_duplicates"]["test_images"] == 1
    assert len(load_swinir(tmp_path / "s" / "model").stem) == 2
    assert curve.main([str(tmp_path / "c" / "log.jsonl"), "--out", str(tmp_path / "curve.png")]) == 0
    assert "million pixels: x2 " in capsys.readouterr().out and Image.open(tmp_path / "curve.png").size == curve.SIZE
    for wrong, message in ((["cnn", "--stem", "2"], "leave them out"), (["swinir", "--init", model], "use load_cnn")):
        with pytest.raises(UserError, match=message):
            cli.main([*wrong, "--out", str(tmp_path / "x"), *common])


def test_runs_one_after_another_are_one_curve(tmp_path):
    lines = [
        {"step": 50, "seconds": 5.0, "loss": 1.0},
        {"step": 100, "seconds": 10.0, "pixels": 1000, "gain_x2": 0.1},
        {"step": 200, "seconds": 20.0, "pixels": 2000, "gain_x2": 0.9},
        {"step": 200, "seconds": 21.0, "pixels": 2000, "gain_x2": 0.2},  # resumed from step 100
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, lines)))
    points = curve.joined([curve.read(log), curve.read(log)])
    assert [(p.seconds, p.pixels, p.gains[2]) for p in points] == [
        (10.0, 1000, 0.1), (21.0, 2000, 0.2), (31.0, 3000, 0.1), (42.0, 4000, 0.2),
    ]  # fmt: skip
    log.write_text(json.dumps(lines[0]))
    with pytest.raises(UserError, match="train with --held-out"):
        curve.read(log)
    with pytest.raises(UserError, match="no log of a training"):
        curve.read(tmp_path / "none.jsonl")
