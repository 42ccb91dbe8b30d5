"""A request, resolved once: the rows of the tables that it names. Everything below reads the rows, not the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lua_demo.catalog.bases import BASES, Base, first_base
from lua_demo.catalog.compositions import REFINE, Step
from lua_demo.catalog.families import FAMILIES, Family
from lua_demo.catalog.methods import Method, methods_of
from lua_demo.catalog.spaces import AUTOENCODER, SPACES, Space
from lua_demo.catalog.upscalers import Upscaler
from lua_demo.request.validate import validated
from lua_demo.schema import Progress, Request


@dataclass(frozen=True)
class Job:
    """What one comparison runs.

    Attributes:
        request: what was asked for, checked.
        base: the base model. family: how its pipeline is called.
        space: the latent space of the base; `base.space` is its key.
        decoder: key of `space.decoders`, or `AUTOENCODER` where the space has its own.
        methods: key -> row of the methods asked for, in the order in which they run.
        vae_base: key and row of the base whose KL autoencoder is taken: `base`, or for one that renders the first of
            its space.
    """

    request: Request
    base: Base
    family: Family
    space: Space
    decoder: str
    methods: Mapping[str, Method]
    vae_base: tuple[str, Base]

    @property
    def samples(self) -> bool:
        """Whether the base latent is sampled from a prompt."""
        return bool(self.request.prompt) and not self.base.renders

    @property
    def renders(self) -> bool:
        """Whether the prompt becomes a scene that is rendered and encoded."""
        return bool(self.request.prompt) and self.base.renders

    @property
    def refine_steps(self) -> int:
        """How many of the sampler's steps run again where a latent is refined: the share asked for, at least one."""
        return max(1, round(self.request.steps * self.request.refine))

    def steps_of(self, step: Step) -> int:
        """Number of sampler steps in `step`, which must be one that samples."""
        return self.refine_steps if step is REFINE else self.request.steps

    def upscaler(self, method: str) -> Upscaler:
        """The upscaler of `method`, which must have one."""
        row = self.methods[method].upscaler
        assert row is not None, f"{method} has no upscaler"
        return row

    def progress(self, method: str, stage: str, step: int = 0, steps: int = 0) -> Progress:
        return Progress(method, stage, list(self.methods).index(method), len(self.methods), step, steps)


def resolve(request: Request) -> Job:
    """Check `request` and look up what it names.

    Raises:
        UserError: the first value that cannot be run.
    """
    return with_rows(validated(request))


def with_rows(request: Request) -> Job:
    """The job of a request whose settings were checked before; its source need not be there."""
    base = BASES[request.base]
    space = SPACES[base.space]
    rows = methods_of(request.kind, request.base)
    owner = first_base(base.space) if base.renders else request.base
    return Job(
        request,
        base,
        FAMILIES[base.family],
        space,
        request.decoder or next(iter(space.decoders), AUTOENCODER),
        {key: rows[key] for key in request.methods},
        (owner, BASES[owner]),
    )
