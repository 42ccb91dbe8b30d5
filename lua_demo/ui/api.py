"""Endpoints for programs: what can be run, a comparison, one picture enlarged.

Without `from __future__ import annotations`: gradio reads the annotations and shows them to the endpoints' users.
"""

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder

from lua_demo.catalog.bases import SCENE, first_base
from lua_demo.catalog.methods import (
    ASPECTS,
    MAX_GUIDANCE,
    MAX_PROMPT,
    MAX_SIZE,
    MAX_STEPS,
    MIN_SIZE,
    Method,
    methods_of,
)
from lua_demo.catalog.prompts import EXAMPLES, VOCABULARY
from lua_demo.catalog.spaces import SPACES
from lua_demo.pictures.formats import SUFFIXES
from lua_demo.pictures.images import save_png
from lua_demo.pictures.latents import MAX_BYTES
from lua_demo.pictures.reading import MAX_PIXELS
from lua_demo.report import records
from lua_demo.request.job import Job, resolve
from lua_demo.request.settings import DEFAULTS, unchecked
from lua_demo.runs import export
from lua_demo.runs.run import Run
from lua_demo.schema import Progress, Request, Result, Stopped, UserError
from lua_demo.ui.handlers import Handlers
from lua_demo.ui.inputs import uploaded
from lua_demo.ui.models import states
from lua_demo.ui.sessions import refusal
from lua_demo.ui.share import Share, download_name, not_written
from lua_demo.ui.viewer import View

DEFAULT_METHODS = list(Request.methods)


