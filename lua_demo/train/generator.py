"""Training of the embedded text-to-latent model on rendered scenes: rectified flow, low resolution first, and an
adversary for the detail.

Source: rectified flow with logit-normal times, arXiv 2403.03206; guidance by dropped prompts, arXiv 2207.12598.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lua_demo.catalog.prompts import EXAMPLES, understand
from lua_demo.models.embedded import MARGIN, STRIDE, EmbeddedPipeline, new_pipeline
from lua_demo.models.weights import fingerprint, load_autoencoder
from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.networks.denoiser import Detail
from lua_demo.pictures.images import load_photo, to_tensor
from lua_demo.scenes import Scene, captions
from lua_demo.schema import UserError
from lua_demo.train import losses as L
from lua_demo.train import texture
from lua_demo.train.autoencoder import padded
from lua_demo.train.loop import Facts, Stage
from lua_demo.train.texture import Critic

STAGES = [
    Stage("coarse", 20_000, {"velocity": 1.0}, lr=1e-3, crop=128, batch=64),
    Stage("low", 40_000, {"velocity": 1.0}, lr=6e-4, crop=256, batch=64),
    Stage("full", 20_000, {"velocity": 1.0}, lr=3e-4, crop=512, batch=32),
    Stage("expected", 1200, {"detail": 1.0, "decoded": 1.0, "uneven": 0.05}, lr=1e-3, crop=512, batch=4),
    Stage(
        "texture",
        6000,
        # At a slope weight of 0.02 the critic stays at chance and nothing is learnt.
        {"critic": 1.0, "slope": 0.003, "fooled": 1.0, "statistics": 1.0, "shown": 4.0, "uneven": 0.1},
        lr=3e-4,
        crop=512,
        batch=6,
        betas=(0.0, 0.95),
    ),
]
TEXTURED = 24  # side of the crops of "texture", in latent pixels
# Three channels of a latent are smooth and strong: the composition is decided where noise is almost all there is.
TIME_SHIFT = 3.0
# Brightness, colours and which side the light is on are means over thousands of latent pixels: they are decided in the
# first steps of sampling, above t = 0.95, where the times above hardly ever fall. A share of the samples is for them.
EARLY, EARLY_SHIFT = 0.5, 6.0
NO_PROMPT, DROP_WORD, SHUFFLE = 0.1, 0.1, 0.25
FULL_CAPTION = 0.5  # share of prompts that name every attribute: light and colours are said by few other phrasings
STEPS, GUIDANCE = 16, 3.0
# Sampled latents are not quite those of renders: a weave of the denoiser's lies over them. Renders get it when some
# noise is added and taken away again, in so many steps.
RESAMPLED, RESAMPLING_STEPS = (0.1, 0.4), 3


class Corpus:
    """Rendered scenes with their words and, per picture size, the latents of each picture and of its mirror image.

    Args:
        folder: what `lua_demo scenes --out` wrote.
        autoencoder: path or hub id.
        cache: folder for the latents, float16, made once per size and autoencoder.
    """

    def __init__(self, folder: str | Path, autoencoder: str | Path, cache: Path):
        self.folder, self.cache = Path(folder), cache
        listing = self.folder / "captions.jsonl"
        if not listing.is_file():
            raise UserError(f"{listing} is missing; make a corpus first: lua_demo scenes --out {folder}")
        rows = [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]
        self.files = [row["file"] for row in rows]
        missing = [file for file in self.files if not (self.folder / file).is_file()]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(self.files)} pictures of {folder} are missing; run its scenes command again"
            )
        self.scenes = [Scene(**row["scene"]) for row in rows]
        # words[2 i] belongs to picture i, words[2 i + 1] to its mirror image.
        self.words = [
            [understand(caption).words for caption in captions(view)]
            for scene in self.scenes
            for view in (scene, scene.mirrored())
        ]
        self.autoencoder = load_autoencoder(autoencoder).requires_grad_(False)
        self.autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
        self.name = fingerprint(autoencoder)
        self.latents: dict[int, np.ndarray] = {}

    def at(self, size: int) -> np.ndarray:
        """Latents of all pictures at size x size pixels: 2 N x C x size/8 x size/8 float16, mapped from disk."""
        if size not in self.latents:
            path = self.cache / f"latents-{self.name}-{size}-{len(self.files)}.npy"
            if not path.exists():
                self._encode(size, path)
            self.latents[size] = np.load(path, mmap_mode="r")
        return self.latents[size]

    @torch.inference_mode()
    def _encode(self, size: int, path: Path) -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        side = size // self.autoencoder.stride
        shape = (2 * len(self.files), self.autoencoder.latent_channels, side, side)
        unfinished = path.with_suffix(".unfinished")
        latents = np.lib.format.open_memmap(unfinished, "w+", np.float16, shape)
        for i, file in enumerate(tqdm(self.files, desc=f"latents of {size} px", unit="picture")):
            picture = load_photo(self.folder / file)
            if min(picture.size) < size:
                raise UserError(
                    f"{file} is {picture.width} x {picture.height}; this stage needs {size} px: render larger"
                )
            image = to_tensor(picture.resize((size, size), reducing_gap=3.0) if picture.width != size else picture)
            latents[2 * i : 2 * i + 2] = self.autoencoder.encode(torch.cat([image, image.flip(-1)])).numpy()
        latents.flush()
        unfinished.replace(path)


def worded(phrasings: list[tuple[str, ...]], rng: np.random.Generator) -> list[str]:
    """One prompt as people may write it: any phrasing, words missing or in any order, at times none."""
    if rng.random() < NO_PROMPT:
        return []
    choices = [max(phrasings, key=len)] if rng.random() < FULL_CAPTION else phrasings
    words = list(choices[rng.integers(len(choices))])
    kept = [word for word in words if rng.random() >= DROP_WORD] or words
    if rng.random() < SHUFFLE:
        rng.shuffle(kept)
    return kept


def times(count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` times in (0, 1), 1 being pure noise: logit-normal or, a share of `EARLY`, uniform; both shifted."""
    time = 1 / (1 + np.exp(-rng.normal(size=count)))
    time = TIME_SHIFT * time / (1 + (TIME_SHIFT - 1) * time)
    uniform = rng.random(count)
    early = EARLY_SHIFT * uniform / (1 + (EARLY_SHIFT - 1) * uniform)
    return np.where(rng.random(count) < EARLY, early, time)


