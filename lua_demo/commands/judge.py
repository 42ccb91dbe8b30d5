"""`python3 -m lua_demo judge --corpus DIR`: does the text-to-latent model do what the prompt says?

A classifier is trained on the latents of rendered scenes, whose attributes are known, and reads the latents that the
model samples from prompts that name every attribute. The corpus is split: the scenes at its end are held out from the
classifier and tell how well it reads at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lua_demo.machine.arguments import Parser
from lua_demo.models.generators import PromptToLatent, load_generator
from lua_demo.models.weights import load_lua
from lua_demo.networks.autoencoder import Autoencoder
from lua_demo.networks.lua import LUA
from lua_demo.paths import WEIGHTS_DIR
from lua_demo.pictures.images import to_array
from lua_demo.pictures.metrics import high_pass_energy, luma_of, steps_on_lines
from lua_demo.report.records import markdown_table
from lua_demo.scenes import Scene, captions, sample_scene
from lua_demo.scenes.scene import GROUNDS, KINDS, PALETTES, SKIES, TIMES, light_words
from lua_demo.schema import UserError
from lua_demo.train.generator import Corpus

LIGHTS = ("moon", "ahead", "behind", "left", "right")  # by the last word of `light_words`; "moon" is "no moon"
ATTRIBUTES = {"kind": KINDS, "ground": GROUNDS, "sky": SKIES, "time": TIMES, "palette": PALETTES, "light": LIGHTS}
SIZE = 512
PROMPT_SEED = 256_000_001  # of the scenes whose prompts are asked for: no corpus is made from it
SHIFT, NOISE = 4, 0.05  # of the classifier's training latents: cells of 8 px, standard deviations
READ = 16  # channels that tell what is where; the others hold the detail
FINE = 64  # pictures whose detail and grid are measured
SAME_PROMPT = (16, 4)  # prompts and seeds of each, for the difference between seeds


@dataclass(frozen=True)
class Verdict:
    """What `judge` found; every share is in [0, 1].

    Attributes:
        right: attribute -> share of the sampled pictures in which the classifier reads what the prompt said.
        readable: the same for held-out renders: what the classifier can do at all.
        mean_right, mean_readable: averages over the attributes.
        between_seeds: mean distance of two pictures of one prompt, over that of two renders alike in all but the light;
            None where the corpus has none.
        nearest: median distance to the nearest training render, over that of held-out renders; `closest` the smallest.
        frechet: distance of the sampled pictures from the renders; `frechet_renders` that of held-out renders.
        detail: energy of the luma above a Gaussian of 1 px, of the decoded pictures over that of held-out renders.
        grid, grid_renders: the luma's step across the borders of 8 px cells over that beside them, of base pictures and
            of held-out renders, both decoded.
        grid_x2, grid_x2_renders: the same after LUA at x2.
    """

    prompts: int
    right: dict[str, float]
    readable: dict[str, float]
    mean_right: float
    mean_readable: float
    between_seeds: float | None
    nearest: float
    closest: float
    frechet: float
    frechet_renders: float
    detail: float
    grid: float
    grid_renders: float
    grid_x2: float
    grid_x2_renders: float


@dataclass(frozen=True)
class Fineness:
    """Of decoded pictures, on average: `energy` of the luma above a Gaussian of 1 px, in squared steps of 255; `grid`
    and `grid_x2`, the luma's step across the borders of cells over that beside them, before and after LUA.
    """

    energy: float
    grid: float
    grid_x2: float


@torch.inference_mode()
def fineness(latents: np.ndarray, autoencoder: Autoencoder, lua: LUA) -> Fineness:
    """Of whole latents, N x C x h x w."""
    values = []
    for latent in tqdm(latents, desc="fineness", disable=None):
        small = _tensor(latent[None])
        base, large = (luma_of(to_array(autoencoder.decode(x))) for x in (small, lua(small, 2)))
        period = autoencoder.stride
        values.append((high_pass_energy(base), steps_on_lines(base, period), steps_on_lines(large, period)))
    return Fineness(*map(float, np.mean(values, axis=0)))


def attributes(scene: Scene) -> list[int]:
    """The index of each attribute's value, in the order of ATTRIBUTES."""
    values = {**scene.to_dict(), "light": light_words(scene).split()[-1]}
    return [choices.index(values[name]) for name, choices in ATTRIBUTES.items()]


