"""Starts the page: builds the engine, builds the page, launches.

On 127.0.0.1:7860, or the next free port; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT change that.
"""

import spaces  # noqa: F401  ZeroGPU wants to be imported before torch; elsewhere it does nothing

from lua_demo.engine import Engine
from lua_demo.ui.page import build_demo, launch_options

if __name__ == "__main__":
    build_demo(Engine()).launch(**launch_options())
