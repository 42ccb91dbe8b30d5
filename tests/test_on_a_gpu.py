"""What would go wrong on a GPU only, held where there is none: by devices without data, injected errors and counts."""

from __future__ import annotations

import contextlib
import functools
import time
from types import SimpleNamespace

import diffusers
import pytest
import torch
from conftest import toy_autoencoder
from test_bases import PROMPT, SIZE, weights  # noqa: F401  fixture
from test_memory import autoencoder
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lua_demo import LUA, SwinIR
from lua_demo.bench import gpu, paths
from lua_demo.bench.clock import Timing, interleaved
from lua_demo.bench.goals import GPU
from lua_demo.catalog.bases import BASES
from lua_demo.commands.main import main
from lua_demo.machine import memory
from lua_demo.machine.memory import DROP_ENCODERS, RESIDENT
from lua_demo.models.base_model import BaseModel
from lua_demo.models.decoding import ELEMENTS_PER_PIXEL, decode
from lua_demo.networks import fast, onednn, swin, windows
from lua_demo.networks.kl import SCORES
from lua_demo.networks.skip import least_squares
from lua_demo.pictures.latents import save_latent
from lua_demo.sampling import Pace
from lua_demo.schema import BaseLatent, UserError

META = torch.device("meta")
TOY = dict(embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4, head_num_feat=8, scales=(2, 4))
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.fixture
def compiles(monkeypatch):
    """The compiled blocks as on CUDA, without its compiler: the list gets an entry for each time they are compiled."""
    found = []

    def backend(graph, inputs):
        found.append(graph)
        return graph.forward

    own = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", functools.partialmethod(own, backend=backend))
    monkeypatch.setattr(swin, "CACHED_TOKENS", None)  # one piece, as on CUDA
    monkeypatch.setattr(onednn, "takes", lambda x, weight: False)
    torch._dynamo.reset()
    yield found
    torch._dynamo.reset()


def test_blocks_of_many_sizes_widths_and_modes_are_all_compiled(compiles):
    """What `bench` asks for in one process: more than dynamo's own limit, which it would end with an error."""
    for network in (LUA(**TOY), SwinIR(**{**TOY, "embed_dim": 12, "scales": (2,)})):
        quick = fast.accelerate(network.eval(), compiled=True)
        for mode in (torch.no_grad, torch.inference_mode):
            for side in (8, 12):
                with mode():
                    assert quick(torch.rand(1, network.in_chans, side, side), 2).shape[-1] == 2 * side
    assert len(compiles) > 8
    assert torch._dynamo.config.recompile_limit >= fast.RECOMPILES > len(compiles)


def test_the_order_of_the_tokens_changes_inside_the_compiled_blocks(compiles):
    """Where it costs no kernel of its own: outside there is one per group, back to the order of the pixels."""
    quick = fast.accelerate(LUA(**TOY).eval(), compiled=True)
    with torch.no_grad():
        quick(torch.rand(1, 16, 8, 8), 2)
    inside = [sum("index_select" in str(node.target) for node in graph.graph.nodes) for graph in compiles]
    assert inside and set(inside) == {1}


def test_the_linear_skip_is_fitted_on_the_device_of_its_pairs():
    weight, bias = least_squares([(torch.rand(1, 4, 8, 8, device=META), torch.rand(1, 16, 8, 8, device=META))])
    assert weight.is_meta and bias.is_meta and weight.shape == (16, 4, 3, 3)


class Read(TorchDispatchMode):
    """Remembers the index tensors that were read."""

    def __init__(self):
        super().__init__()
        self.indices: dict[int, torch.Tensor] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor) and not tensor.is_floating_point():
                self.indices[tensor.data_ptr()] = tensor
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("kind", [LUA, SwinIR])
def test_a_graph_holds_all_indices_that_it_reads(kind, quick):
    """They are kept for the last sizes only, and a CUDA graph reads them where they lay when it was recorded."""
    network = kind(**TOY | ({"unshuffle": 2} if kind is SwinIR else {})).eval()
    network, x = fast.accelerate(network) if quick else network, torch.rand(1, network.in_chans, 18, 28)
    with torch.no_grad():
        network(x, 2)
        held = network.indices(x)
        with Read() as read:
            network(x, 2)
        [layout], others = [h for h in held if isinstance(h, windows.Layout)], held[1:]
        kept = {tensor.data_ptr() for tensor in (*layout.moves.values(), *others)}
        assert read.indices and read.indices.keys() <= kept


