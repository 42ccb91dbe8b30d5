"""The LUA of a space, the published one included, and SwinIR's release, which a server here gives out."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TRUNK, clock
from safetensors.torch import save_file
from test_weights import GOLDEN, TOY, cache, offline_cache  # noqa: F401  a fixture

from lua_demo import LUA, SwinIR, load_lua, load_swinir
from lua_demo.catalog.methods import METHODS, SWINIR_OFFICIAL
from lua_demo.catalog.upscalers import File, Upscaler, download_folder
from lua_demo.commands.main import main
from lua_demo.engine import Engine
from lua_demo.models.download import download
from lua_demo.models.lua import STAND_IN, DecoderReady, find_lua
from lua_demo.models.pixel_upscalers import load_pixel_upscaler
from lua_demo.models.vaes import VAE
from lua_demo.networks.feature_lua import FeatureLUA
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.pictures.images import to_array, to_tensor
from lua_demo.schema import Request, Result, UserError

NAMES = {scale: file.name for scale, file in SWINIR_OFFICIAL.files.items()}
SCALES = tuple(NAMES)


@pytest.fixture(autouse=True)
def downloads(monkeypatch, tmp_path) -> Path:
    """The folder of downloaded files, in a place of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return download_folder()


def file_of(url: str, content: bytes) -> File:
    return File(url, len(content), hashlib.sha256(content).hexdigest())


def row_at(address: str, files: dict[str, bytes]) -> Upscaler:
    """SwinIR's release, from a server here."""
    wanted = {scale: file_of(f"{address}/{name}", files[name]) for scale, name in NAMES.items()}
    return replace(SWINIR_OFFICIAL, files=wanted)


def official_at(address: str, files: dict[str, bytes]) -> torch.nn.Module:
    return load_pixel_upscaler(row_at(address, files), Path("no weights"))


def fetched(url: str, content: bytes) -> bytes:
    """The file at `url`, which is published as `content`."""
    return download(file_of(url, content)).read_bytes()


