"""How this package derives from gradio's components."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

from gradio.component_meta import ComponentMeta, updateable


class Private(ComponentMeta):
    """Metaclass of components that live in this package only.

    On import, gradio's own metaclass writes a .pyi file next to every module with a component. Apart from that and from
    new events, which ours do not have, this does the same.
    """

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> type:
        if "__init__" in attributes:
            attributes["__init__"] = updateable(attributes["__init__"])
        return ABCMeta.__new__(cls, name, bases, attributes)
