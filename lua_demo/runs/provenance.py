"""How a picture of ours was made, read back from its PNG. The file may come from anybody."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lua_demo.catalog.methods import methods_of
from lua_demo.pictures.images import DECODE_ERRORS
from lua_demo.report.document import Made
from lua_demo.report.records import METADATA_KEY, environment_json
from lua_demo.request.settings import FIELDS, from_settings
from lua_demo.schema import Environment, Request, UserError

MAX_CHARACTERS = 200_000


@dataclass(frozen=True)
class Provenance:
    """What a PNG says of itself, checked.

    Attributes:
        request: the settings, a prompt among them; without a file.
        method: key of `catalog.methods_of(kind, request.base)`.
        kind, file, sha256, bytes: of the source: key of `report.FIELDS`, its name, and what it is found by.
        made_with: device, dtype, weights and versions, flat: what -> text.
    """

    request: Request
    method: str
    kind: str
    file: str
    sha256: str
    bytes: int
    made_with: Mapping[str, str]


def read_png(path: str | Path) -> Provenance | None:
    """The provenance of a PNG; None for any other file.

    Raises:
        UserError: a PNG that claims to be ours with what we cannot have written, or settings that cannot be run here.
    """
    name = Path(path).name
    try:
        with Image.open(io.BytesIO(Path(path).read_bytes()), formats=["PNG"]) as picture:
            text = picture.info.get(METADATA_KEY)
    except (*DECODE_ERRORS, Image.DecompressionBombError):
        return None
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise UserError(f"the lua_demo metadata of {name} is not what lua_demo writes; use the file as downloaded")
    try:
        content = json.loads(text)
        source, made_with = content["source"], _flat(content)
        provenance = Provenance(
            from_settings(content["settings"]),
            _text(content["method"]),
            _text(source["kind"]),
            Path(_text(source["file"])).name[:200],
            _text(source["sha256"]),
            int(source["bytes"]),
            made_with,
        )
    except UserError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise UserError(f"the lua_demo metadata of {name} is broken; use the file as downloaded") from error
    if provenance.kind not in FIELDS or (provenance.kind == "prompt") != bool(provenance.request.prompt):
        raise UserError(f"the lua_demo metadata of {name} is broken; use the file as downloaded")
    methods = methods_of(provenance.kind, provenance.request.base)
    if provenance.method not in methods:
        raise UserError(f"{name} was made by a method that is not known here; choose from {', '.join(methods)}")
    return provenance


def differences(provenance: Provenance, environment: Environment) -> list[str]:
    """What is not the same here as where the picture was made, one line each."""
    here = _flat(environment_json(environment))
    return [
        f"{what}: made with {value}, here {here.get(what, 'none')}"
        for what, value in provenance.made_with.items()
        if here.get(what) != value
    ]


def _flat(content: Made) -> dict[str, str]:
    parts = {"device": content["device"], "dtype": content["dtype"], **content["versions"]}
    parts |= {f"weights of {role}": value for role, value in content["weights"].items()}
    return {name: _text(value)[:200] for name, value in parts.items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {type(value).__name__}")
    return value
