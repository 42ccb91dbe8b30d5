"""Stop a computation from another thread, between any two submodules of a network."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lua_demo.schema import Stopped


def raise_if_set(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise Stopped("stopped on request")


@contextlib.contextmanager
def stops_on(*stops: threading.Event | None) -> Iterator[None]:
    """Within the block every call of a module on this thread raises Stopped once one of `stops` is set.

    The hook sees all modules, those of foreign pipelines too, so nothing that is run needs to know of it. Other threads
    are not affected. Without an event there is no hook and no cost.
    """
    events = [stop for stop in stops if stop is not None]
    for event in events:
        raise_if_set(event)
    if not events:
        yield
        return
    thread = threading.get_ident()

    def check(module: nn.Module, args: tuple) -> None:
        if threading.get_ident() == thread:
            for event in events:
                raise_if_set(event)

    handle = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
