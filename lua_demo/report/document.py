"""The JSON document of a comparison: `records.to_json` makes it, a store keeps it, pages show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from lua_demo.request.settings import Settings


class Stage(TypedDict):
    """One timed stage: the fields of `schema.Span`, which has their units."""

    name: str
    seconds: float
    peak_bytes: int
    cold: bool
    shared: bool


class Guest(TypedDict):
    """The file that a picture from outside came in."""

    file: str
    sha256: str
    bytes: int


class Row(TypedDict):
    """What one method made, as in `schema.Result`.

    Attributes:
        file: the name of its picture. None for a method that was left out, as are `width` and `height`.
        width, height: in pixels.
        total_seconds: of all stages together.
        peak_bytes: the most of any stage; None where nothing was timed.
        outside: as in `schema.Result`. Older runs are without it.
        guest: only of a picture from outside.
    """

    label: str
    file: str | None
    width: int | None
    height: int | None
    stages: list[Stage]
    total_seconds: float
    peak_bytes: int | None
    metrics: Mapping[str, float | None] | None
    outside: NotRequired[float | None]
    notes: list[str]
    skipped: str | None
    guest: NotRequired[Guest]


class NamedRow(Row):
    """A row with the key of its method."""

    method: str


class Kept(TypedDict, total=False):
    """Where a store has the source.

    Attributes:
        stored: the name of the file in the run's folder.
        example: the name of the example that it is.
    """

    stored: str
    example: str


class Source(Kept):
    """What the base was made from.

    Attributes:
        kind: "photo", "latent" or "prompt".
        file: its name; empty for a prompt.
        sha256, bytes: of its content.
    """

    kind: str
    file: str
    sha256: str
    bytes: int


class Made(TypedDict):
    """Where and with what a comparison ran, as in `schema.Environment`."""

    device: str
    dtype: str
    weights: dict[str, str]
    versions: dict[str, str]


class Document(Made):
    """A comparison.

    Attributes:
        methods: rows by method.
        created: seconds since 1970; only of a stored comparison.
    """

    source: Source
    settings: Settings
    methods: dict[str, Row]
    created: NotRequired[int]