def test_attention_on_cuda_takes_the_kernel_without_a_plan_per_shape(monkeypatch):
    with swin.attention_on(torch.device("cuda", 1)):
        assert torch.backends.cuda.mem_efficient_sdp_enabled() and not torch.backends.cuda.cudnn_sdp_enabled()
    with swin.attention_on(torch.device("cpu")):
        assert torch.backends.cuda.cudnn_sdp_enabled()
    asked, own = [], swin.attention_on
    monkeypatch.setattr(swin, "attention_on", lambda device: asked.append(device) or own(device))
    with torch.no_grad():
        LUA(**TOY).eval()(torch.rand(1, 16, 8, 8), 2)
    assert asked == [torch.device("cpu")]


def test_a_step_is_timed_once_the_device_is_done():
    order = []
    pace = Pace(lambda step: order.append(("told", step)), lambda: order.append("waited"))
    pace(1)
    time.sleep(0.05)
    pace(2)
    assert order == [("told", 1), "waited", ("told", 2), "waited"]
    assert 0.05 <= pace.seconds_per_step(9.0) < 1.0


@pytest.mark.parametrize(("beside", "straight"), [(0, True), (10**15, False), (None, False)])
def test_where_host_memory_is_short_weights_go_to_the_device(weights, monkeypatch, beside, straight):  # noqa: F811
    model = BaseModel(BASES["sdxl"], weights / "bases" / "sdxl", torch.device("cuda", 1), torch.float32)
    on, asked = [], []
    monkeypatch.setattr(memory, "host_bytes", lambda device: beside)
    monkeypatch.setattr(torch.cuda, "device", lambda device: on.append(device) or contextlib.nullcontext())
    pipeline = SimpleNamespace(to=lambda device: None)
    kind = getattr(diffusers, model.family.pipeline)
    monkeypatch.setattr(kind, "from_pretrained", lambda _, **how: asked.append(how.get("device_map")) or pipeline)
    model._load_for(RESIDENT)
    assert asked == (["cuda"] if straight else [None]) and on == ([torch.device("cuda", 1)] if straight else [])


def test_the_benchmark_times_on_the_device_that_was_asked_for(monkeypatch):
    on = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: on.append(device) or contextlib.nullcontext())
    interleaved({"a": lambda: None}, 0, torch.device("cuda", 1))
    assert on == [torch.device("cuda", 1)]


def test_upscale_takes_the_fast_path(tmp_path, monkeypatch):
    """Heads of 6 channels would fall to the slowest attention."""
    LUA(**{**TOY, "in_chans": 64, "embed_dim": 24, "num_heads": (4, 4)}).save_pretrained(tmp_path / "embedded" / "lua")
    latent = BaseLatent(torch.randn(64, 8, 8).numpy() / 4, "embedded", (64, 64))
    save_latent(tmp_path / "in.safetensors", latent)
    widths, own = set(), torch.nn.functional.scaled_dot_product_attention

    def attention(q, *args, **options):
        widths.add(q.shape[-1])
        return own(q, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    files = [str(tmp_path / name) for name in ("in.safetensors", "out.safetensors")]
    assert main(["upscale", *files, "--weights", str(tmp_path), "--device", "cpu", "--dtype", "bf16"]) == 0
    assert widths == {8}


def test_the_sample_sheet_is_decoded_where_the_denoiser_is(tmp_path, monkeypatch):
    from lua_demo.models.embedded import EmbeddedPipeline
    from lua_demo.scenes.corpus import write_corpus
    from lua_demo.train.generator import Corpus, GeneratorTask

    write_corpus(tmp_path / "corpus", count=1, size=64, seed=0)
    toy_autoencoder().save_pretrained(tmp_path / "autoencoder")
    task = GeneratorTask(Corpus(tmp_path / "corpus", tmp_path / "autoencoder", tmp_path), width=32, depth=2, heads=2,
                         fine=8, base_side=2)  # fmt: skip
    task.model.to(META)
    sampled = torch.zeros(1, task.corpus.autoencoder.latent_channels, 8, 8, device=META)
    monkeypatch.setattr(EmbeddedPipeline, "__call__", lambda *_: SimpleNamespace(images=sampled))
    seen = []
    task.corpus.autoencoder.decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].device))
    with pytest.raises(NotImplementedError, match="meta tensor"):  # as there is no picture to fetch from it
        task.sample(task.model)
    assert seen and set(seen) == {META}