class Classifier(nn.Module):
    """Latent B x 16 x 64 x 64 -> per attribute B x number of its values."""

    def __init__(self, channels: int, widths: Sequence[int] = (48, 96, 128), side: int = 4):
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm2d(channels)]
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.SiLU()]
            channels = width
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Dropout(0.3))
        self.heads = nn.ModuleList(nn.Linear(channels * side**2, len(choices)) for choices in ATTRIBUTES.values())

    def forward(self, latent: Tensor) -> list[Tensor]:
        x = self.body(latent)
        return [head(x) for head in self.heads]

    @torch.inference_mode()
    def read(self, latents: np.ndarray) -> np.ndarray:
        """N x C x h x w -> N x attributes."""
        batches = (self(_tensor(latents[i : i + 64])) for i in range(0, len(latents), 64))
        return np.concatenate([torch.stack([y.argmax(1) for y in ys], 1).numpy() for ys in batches])


def varied(latents: Tensor, rng: np.random.Generator) -> Tensor:
    """B x C x h x w latents as of pictures taken a little to the side, with noise: the classifier must not learn the
    renders by heart.
    """
    down, right = rng.integers(2 * SHIFT + 1, size=2)
    height, width = latents.shape[-2:]
    moved = F.pad(latents, (SHIFT,) * 4, mode="replicate")[..., down : down + height, right : right + width]
    return moved + NOISE * torch.from_numpy(rng.standard_normal(moved.shape, np.float32))


def train_classifier(latents: np.ndarray, wanted: np.ndarray, epochs: int = 16, batch: int = 64) -> Classifier:
    """A classifier of `latents`, N x C x h x w, whose attributes `wanted`, N x attributes, are known."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = Classifier(latents.shape[1])
    steps = max(1, len(latents) // batch) * epochs
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in tqdm(range(steps), desc="classifier", unit="step", disable=None):
        chosen = rng.integers(len(latents), size=batch)
        labels = torch.from_numpy(wanted[chosen])
        read = model(varied(_tensor(np.stack([latents[i] for i in chosen])), rng))
        losses = [F.cross_entropy(y, labels[:, i], label_smoothing=0.05) for i, y in enumerate(read)]
        loss = torch.stack(losses).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def shares(read: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    return {name: round(float(share), 4) for name, share in zip(ATTRIBUTES, (read == wanted).mean(0), strict=True)}


def layout(latents: np.ndarray) -> np.ndarray:
    """N x C x h x w -> N x 64 C: what is where, without detail, by which pictures are compared."""
    return np.stack([F.adaptive_avg_pool2d(_tensor(x[None]), 8).flatten().numpy() for x in latents])


def statistics(latents: np.ndarray) -> np.ndarray:
    """N x C x h x w -> N x 8 C: mean and deviation of every channel in each quarter of the picture."""
    rows = []
    for x in latents:
        quarters = _tensor(x).unflatten(1, (2, -1)).unflatten(3, (2, -1)).permute(0, 1, 3, 2, 4).flatten(3)
        rows.append(torch.cat([quarters.mean(-1).flatten(), quarters.std(-1).flatten()]).numpy())
    return np.stack(rows)


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Frechet distance of the normal distributions fitted to two sets of features, N x D (arXiv 1706.08500)."""
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    # The trace of the root of a b is the sum of the roots of its eigenvalues, which are real and not negative.
    roots = np.sqrt(np.clip(np.linalg.eigvals(a @ b).real, 0, None)).sum()
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * roots)


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Euclidean distances between rows, N x M."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    return np.sqrt(np.clip(squares, 0, None))


def sampled(
    generator: PromptToLatent, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float
) -> np.ndarray:
    """One latent per prompt and seed: N x C x 64 x 64."""
    made = []
    with torch.inference_mode():
        for prompt, seed in tqdm(zip(prompts, seeds, strict=True), total=len(prompts), desc="sampling", disable=None):
            made.append(generator(prompt, (SIZE, SIZE), steps, guidance, seed)[0].float().numpy())
    return np.stack(made)


