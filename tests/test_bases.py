"""Published base models, at toy size and of the real classes, from a prompt to pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from conftest import TRUNK, drawn
from safetensors.torch import save_file
from tiny_bases import KL, PIPELINES, write
from torch.nn.functional import pixel_unshuffle

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.families import FAMILIES, pack, unpack, unpatch
from lua_demo.catalog.spaces import SPACES
from lua_demo.engine import Engine
from lua_demo.machine.memory import DROP_ENCODERS, MODEL_OFFLOAD, PLANS, RESIDENT, SEQUENTIAL_OFFLOAD
from lua_demo.machine.placement import DTYPES
from lua_demo.models.base_model import BaseModel
from lua_demo.models.vaes import VAE, load_network
from lua_demo.networks import kl
from lua_demo.networks.lua import LUA
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.pictures.images import load_photo, to_array, to_tensor
from lua_demo.request.settings import from_settings
from lua_demo.schema import Progress, Request, Result, UserError

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a lake at night"
SIZE = 96, 64  # not square


@pytest.fixture(scope="session")
def weights(toy_weights, tmp_path_factory):
    """Like assets/weights, with a pipeline per family and a LUA per space below it."""
    folder = tmp_path_factory.mktemp("bases")
    (folder / "embedded").symlink_to(toy_weights / "embedded")
    torch.manual_seed(0)
    for space in {BASES[key].space for key in PIPELINES}:
        LUA(in_chans=SPACES[space].channels, **TRUNK).save_pretrained(folder / space / "lua")
    write(folder)
    return folder


@pytest.fixture
def engine(weights):
    return Engine("cpu", weights=weights)


def asked(key, **changes):
    given = {"base": key, "prompt": PROMPT, "size": 96, "steps": 2, "aspect": "3:2", "methods": ("base", "lua")}
    return Request(**{**given, **changes})


def results(engine, request):
    return {event.method: event for event in engine.compare(request) if isinstance(event, Result)}


def test_rows_name_what_there_is():
    for key, row in BASES.items():
        assert row.space in SPACES and row.dtype in DTYPES and row.sizes and 1 <= row.steps <= 100, key
        assert bool(row.hub_id) == (row.family not in ("embedded", "scene")) and row.guidance >= 1, key
        assert bool(row.access) == row.gated and (not row.gated or row.hub_id in row.access), key
        assert all(size % FAMILIES[row.family].multiple == 0 and size <= row.largest for size in row.sizes), key
        if row.hub_id:
            assert issubclass(getattr(diffusers, FAMILIES[row.family].pipeline), diffusers.DiffusionPipeline)
            assert row.gib > row.denoiser_gib > 0 and row.encoder_gib > 0
    assert {BASES[key].family for key in PIPELINES} == set(FAMILIES) - {"embedded", "scene"}
    assert {row.space for row in BASES.values()} == set(SPACES)


@pytest.mark.parametrize("key", PIPELINES)
def test_from_a_prompt_to_pictures(engine, key):
    request = asked(key)
    events = list(engine.compare(request))
    done = {event.method: event for event in events if isinstance(event, Result)}
    assert {name: result.image.shape for name, result in done.items()} == {"base": (64, 96, 3), "lua": (128, 192, 3)}
    assert done["base"].latent.values.shape == (SPACES[BASES[key].space].channels, 8, 12)
    assert done["base"].latent.space == BASES[key].space
    assert [span.name for span in done["lua"].spans] == ["generate", "upscale", "decode"]
    told = [event.step for event in events if isinstance(event, Progress) and event.stage == "generate"]
    assert told == [0, 1, 2]
    assert any(RESIDENT.label in note for note in done["lua"].notes), "the result says how the model was placed"
    assert any("full KL decoder, in one piece" in note for note in done["base"].notes)
    named = engine.environment(request).weights
    assert named["base"] == f"bases/{key}" and "full KL decoder" in named["decoder"] and "lua (" in named["lua"]
    other = results(Engine("cpu", weights=engine.weights), asked(key, seed=1, methods=("base",)))["base"]
    assert not np.array_equal(other.image, done["base"].image)
    again = results(Engine("cpu", weights=engine.weights), asked(key, methods=("base",)))["base"]
    assert np.array_equal(again.image, done["base"].image), "the seed decides"


@pytest.mark.parametrize(
    ("key", "guidance"),
    [(key, 3.0) for key in PIPELINES if key != "flux2-klein"] + [("flux2-klein", 1.0), ("sdxl", 1.0)],
)
def test_our_decode_of_our_latent_is_the_pipelines_own_picture(weights, key, guidance):
    """The whole chain against diffusers': sampling, unpacking, scaling and shift or batch norm, decoding."""
    row, folder = BASES[key], weights / "bases" / key
    family = FAMILIES[row.family]
    model = BaseModel(row, folder, torch.device("cpu"), torch.float32)
    model.place(SIZE)
    with torch.inference_mode():
        latent = model(PROMPT, SIZE, 2, guidance, 5)
        vae = VAE(load_network(row.space, folder, "vae", fast=True))
        assert any(isinstance(part, kl.Decoder | kl.Frame) for part in vae.network.modules()), "fast"
        ours = vae.decode(latent)
        pipeline = getattr(diffusers, family.pipeline).from_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        negative = {"negative_prompt": " "} if key == "qwen-image" else {}  # which has no guidance without one
        theirs = pipeline(
            prompt=PROMPT,
            width=SIZE[0], height=SIZE[1], num_inference_steps=2, **family.guidance(guidance), **negative,
            generator=torch.Generator().manual_seed(5), output_type="pt",
        ).images  # fmt: skip
    assert latent.shape == (1, SPACES[row.space].channels, 8, 12)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs.float(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("key", PIPELINES)
def test_a_photo_comes_back_through_the_denoisers_form(weights, key):
    """Encode, to the denoiser's form and back, decode: nothing is lost on the way but what the autoencoder loses."""
    row = BASES[key]
    family, vae = FAMILIES[row.family], VAE(load_network(row.space, weights / "bases" / key, "vae"))
    with torch.inference_mode():
        latent = vae.encode(torch.rand(1, 3, 64, 96))
        theirs = {unpack: pack, unpatch: lambda x: pixel_unshuffle(x, 2)}.get(family.to_ours, lambda x: x)(latent)
        assert torch.equal(family.to_ours(theirs, 8, 12), latent)
        image = torch.rand(1, 3, 32, 32)
        image = image[:, :, None] if key == "qwen-image" else image  # a video of one frame
        raw = vae.network.model.encode(image).latent_dist.mean
        theirs = vae.network.model.decode(raw).sample
        raw = raw.view(1, -1, 4, 4)
        shift, scale = vae.network._statistics(raw)
        ours = vae.network.decode((raw - shift) * scale) * 2 - 1
        torch.testing.assert_close(ours.clamp(-1, 1), theirs.view_as(ours).clamp(-1, 1))
        encoded = vae.network.encode(image.view(1, 3, 32, 32) / 2 + 0.5)
        torch.testing.assert_close(encoded, (raw - shift) * scale)


def test_packing_is_diffusers_own():
    latent = torch.randn(2, 16, 6, 10)
    theirs = diffusers.FluxPipeline._pack_latents(latent, 2, 16, 6, 10)
    assert torch.equal(pack(latent), theirs)
    assert torch.equal(unpack(theirs, 6, 10), diffusers.FluxPipeline._unpack_latents(theirs, 48, 80, 8))
    patches = diffusers.Flux2Pipeline._patchify_latents(latent)
    assert torch.equal(pack(latent), diffusers.Flux2Pipeline._pack_latents(patches))
    assert torch.equal(unpack(pack(latent), 6, 10), latent)


def test_flux2_batch_norm_statistics(weights):
    """Normalised as the pipeline does it: patches first, then (x - mean) / sqrt(variance + eps)."""
    network = load_network("flux2", weights / "bases" / "flux2-klein", "vae")
    image = torch.rand(1, 3, 48, 32)
    with torch.inference_mode():
        raw = network.model.encode(image * 2 - 1).latent_dist.mode()
        patches = diffusers.Flux2KleinPipeline._patchify_latents(raw)
        mean, variance = (x.view(1, -1, 1, 1) for x in (network.model.bn.running_mean, network.model.bn.running_var))
        normal = (patches - mean) / torch.sqrt(variance + network.model.config.batch_norm_eps)
        expected = diffusers.Flux2KleinPipeline._unpatchify_latents(normal)
        torch.testing.assert_close(network.encode(image), expected)
        assert VAE(network).encode(torch.rand(1, 3, 40, 24)).shape == (1, 32, 5, 3), "odd sides"
        assert network.decode(torch.randn(1, 32, 5, 3)).shape == (1, 3, 40, 24)


@pytest.mark.parametrize("plan", PLANS[1:], ids=lambda plan: plan.key)
@pytest.mark.parametrize(
    "key", ["flux1-dev", "sdxl", "flux2-klein", "sd35-medium", "z-image-turbo", "ernie-image-turbo"]
)
def test_every_placement_gives_the_same_latent(weights, key, plan, monkeypatch):
    """Accelerate's hooks on the GPU where there is one, else with the CPU as the device that weights move to."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":  # diffusers says "cpu:0", which accelerate does not take for a device to stream to
        stream = accelerate.cpu_offload
        monkeypatch.setattr(accelerate, "cpu_offload", lambda part, _, **rest: stream(part, device, **rest))
    made = []
    for used in (RESIDENT, plan):
        model = BaseModel(BASES[key], weights / "bases" / key, device, torch.float32)
        model._use(used)
        with torch.inference_mode():
            made += [model(PROMPT, SIZE, 2, 1.0, 0), model("dunes", SIZE, 2, 1.0, 0), model("dunes", SIZE, 2, 1.0, 1)]
        components = model._pipeline.components
        texts = [name for name in components if name.startswith("text_encoder")]
        assert all((components[name] is None) == (used is DROP_ENCODERS) for name in texts), "dropped, or there"
        hooked = any(hasattr(part, "_hf_hook") for part in components.values() if isinstance(part, torch.nn.Module))
        assert hooked == (used in (MODEL_OFFLOAD, SEQUENTIAL_OFFLOAD))
        resting = {tensor.device.type for tensor in components[model.family.denoiser].parameters()}
        assert ("meta" in resting) == (used is SEQUENTIAL_OFFLOAD), "streamed from beside the device, or not"
        model.release()
        assert model.plan is None and model._pipeline is None
    for one, other in zip(made[:3], made[3:], strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def test_the_text_encoders_run_once_for_base_and_native(engine):
    request = asked("flux1-dev", methods=("base", "native"), scale=2)
    stream = engine.compare(request)
    calls = []
    for event in stream:
        if isinstance(event, Progress) and event.stage == "generate" and event.step == 0 and not calls:
            encoder = engine.models.bases["flux1-dev"]._pipeline.text_encoder_2
            encoder.register_forward_pre_hook(lambda module, args: calls.append(module))
            calls.append("hooked")
    assert len(calls) == 2


def test_another_base_takes_the_place_of_the_one_before(engine):
    results(engine, asked("sdxl", methods=("base",)))
    assert engine.models.bases["sdxl"].plan is RESIDENT
    results(engine, asked("sd15", methods=("base",)))
    assert engine.models.bases["sdxl"].plan is None and engine.models.bases["sd15"].plan is RESIDENT


def test_photos_and_latents_in_the_space_of_a_base(engine, photo, tmp_path):
    from lua_demo.pictures.latents import save_latent

    made = results(engine, Request(str(photo(130, 100)), size=64, base="flux1-dev"))
    assert made["lua"].image.shape == (98, 128, 3) and made["swinir"].image.shape == (98, 128, 3)
    assert made["native"].metrics is None and made["lua"].metrics["psnr"] > 0
    assert made["base"].latent.values.shape == (16, 7, 8)
    # A toy encoder's latent looks like none of FLUX.1's.
    like = replace(made["base"].latent, values=drawn("flux1")[0, :, :7, :8].numpy())
    file = save_latent(tmp_path / "latent.safetensors", like)
    again = results(engine, Request(latent=str(file), base="z-image-turbo", methods=("base",)))["base"]
    assert again.image.shape == (49, 64, 3)
    with pytest.raises(UserError, match="a latent of the space 'flux1', not sdxl"):
        engine.compare(Request(latent=str(file), base="sdxl"))


def test_without_a_lua_the_other_methods_run(weights, toy_weights, tmp_path):
    (tmp_path / "embedded").symlink_to(toy_weights / "embedded")
    (tmp_path / "bases").symlink_to(weights / "bases")
    engine = Engine("cpu", weights=tmp_path)
    done = results(engine, asked("sdxl", methods=("lua", "base", "bicubic")))
    assert done["lua"].image is None and "no LUA for the latent space sdxl" in done["lua"].skipped
    assert "train lua --space sdxl" in done["lua"].skipped
    assert done["base"].image is not None and done["bicubic"].image is not None
    assert "lua" not in engine.environment(asked("sdxl")).weights


def test_the_codec_carries_base_and_decoder_and_advises():
    request = from_settings({"base": "flux1-schnell", "decoder": "tiny", "prompt": "x"})
    assert (request.base, request.decoder, request.steps, request.guidance) == ("flux1-schnell", "tiny", 4, 1.0)
    assert from_settings({"base": "flux1-schnell", "prompt": "x", "steps": 7}).steps == 7
    assert from_settings({"space": "embedded", "scale": 4}) == Request(scale=4), "as older files have it"


def test_what_is_not_there_is_named(weights, tmp_path, monkeypatch):
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_HOME", str(tmp_path / "hub"))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    device = torch.device("cpu")
    with pytest.raises(UserError, match=r"FLUX.1 \[dev\] could not be downloaded.*accept its licence .*FLUX.1-dev"):
        BaseModel(BASES["flux1-dev"], "black-forest-labs/FLUX.1-dev-not-there", device, torch.float32)._use(RESIDENT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no diffusers pipeline"):
        BaseModel(BASES["flux1-dev"], tmp_path / "empty", device, torch.float32)._use(RESIDENT)
    (tmp_path / "wrong").symlink_to(weights / "bases" / "sdxl")
    with pytest.raises(UserError, match="could not be loaded as a FluxPipeline"):
        BaseModel(BASES["flux1-dev"], tmp_path / "wrong", device, torch.float32)._use(RESIDENT)


def test_pictures_are_stored_and_made_again(weights, tmp_path, capsys):
    from lua_demo.commands.main import main

    common = ["--weights", str(weights), "--device", "cpu"]
    options = ["--base", "sdxl", "--size", "64", "--steps", "2", "--methods", "base,lua", "--prompt", PROMPT]
    assert main(["compare", *common, *options, "--out", str(tmp_path)]) == 0
    assert "SDXL base 1.0: all weights stay" in capsys.readouterr().out
    assert main(["recreate", str(tmp_path / "lua.png"), *common]) == 0
    assert "same pixels" in capsys.readouterr().out


def test_the_tiny_decoder_of_a_space(weights, tmp_path, photo):
    """Photos are encoded by it too, and latents of the two decoders are kept apart."""
    for folder in ("embedded", "bases"):
        (tmp_path / folder).symlink_to(weights / folder)
    (tmp_path / "sdxl" / "tiny").mkdir(parents=True)
    (tmp_path / "sdxl" / "lua").symlink_to(weights / "sdxl" / "lua")
    torch.manual_seed(0)
    network = TinyAutoencoder(4).eval()
    for half in ("encoder", "decoder"):
        save_file(getattr(network, half).state_dict(), tmp_path / "sdxl" / "tiny" / f"taesdxl_{half}.safetensors")
    engine = Engine("cpu", weights=tmp_path)
    tiny, full = (
        results(engine, Request(str(photo(96, 64)), size=96, base="sdxl", decoder=decoder, methods=("base", "lua")))
        for decoder in ("tiny", "kl")
    )
    with torch.inference_mode():
        latent = network.encode(to_tensor(load_photo(photo(96, 64))))
        expected = to_array(network.decode(latent).clamp(0, 1))
    assert np.abs(tiny["base"].image.astype(int) - expected).max() <= 1
    assert tiny["base"].notes == ("tiny decoder, in one piece",)
    assert not np.array_equal(tiny["base"].image, full["base"].image)
    named = engine.environment(Request(base="sdxl", decoder="tiny")).weights
    assert named["decoder"] == "tiny decoder of sdxl/tiny" and "base" not in named


def test_flux2_has_a_small_decoder(weights, photo, tmp_path):
    """Its own autoencoder with fewer channels in the decoder: what it decodes is what diffusers makes of it."""
    for name in ("embedded", "flux2", "bases"):
        (tmp_path / name).mkdir(exist_ok=True)
        for entry in (weights / name).iterdir():
            (tmp_path / name / entry.name).symlink_to(entry)
    torch.manual_seed(1)
    network = diffusers.AutoencoderKLFlux2(latent_channels=32, **KL, decoder_block_out_channels=(4, 4, 4, 4)).eval()
    network.bn.running_mean.normal_()
    network.save_pretrained(tmp_path / "flux2" / "small")
    engine = Engine("cpu", weights=tmp_path)
    request = Request(str(photo(96, 64)), size=96, base="flux2-klein", decoder="small", methods=("base", "lua"))
    done = results(engine, request)
    assert done["base"].notes[-1] == "small KL decoder, in one piece" and done["lua"].image.shape == (128, 192, 3)
    assert engine.environment(request).weights["decoder"] == "small KL decoder of flux2/small"
    with torch.inference_mode():
        patches = pack(torch.from_numpy(done["base"].latent.values)[None])
        raw = patches * (network.bn.running_var + network.bn.eps).sqrt() + network.bn.running_mean
        theirs = network.decode(unpack(raw, 8, 12)).sample / 2 + 0.5
    assert np.abs(done["base"].image.astype(int) - to_array(theirs.clamp(0, 1))).max() <= 1
    full = results(engine, replace(request, decoder="kl"))["base"].image
    assert not np.array_equal(done["base"].image, full)
    with pytest.raises(UserError, match="decoder 'small' does not exist for the base sdxl; choose kl, tiny"):
        results(engine, replace(request, base="sdxl"))


def test_the_small_decoder_has_about_half_of_the_values():
    with torch.device("meta"):
        small, full = (
            diffusers.AutoencoderKLFlux2(decoder_block_out_channels=widths).decoder
            for widths in ((96, 192, 384, 384), None)
        )
    counts = [sum(value.numel() for value in part.parameters()) / 1e6 for part in (small, full)]
    assert counts == pytest.approx([27.9, 49.6], abs=0.1)


class Gate(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


ASKING = """
from pathlib import Path
import torch
from lua_demo.models.base_model import BaseModel
from lua_demo.catalog.bases import BASES
from lua_demo.machine.memory import RESIDENT
from lua_demo.models.loaded import Models
from lua_demo.request.job import with_rows
from lua_demo.schema import Request, UserError
row = BASES["sd35-medium"]
cpu = torch.device("cpu")
job = with_rows(Request("photo.jpg", base="sd35-medium"))
for work in (
    lambda: BaseModel(row, row.hub_id, cpu, torch.float32)._use(RESIDENT),
    lambda: Models(cpu, torch.float32, Path("nothing here")).load(job, "kl"),
):
    try:
        work()
    except UserError as error:
        print(error)
"""


def test_a_gated_model_says_where_to_accept(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", ASKING], env=environment, capture_output=True, text=True)
    server.shutdown()
    assert done.returncode == 0, done.stderr
    sampling, decoding = done.stdout.splitlines()
    assert sampling == decoding, "a photo needs the base's decoder"
    assert "Stable Diffusion 3.5 medium is gated: accept its licence (Stability AI Community" in sampling
    assert "https://huggingface.co/stabilityai/stable-diffusion-3.5-medium, then run: hf auth login" in sampling
