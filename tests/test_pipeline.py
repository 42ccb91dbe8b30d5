import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CHANNELS, toy_autoencoder
from PIL import Image

from lua_demo.catalog.prompts import understand
from lua_demo.commands.train import main
from lua_demo.models.embedded import MARGIN, EmbeddedPipeline, new_pipeline
from lua_demo.networks.denoiser import Denoiser, Detail, rotations, turned
from lua_demo.scenes import captions
from lua_demo.scenes.corpus import scenes, write_corpus
from lua_demo.schema import UserError
from lua_demo.train.generator import STAGES, Corpus, GeneratorTask, times, worded
from lua_demo.train.loop import Settings, Stage, train

DENOISER = dict(width=32, depth=2, heads=2, fine=8, base_side=2)
TOY = DENOISER | dict(detail=dict(detail_channels=CHANNELS - 16, noise=4, width=16, depth=1))


@pytest.fixture(scope="module")
def pipeline():
    torch.manual_seed(0)
    result = new_pipeline(**TOY)
    # The last layers start at zero, with which all prompts would look the same.
    with torch.no_grad():
        for layer in (result.transformer.modulation, result.transformer.last[-1], result.detail.last):
            torch.nn.init.normal_(layer.weight, std=0.2)
    result.set_progress_bar_config(disable=True)
    return result


def sample(pipeline, prompt="a lake at night", seed=0, **kwargs):
    size = {"height": 64, "width": 64, "num_inference_steps": 3} | kwargs
    return pipeline(prompt, generator=torch.Generator().manual_seed(seed), **size)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (8, 8), (72, 120), (24, 200)])
def test_any_multiple_of_eight_gives_exactly_that_latent(pipeline, height, width):
    assert sample(pipeline, height=height, width=width).images.shape == (1, CHANNELS, height // 8, width // 8)


def test_the_last_step_is_told_of_the_whole_latent(pipeline):
    offered = []
    whole = sample(pipeline, callback_on_step_end=lambda *given: offered.append(given[3]["latents"]) or given[3]).images
    assert [tuple(latents.shape) for latents in offered] == [(1, 16, 8, 8), (1, 16, 8, 8), (1, CHANNELS, 8, 8)]
    assert torch.equal(whole, offered[-1]) and whole[:, 16:].abs().max() > 0


def test_detail_is_local_differs_with_the_noise_and_starts_as_nothing():
    torch.manual_seed(0)
    detail = Detail(16, 3, noise=4, width=8, depth=1)
    latent, noise = torch.randn(1, 16, 32, 32), torch.randn(1, 4, 32, 32)
    assert torch.equal(detail(latent, noise), torch.nn.functional.pad(latent, (0, 0, 0, 0, 0, 3)))
    for layer in (detail.last, detail.body[0].conv2):
        torch.nn.init.normal_(layer.weight)
    with torch.no_grad():
        one, other = detail(latent, noise), detail(latent, torch.randn_like(noise))
        latent[..., 0, 0] += 10
        changed = (detail(latent, noise) - one).abs().amax(dim=(0, 1))
    assert (one - other).abs().mean() > 1e-3
    assert changed[:5, :5].min() > 0 and changed[5:].max() == changed[:, 5:].max() == 0


def test_a_latent_is_continued_before_its_detail_is_drawn(pipeline):
    """Convolutions pad with zeros, which no crop of the training has at its borders."""
    seen = []
    handle = pipeline.detail.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    latent = pipeline.complete(torch.randn(1, 16, 16, 15))
    handle.remove()
    assert latent.shape == (1, CHANNELS, 16, 15) and seen[0].shape[-2:] == (16 + 2 * MARGIN, 15 + 2 * MARGIN)
    assert torch.equal(seen[0][..., 0, :], seen[0][..., MARGIN, :])


def test_the_seed_and_the_prompt_decide(pipeline):
    first = sample(pipeline).images
    assert torch.equal(first, sample(pipeline).images)
    assert (first - sample(pipeline, seed=1).images).abs().mean() > 0.1
    assert (first - sample(pipeline, "dunes at noon").images).abs().max() > 1e-3


def test_unknown_words_change_nothing_and_are_named(pipeline):
    plain, decorated = sample(pipeline), sample(pipeline, "a purple lake at night with dragons")
    assert torch.equal(plain.images, decorated.images)
    assert decorated.ignored == [("purple", "dragons")]


def test_a_list_of_prompts_gives_one_latent_each(pipeline):
    two = pipeline(["lake", "dunes"], 64, 64, 3, generator=[torch.Generator().manual_seed(i) for i in (0, 5)])
    torch.testing.assert_close(two.images[1:], sample(pipeline, "dunes", seed=5).images, atol=1e-5, rtol=1e-5)


def test_saved_and_loaded_it_gives_the_same(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = EmbeddedPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(sample(loaded).images, sample(pipeline).images)


def test_every_step_is_told_and_may_stop_it(pipeline):
    steps = []

    def told(_, step, time, tensors):
        steps.append((step, time, tensors["latents"].shape))
        if len(steps) == 2:
            raise KeyboardInterrupt
        return tensors

    with pytest.raises(KeyboardInterrupt):
        sample(pipeline, num_inference_steps=5, callback_on_step_end=told)
    assert [step for step, *_ in steps] == [0, 1]
    assert sample(pipeline).images.isfinite().all()


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_from_a_latent_the_last_steps_run_on_it_with_their_noise(pipeline, kept):
    seen, latent = [], torch.randn(1, CHANNELS, 8, 8)
    handle = pipeline.transformer.register_forward_pre_hook(lambda _, given: seen.append(given[0][:1]))
    made = sample(pipeline, num_inference_steps=5, image=latent, strength=(kept - 0.5) / 5).images
    handle.remove()
    assert made.shape == latent.shape and len(seen) == kept
    sigma = pipeline.scheduler.sigmas[5 - kept]
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen[0], (1 - sigma) * latent[:, :16] + sigma * noise)


def test_with_all_steps_nothing_is_left_of_the_latent(pipeline):
    plain = sample(pipeline).images
    torch.testing.assert_close(sample(pipeline, image=torch.randn_like(plain)).images, plain)
    torch.testing.assert_close(sample(pipeline).images, plain)


def test_without_guidance_the_network_sees_each_latent_once(pipeline):
    batches = []
    handle = pipeline.transformer.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    sample(pipeline, guidance_scale=1.0, num_inference_steps=2)
    sample(pipeline, guidance_scale=2.0, num_inference_steps=2)
    handle.remove()
    assert batches == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": "a cat"}, "no known word in"),
        ({"prompt": ""}, "no known word"),
        ({"height": 60}, "multiples of 8"),
        ({"width": 0}, "multiples of 8"),
        ({"num_inference_steps": 0}, "steps"),
        ({"output_type": "pil"}, "output_type"),
        ({"image": torch.zeros(1, CHANNELS, 8, 9)}, r"to sample on from are \(1, .*, 8, 9\); .* x 8 x 8"),
        ({"image": torch.zeros(1, CHANNELS, 8, 8), "strength": 0.0}, "strength 0.0"),
    ],
)
def test_bad_input_is_named(pipeline, arguments, words):
    with pytest.raises(UserError, match=words):
        sample(pipeline, **arguments)


