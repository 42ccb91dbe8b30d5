"""Endpoints for programs, beside what the page itself offers: what can be run, and one picture enlarged.

Without `from __future__ import annotations`: gradio reads the annotations and shows them to the endpoints' users.
"""

import secrets
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder

from lua_demo import images, report
from lua_demo.catalog import LATENT_SPACES, MAX_SIZE, METHODS, MIN_SIZE
from lua_demo.engine import Engine
from lua_demo.latents import MAX_BYTES
from lua_demo.schema import Progress, Request, UserError
from lua_demo.settings import DEFAULTS
from lua_demo.store import Run
from lua_demo.ui.inputs import uploaded
from lua_demo.ui.sessions import refusal
from lua_demo.ui.share import download_name
from lua_demo.validate import validated

COMPARE = (
    "Compare methods of /models on one photo, or on one latent with image=None; files as handle_file(path). Answers "
    "grow as it runs, the last is complete: [status {state, text, done, total}, pictures {panes: [{key, label, detail, "
    "image}]} with lossless files, timing as HTML, share {run: what ?run= opens, files: what /export makes of it}]. "
    "Until a part is there, {__type__: update} stands for it."
)


class Api:
    """The functions behind the endpoints; their parameters are what a client calls by name."""

    def __init__(self, engine: Engine):
        self.engine = engine

    def register(self) -> None:
        """Add the endpoints to the Blocks in whose context this is called."""
        gr.api(self.models, api_name="models", queue=False)
        gr.api(self.upscale, api_name="upscale", concurrency_id="gpu", concurrency_limit=1)

    def models(self) -> dict[str, Any]:
        """What can be run here: latent spaces with scales and weights, methods, defaults, limits, device, versions."""
        environment = report.environment_json(self.engine.environment(DEFAULTS["space"]))
        scales = sorted({scale for space in LATENT_SPACES.values() for scale in space.scales})
        return {
            "latent_spaces": {
                key: {
                    "label": space.label,
                    "scales": list(space.scales),
                    "weights": dict(self.engine.environment(key).weights),
                }
                for key, space in LATENT_SPACES.items()
            },
            "methods": {
                key: {
                    "label": method.label,
                    "description": method.description,
                    "scales": scales,
                    "stages": [step.name for step in method.steps],
                    "needs_original": method.needs_truth,
                    "default": method.default,
                }
                for key, method in METHODS.items()
            },
            "defaults": {key: list(value) if isinstance(value, tuple) else value for key, value in DEFAULTS.items()},
            "limits": {
                "size": [MIN_SIZE, MAX_SIZE],
                "photo_pixels": images.MAX_PIXELS,
                "photo_suffixes": list(images.SUFFIXES),
                "latent_bytes": MAX_BYTES,
            },
            **{key: environment[key] for key in ("device", "dtype", "versions")},
        }

    def upscale(
        self,
        image: dict | None = None,
        scale: int = 2,
        method: str = "lua",
        size: int = 512,
        latent: dict | None = None,
    ) -> Iterator[dict]:
        """Enlarge one photo, or one latent, by one method of /models. image or latent: handle_file(path). A photo whose
        longest side is above size is first shrunk to it; the result is exactly scale times that. Answers with
        {state: "busy", method, stage, done, total} at the start of every stage, and at last with {state: "done",
        method, file: a PNG that carries its settings, results: settings, times, memory, metrics}.
        """
        try:
            source = {"image": _path("image", image), "latent": _path("latent", latent)}
            request = validated(Request(scale=scale, size=size, methods=(method,), **source))
            for event in self.engine.compare(request):
                if isinstance(event, Progress):
                    yield {"state": "busy", **asdict(event)}
                else:
                    result = event
            if result.image is None:
                raise UserError(f"{result.label}: {result.skipped}")
        except UserError as error:
            raise refusal(error) from error
        document = report.to_json(request, [result], self.engine.environment(request.space))
        folder = Path(get_upload_folder()) / "upscaled" / secrets.token_urlsafe(16)
        path = folder / download_name(Run("", folder, document), f"{method}.png")
        images.save_png(result.image, path, report.png_metadata(document, method))
        file = FileData(path=str(path), orig_name=path.name).model_dump()
        yield {"state": "done", "method": method, "file": file, "results": document}


def _path(name: str, value: Any) -> str:
    """Where an uploaded file is; empty where there is none."""
    if value is None:
        return ""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str):
        raise UserError(f"{name} is {brief(value)}; give a file, in Python handle_file(path)")
    return uploaded(name, path)