class Together(nn.Module):
    """What is trained: the parts of the pipeline that have weights, and the adversary of one of them."""

    def __init__(self, pipeline: EmbeddedPipeline, critic: Critic):
        super().__init__()
        self.text_encoder, self.transformer = pipeline.text_encoder.train(), pipeline.transformer.train()
        self.detail, self.critic = pipeline.detail.train(), critic


class GeneratorTask:
    name = "generator"

    def __init__(self, corpus: Corpus, init: str | Path | None = None, **sizes: Any):
        self.corpus = corpus
        pipeline = EmbeddedPipeline.from_pretrained(init) if init else new_pipeline(**sizes)
        self.scheduler = pipeline.scheduler
        channels = corpus.autoencoder.latent_channels - pipeline.transformer.config.channels
        if channels > pipeline.detail.config.detail_channels:  # the autoencoder got more of them
            wider = Detail.from_config(pipeline.detail.config, detail_channels=channels)
            wider.load_state_dict(padded(pipeline.detail.state_dict(), wider.state_dict()))
            pipeline.register_modules(detail=wider)
        self.model = Together(pipeline, Critic()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.shown = 256
        self.sampled: dict[tuple[int, int], Tensor] = {}

    def losses(self, stage: Stage, rng: np.random.Generator, step: int = 0) -> dict[str, Tensor]:
        """Those that `stage` weights: `velocity`, the squared error of the channels that are sampled; `detail`, that of
        the whole latent made from them, with the terms of `_decoded` beside it; or, of crops, those of `_textured`.
        """
        device = self.model.transformer.device
        self.shown = stage.crop
        latents = self.corpus.at(stage.crop)
        chosen = rng.integers(len(latents), size=stage.batch)
        latent = torch.from_numpy(np.stack([latents[i] for i in chosen]).astype(np.float32)).to(device)
        channels = self.model.transformer.config.channels
        data, words = latent[:, :channels], [self.corpus.words[i] for i in chosen]
        if "velocity" in stage.weights:
            return {"velocity": self._velocity_error(data, torch.randn(data.shape).to(device), words, rng)}
        missing = [k for k, i in enumerate(chosen) if (stage.crop, i) not in self.sampled]
        if missing:  # once per latent: it takes longer than a step
            made = self._resampled(
                data[missing], torch.randn(data[missing].shape).to(device), [words[k] for k in missing], rng
            )
            self.sampled |= {(stage.crop, chosen[k]): value for k, value in zip(missing, made, strict=True)}
        sampled = torch.stack([self.sampled[stage.crop, i] for i in chosen])
        if "critic" in stage.weights:
            return self._textured(*self._crops(sampled, latent, rng))
        whole = self.model.detail(sampled, self._noise(sampled)).float()
        return {"detail": (whole - latent).square().mean(), **self._decoded(whole, latent)}

    def _noise(self, latent: Tensor) -> Tensor:
        shape = (len(latent), self.model.detail.config.noise, *latent.shape[-2:])
        return torch.randn(shape).to(latent.device)

    @staticmethod
    def _crops(sampled: Tensor, latent: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The same places of both, `TEXTURED` pixels wide or all."""
        side = min(TEXTURED, latent.shape[-1])
        places = [rng.integers(latent.shape[-1] - side + 1, size=2) for _ in latent]
        one, other = (
            torch.stack([x[:, top : top + side, left : left + side] for x, (top, left) in zip(xs, places, strict=True)])
            for xs in (sampled, latent)
        )
        return one, other

    def _textured(self, sampled: Tensor, latent: Tensor) -> dict[str, Tensor]:
        """The losses of `texture`, with `shown`, the error of the picture at a quarter of its size, and `uneven`."""
        with torch.no_grad():
            missing = latent.shape[1] - sampled.shape[1]
            real, given = self._picture(latent), self._picture(F.pad(sampled, (0, 0, 0, 0, 0, missing)))
        made = self._picture(self.model.detail(sampled, self._noise(sampled)).float())
        return {
            **texture.losses(self.model.critic, made, real, given),
            "shown": L.l1(F.avg_pool2d(made, 4), F.avg_pool2d(real, 4)),
            "uneven": L.uneven_steps(made, real, STRIDE),
        }

    def _picture(self, latent: Tensor) -> Tensor:
        """Decoded, without the margin, whose convolutions see the padding."""
        trimmed = MARGIN * STRIDE
        autoencoder: Autoencoder = self.corpus.autoencoder.to(latent.device)
        return autoencoder.decode(latent).float()[..., trimmed:-trimmed, trimmed:-trimmed]

    def _decoded(self, latent: Tensor, target: Tensor) -> dict[str, Tensor]:
        """What is wrong with the picture: `decoded`, its error, borders of cells above all, and `uneven`, a grid of
        cells. A mean squared error of latents leaves out what is uncertain, and without it the cells do not join.
        """
        autoencoder = self.corpus.autoencoder.to(latent.device)
        with torch.no_grad():
            wanted = autoencoder.decode(target)
        picture, period = autoencoder.decode(latent), autoencoder.stride
        decoded = L.l1(picture, wanted) + 12 * L.l2(picture, wanted) + 0.5 * L.seam_l1(picture, wanted, period)
        return {"decoded": decoded, "uneven": L.uneven_steps(picture, wanted, period)}

    @torch.no_grad()
    def _resampled(self, data: Tensor, noise: Tensor, words: list, rng: np.random.Generator) -> Tensor:
        """`data` as the denoiser would sample it: noise of a random strength is added, and taken away with guidance."""
        model, low, high = self.model, *RESAMPLED
        prompts = [max(phrasings, key=len) for phrasings in words]
        text = model.text_encoder(model.text_encoder.tokenize([[] for _ in prompts] + [list(p) for p in prompts]))
        strength = torch.from_numpy(rng.uniform(low, high, len(data))).float().to(data.device)
        latent = torch.lerp(data, noise, strength[:, None, None, None])
        for step in range(RESAMPLING_STEPS):
            time = strength * (1 - step / RESAMPLING_STEPS)
            velocity = model.transformer(torch.cat([latent, latent]), torch.cat([time, time]), text).float()
            without, given = velocity.chunk(2)
            velocity = without + GUIDANCE * (given - without)
            latent = latent - (strength / RESAMPLING_STEPS)[:, None, None, None] * velocity
        return latent

    def _velocity_error(self, data: Tensor, noise: Tensor, words: list, rng: np.random.Generator) -> Tensor:
        ids = self.model.text_encoder.tokenize([worded(phrasings, rng) for phrasings in words])
        time = torch.from_numpy(times(len(data), rng)).float().to(data.device)
        mixed = torch.lerp(data, noise, time[:, None, None, None])
        velocity = self.model.transformer(mixed, time, self.model.text_encoder(ids))
        return (velocity.float() - (noise - data)).square().mean()

    @torch.no_grad()
    def sample(self, model: Together) -> np.ndarray:
        """The example prompts, two seeds each, at the size of the current stage."""
        pipeline = EmbeddedPipeline(model.text_encoder, model.transformer, self.scheduler, model.detail)
        pipeline.set_progress_bar_config(disable=True)
        autoencoder: Autoencoder = self.corpus.autoencoder.to(model.transformer.device)
        rows = []
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            latents = pipeline(list(EXAMPLES), self.shown, self.shown, STEPS, GUIDANCE, generator).images
            rows.append(torch.cat([autoencoder.decode(latent[None].float()).cpu() for latent in latents], dim=-1))
        sheet = torch.cat(rows, dim=-2)[0].clamp(0, 1)
        return (sheet * 255).round().byte().permute(1, 2, 0).numpy()

    def validate(self, model: Together) -> dict[str, float]:
        return {}

    def pixels(self, stage: Stage) -> int:
        return stage.batch * stage.crop**2

    def save(self, model: Together, folder: Path, facts: Facts) -> None:
        """The pipeline, as `EmbeddedPipeline.from_pretrained` reads it, with training.json."""
        for part in (model.text_encoder, model.transformer, model.detail):
            part.register_to_config(_name_or_path="")  # where training started from is a path of this machine
        text_encoder, transformer, detail = (
            copy.deepcopy(part).bfloat16() for part in (model.text_encoder, model.transformer, model.detail)
        )
        EmbeddedPipeline(text_encoder, transformer, self.scheduler, detail).save_pretrained(folder)
        (folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