@torch.inference_mode()
def test_out_of_memory_in_the_second_decode_in_fp32_goes_on_in_smaller_tiles():
    vae, latent = autoencoder(), torch.randn(1, 4, 64, 64)
    tried = []

    def fail_when_large(module, given):
        tried.append((given[0].shape[-1], given[0].dtype))
        if given[0].shape[-1] > 32:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    def overflow(module, given, out):
        return out if given[0].dtype == torch.float32 and len(tried) > 3 else out * float("inf")

    vae.network.model.decoder.register_forward_pre_hook(fail_when_large)
    vae.network.model.decoder.register_forward_hook(overflow)
    image, notes = decode(vae, latent)
    assert [side for side, _ in tried[:3]] == [64, 48, 32], "tile by tile down the list"
    assert notes[0] == "full KL decoder, in blended tiles of 256 px"
    assert "run again in fp32" in notes[1]
    assert image.shape == (1, 3, 512, 512)


@torch.inference_mode()
def test_a_decode_that_never_fits_says_so():
    vae = autoencoder()

    def fail(module, given):
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    vae.network.model.decoder.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        decode(vae, torch.randn(1, 4, 64, 64))


def test_scores_under_autocast_stay_below_what_a_decode_is_told_to_need():
    """bf16 scores, their float32 copy, softmax of that, and the bf16 probabilities, all at once."""
    assert SCORES["cuda"] * (2 + 4 + 4 + 2) < ELEMENTS_PER_PIXEL["kl"] * 1024**2 * 2


def fail_once(monkeypatch, plans):
    """`BaseModel._load_for` runs out of memory in `plans`; gives the list of plans that were tried."""
    load, tried = BaseModel._load_for, []

    def loading(self, plan, encoders=None):
        tried.append(plan)
        if plan in plans:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return load(self, plan, encoders)

    monkeypatch.setattr(BaseModel, "_load_for", loading)
    return tried


def test_out_of_memory_while_a_base_is_placed_takes_the_next_plan(weights, monkeypatch):  # noqa: F811
    model = BaseModel(BASES["sdxl"], weights / "bases" / "sdxl", torch.device("cpu"), torch.float32)
    tried = fail_once(monkeypatch, {RESIDENT})
    model.place(SIZE)
    assert tried == [RESIDENT] and model.plan is DROP_ENCODERS, "which loads when it is needed"
    assert model(PROMPT, SIZE, 1, 1.0, 0).isfinite().all()


def test_out_of_memory_in_all_plans_is_a_refusal(weights, monkeypatch):  # noqa: F811
    model = BaseModel(BASES["sdxl"], weights / "bases" / "sdxl", torch.device("cpu"), torch.float32)
    fail_once(monkeypatch, {RESIDENT})
    monkeypatch.setattr(memory, "fitting", lambda *_: (RESIDENT,))
    with pytest.raises(UserError, match=r"SDXL base 1\.0 ran out of memory on cpu while it was loaded"):
        model.place(SIZE)
    assert model.plan is None and model._pipeline is None


