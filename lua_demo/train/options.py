"""The options of `lua_demo train`."""

from __future__ import annotations

from pathlib import Path

import torch

from lua_demo.machine.arguments import Parser
from lua_demo.models.vaes import SPACES
from lua_demo.train import optimiser

WHAT = ("autoencoder", "lua", "swinir", "cnn", "generator")
DESCRIPTION = "`python3 -m lua_demo train WHAT --images DIR --out DIR`: trains one of the networks, or resumes it."


def parser() -> Parser:
    result = Parser(prog="lua_demo train", description=DESCRIPTION)
    result.add_argument("what", choices=WHAT)
    result.add_argument(
        "--images",
        required=True,
        type=Path,
        help="folder of photos to train on; generator: a folder that `lua_demo scenes --out` wrote",
    )
    result.add_argument(
        "--test-images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of photos that are evaluated on: training on one of them, or on a near-duplicate, is refused; "
        "may be given several times",
    )
    result.add_argument(
        "--samples", type=Path, help="folder of photos for the sample sheets (default: the first training photos)"
    )
    result.add_argument(
        "--held-out",
        type=Path,
        metavar="DIR",
        help="folder of photos kept apart, for lua, swinir and cnn: what the network gains on the first eight over "
        "decode-then-bicubic goes into the log as training goes on. They are --test-images too",
    )
    result.add_argument(
        "--out",
        required=True,
        type=Path,
        help="folder of the run: checkpoint, log, samples, model. The same command resumes",
    )
    result.add_argument("--space", default="embedded", choices=SPACES, help="latent space (default: %(default)s)")
    result.add_argument(
        "--vae",
        "--autoencoder",
        dest="vae",
        help="autoencoder of that space for lua, swinir, cnn: a folder, file or hub id (default: the shipped one, or "
        "the space's tiny autoencoder from the hub)",
    )
    result.add_argument(
        "--init",
        help="folder, file or hub id of a model of the same kind to start from; a LUA of another space is adapted: its "
        "first and last convolutions are new",
    )
    result.add_argument(
        "--width",
        type=int,
        help="channels of a new model: of the trunk of LUA or SwinIR, a multiple of 32 (default: 128), of a CNN (96)",
    )
    result.add_argument(
        "--stem",
        type=int,
        metavar="N",
        help="lua and swinir: residual blocks of convolutions before the trunk. New ones change nothing at first, also "
        "before that of --init (default: as --init has it; of a new swinir 6, of a new lua none)",
    )
    result.add_argument(
        "--stem-from",
        metavar="CNN",
        help="new swinir: start its stem from the first blocks of this CNN, and its heads from what is best for them",
    )
    result.add_argument(
        "--plain",
        action="store_true",
        help="lua of a published space: on the latents themselves, as the paper has it, instead of between layers of "
        "the space's tiny autoencoder",
    )
    result.add_argument(
        "--tiny",
        help="that tiny autoencoder: a folder, file or hub id (default: --vae where that is one, else the hub's)",
    )
    result.add_argument(
        "--back-project",
        type=int,
        default=0,
        choices=(1, 2, 4),
        metavar="SIDE",
        help="lua of a published space: end with a step of back-projection through the tiny autoencoder, of averages "
        "over SIDE px of the small picture: 2 where that loses little (SD 3, FLUX.2), 4 for FLUX.1. Without it a LUA "
        "that --init gives for the same space stays as it is",
    )
    result.add_argument("--lua", help="LUA to go on with while training the autoencoder (default: a new one)")
    result.add_argument(
        "--keep-latents",
        nargs="?",
        const="all",
        default="",
        choices=("base", "all"),
        help="autoencoder: train decoder and LUA only: a generator of the latents stays valid; base: and the detail "
        "channels, which --channels added",
    )
    result.add_argument(
        "--channels",
        type=int,
        metavar="N",
        help="autoencoder: of the latent; with --init, channels for detail are added and the others stay as they are",
    )
    result.add_argument("--stages", help="run only these stages, by name, comma-separated")
    result.add_argument("--steps", type=int, help="total steps; the stages keep their shares")
    result.add_argument("--batch", type=int, help="crops per step and device in every stage")
    result.add_argument("--crop", type=int, help="side of the crops in px in every stage")
    result.add_argument("--lr", type=float, help="learning rate in every stage")
    result.add_argument(
        "--optimiser",
        default="adam",
        choices=optimiser.NAMES,
        help="muon: for the matrices of a trunk, Adam for the rest (default: %(default)s)",
    )
    result.add_argument("--cache", type=Path, metavar="DIR", help="where latents are kept (default: OUT/cache)")
    result.add_argument(
        "--cached",
        type=int,
        default=4096,
        metavar="N",
        help="random crops that are encoded once, for lua; 0: encode other crops at every step (default: %(default)s)",
    )
    result.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    result.add_argument("--fp32", action="store_true", help="train in float32 instead of bfloat16 autocast")
    result.add_argument("--threads", type=int, help="CPU threads")
    result.add_argument("--seed", type=int, default=0)
    return result
