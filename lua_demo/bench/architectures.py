"""The published base models as their makers configured them, to be built with random weights: nothing is downloaded.

Configurations of the files on the hub, for the classes of diffusers and transformers; a value that is the class's own
default is left out. Tokenizers are made on the spot and know letters: the networks take as long for any words.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from lua_demo.catalog.bases import BASES
from lua_demo.catalog.families import FAMILIES

T = TypeVar("T")
LETTERS = [*"abcdefghijklmnopqrstuvwxyz"]
CHAT = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}"
)


class Savable(Protocol):
    """A component of diffusers or transformers."""

    def save_pretrained(self, folder: Path, /) -> object: ...


def clip_tokenizer() -> Savable:
    import transformers  # noqa: PLC0415  takes seconds, as does diffusers

    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(letter + "</w>" for letter in LETTERS)]
    return transformers.CLIPTokenizer({word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def t5_tokenizer() -> Savable:
    import transformers  # noqa: PLC0415

    pieces = [(piece, -float(i)) for i, piece in enumerate(["<pad>", "</s>", "<unk>", "▁", *LETTERS])]
    return transformers.T5TokenizerFast(pieces, extra_ids=0)  # type: ignore[attr-defined]  # loaded on first use


def chat_tokenizer() -> Savable:
    import transformers  # noqa: PLC0415

    words = ["<|endoftext|>", "Ġ", ".", *LETTERS, *map(str.upper, LETTERS)]
    kind = transformers.Qwen2TokenizerFast  # type: ignore[attr-defined]  # loaded on first use
    made = kind({word: i for i, word in enumerate(words)}, merges=[])
    made.chat_template = CHAT
    return made


@dataclass(frozen=True)
class Part:
    """A network or scheduler: its class in diffusers or transformers, and how it is configured."""

    kind: str
    config: Mapping[str, object] = field(default_factory=dict)

    @property
    def library(self) -> str:
        import diffusers  # noqa: PLC0415

        return "diffusers" if hasattr(diffusers, self.kind) else "transformers"

    def build(self) -> Savable:
        """With random weights, in the default dtype on the default device."""
        import diffusers  # noqa: PLC0415
        import transformers  # noqa: PLC0415

        if self.library == "diffusers":
            return getattr(diffusers, self.kind)(**self.config)
        kind = getattr(transformers, self.kind)
        return kind(kind.config_class(**self.config))


Components = dict[str, Part | str | bool]
TOKENIZERS: dict[str, Callable[[], Savable]] = {"clip": clip_tokenizer, "t5": t5_tokenizer, "chat": chat_tokenizer}

# Ids that our tokenizers give, where a network looks for them.
CLIP_IDS = dict(bos_token_id=0, eos_token_id=1)
CLIP_L = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768, **CLIP_IDS)
CLIP_G = dict(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280,
    hidden_act="gelu", **CLIP_IDS,
)  # fmt: skip
T5_XXL = Part("T5EncoderModel", dict(
    d_model=4096, d_ff=10240, num_heads=64, num_layers=24, feed_forward_proj="gated-gelu", tie_word_embeddings=False
))  # fmt: skip
QWEN3_4B = Part("Qwen3ForCausalLM", dict(
    hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_key_value_heads=8, tie_word_embeddings=True
))  # fmt: skip
QWEN25_VL_7B = Part("Qwen2_5_VLForConditionalGeneration", dict(
    text_config=dict(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        tie_word_embeddings=False,
    ),
    vision_config=dict(hidden_size=1280),
))  # fmt: skip
MINISTRAL_3B = Part("Mistral3Model", dict(
    text_config=dict(
        vocab_size=131072, hidden_size=3072, intermediate_size=9216, num_hidden_layers=26, head_dim=128,
        tie_word_embeddings=True,
    ),
))  # fmt: skip
MISTRAL_SMALL = Part("Mistral3ForConditionalGeneration", dict(tie_word_embeddings=False))

KL = dict(
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512), layers_per_block=2,
)  # fmt: skip
# Autoencoders of 16 channels leave the two 1x1 convolutions at the latent out.
KL_16 = dict(KL, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False)
KL_FLUX1 = Part("AutoencoderKL", dict(KL_16, scaling_factor=0.3611, shift_factor=0.1159))


EULER = Part("EulerDiscreteScheduler", dict(
    beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, timestep_spacing="leading"
))  # fmt: skip
SHIFTED = Part("FlowMatchEulerDiscreteScheduler", dict(shift=3.0))
SHIFTED_BY_SIZE = Part("FlowMatchEulerDiscreteScheduler", dict(shift=3.0, use_dynamic_shifting=True))

SDXL_UNET = Part("UNet2DConditionModel", dict(
    sample_size=128, block_out_channels=(320, 640, 1280), cross_attention_dim=2048,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(5, 10, 20),
    transformer_layers_per_block=(1, 2, 10), use_linear_projection=True, addition_embed_type="text_time",
    addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
))  # fmt: skip


def sd3_transformer(layers: int, positions: int, **more: object) -> Part:
    return Part("SD3Transformer2DModel", dict(
        num_layers=layers, num_attention_heads=layers, caption_projection_dim=64 * layers, qk_norm="rms_norm",
        pos_embed_max_size=positions, **more,
    ))  # fmt: skip


SD15: Components = {
    "vae": Part("AutoencoderKL", KL),
    "text_encoder": Part("CLIPTextModel", CLIP_L),
    "tokenizer": "clip",
    "unet": Part("UNet2DConditionModel", dict(sample_size=64, cross_attention_dim=768)),
    "scheduler": EULER,
}
SDXL: Components = {
    "vae": Part("AutoencoderKL", dict(KL, scaling_factor=0.13025)),
    "text_encoder": Part("CLIPTextModel", CLIP_L),
    "text_encoder_2": Part("CLIPTextModelWithProjection", CLIP_G),
    "tokenizer": "clip",
    "tokenizer_2": "clip",
    "unet": SDXL_UNET,
    "scheduler": EULER,
}
SD3: Components = {
    "scheduler": SHIFTED,
    "vae": Part("AutoencoderKL", dict(KL_16, scaling_factor=1.5305, shift_factor=0.0609)),
    "text_encoder": Part("CLIPTextModelWithProjection", CLIP_L),
    "tokenizer": "clip",
    "text_encoder_2": Part("CLIPTextModelWithProjection", CLIP_G),
    "tokenizer_2": "clip",
    "text_encoder_3": T5_XXL,
    "tokenizer_3": "t5",
}
FLUX1: Components = {
    "scheduler": SHIFTED_BY_SIZE,
    "vae": KL_FLUX1,
    "text_encoder": Part("CLIPTextModel", CLIP_L),
    "tokenizer": "clip",
    "text_encoder_2": T5_XXL,
    "tokenizer_2": "t5",
}
FLUX1_DEV = {**FLUX1, "transformer": Part("FluxTransformer2DModel", dict(guidance_embeds=True))}
Z_IMAGE: Components = {
    "vae": KL_FLUX1,
    "text_encoder": QWEN3_4B,
    "tokenizer": "chat",
    "transformer": Part("ZImageTransformer2DModel"),
}
FLUX2: Components = {"scheduler": SHIFTED_BY_SIZE, "vae": Part("AutoencoderKLFlux2"), "tokenizer": "chat"}

ARCHITECTURES: dict[str, Components] = {
    "sd15": SD15,
    "sdxl": SDXL,
    "sdxl-turbo": SDXL,
    "sd35-medium": {**SD3, "transformer": sd3_transformer(24, 384, dual_attention_layers=tuple(range(13)))},
    "sd35-large": {**SD3, "transformer": sd3_transformer(38, 192)},
    "flux1-schnell": {**FLUX1, "transformer": Part("FluxTransformer2DModel")},
    "flux1-dev": FLUX1_DEV,
    "flux1-krea-dev": FLUX1_DEV,
    "z-image-turbo": {**Z_IMAGE, "scheduler": SHIFTED},
    "z-image": {**Z_IMAGE, "scheduler": Part("FlowMatchEulerDiscreteScheduler", dict(shift=6.0))},
    "flux2-klein": {
        **FLUX2,
        "text_encoder": QWEN3_4B,
        "transformer": Part("Flux2Transformer2DModel", dict(
            num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680, guidance_embeds=False
        )),
        "is_distilled": True,
    },
    "ernie-image-turbo": {
        "scheduler": SHIFTED,
        "vae": Part("AutoencoderKLFlux2"),
        "tokenizer": "chat",
        "text_encoder": MINISTRAL_3B,
        "transformer": Part("ErnieImageTransformer2DModel", dict(
            hidden_size=4096, num_attention_heads=32, num_layers=36, ffn_hidden_size=12288, text_in_dim=3072
        )),
    },
    "qwen-image": {
        "scheduler": SHIFTED_BY_SIZE,
        "vae": Part("AutoencoderKLQwenImage"),
        "tokenizer": "chat",
        "text_encoder": QWEN25_VL_7B,
        "transformer": Part("QwenImageTransformer2DModel"),
    },
    "flux2-dev": {**FLUX2, "text_encoder": MISTRAL_SMALL, "transformer": Part("Flux2Transformer2DModel")},
}  # fmt: skip
"""Key of `BASES` -> component of its pipeline -> `Part`, key of `TOKENIZERS`, or a plain setting of the pipeline."""


def write(base: str, folder: Path) -> None:
    """Save the pipeline of `base` with random bf16 weights to `folder`, as `save_pretrained` lays it out.

    One component is in memory at a time.
    """
    index: dict[str, object] = {"_class_name": FAMILIES[BASES[base].family].pipeline}
    for name, part in ARCHITECTURES[base].items():
        if isinstance(part, Part):
            index[name] = [part.library, part.kind]
            made = seeded(part.build)
        elif part in TOKENIZERS:
            made = TOKENIZERS[part]()
            index[name] = ["transformers", type(made).__name__]
        else:
            index[name] = part
            continue
        made.save_pretrained(folder / name)
        del made
        gc.collect()
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def seeded(make: Callable[[], T]) -> T:
    """What `make` builds, in bfloat16 and always with the same random weights."""
    kept = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        return make()
    finally:
        torch.set_default_dtype(kept)