def published(network: SwinIR) -> bytes:
    """`network` in the format of SwinIR's release: one unnamed head, and the buffers that follow from the rest."""
    (scale,) = network.scales
    tensors = {}
    for name, value in network.state_dict().items():
        name = name.removeprefix(f"heads.x{scale}.")
        tensors[name.replace("conv_before.", "conv_before_upsample.")] = value
    blocks = {name.removesuffix(".norm1.weight") for name in tensors if name.endswith(".norm1.weight")}
    for block in blocks:
        tensors[f"{block}.attn.relative_position_index"] = torch.zeros(64, 64, dtype=torch.int64)
        if int(block.rsplit(".", 1)[1]) % 2:
            tensors[f"{block}.attn_mask"] = torch.zeros(1, 64, 64)
    file = io.BytesIO()
    torch.save({"params": tensors}, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def release() -> dict[str, bytes]:
    """Files of the real architecture and size, with random weights."""
    torch.manual_seed(0)
    return {NAMES[scale]: published(SwinIR(scales=(scale,))) for scale in SCALES}


class Server(BaseHTTPRequestHandler):
    """Gives out `files`; the connection ends after `limit` bytes of the body."""

    files: dict[str, bytes]
    asked: list[str]
    limit: int | None = None
    ranges = True

    def do_GET(self):
        self.asked.append(self.headers.get("Range", ""))
        body = self.files.get(self.path.rsplit("/", 1)[1])
        if body is None:
            self.send_error(404, "no such file")
            return
        asked = self.headers.get("Range", "bytes=0-") if self.ranges else "bytes=0-"
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(body[start:][: self.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(release, monkeypatch):
    """(address, handler) of a server with the release's files."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    handler = type("ThisServer", (Server,), {"files": dict(release), "asked": []})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}/v0.0", handler
    listening.shutdown()
    listening.server_close()


def refusal(work, *words: str) -> str:
    with pytest.raises(UserError) as error:
        work()
    message = str(error.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []
    return message


def test_the_release_is_downloaded_once_and_both_scales_work(server, release, downloads):
    address, handler = server
    network = official_at(address, release)
    assert sorted(path.name for path in downloads.iterdir() if path.suffix == ".pth") == sorted(NAMES.values())
    assert len(handler.asked) == 2 and not network.training
    torch.manual_seed(0)
    image = torch.rand(1, 3, 8, 11)
    with torch.inference_mode():
        for scale in SCALES:
            made = SwinIR(scales=(scale,)).eval()
            made.load_state_dict(network.networks[str(scale)].state_dict())
            assert torch.equal(network(image, scale), made(image, scale))
            assert network(image, scale).shape == (1, 3, 8 * scale, 11 * scale)
    with pytest.raises(ValueError, match="no network for scale 3"):
        network(image, 3)
    official_at("http://127.0.0.1:9/nobody", release)
    assert len(handler.asked) == 2


def test_a_download_that_broke_off_goes_on_where_it_stopped(server, release, downloads):
    """Within one call, and in the next one where the server was gone for good."""
    address, handler = server
    name = NAMES[2]
    half = len(release[name]) // 2
    handler.limit = half
    assert fetched(f"{address}/{name}", release[name]) == release[name]
    assert handler.asked[0] == "" and len(handler.asked) > 1 and all(handler.asked[1:]), "each time the rest"
    handler.limit = None
    handler.asked.clear()
    (downloads / name).rename(downloads / f"{name}.part")
    with (downloads / f"{name}.part").open("r+b") as part:
        part.truncate(half)
    assert fetched(f"{address}/{name}", release[name]) == release[name]
    assert handler.asked == [f"bytes={half}-"]
    assert not (downloads / f"{name}.part").exists()


def test_a_server_without_ranges_gives_the_whole_file_again(server, release, downloads):
    address, handler = server
    handler.ranges = False
    downloads.mkdir(parents=True)
    (downloads / f"{NAMES[2]}.part").write_bytes(b"what came before")
    assert fetched(f"{address}/{NAMES[2]}", release[NAMES[2]]) == release[NAMES[2]]


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server, release, downloads):
    address, handler = server
    handler.files["small.bin"] = b"content"
    downloads.mkdir(parents=True)
    (downloads / "small.bin.part").write_bytes(b"much more than that")
    assert fetched(f"{address}/small.bin", b"content") == b"content"


def test_another_file_than_the_published_one_is_refused_and_removed(server, release, downloads):
    """From the server, with the right size; or put there by hand."""
    address, handler = server
    changed = release[NAMES[2]][:-1] + bytes([release[NAMES[2]][-1] ^ 1])
    handler.files[NAMES[2]] = changed
    refusal(lambda: official_at(address, release), NAMES[2], "sha256", "removed", "try again")
    assert [path.suffix for path in downloads.iterdir()] == [".lock"]
    (downloads / NAMES[2]).write_bytes(changed)
    refusal(lambda: official_at(address, release), NAMES[2], "sha256", "remove it")


@pytest.mark.parametrize("what", ["page", "other scale", "other size", "LUA"])
def test_a_published_file_that_is_no_swinir_of_that_size_is_named(what, server, release, downloads):
    address, handler = server
    torch.manual_seed(0)
    tiny = SwinIR(**{**TOY, "window_size": 8, "scales": (2,), "residual": None})
    handler.files[NAMES[2]] = {
        "page": b"<!DOCTYPE html><title>Not found</title>",
        "other scale": release[NAMES[4]],
        "other size": published(tiny),
        "LUA": (GOLDEN / "lua_tiny.pth").read_bytes(),
    }[what]
    words = {"page": "not readable", "LUA": "holds LUA"}.get(what, "another SwinIR")
    refusal(lambda: official_at(address, handler.files), NAMES[2], words)


def test_no_file_no_server_no_such_release(server, downloads, release, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time", clock(sleep=lambda seconds: None))
    address, _ = server
    refusal(lambda: fetched(f"{address}/gone.pth", b"x"), f"{address}/gone.pth", "404", "go online")
    offline = "http://127.0.0.1:9/v0.0"
    refusal(
        lambda: official_at(offline, release),
        f"{offline}/{NAMES[2]}", "could not be downloaded", f"put it at {downloads / NAMES[2]}",
    )  # fmt: skip
    shutil.rmtree(downloads)
    downloads.write_text("a file where the folder should be")
    refusal(lambda: fetched(f"{address}/{NAMES[2]}", b"x"), "could not be downloaded")


def test_the_cache_is_below_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download_folder() == tmp_path / "lua_demo" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert download_folder() == Path.home() / ".cache" / "lua_demo" / "weights"


def test_our_own_lua_comes_first(toy_weights, tmp_path):
    shutil.copytree(toy_weights / "embedded" / "lua", tmp_path / "flux1" / "lua")
    network = find_lua("flux1", tmp_path).network
    assert isinstance(network, LUA)
    assert torch.equal(network.conv_first.weight, load_lua(toy_weights / "embedded" / "lua").conv_first.weight)


def test_a_space_without_lua_says_what_to_do(tmp_path):
    refusal(lambda: find_lua("sdxl", tmp_path), "space sdxl", "train lua --space sdxl", str(tmp_path / "sdxl"))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("run", [torch.float32, torch.bfloat16])
def test_the_published_lua_takes_and_gives_normalised_latents(stored, run, offline_cache, tmp_path):  # noqa: F811
    """What the decoder is given is what the published network makes of what the decoder would be given."""
    tensors = torch.load(GOLDEN / "lua_tiny.pth", weights_only=True)["params_ema"]
    floats = {name: value.to(stored) if value.is_floating_point() else value for name, value in tensors.items()}
    torch.save({"params_ema": floats}, tmp_path / "lua_flux.pth")
    cache(offline_cache, "vaskers5/LUA-FLUX", tmp_path / "lua_flux.pth")
    network, bare = (
        find_lua("flux1", tmp_path / "no weights").network.to(run),
        load_lua(tmp_path / "lua_flux.pth").to(run),
    )
    assert (network.in_chans, network.scales, network.training) == (16, (2, 4), False)
    torch.manual_seed(0)
    latent = torch.randn(1, 16, 9, 6)
    with torch.inference_mode():
        larger = network(latent, 2)
        wanted = bare((latent / 0.3611 + 0.1159).to(run), 2).float()
        assert larger.shape == (1, 16, 18, 12) and larger.dtype == torch.float32
        torch.testing.assert_close(larger / 0.3611 + 0.1159, wanted, rtol=1e-4, atol=1e-5)
        assert network(latent.to(run), 4).dtype == run


def test_the_published_lua_offline_says_so(offline_cache, tmp_path):  # noqa: F811
    refusal(lambda: find_lua("flux1", tmp_path), "vaskers5/LUA-FLUX", "go online")
    small = FeatureLUA(embed_dim=8, depths=[2], num_heads=[2], window_size=4, head_num_feat=8)
    small.save_pretrained(tmp_path / "flux1" / STAND_IN)
    refusal(lambda: find_lua("flux1", tmp_path), "vaskers5/LUA-FLUX", "our own small one", "madebyollin/taef1")


def test_our_small_lua_stands_in_for_the_published_one_and_says_so(offline_cache, toy_weights, photo, tmp_path):  # noqa: F811
    """Offline it runs, and notes and record name it; once the published one is there, that one does."""
    shutil.copytree(toy_weights, tmp_path, dirs_exist_ok=True)
    LUA(in_chans=16, **TRUNK).save_pretrained(tmp_path / "flux1" / STAND_IN)
    engine = Engine("cpu", weights=tmp_path)
    engine.provide("flux1", "tiny", VAE(TinyAutoencoder(16), "tiny"))
    request = Request(image=str(photo(96, 80)), base="flux1-dev", decoder="tiny",
                      size=64, methods=("base", "lua"))  # fmt: skip
    lua = {event.method: event for event in engine.compare(request) if isinstance(event, Result)}["lua"]
    assert lua.image is not None
    assert any("vaskers5/LUA-FLUX" in note and "our own small one" in note for note in lua.notes)
    assert engine.environment(request).weights["lua"].startswith(f"flux1/{STAND_IN} (")
    (tmp_path / "lua_flux.pth").write_bytes((GOLDEN / "lua_tiny.pth").read_bytes())
    cache(offline_cache, "vaskers5/LUA-FLUX", tmp_path / "lua_flux.pth")
    found = find_lua("flux1", tmp_path)
    assert found.source == "vaskers5/LUA-FLUX" and isinstance(found.network, DecoderReady) and not found.note


@pytest.fixture
def released(server, monkeypatch, tmp_path):
    """The handler of a server that stands for the release; what is downloaded is kept below `tmp_path`."""
    address, handler = server
    row = METHODS["swinir-official"]
    monkeypatch.setitem(METHODS, "swinir-official", replace(row, upscaler=row_at(address, handler.files)))
    return handler


def official(engine: Engine, photo: Path, **changes) -> dict[str, Result]:
    request = Request(str(photo), **{"size": 24, "methods": ("base", "swinir-official"), **changes})
    return {event.method: event for event in engine.compare(request) if isinstance(event, Result)}


def test_the_official_swinir_is_a_method(released, engine, photo):
    """From the embedded base, at both scales: what the released network makes of the decoded base."""
    assert "swinir-official" not in Request().methods
    path = photo(24, 16)
    assert released.asked == []
    for scale in SCALES:
        made = official(engine, path, scale=scale)
        network = load_swinir(download_folder() / NAMES[scale])
        with torch.inference_mode():
            expected = network(to_tensor(made["base"].image), scale)
        assert made["swinir-official"].label == "SwinIR (official)"
        difference = made["swinir-official"].image.astype(int) - to_array(expected.clamp(0, 1))
        assert made["swinir-official"].image.std() > 2
        # The engine enlarges the decoded base before it is rounded to 8 bits.
        assert np.abs(difference).max() <= 3 and np.abs(difference).mean() < 0.5
        assert [span.name for span in made["swinir-official"].spans] == ["encode", "decode", "upscale"]
    assert len(released.asked) == 2, "each file once"


def test_the_official_swinir_in_the_space_of_another_base(released, toy_weights, photo, tmp_path):
    (tmp_path / "weights" / "sdxl" / "tiny").mkdir(parents=True)
    torch.manual_seed(0)
    network = TinyAutoencoder(4)
    for half in ("encoder", "decoder"):
        file = tmp_path / "weights" / "sdxl" / "tiny" / f"taesdxl_{half}.safetensors"
        save_file(getattr(network, half).state_dict(), file)
    engine = Engine("cpu", weights=tmp_path / "weights")
    made = official(engine, photo(24, 16), base="sdxl", decoder="tiny")
    assert made["swinir-official"].image.shape == (32, 48, 3)


def test_results_name_the_official_weights(released, toy_weights, photo, tmp_path):
    options = ["--size", "24", "--methods", "base,swinir-official", "--weights", str(toy_weights), "--device", "cpu"]
    assert main(["compare", "--image", str(photo(24, 16)), *options, "--out", str(tmp_path / "out")]) == 0
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    sha256 = hashlib.sha256(released.files[NAMES[2]]).hexdigest()
    assert document["weights"]["swinir-official"] == f"{NAMES[2]} ({sha256[:12]})"
    assert document["methods"]["swinir-official"]["file"] == "swinir-official.png"


def test_without_network_the_official_swinir_is_left_out(released, engine, photo, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time", clock(sleep=lambda seconds: None))
    row = METHODS["swinir-official"]
    monkeypatch.setitem(
        METHODS, "swinir-official", replace(row, upscaler=row_at("http://127.0.0.1:9/v0.0", released.files))
    )
    made = official(engine, photo(24, 16), methods=("swinir-official", "base", "lua"))
    reason = made["swinir-official"].skipped
    assert made["swinir-official"].image is None and "\n" not in reason
    assert NAMES[2] in reason and "go online" in reason and "the other methods run without it" in reason
    assert made["base"].image is not None and made["lua"].image is not None
