"""Two processes on the CPU, started as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lua_demo.train.devices import Devices, join

PROGRAM = """
import json, sys
import numpy as np, torch
from torch import nn
from lua_demo.train.devices import join
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


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_gradients_are_averaged_and_the_first_process_writes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parent.parent
    processes = [
        subprocess.Popen(
            [sys.executable, program, tmp_path / "run"],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(root)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
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
