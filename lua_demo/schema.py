"""The plain values that cross every boundary: what is asked for and what comes back.

No torch and no gradio here: a `Result` outlives the device that made it and can be stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """`text` in one line that any terminal, file or page can take: line breaks, escape sequences, marks that turn the
    direction of writing, and bytes of file names that are no UTF-8 are written out.
    """

    def written_out(match: re.Match[str]) -> str:
        code = ord(match[0])
        code = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code  # a byte, as Python holds it in file names
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

    return _UNPRINTABLE.sub(written_out, str(text))


class UserError(ValueError):
    """Bad input. The message is one line that names the thing and the way out; app, API and CLI show it as it is."""

    def __init__(self, message: object):
        super().__init__(printable(message))


class Stopped(RuntimeError):
    """The user asked a running comparison to stop."""


@dataclass(frozen=True)
class Request:
    """One comparison.

    Attributes:
        image: path of a photo; it is encoded to the base latent. Empty where the base comes from elsewhere.
        scale: output side / base side; 2 or 4.
        size: longest side of the base image in pixels; a smaller photo is never enlarged to it.
        methods: keys of `catalog.METHODS`, in the order in which they run.
        base: key of `bases.BASES`: what samples or renders a prompt. The latent space is the base's, for photos and
            latents too.
        decoder: key of `spaces.DECODERS`; empty for the default of the space.
        seed: seed of everything random.
        latent: path of a safetensors file with the base latent itself, instead of a photo.
        prompt: free text, instead of a photo: the base is sampled.
        steps, guidance: of the sampler. aspect: key of `catalog.ASPECTS`. All three are for a prompt only.
        force_native: sample at the target size however long it takes and whatever memory it takes.
        refine: share of the sampler's steps, over 0 and up to 1, that run again at the target size where that is asked
            for; as many of them bring as much noise.
    """

    image: str = ""
    scale: int = 2
    size: int = 512
    methods: tuple[str, ...] = ("base", "lua", "swinir", "cnn", "bicubic", "native")
    base: str = "scene"
    seed: int = 0
    latent: str = ""
    prompt: str = ""
    steps: int = 16
    guidance: float = 3.0
    aspect: str = "1:1"
    decoder: str = ""
    force_native: bool = False
    refine: float = 0.25

    @property
    def kind(self) -> str:
        """What the base comes from: "prompt", "latent" or "photo"."""
        return "prompt" if self.prompt else "latent" if self.latent else "photo"


@dataclass(frozen=True)
class Span:
    """One timed stage.

    Attributes:
        seconds: wall-clock with the device synchronised on both sides; neither weight loading nor PNG encoding.
        peak_bytes: most memory in use meanwhile: device memory on a GPU, resident memory of the process on a CPU.
        cold: the first run of this stage at this size in this process.
        shared: computed once and charged to every method that needs it.
    """

    name: str
    seconds: float
    peak_bytes: int
    cold: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Progress:
    """`method` has started `stage`; `done` of `total` methods are finished.

    In a stage that reports its steps, `step` of `steps` are done.
    """

    method: str
    stage: str
    done: int
    total: int
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class BaseLatent:
    """A latent that a comparison starts from.

    Attributes:
        values: normalised (as the denoiser leaves it), C x h x w float32, finite.
        space: key of `spaces.SPACES`.
        size: (width, height) in pixels of the image that it decodes to; the decoder's padding is cut off.
    """

    values: np.ndarray
    space: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Result:
    """What one method made.

    Attributes:
        method: key of `catalog.METHODS`.
        label: its name for people.
        image: H x W x 3 uint8 sRGB, or None when the method was left out.
        spans: the stages this method is charged for, in order.
        metrics: against the ground truth, by name (`psnr` dB, `ssim`, `ms_ssim`, `colour_shift` dE2000); None without
            one. A value is None where the image is too small for the metric.
        skipped: why the method was left out, for people; None when it ran.
        notes: what a reader of the picture must know (a fallback that ran, how metrics were taken).
        latent: the base that it started from; None where it started elsewhere.
        outside: share of the values of the enlarged latent outside the range of its space's photos, where upscalers
            can decode to broken pixels; None where no latent was enlarged.
    """

    method: str
    label: str
    image: np.ndarray | None
    spans: tuple[Span, ...] = ()
    metrics: Mapping[str, float | None] | None = None
    skipped: str | None = None
    notes: tuple[str, ...] = ()
    latent: BaseLatent | None = None
    outside: float | None = None

    @property
    def seconds(self) -> float:
        return sum(span.seconds for span in self.spans)


@dataclass(frozen=True)
class Environment:
    """Where and with what a comparison ran. `weights` maps a role (autoencoder, lua, swinir) to "name (sha256)"."""

    device: str
    dtype: str
    weights: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
