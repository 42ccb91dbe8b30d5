"""The README of the models, "In your own pipeline", executed: real diffusers pipelines at toy size."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import tiny_bases
import torch
from safetensors.torch import save_file
from test_weights import GOLDEN, cache, offline_cache  # noqa: F401  a fixture

from lua_demo import load_lua
from lua_demo.catalog.families import unpack
from lua_demo.models.weights import load_any_lua
from lua_demo.networks.tae import TinyAutoencoder
from lua_demo.paths import WEIGHTS_DIR

README = Path(__file__).resolve().parent.parent / "lua_demo" / "models" / "README.md"


def snippet(naming: str) -> str:
    """The code block of the section that contains `naming`."""
    section = README.read_text(encoding="utf-8").split("## In your own pipeline\n", 1)[1].split("\n## ", 1)[0]
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if naming in code]
    return found


def lines_of_work(code: str) -> int:
    return len([line for line in code.splitlines() if line and not line.startswith(("import", "from", "#"))])


def seeded(pipeline):
    """`pipeline`, with the same noise at every call."""
    pipeline.set_progress_bar_config(disable=True)
    call = type(pipeline).__call__

    def sample(*arguments, **options):
        return call(pipeline, *arguments, num_inference_steps=2, generator=torch.Generator().manual_seed(0), **options)

    class Same(type(pipeline)):
        def __call__(self, *arguments, **options):
            return sample(*arguments, **options)

    pipeline.__class__ = Same
    return pipeline


def test_flux(offline_cache, tmp_path):  # noqa: F811
    shutil.copy(GOLDEN / "lua_tiny.pth", tmp_path / "lua_flux.pth")
    cache(offline_cache, "vaskers5/LUA-FLUX", tmp_path / "lua_flux.pth")
    torch.manual_seed(0)
    pipeline = seeded(tiny_bases.flux1())
    code, names = snippet("FluxPipeline"), {"pipeline": pipeline}
    assert lines_of_work(code) <= 6
    exec(code, names)
    assert names["picture"].size == (1024, 1024)
    tokens = pipeline("a lake at dawn", height=512, width=512, output_type="latent").images
    own = pipeline._unpack_latents(tokens, 512, 512, pipeline.vae_scale_factor)
    assert torch.equal(unpack(tokens, 64, 64), own)
    with torch.inference_mode():
        larger = load_lua(GOLDEN / "lua_tiny.pth")(own / 0.3611 + 0.1159, 2)
        wanted = pipeline.image_processor.postprocess(pipeline.vae.decode(larger).sample)[0]
    assert names["picture"].tobytes() == wanted.tobytes()


def test_sdxl(offline_cache, tmp_path):  # noqa: F811
    """With the shipped LUA, and a tiny autoencoder in the hub's cache."""
    torch.manual_seed(0)
    tiny, network = TinyAutoencoder(4).eval(), load_any_lua(WEIGHTS_DIR / "sdxl" / "lua")
    cache(offline_cache, "madebyollin/taesdxl", *in_diffusers_layout(tiny, tmp_path))
    pipeline = seeded(tiny_bases.sdxl())
    code, names = snippet("StableDiffusionXLPipeline"), {"pipeline": pipeline}
    assert lines_of_work(code) <= 6
    exec(code, names)
    assert names["picture"].size == (1024, 1024)
    latent = pipeline("a lake at dawn", height=512, width=512, output_type="latent").images
    assert latent.shape == (1, 4, 64, 64)
    with torch.inference_mode():
        larger = tiny.write(network(tiny.read(latent), 2))
        wanted = pipeline.image_processor.postprocess(pipeline.vae.decode(larger / 0.13025).sample)[0]
    made, expected = (np.asarray(picture, int) for picture in (names["picture"], wanted))
    assert abs(made - expected).max() <= 1, "the fast path rounds otherwise"


def in_diffusers_layout(tiny, folder):
    """The files of a hub repository of diffusers' AutoencoderTiny."""
    tensors = {f"encoder.layers.{name}": value for name, value in tiny.encoder.state_dict().items()}
    for name, value in tiny.decoder.state_dict().items():
        index, rest = name.split(".", 1)
        tensors[f"decoder.layers.{int(index) - 1}.{rest}"] = value
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderTiny"}))
    return folder / "config.json", folder / "diffusion_pytorch_model.safetensors"