def test_rotary_scores_depend_on_the_distance_only():
    turns = rotations(6, 6, 8, base_side=6).unflatten(0, (6, 6))
    q, k = torch.randn(8), torch.randn(8)
    score = lambda a, b: turned(q, turns[a]) @ turned(k, turns[b])  # noqa: E731
    torch.testing.assert_close(score((0, 0), (2, 3)), score((3, 2), (5, 5)))
    assert not torch.isclose(score((0, 0), (2, 3)), score((0, 0), (3, 2)))


def test_a_small_picture_is_a_small_view_of_the_same_scene():
    coarse, fine = rotations(2, 2, 8, base_side=4), rotations(4, 4, 8, base_side=4).unflatten(0, (4, 4))
    torch.testing.assert_close(coarse.unflatten(0, (2, 2)), fine[::2, ::2])


def test_an_untrained_network_predicts_no_velocity():
    network = Denoiser(**DENOISER)
    assert network(torch.randn(2, 16, 8, 8), torch.rand(2), torch.randn(2, 16, 256)).abs().max() == 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder / "pictures", count=3, size=64, seed=0)
    torch.manual_seed(0)
    toy_autoencoder().save_pretrained(folder / "autoencoder")
    return Corpus(folder / "pictures", folder / "autoencoder", folder / "cache")


def test_latents_are_those_of_the_picture_and_its_mirror_image(corpus):
    latents = corpus.at(64)
    assert latents.shape == (6, CHANNELS, 8, 8)
    picture = np.asarray(Image.open(corpus.folder / corpus.files[1]))
    for row, array in ((2, picture), (3, picture[:, ::-1])):
        image = torch.from_numpy(array.copy()).permute(2, 0, 1)[None] / 255
        expected = corpus.autoencoder.encode(image)[0].detach()
        torch.testing.assert_close(torch.from_numpy(latents[row].astype(np.float32)), expected, atol=2e-3, rtol=2e-3)
    assert Corpus(corpus.folder, corpus.folder.parent / "autoencoder", corpus.cache).at(32).shape == (6, CHANNELS, 4, 4)


