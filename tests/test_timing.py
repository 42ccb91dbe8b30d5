"""Measuring and stopping."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from lua_demo.machine.cancel import leave_if_stopped, raise_if_set, stops_on, unless_stopped
from lua_demo.machine.timing import measure
from lua_demo.schema import Stopped

CPU = torch.device("cpu")


def test_measure_sees_memory_that_is_given_back_within_the_block():
    with measure(CPU) as idle:
        pass
    with measure(CPU) as busy:
        block = torch.ones(60_000_000)  # 240 MB
        for _ in range(20):
            block.mul_(1.0)
        del block
    assert idle.seconds >= 0 and busy.seconds > idle.seconds
    assert busy.peak_bytes - idle.peak_bytes > 150_000_000


def test_measure_leaves_no_thread_behind_even_after_an_error():
    before = threading.active_count()
    with pytest.raises(ValueError, match="inside"), measure(CPU):
        assert threading.active_count() == before + 1
        raise ValueError("inside")
    assert threading.active_count() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_measure_on_cuda():
    device = torch.device("cuda")
    with measure(device) as result:
        torch.ones(10_000_000, device=device)
    assert result.peak_bytes >= 40_000_000 and result.seconds > 0


class SetsTheEvent(nn.Module):
    """A network in whose second layer the user presses Stop."""

    def __init__(self, event: threading.Event):
        super().__init__()
        self.event, self.calls = event, []
        self.layers = nn.ModuleList(nn.Identity() for _ in range(4))

    def forward(self, x):
        for index, layer in enumerate(self.layers):
            self.calls.append(index)
            x = layer(x)
            if index == 1:
                self.event.set()
        return x


def test_stop_takes_effect_between_submodules():
    event = threading.Event()
    network = SetsTheEvent(event)
    with pytest.raises(Stopped), stops_on(event):
        network(torch.zeros(1))
    assert network.calls == [0, 1, 2]
    assert not torch_module._global_forward_pre_hooks


def test_stop_leaves_other_threads_alone():
    event = threading.Event()
    finished = []

    def elsewhere():
        finished.append(nn.Identity()(torch.ones(1)).item())

    with stops_on(event):
        event.set()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        with pytest.raises(Stopped):
            nn.Identity()(torch.ones(1))
    assert finished == [1.0]


def test_whoever_is_stopped_leaves_and_what_goes_on_is_known():
    """Also where the stop comes between two looks at it."""
    ends, left = threading.Event(), []
    looks = iter([False, True])
    stop = SimpleNamespace(is_set=lambda: next(looks))
    with pytest.raises(Stopped):
        unless_stopped(lambda: ends.wait(60), stop, left.append)
    assert not left[0].done()
    ends.set()
    assert left[0].result(60) is True
    with pytest.raises(ZeroDivisionError):
        unless_stopped(lambda: 1 // 0, threading.Event())
    assert unless_stopped(lambda: 7, None) == 7


def test_what_is_left_within_a_block_is_known_there():
    first, second, ends, left = threading.Event(), threading.Event(), threading.Event(), []
    assert leave_if_stopped(lambda: 7) == 7
    with stops_on(first, second, left=left.append):
        assert leave_if_stopped(threading.get_ident) != threading.get_ident()
        second.set()
        with pytest.raises(Stopped):
            leave_if_stopped(lambda: ends.wait(60))
    ends.set()
    assert left[0].result(60) is True
    assert leave_if_stopped(threading.get_ident) == threading.get_ident()


def test_no_event_no_hook():
    with stops_on(None):
        assert not torch_module._global_forward_pre_hooks
    raise_if_set(None)


def test_a_set_event_stops_before_anything_runs():
    event = threading.Event()
    event.set()
    with pytest.raises(Stopped), stops_on(event):
        pytest.fail("the block must not run")
