"""Where the data files of this checkout lie."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"
WEIGHTS_DIR = ASSETS / "weights"
EXAMPLES = ASSETS / "examples"
"""Photos that the page offers."""

PINNED = ASSETS / "runs"
"""Comparisons that were made beforehand; the page opens with the first of them."""

STATISTICS = ASSETS / "latent_statistics.safetensors"
FLUX2_NORMALISATION = ASSETS / "flux2-normalisation.json"
"""What FLUX.2's pipelines normalise latents by: the batch norm of its autoencoder."""

STATIC = Path(__file__).resolve().parent / "ui" / "static"
"""Style sheets and scripts of the page and of the viewer."""

TEMPLATES = Path(__file__).resolve().parent / "report" / "templates"
"""Jinja2 templates of everything that is HTML."""