def test_the_mirror_image_has_the_light_on_the_other_side():
    for scene in scenes(50, 0):
        words, other = (set(understand(captions(view)[0]).words) for view in (scene, scene.mirrored()))
        swapped = {"left": "right", "right": "left"}
        assert {swapped.get(word, word) for word in words} == other


def test_prompts_are_varied_and_sometimes_empty():
    rng = np.random.default_rng(0)
    drawn = [tuple(worded([("snowy", "mountains", "night"), ("lake",)], rng)) for _ in range(400)]
    assert {"snowy", "mountains", "night", "lake"} == {word for words in drawn for word in words}
    assert 0.04 < drawn.count(()) / len(drawn) < 0.2
    assert ("mountains", "night") in drawn


def test_the_losses_reach_every_weight(corpus):
    task = GeneratorTask(corpus, **TOY)
    optimiser = torch.optim.SGD(task.model.parameters(), lr=0.1)
    for step in range(3):  # what stands behind layers that start at zero gets its gradient later
        optimiser.zero_grad()
        for weights in ({"velocity": 1.0}, {"critic": 1.0, "fooled": 1.0}):
            terms = task.losses(Stage("some", 1, weights, crop=64, batch=4), np.random.default_rng(step))
            sum(terms[name] for name in weights).backward()
        optimiser.step()
    unused = {name for name, p in task.model.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert not unused


def test_what_trains_the_critic_does_not_train_the_detail_and_the_reverse(corpus):
    task = GeneratorTask(corpus, **TOY)
    for names, trained in ((("critic", "slope"), "critic"), (("fooled", "statistics", "shown", "uneven"), "detail")):
        task.model.zero_grad()
        terms = task.losses(replace(STAGES[-1], crop=64, batch=2), np.random.default_rng(0))
        assert terms.keys() == STAGES[-1].weights.keys()
        sum(terms[name] for name in names).backward()
        moved = {name.split(".")[0] for name, p in task.model.named_parameters() if p.grad is not None}
        assert moved == {trained}
    assert all(p.grad is None for p in corpus.autoencoder.parameters())


def test_crops_of_what_is_sampled_and_of_renders_show_the_same_place():
    latent = torch.randn(4, CHANNELS, 40, 40)
    sampled, whole = GeneratorTask._crops(latent[:, :16], latent, np.random.default_rng(0))
    assert whole.shape == (4, CHANNELS, 24, 24) and torch.equal(sampled, whole[:, :16])
    assert not torch.equal(whole, GeneratorTask._crops(latent[:, :16], latent, np.random.default_rng(1))[1])


def test_training_learns_resumes_and_ends_in_a_pipeline(corpus, tmp_path):
    stages = [
        Stage("low", 60, {"velocity": 1.0}, lr=3e-3, crop=64, batch=8),
        Stage("full", 6, {"velocity": 1.0}, crop=32),
        Stage("detail", 40, {"detail": 1.0}, lr=2e-3, crop=64),
    ]
    torch.manual_seed(0)
    settings = Settings(tmp_path, bf16=False, save_every=6, sample_every=106)
    with pytest.raises(KeyboardInterrupt):
        task = GeneratorTask(corpus, **TOY)
        handle = task.model.transformer.register_forward_pre_hook(_interrupt_after(40))
        train(task, stages, settings)
    handle.remove()
    train(GeneratorTask(corpus, **TOY), stages, settings)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert '"step": 106' in lines[-1]
    assert (tmp_path / "samples" / "0000106.png").is_file()
    loaded = EmbeddedPipeline.from_pretrained(tmp_path / "model")
    trained = _loss(corpus, loaded)
    torch.manual_seed(0)
    untrained = _loss(corpus, new_pipeline(**TOY))
    assert trained["velocity"] < 0.9 * untrained["velocity"]
    assert trained["detail"] < 0.9 * untrained["detail"]


def test_a_generator_gets_the_detail_that_its_autoencoder_got(corpus, tmp_path):
    before = new_pipeline(**TOY)
    before.register_modules(detail=Detail(16, 5, noise=4))
    torch.nn.init.normal_(before.detail.last.weight)
    before.save_pretrained(tmp_path)
    latent, noise = torch.randn(1, 16, 4, 4), torch.randn(1, 4, 4, 4)
    whole = GeneratorTask(corpus, tmp_path).model.detail(latent, noise)
    assert whole.shape == (1, CHANNELS, 4, 4)
    torch.testing.assert_close(whole[:, :21], before.detail(latent, noise))


def test_the_picture_of_the_detail_counts_too(corpus):
    """Where the latent is right nothing is wrong; the stage has all its terms; their gradient reaches the detail."""
    task = GeneratorTask(corpus, **TOY)
    latent = torch.from_numpy(corpus.at(64)[:2].astype(np.float32))
    assert all(value == 0 for value in task._decoded(latent, latent).values())
    assert all(value > 0 for value in task._decoded(latent + torch.randn_like(latent), latent).values())
    stage = replace(next(stage for stage in STAGES if stage.name == "expected"), crop=64, batch=2)
    terms = task.losses(stage, np.random.default_rng(0))
    assert terms.keys() == stage.weights.keys() == {"detail", "decoded", "uneven"}
    (terms["decoded"] + terms["uneven"]).backward()
    assert task.model.detail.last.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in corpus.autoencoder.parameters())


