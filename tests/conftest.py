"""Toy weights of the real classes, deterministic pictures, and the page in a browser, for all tests."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

# Two workers share two cores: more threads than cores make both several times slower. Before torch counts the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import spaces
import torch
from diffusers.utils import logging as diffusers_logging
from gradio_client import Client
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from lua_demo.catalog.spaces import SPACES
from lua_demo.engine import Engine
from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.networks.cnn import CNN
from lua_demo.networks.lua import LUA
from lua_demo.networks.swinir import SwinIR
from lua_demo.pictures.latent_check import load_statistics
from lua_demo.request.job import with_rows
from lua_demo.runs.store import Store
from lua_demo.schema import Request
from lua_demo.ui.page import build_demo, launch_options
from lua_demo.ui.zero_gpu import ZeroGpuEngine

# Its log goes to what stderr was when it was imported: in a test, to a file that is closed in the next one.
diffusers_logging.disable_default_handler()

CHROMIUM = shutil.which("chromium")
expect.set_options(timeout=30_000)  # for machines that are busy with other things

CHANNELS = SPACES["embedded"].channels
TRUNK = dict(embed_dim=8, depths=[2], num_heads=[2], window_size=4, head_num_feat=8, scales=[2, 4], residual="bicubic")


def pytest_collection_finish() -> None:
    """What is imported by now stays: without this every collection of the engine's looks through it, for 0.3 s."""
    gc.freeze()


def network_of(engine: Engine, role: str, base: str = "embedded") -> torch.nn.Module:
    """The loaded network that a comparison with the default methods uses as `role`."""
    return engine.models.network(with_rows(Request(base=base)), role)


def clock(**changed: Callable) -> SimpleNamespace:
    """The module `time` with other functions, for one module: an event loop that runs beside it keeps its own."""
    return SimpleNamespace(**{**vars(time), **changed})


def toy_autoencoder() -> Autoencoder:
    """Small, and with a decode that resembles the input: its linear part is the PCA of a picture's patches."""
    sizes = dict(fine=8, coarse=8, encoder_coarse=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    network = Autoencoder(latent_channels=CHANNELS, detail_channels=CHANNELS - 16, **sizes)
    network.start_from_pca(torch.from_numpy(picture(256, 192)).permute(2, 0, 1)[None].float() / 255)
    return network


def picture(width: int, height: int) -> np.ndarray:
    """H x W x 3 uint8 with smooth colour, edges and grain, so that no two methods and no two regions look the same."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(9 * x + 4 * y), np.cos(7 * y - 3 * x * x), np.sin(11 * x * y + 1)]
    image = 0.5 + 0.3 * np.stack(waves, -1) + 0.15 * (((x * 13).astype(int) + (y * 17).astype(int)) % 2)[..., None]
    image += np.random.default_rng(width * 10_007 + height).normal(0, 0.02, image.shape)
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def drawn(space: str, size: int = 24, seed: int = 0) -> torch.Tensor:
    """1 x C x size x size with the shipped statistics of `space`, patch by patch."""
    row = load_statistics()[space]
    side = round((len(row.mean) / row.channels) ** 0.5)
    torch.manual_seed(seed)
    rows = torch.randn((size // side) ** 2, len(row.mean)) @ torch.linalg.cholesky(row.scatter).T + row.mean
    return torch.nn.functional.fold(rows.T[None], (size, size), side, stride=side)


@pytest.fixture(scope="session", autouse=True)
def no_store_at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever uses the default store writes below the tests' own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUA_DEMO_STORE", str(tmp_path_factory.mktemp("default-store")))
        yield


@pytest.fixture(scope="session")
def toy_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like assets/weights with tiny, untrained networks of the real classes."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("weights")
    toy_autoencoder().save_pretrained(root / "embedded" / "autoencoder")
    LUA(in_chans=CHANNELS, **TRUNK).save_pretrained(root / "embedded" / "lua")
    SwinIR(**TRUNK).save_pretrained(root / "embedded" / "swinir")
    cnn = CNN(width=8, conv_blocks=1)
    for parameter in cnn.parameters():  # the last convolutions start at zero, with which it would be bicubic
        torch.nn.init.normal_(parameter, std=0.05)
    cnn.save_pretrained(root / "embedded" / "cnn")
    return root


@pytest.fixture(scope="session")
def prompted_weights(toy_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toy_weights` with a tiny generator beside them, whose pictures differ from prompt to prompt."""
    from lua_demo.models.embedded import new_pipeline  # diffusers takes seconds to import

    root = tmp_path_factory.mktemp("prompted") / "weights"
    shutil.copytree(toy_weights, root)
    torch.manual_seed(0)
    detail = dict(detail_channels=CHANNELS - 16, noise=4, width=16, depth=1)
    pipeline = new_pipeline(detail, width=32, depth=2, heads=2, fine=8, base_side=2)
    for layer in (pipeline.transformer.modulation, pipeline.transformer.last[-1], pipeline.detail.last):
        torch.nn.init.normal_(layer.weight, std=0.2)  # they start at zero, with which all prompts look the same
    pipeline.save_pretrained(root / "embedded" / "generator")
    return root


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[int, int], Path]:
    """photo(w, h) writes a picture of that size and gives its path."""

    def write(width: int, height: int) -> Path:
        path = tmp_path / f"photo_{width}x{height}.png"
        Image.fromarray(picture(width, height)).save(path)
        return path

    return write