class Api:
    """The functions behind the endpoints; their parameters are what a client calls by name."""

    def __init__(self, handlers: Handlers):
        self.handlers, self.engine = handlers, handlers.engine

    def register(self) -> None:
        """Add the endpoints to the Blocks in whose context this is called."""
        gr.api(self.models, api_name="models", queue=False)
        gr.api(self.compare, api_name="compare", concurrency_id="gpu", concurrency_limit=1)
        gr.api(self.upscale, api_name="upscale", concurrency_id="gpu", concurrency_limit=1)

    def models(self) -> dict[str, Any]:
        """What can be run here: latent spaces with scales and weights, base models with their methods for prompts,
        methods for photos and for prompts, what a prompt may say, defaults, limits, device, versions.
        """
        environment = records.environment_json(self.engine.environment())
        return {
            "latent_spaces": {
                key: {
                    "label": space.label,
                    "scales": list(space.scales),
                    "weights": dict(self.engine.environment(Request(base=first_base(key))).weights),
                }
                for key, space in SPACES.items()
            },
            "bases": {
                key: asdict(state) | {"methods": list(methods_of("prompt", key))}
                for key, state in states(self.engine).items()
            },
            "methods": self._methods(methods_of("photo")),
            "prompts": {
                "methods": self._methods(methods_of("prompt")),
                "scene_methods": self._methods(methods_of("prompt", SCENE)),
                "vocabulary": {name: list(words) for name, words in VOCABULARY.items()},
                "examples": list(EXAMPLES),
                "aspects": list(ASPECTS),
            },
            "defaults": {key: list(value) if isinstance(value, tuple) else value for key, value in DEFAULTS.items()},
            "limits": {
                "size": [MIN_SIZE, MAX_SIZE],
                "prompt_characters": MAX_PROMPT,
                "steps": [1, MAX_STEPS],
                "guidance": [1, MAX_GUIDANCE],
                "photo_pixels": MAX_PIXELS,
                "photo_suffixes": list(SUFFIXES),
                "latent_bytes": MAX_BYTES,
            },
            **{key: environment[key] for key in ("device", "dtype", "versions")},
        }

    def _methods(self, rows: Mapping[str, Method]) -> dict[str, object]:
        refusal = self.engine.offer.refusal_of_method
        return {key: _method_json(method) | {"not_offered": refusal(key)} for key, method in rows.items()}

    def compare(
        self,
        prompt: str = "",
        image: dict | None = None,
        latent: dict | None = None,
        scale: int = Request.scale,
        methods: list[str] = DEFAULT_METHODS,
        size: int = Request.size,
        seed: int = Request.seed,
        steps: int | None = None,
        guidance: float | None = None,
        aspect: str = Request.aspect,
        base: str = Request.base,
        decoder: str = Request.decoder,
        force_native: bool = Request.force_native,
        refine: float = Request.refine,
        session: gr.Request = None,  # type: ignore[assignment]  # filled in by gradio, which knows it by this type
    ) -> Iterator[dict]:
        """Compare methods of /models on one prompt, one photo or one latent; image and latent: handle_file(path). seed,
        steps, guidance (by default as the makers of the base advise), aspect, force_native and refine (of the method of
        that name: the share of the steps) are for a prompt. Answers grow as it runs, the last is complete: {status:
        {state, text, done, total}, pictures: [{key, label, detail, image: lossless file}], timing: HTML, run: what
        ?run= opens, files: [name for /export, label]}.
        """
        answer: dict[str, object] = {"status": None, "pictures": [], "timing": "", "run": "", "files": []}
        with self.handlers.running(session) as run:
            try:
                job = _job(
                    image, latent, prompt=prompt, scale=scale, methods=methods, size=size, seed=seed, steps=steps,
                    guidance=guidance, aspect=aspect, base=base, decoder=decoder, force_native=force_native,
                    refine=refine,
                )  # fmt: skip
                with contextlib.closing(self.handlers.show(job, run.stop)) as answers:
                    for status, views, timing, shared in answers:
                        answer |= {"status": asdict(status)}
                        if isinstance(views, View):  # before the first picture there is nothing to show
                            answer |= {"pictures": [pane.to_json() for pane in views.panes], "timing": timing}
                        if isinstance(shared, Share):
                            answer |= {"run": shared.run.id, "files": export.offers(shared.run)}
                        yield dict(answer)
            except UserError as error:
                raise refusal(error) from error

    def upscale(
        self,
        image: dict | None = None,
        scale: int = 2,
        method: str = "lua",
        size: int = 512,
        latent: dict | None = None,
        prompt: str = "",
        seed: int = Request.seed,
        steps: int | None = None,
        guidance: float | None = None,
        aspect: str = Request.aspect,
        base: str = Request.base,
        decoder: str = Request.decoder,
        force_native: bool = Request.force_native,
        refine: float = Request.refine,
        session: gr.Request = None,  # type: ignore[assignment]  # filled in by gradio, which knows it by this type
    ) -> Iterator[dict]:
        """Enlarge one photo, one latent or the picture of one prompt, by one method of /models. image or latent:
        handle_file(path); a prompt, its settings, base and decoder: as for /compare. A photo whose longest side is
        above size is first shrunk to it, a prompt is sampled at it; the result is exactly scale times that. Answers
        with {state: "busy", method, stage, done, total, step, steps} at the start of every stage and after each of its
        steps, and at last with {state: "done", method, file: a PNG that carries its settings, results: settings, times,
        memory, metrics}.
        """
        with self.handlers.running(session) as run:
            try:
                self.handlers.sharing.limits.check_room()
                job = _job(
                    image, latent, prompt=prompt, scale=scale, methods=(method,), size=size, seed=seed, steps=steps,
                    guidance=guidance, aspect=aspect, base=base, decoder=decoder, force_native=force_native,
                    refine=refine,
                )  # fmt: skip
                with contextlib.closing(self.engine.compare(job, run.stop)) as events:
                    for event in events:
                        if isinstance(event, Progress):
                            yield {"state": "busy", **asdict(event)}
                        else:
                            result = event
                yield self._enlarged(job, method, result)
            except (UserError, Stopped) as error:
                raise refusal(error) from error

    def _enlarged(self, job: Job, method: str, result: Result) -> dict[str, object]:
        """The last answer of `upscale`. UserError where there is no picture, or it cannot be written."""
        if result.image is None:
            raise UserError(f"{result.label}: {result.skipped}")
        document = records.to_json(job.request, [result], self.engine.environment(job))
        folder = Path(get_upload_folder()) / "upscaled" / secrets.token_urlsafe(16)
        path = folder / download_name(Run("", folder, document), f"{method}.png")
        try:
            save_png(result.image, path, records.png_metadata(document, method))
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise not_written(error) from error
        file = FileData(path=str(path), orig_name=path.name).model_dump()
        return {"state": "done", "method": method, "file": file, "results": document}


def _method_json(method: Method) -> dict[str, object]:
    return {
        "label": method.label,
        "description": method.description,
        "scales": sorted({scale for space in SPACES.values() for scale in space.scales}),
        "stages": [step.name for step in method.steps],
        "needs_original": method.needs_truth,
        "default": method.default,
    }


def _job(image: object, latent: object, **settings: object) -> Job:
    """What an endpoint was asked for; steps and guidance that are None are as the makers of the base advise."""
    return resolve(unchecked(settings, _path("image", image), _path("latent", latent)))


def _path(name: str, value: object) -> str:
    """Where an uploaded file is; empty where there is none."""
    if value is None:
        return ""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str):
        raise UserError(f"{name} is {brief(value)}; give a file, in Python handle_file(path)")
    return uploaded(name, path)
