"""`python3 -m lua_demo average MODEL MODEL ... --out DIR`: one LUA with the mean of the weights of several.

Trainings from one start stay close enough for their mean to be a model, and a better one: what each picked up from its
own random crops cancels out ("model soups", arXiv 2203.05482). So processes on several machines need not speak to each
other while they train.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from lua_demo.machine.arguments import Parser
from lua_demo.models.weights import load_any_lua
from lua_demo.networks.feature_lua import FeatureLUA
from lua_demo.networks.lua import LUA
from lua_demo.schema import UserError
from lua_demo.train.loop import save_with_facts


def parser() -> Parser:
    result = Parser(prog="lua_demo average", description="Average LUAs that were trained from one start.")
    result.add_argument("models", nargs="+", metavar="MODEL", help="folders, as training writes them (OUT/model)")
    result.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    return result


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if len(args.models) < 2:
        raise UserError("a mean of one model is that model: give two or more")
    model = averaged({name: load_any_lua(name) for name in args.models})
    save_with_facts(model, args.out, common_facts([read_facts(name) for name in args.models]), torch.bfloat16)
    print(f"{args.out} holds the mean of {len(args.models)} models")
    return 0


@torch.no_grad()
def averaged(models: dict[str, LUA | FeatureLUA]) -> LUA | FeatureLUA:
    """The mean of `models`, by name: the first one, with its weights changed.

    Raises:
        UserError: not all of one kind and configuration.
    """
    (first, result), *others = models.items()
    for name, model in others:
        if (type(model), model._hub_mixin_config) != (type(result), result._hub_mixin_config):
            raise UserError(f"{name} is not built like {first}: average models that were trained from one start")
    for tensors in zip(*(model.parameters() for model in models.values()), strict=True):
        tensors[0].copy_(torch.stack(tensors).mean(0))
    return result


def read_facts(folder: str) -> dict:
    file = Path(folder).expanduser() / "training.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def common_facts(trainings: Sequence[dict]) -> dict:
    """The entries that are the same in all of `trainings`, and all of each under "average_of".

    Raises:
        UserError: of different latent spaces.
    """
    first = trainings[0]
    spaces = {facts.get("space") for facts in trainings}
    if len(spaces) > 1:
        raise UserError(f"these are of different latent spaces, {', '.join(sorted(map(str, spaces)))}: average one's")
    alike = {key: value for key, value in first.items() if all(facts.get(key) == value for facts in trainings)}
    return {**alike, "average_of": list(trainings)}