@pytest.fixture
def engine(toy_weights: Path) -> Engine:
    """A fresh engine, as the app has it, on the CPU with toy weights."""
    return engine_of_the_app(toy_weights)


def engine_of_the_app(weights: Path) -> ZeroGpuEngine:
    """The engine that app.py builds, on the CPU with other weights."""
    return ZeroGpuEngine(spaces.GPU, "cpu", weights=weights)


@contextlib.contextmanager
def served(weights: Path | Engine, cache: Path, store: Store) -> Iterator[str]:
    """The address of the page over these weights, or over an engine that has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(cache))
        demo = build_demo(weights if isinstance(weights, Engine) else engine_of_the_app(weights), store)
        _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", **launch_options())
        try:
            yield address
        finally:
            demo.close()


@pytest.fixture(scope="module")
def page_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Of the module's page; without pinned runs, so that nothing is on show at first."""
    return Store(tmp_path_factory.mktemp("results") / "store", pinned=None)


@pytest.fixture(scope="module")
def page_weights(toy_weights: Path) -> Path:
    """Of the module's page; without a generator."""
    return toy_weights


@pytest.fixture(scope="module")
def url(page_weights: Path, page_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The module's page, running."""
    with served(page_weights, tmp_path_factory.mktemp("cache"), page_store) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[Browser]:
    """After the page has started: what playwright runs in this thread does not get on with a server that starts."""
    if CHROMIUM is None:
        pytest.skip("no chromium here; apt-get install chromium runs these tests")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP plain.test 127.0.0.1"]
        program = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield program
        program.close()


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """open_page(width, height, theme, address) -> a page in a context of its own; the test fails if it logs an error or
    leaves this machine.
    """
    problems: list[str] = []
    contexts = []

    def open_(width: int = 1280, height: int = 900, theme: str = "", address: str = url, **options) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"pageerror {error}"))
        page.on("console", lambda line: problems.append(f"console {line.text}") if line.type == "error" else None)
        page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else problems.append(r.url))
        page.goto(f"{address}?__theme={theme}" if theme else address)
        expect(page.locator("#viewer .stage")).to_be_visible(timeout=30_000)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []


def set_advanced(page: Page, **values: int) -> None:
    """Open the Advanced section and give its sliders values. A slider that was just put on the page takes its first
    value once more: what was typed before that is typed again.
    """
    page.locator("#advanced > button").click()
    for name, value in values.items():
        box = page.locator(f"#{name} input[type=number]")
        for _ in range(20):
            box.fill(str(value))
            box.press("Tab")
            page.wait_for_timeout(200)
            if box.input_value() == str(value):
                break
        expect(box).to_have_value(str(value))