def judge(generator: PromptToLatent, corpus: Corpus, lua: LUA, prompts: int, steps: int, guidance: float) -> Verdict:
    """Sample `prompts` prompts that name every attribute and compare with the corpus.

    Raises:
        UserError: a corpus too small to hold out as many scenes as there are prompts and train on three times that.
    """
    whole, scenes = corpus.at(SIZE), corpus.scenes
    latents = whole[:, :READ]
    held_out = len(scenes) - prompts
    if held_out < 3 * prompts:
        raise UserError(f"a corpus of {len(scenes)} scenes is too small for {prompts} prompts: render {4 * prompts}")
    labels = np.array([attributes(view) for scene in scenes for view in (scene, scene.mirrored())])
    classifier = train_classifier(latents[: 2 * held_out], labels[: 2 * held_out])
    renders = latents[2 * held_out :: 2]
    readable = shares(classifier.read(renders), labels[2 * held_out :: 2])

    rng = np.random.default_rng(PROMPT_SEED)
    asked = [sample_scene(rng) for _ in range(prompts)]
    words = [captions(scene)[0] for scene in asked]
    whole_made = sampled(generator, words, range(prompts), steps, guidance)
    made = whole_made[:, :READ]
    fine, fine_renders = (
        fineness(some[:FINE], corpus.autoencoder, lua) for some in (whole_made, whole[2 * held_out :: 2])
    )
    right = shares(classifier.read(made), np.array([attributes(scene) for scene in asked]))

    count, seeds = min(SAME_PROMPT[0], prompts), SAME_PROMPT[1]
    repeated = [word for word in words[:count] for _ in range(seeds)]
    same = layout(sampled(generator, repeated, range(len(repeated)), steps, guidance)[:, :READ])
    between = np.mean([_mean_distance(same[i : i + seeds]) for i in range(0, len(same), seeds)])
    known, known_labels = layout(latents[: 2 * held_out : 2]), labels[: 2 * held_out : 2]
    groups = {
        key: np.flatnonzero((known_labels[:, :-1] == key).all(1)) for key in set(map(tuple, known_labels[:, :-1]))
    }
    alike = [_mean_distance(known[group]) for group in groups.values() if len(group) > 1]

    everything = layout(latents[: 2 * held_out])
    nearest, of_renders = distances(layout(made), everything).min(1), distances(layout(renders), everything).min(1)
    reference = statistics(latents[: 2 * held_out : 2])
    return Verdict(
        prompts,
        right,
        readable,
        mean_right=float(np.mean(list(right.values()))),
        mean_readable=float(np.mean(list(readable.values()))),
        between_seeds=float(between / np.mean(alike)) if alike else None,
        nearest=float(np.median(nearest) / np.median(of_renders)),
        closest=float(nearest.min() / np.median(of_renders)),
        frechet=frechet(statistics(made), reference),
        frechet_renders=frechet(statistics(renders), reference),
        detail=fine.energy / fine_renders.energy,
        grid=fine.grid,
        grid_renders=fine_renders.grid,
        grid_x2=fine.grid_x2,
        grid_x2_renders=fine_renders.grid_x2,
    )


def _mean_distance(rows: np.ndarray) -> float:
    return float(distances(rows, rows)[np.triu_indices(len(rows), 1)].mean())


def _tensor(latents: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(latents, dtype=np.float32))


def _seeds(verdict: Verdict) -> str:
    if verdict.between_seeds is None:
        return "not known: no two renders of the corpus are alike in all but the light"
    return f"{verdict.between_seeds:.2f} of that between renders alike in all but the light"


def to_markdown(verdict: Verdict) -> str:
    rows = [["attribute", "as the prompt said", "held-out renders"]]
    rows += [[name, f"{verdict.right[name]:.1%}", f"{verdict.readable[name]:.1%}"] for name in ATTRIBUTES]
    rows.append(["mean", f"{verdict.mean_right:.1%}", f"{verdict.mean_readable:.1%}"])
    return "\n".join(
        [
            f"{verdict.prompts} held-out prompts, one picture each",
            "",
            markdown_table(rows),
            "",
            f"- distance between seeds: {_seeds(verdict)}",
            f"- nearest training render: {verdict.nearest:.2f} of the distance of a held-out render (median), "
            f"{verdict.closest:.2f} (closest)",
            f"- Frechet distance to renders: {verdict.frechet:.2f} (of held-out ones {verdict.frechet_renders:.2f})",
            f"- detail: {verdict.detail:.2f} of a held-out render's (first {min(FINE, verdict.prompts)} pictures)",
            f"- grid of 8 px cells: {verdict.grid:.3f} (renders {verdict.grid_renders:.3f}), "
            f"after LUA at x2 {verdict.grid_x2:.3f} (renders {verdict.grid_x2_renders:.3f})",
        ]
    )


def main(argv: list[str]) -> int:
    parser = Parser(prog="lua_demo judge", description=__doc__)
    parser.add_argument("--corpus", required=True, type=Path, help="a folder that `lua_demo scenes --out` wrote")
    parser.add_argument("--generator", type=Path, default=WEIGHTS_DIR / "embedded" / "generator")
    parser.add_argument("--vae", type=Path, default=WEIGHTS_DIR / "embedded" / "autoencoder")
    parser.add_argument("--lua", type=Path, default=WEIGHTS_DIR / "embedded" / "lua", help="for the grid after LUA")
    parser.add_argument("--cache", type=Path, help="where latents of the corpus are kept (default: CORPUS/cache)")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    if args.prompts < 2:
        raise UserError(f"--prompts {args.prompts} is too few: give 2 or more")
    corpus = Corpus(args.corpus, args.vae, args.cache or args.corpus / "cache")
    lua = load_lua(args.lua)
    generator = load_generator(args.generator).eval()
    verdict = judge(generator, corpus, lua, args.prompts, args.steps, args.guidance)
    print(to_markdown(verdict))
    if args.json:
        args.json.write_text(json.dumps(asdict(verdict), indent=1) + "\n")
    return 0
