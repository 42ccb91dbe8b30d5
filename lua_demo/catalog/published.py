"""Upscalers that others published: what is downloaded when one is first chosen. No torch.

Sizes and sha256 of the pixel upscalers are those of OpenModelDB (openmodeldb.info), which lists these files at these
addresses.
"""

from __future__ import annotations

from lua_demo.catalog.upscalers import File, Upscaler

GITHUB = "https://github.com"
SWINIR = f"{GITHUB}/JingyunLiang/SwinIR/releases/download/v0.0"
ESRGAN = f"{GITHUB}/xinntao/Real-ESRGAN/releases/download"
PHHOFM = f"{GITHUB}/Phhofm/models/releases/download"
SESQUI_FILES = "https://raw.githubusercontent.com/LoganBooker/SesquiLSR/befae004248c403f38b76b9f65fd43b901ea3eaa/models"

SWINIR_OFFICIAL = Upscaler(
    "swinir",
    files={
        2: File(
            f"{SWINIR}/001_classicalSR_DF2K_s64w8_SwinIR-M_x2.pth", 67_277_475,
            "2032ebf8f401dd3ce2fae5f3852117cb72101ec6ed8358faa64c2a3fa09ed4ac",
        ),
        4: File(
            f"{SWINIR}/001_classicalSR_DF2K_s64w8_SwinIR-M_x4.pth", 67_869_037,
            "4e78e33f22c1aa8a773db0cf4a7381bae97c2362c717f155439ebc690cbd9215",
        ),
    },
    window=8,
)  # fmt: skip
"""Classical super-resolution (arXiv 2108.10257), trained on DF2K: the best of the paper's."""

REALESRGAN = Upscaler(
    "spandrel",
    files={
        2: File(
            f"{ESRGAN}/v0.2.1/RealESRGAN_x2plus.pth", 67_061_725,
            "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        ),
        4: File(
            f"{ESRGAN}/v0.1.0/RealESRGAN_x4plus.pth", 67_040_989,
            "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        ),
    },
    licence="BSD-3-Clause",
)  # fmt: skip
"""arXiv 2107.10833: trained as a GAN on degraded pictures."""

REALPLKSR = Upscaler(
    "spandrel",
    files={
        4: File(
            f"{PHHOFM}/4xNomosWebPhoto_RealPLKSR/4xNomosWebPhoto_RealPLKSR.pth", 29_683_482,
            "a9db66c9b674c6a5025b6ef3bee71a57c33b8605d8a2de0980470f89002efbbe",
        )
    },
    licence="CC-BY-4.0",
)  # fmt: skip
"""4xNomosWebPhoto_RealPLKSR by Philip Hofmann, for photos from the web."""

SPAN = Upscaler(
    "spandrel",
    files={
        4: File(
            f"{PHHOFM}/4xSPAN_pretrains/4xpix_span_pretrain.pth", 9_016_540,
            "724d6a9f675c008ff1a85e5af4938e756d5add4ba32f8af62f56cee45dd3927f",
        )
    },
    licence="CC-BY-4.0",
)  # fmt: skip
"""4xpix_span_pretrain by Philip Hofmann: SPAN (arXiv 2311.12770), trained for the least error of pixels."""

SESQUI = Upscaler(
    "sesqui",
    by_space={
        "sdxl": File(
            f"{SESQUI_FILES}/upscaler_SDXL.safetensors", 12_293_696,
            "392c0e36fc0389a170cf6c1682556972d91d750c31aa392cdad1b13cad4e18e4",
        ),
        "flux1": File(
            f"{SESQUI_FILES}/upscaler_Flux.safetensors", 12_374_768,
            "dbc6362c910a179a22eca26f656fdacde17eded876ee8f05b8f5b73630e4ddbe",
        ),
        "flux2": File(
            f"{SESQUI_FILES}/upscaler_Flux2.safetensors", 12_525_400,
            "f385ff2250b3f2c72ad422768558414d617b9a006cc0b1ce37a296cc99d17177",
        ),
    },
    scales=(2,),
    licence="MIT",
)  # fmt: skip
"""LoganBooker/SesquiLSR, for scales from 1 to 2."""
