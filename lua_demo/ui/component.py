"""How this package derives from gradio's components."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

import gradio as gr

try:
    from gradio.component_meta import ComponentMeta, updateable
except ImportError:  # private, tried on gradio 6.31; `doctor` says whether it is there
    Private: Any = type(gr.HTML)
else:

    class Private(ComponentMeta):  # type: ignore[no-redef]
        """Metaclass of components that live in this package only.

        On import, gradio's own metaclass writes a .pyi file next to every module with a component. Apart from that and
        from new events, which ours do not have, this does the same. Without it, gradio's own is used.
        """

        def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> type:
            if "__init__" in attributes:
                attributes["__init__"] = updateable(attributes["__init__"])
            return ABCMeta.__new__(cls, name, bases, attributes)
