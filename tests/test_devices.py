"""Two processes on the CPU, started as `accelerate launch` and `torchrun` start them: they do what one does."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lua_demo.commands import main as cli
from lua_demo.commands.evaluate import evaluate_scenes
from lua_demo.engine import Engine
from lua_demo.machine.devices import Devices, join

PROGRAM = """
import json, sys
import numpy as np, torch
from torch import nn
from lua_demo.machine.devices import join
from lua_demo.train.loop import Settings, Stage, train

class Task:
    name = "toy"
    def __init__(self, rank):
        torch.manual_seed(rank)  # other weights on every process, until they are shared
        self.model = nn.ModuleDict({"used": nn.Linear(1, 1), "first": nn.Linear(1, 1)})
        self.rank, self.gradients = rank, None
    def losses(self, stage, rng, step):
        x = torch.full((1, 1), float(self.rank + 1))  # d loss / d weight = x
        loss = self.model["used"](x).sum()
        if self.rank == 0:
            loss = loss + 4 * self.model["first"](x).sum()
        return {"loss_of_rank": loss}
    def sample(self, model):
        return np.zeros((1, 1, 3), np.uint8)
    def validate(self, model):
        return {}
    def pixels(self, stage):
        return 1
    def save(self, model, folder, facts):
        folder.mkdir()
        (folder / "saved_by").write_text(str(self.rank))

from pathlib import Path
out = Path(sys.argv[1])
devices = join("cpu")
task = Task(devices.rank)
settings = Settings(out, devices, bf16=False, clip=1e9)
train(task, [Stage("s", 1, {"loss_of_rank": 1.0})], settings)
facts = {"gradient": task.model["used"].weight.grad.item(), "first": task.model["first"].weight.grad.item(),
         "weight": task.model["used"].weight.item(), "device": devices.device}
(out.parent / f"rank{devices.rank}.json").write_text(json.dumps(facts))
"""


pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")


def launch(processes: int, *command: str | Path) -> list[str]:
    """What each of `processes` printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).resolve().parent.parent
    place = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root),
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    printed = []
    for process in started:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        printed.append(out)
    return printed


def run(capsys: pytest.CaptureFixture[str], processes: int, *command: str | Path) -> list[str]:
    """What each of the processes that run a command of `lua_demo` printed; a single one is this one."""
    if processes > 1:
        return launch(processes, "-m", "lua_demo", *command)
    assert cli.main([str(part) for part in command]) == 0
    return [capsys.readouterr().out]


@pytest.fixture
def photos(tmp_path):
    """Three, of which one is too small for the crop and two share their name."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    (folder / "more").mkdir(parents=True)
    for name, side in (("a.png", 72), ("b.png", 40), ("more/a.png", 64)):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(folder / name)
    return folder


def test_evaluate_is_shared(tmp_path, photos, capsys):
    documents = []
    for processes in (1, 2):
        file = tmp_path / f"{processes}.json"
        command = ["evaluate", "--images", photos, "--crop", "64", "--methods", "base,lua", "--device", "cpu"]
        printed = run(capsys, processes, *command, "--json", file)
        assert "2 images" in printed[0] and not "".join(printed[1:])
        documents.append(json.loads(file.read_text(), parse_float=lambda text: round(float(text), 4)))
    alone, shared = documents
    for document in documents:
        for methods in document["per_image"].values():
            for entry in (entry for images in methods.values() for entry in images.values()):
                del entry["seconds"]
    assert alone["images"] == shared["images"] == ["a.png", "more/a.png"] and list(alone["skipped"]) == ["b.png"]
    assert alone["per_image"] == shared["per_image"] and alone["skipped"] == shared["skipped"]
    assert list(alone["per_image"]["2"]["lua"]) == ["a.png", "more/a.png"]


def test_scenes_are_shared(tmp_path):
    """Each process renders its own; on a base of a few pixels that takes no time."""
    program = tmp_path / "program.py"
    program.write_text(
        "import json\nfrom lua_demo.machine.devices import join\nfrom lua_demo.engine import Engine\n"
        "from lua_demo.commands.evaluate import evaluate_scenes\ndevices = join('cpu')\n"
        "made = evaluate_scenes(Engine('cpu'), 3, (2,), ('base',), base=32, devices=devices)\n"
        "print(json.dumps([made.images, made.mean(2, 'base', 'psnr')]))\n"
    )
    one, other = (json.loads(printed) for printed in launch(2, program))
    alone = evaluate_scenes(Engine("cpu"), 3, (2,), ("base",), base=32)
    assert one == other == [alone.images, pytest.approx(alone.mean(2, "base", "psnr"))] and len(alone.images) == 3


def test_batch_is_shared(tmp_path, photos, capsys):
    tables = []
    for processes in (1, 2):
        out = tmp_path / f"out{processes}"
        command = ["batch", photos, "--out", out, "--size", "32", "--methods", "base,lua", "--device", "cpu"]
        printed = run(capsys, processes, *command)
        assert "3 items: 3 run" in printed[0]
        with (out / "batch.csv").open(newline="") as file:
            tables.append([(row["item"], row["method"], row["file"]) for row in csv.DictReader(file)])
    assert tables[0] == tables[1] and len(tables[0]) == 6
    for path in (tmp_path / "out1").rglob("*.png"):
        other = tmp_path / "out2" / path.relative_to(tmp_path / "out1")
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(other)))


def test_gradients_are_averaged_and_the_first_process_writes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch(2, program, tmp_path / "run")
    one, other = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert one == other, "the same weights after the step"
    assert one["gradient"] == pytest.approx((1 + 2) / 2)
    assert one["first"] == pytest.approx((4 * 1 + 0) / 2), "what took no part counts as zero"
    assert (tmp_path / "run" / "model" / "saved_by").read_text() == "0"
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 1


def test_a_single_process_needs_no_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    devices = join("cpu")
    assert devices == Devices("cpu") and devices.is_first
    layer = nn.Linear(1, 1)
    devices.share(layer)
    devices.average(layer.parameters())
    devices.wait()
    assert layer.weight.grad is None and devices.mean(torch.tensor(3.0)) == 3