def test_a_stop_in_the_text_encoder_leaves_the_device_too(weights):  # noqa: F811
    model = BaseModel(BASES["sdxl"], weights / "bases" / "sdxl", torch.device("cpu"), torch.float32)
    model.place(SIZE)
    freed = []
    model._pipeline.maybe_free_model_hooks = lambda: freed.append(True)

    def stop(*_):
        raise KeyboardInterrupt

    model._pipeline.text_encoder.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        model(PROMPT, SIZE, 2, 1.0, 0)
    assert freed == [True]


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_however_sampling_ends_the_networks_leave_the_device(weights, end):  # noqa: F811
    model = BaseModel(BASES["sdxl"], weights / "bases" / "sdxl", torch.device("cpu"), torch.float32)
    model.place(SIZE)
    freed = []
    model._pipeline.maybe_free_model_hooks = lambda: freed.append(True)

    def told(step):
        raise end("stopped")

    with pytest.raises(end):
        model(PROMPT, SIZE, 2, 1.0, 0, told)
    assert freed == [True]


def test_a_variant_that_fails_is_one_variant():
    ran = []

    def fail():
        raise torch.OutOfMemoryError(OUT_OF_MEMORY)

    failed: dict[str, str] = {}
    found = interleaved({"a": lambda: ran.append("a"), "b": fail}, 1, torch.device("cpu"), failed=failed)
    assert found.keys() == {"a"} and ran == ["a"] * 3 and failed == {"b": "out of memory"}
    with pytest.raises(torch.OutOfMemoryError):
        interleaved({"b": fail}, 1, torch.device("cpu"))


def sheet(**timings: float) -> tuple[gpu.Sheet, list]:
    told: list = []
    made = gpu.Sheet(torch.device("cpu"), None, told.append)
    made.timings = {name: Timing([seconds]) for name, seconds in timings.items()}
    return made, told


def test_a_row_that_fails_is_one_row_and_every_row_is_told_at_once():
    made, told = sheet(slow=2.0, quick=1.0)
    made.failed["D0"] = "out of memory"

    def run():
        made.ratio("G7", "slow", "quick", "fine")
        made.ratio("G7b", "D0", "quick")
        raise ValueError("a bug\nand more")

    made.section(("G7", "G7b", "G7c"), run)
    assert [row.key for row in told] == ["G7", "G7b", "G7c"]
    assert (told[0].value, told[0].note) == (2.0, "fine")
    assert (told[1].value, told[1].note) == (None, "D0: out of memory")
    assert (told[2].value, told[2].note) == (None, "failed: ValueError: a bug")


def test_every_gpu_row_is_reported_where_nothing_can_be_measured(monkeypatch):
    """On a machine without CUDA every part fails, each by itself."""
    monkeypatch.setattr(gpu.networks, "flux", lambda *_: 1 / 0)
    monkeypatch.setattr(gpu, "_official", lambda *_: 1 / 0)
    monkeypatch.setattr(gpu, "_decode", lambda *_: 1 / 0)
    monkeypatch.setattr(gpu, "_attention", lambda *_: 1 / 0)
    monkeypatch.setattr(gpu.paths, "measure", lambda *_, **__: 1 / 0)
    told = []
    measured = gpu.measure(torch.device("cpu"), None, told.append)
    assert [row.key for row in measured.rows] == list(GPU) and len(told) == len(GPU)
    assert all(row.value is None and row.note for row in measured.rows)


def test_a_path_without_one_of_its_stages_is_left_out(monkeypatch):
    wanted = paths.stages_of("tiny", 64, 2, "shipped")
    monkeypatch.setattr(paths, "interleaved", lambda named, *_, **__: {n: Timing([1.0]) for n in named if n in wanted})
    found, _ = paths.measure(torch.device("cpu"), torch.float32, 64, 2, ("tiny", "embedded"), "shipped", 1, failed={})
    assert [path.decoder for path in found] == ["tiny"] and found[0].ratio == 1.0