def test_detail_is_learnt_from_latents_as_the_denoiser_samples_them(corpus, monkeypatch):
    """Noise is added and taken away again, once per latent; a denoiser that knows the noise gives the render back."""
    task = GeneratorTask(corpus, **TOY)
    stage, calls = Stage("detail", 1, {"detail": 1.0}, crop=64, batch=8), []
    real = task._resampled
    monkeypatch.setattr(task, "_resampled", lambda data, *rest: calls.append(len(data)) or real(data, *rest))
    for step in range(3):
        task.losses(stage, np.random.default_rng(step))
    assert len(task.sampled) == 6 and sum(calls) >= 6, "six latents, mirrored ones among them"
    before = len(calls)
    task.losses(stage, np.random.default_rng(7))
    assert len(calls) == before
    data, noise = torch.randn(2, 16, 8, 8), torch.randn(2, 16, 8, 8)
    words = [(("lake",), ("lake", "night"))] * 2
    monkeypatch.setattr(task.model.transformer, "forward", lambda *_: torch.cat([noise - data] * 2))
    torch.testing.assert_close(real(data, noise, words, np.random.default_rng(0)), data, atol=1e-5, rtol=1e-5)


def _interrupt_after(calls):
    left = [calls]

    def hook(*_):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return hook


def _loss(corpus, pipeline):
    task = GeneratorTask(corpus, **TOY)
    for name in ("text_encoder", "transformer", "detail"):
        getattr(task.model, name).load_state_dict(getattr(pipeline, name).state_dict())
    torch.manual_seed(7)
    with torch.no_grad():
        return {
            name: task.losses(Stage("one", 1, {name: 1.0}, crop=64, batch=32), np.random.default_rng(9))[name].item()
            for name in ("velocity", "detail")
        }


def test_times_cover_the_steps_of_sampling_the_first_ones_too():
    """The first of 16 steps, where means are decided, is trained about as often as it is taken."""
    drawn = times(20_000, np.random.default_rng(0))
    assert drawn.min() > 0 and drawn.max() < 1
    first = 3 * (15 / 16) / (1 + 2 * (15 / 16))  # where the scheduler's first step ends: 0.978
    assert 0.04 < (drawn > first).mean() < 0.12
    assert (drawn < 0.3).mean() > 0.01
    assert 0.7 < np.median(drawn) < 0.9


@pytest.mark.parametrize("broken", ["no corpus", "half rendered", "too small"])
def test_a_corpus_that_cannot_be_used_is_named(corpus, tmp_path, broken):
    folder = tmp_path / "pictures"
    if broken != "no corpus":
        write_corpus(folder, count=2, size=32, seed=0)
    if broken == "half rendered":
        (folder / "000001.png").unlink()
    with pytest.raises(
        UserError, match={"no corpus": "captions.jsonl", "half rendered": "1 of 2", "too small": "64"}[broken]
    ):
        Corpus(folder, corpus.folder.parent / "autoencoder", tmp_path / "cache").at(64)


def test_the_command_trains_a_pipeline(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("lua_demo.train.generator.new_pipeline", lambda: new_pipeline(**TOY))
    arguments = ["--images", corpus.folder, "--vae", corpus.folder.parent / "autoencoder", "--out", tmp_path]
    plan = ["--stages", "low", "--steps", 2, "--batch", 2, "--crop", 32, "--fp32", "--threads", 1]
    assert main(["generator", *map(str, [*arguments, *plan])]) == 0
    assert sample(EmbeddedPipeline.from_pretrained(tmp_path / "model")).images.isfinite().all()
    facts = json.loads((tmp_path / "model" / "training.json").read_text())
    assert (facts["what"], facts["images"], facts["steps"]) == ("generator", 3, 2)
    further = [*map(str, [*arguments[:-1], tmp_path / "further", *plan, "--init", tmp_path / "model"])]
    assert main(["generator", *further]) == 0
    configs = (tmp_path / "further" / "model").rglob("config.json")
    assert str(tmp_path) not in "".join(config.read_text() for config in configs), "no path of this machine"
