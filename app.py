"""Starts the page: builds the engine, builds the page, launches.

On 127.0.0.1:7860, or the next free port; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT change that.
"""

import spaces  # before whatever imports torch: ZeroGPU emulates CUDA; elsewhere it does nothing

from lua_demo.ui.offer import Offer
from lua_demo.ui.page import build_demo, launch_options
from lua_demo.ui.zero_gpu import ZeroGpuEngine, on_zero_gpu, to_place

if __name__ == "__main__":
    engine = ZeroGpuEngine(spaces.GPU)
    if on_zero_gpu():
        engine.place(to_place(Offer()))
    build_demo(engine).launch(**launch_options())
