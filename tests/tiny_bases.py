"""Tiny pipelines of the real diffusers and transformers classes, untrained.

`write(folder)` saves one per family, under the key of a base of that family, and tiny autoencoders per latent space.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from lua_demo.bench.architectures import chat_tokenizer, clip_tokenizer, t5_tokenizer


def clip(width: int, projection: bool):
    config = transformers.CLIPTextConfig(
        vocab_size=64, hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config).eval()


def t5(width: int):
    config = transformers.T5Config(
        vocab_size=32, d_model=width, d_ff=16, d_kv=8, num_heads=2, num_layers=2, feed_forward_proj="gated-gelu"
    )
    return transformers.T5EncoderModel(config).eval()


LANGUAGE = dict(
    vocab_size=64, hidden_size=16, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1, head_dim=8
)  # fmt: skip


def qwen3(layers: int):
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(num_hidden_layers=layers, **LANGUAGE)).eval()


def mistral3(layers: int = 31):
    text = transformers.MistralConfig(num_hidden_layers=layers, **LANGUAGE)
    vision = transformers.PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    config = transformers.Mistral3Config(text_config=text, vision_config=vision)
    return transformers.Mistral3ForConditionalGeneration(config).eval()


KL = dict(
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
)  # fmt: skip


def kl(channels: int, scale: float, shift: float | None):
    return AutoencoderKL(latent_channels=channels, scaling_factor=scale, shift_factor=shift, **KL).eval()


def kl_flux2():
    made = AutoencoderKLFlux2(latent_channels=32, **KL).eval()
    made.bn.running_mean.normal_()
    made.bn.running_var.uniform_(0.5, 4)
    return made


def unet(**more):
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), block_out_channels=(8, 16), layers_per_block=1,
        attention_head_dim=4, norm_num_groups=4, **more,
    ).eval()  # fmt: skip


def sd15():
    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear")
    return StableDiffusionPipeline(
        kl(4, 0.18215, None), clip(8, False), clip_tokenizer(), unet(cross_attention_dim=8), scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl():
    denoiser = unet(
        cross_attention_dim=16, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 8,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear")
    texts = clip(8, False), clip(8, True), clip_tokenizer(), clip_tokenizer()
    return StableDiffusionXLPipeline(kl(4, 0.13025, None), *texts, denoiser, scheduler)


def sd3():
    denoiser = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=24, caption_projection_dim=16, pooled_projection_dim=16, pos_embed_max_size=32,
    ).eval()  # fmt: skip
    texts = clip(8, True), clip_tokenizer(), clip(8, True), clip_tokenizer(), t5(24), t5_tokenizer()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return StableDiffusion3Pipeline(denoiser, scheduler, kl(16, 1.5305, 0.0609), *texts)


def flux1():
    denoiser = FluxTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=8, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    ).eval()  # fmt: skip
    texts = clip(8, False), clip_tokenizer(), t5(16), t5_tokenizer()
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return FluxPipeline(scheduler, kl(16, 0.3611, 0.1159), *texts, denoiser)


def flux2_denoiser(guidance: bool):
    return Flux2Transformer2DModel(
        in_channels=128, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guidance,
    ).eval()  # fmt: skip


def flux2():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return Flux2Pipeline(scheduler, kl_flux2(), mistral3(), chat_tokenizer(), flux2_denoiser(True))


def flux2_klein():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    texts = qwen3(28), chat_tokenizer()
    return Flux2KleinPipeline(scheduler, kl_flux2(), *texts, flux2_denoiser(False), is_distilled=True)


def ernie_image():
    denoiser = ErnieImageTransformer2DModel(
        hidden_size=32, num_attention_heads=2, num_layers=1, ffn_hidden_size=32, text_in_dim=16,
        rope_axes_dim=(4, 6, 6),
    ).eval()  # fmt: skip
    for layer in (denoiser.final_linear, denoiser.adaLN_modulation[-1]):  # they start at zero
        torch.nn.init.normal_(layer.weight, std=0.1)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return ErnieImagePipeline(denoiser, kl_flux2(), mistral3(2).model, chat_tokenizer(), scheduler)


def qwen_image():
    text = dict(num_hidden_layers=2, **LANGUAGE, rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2]})
    vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16)
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    encoder = transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
    denoiser = QwenImageTransformer2DModel(
        num_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 6, 6)
    ).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    vae = AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1).eval()
    return QwenImagePipeline(scheduler, vae, encoder, chat_tokenizer(), denoiser)


def z_image():
    denoiser = ZImageTransformer2DModel(
        in_channels=16, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
    ).eval()  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return ZImagePipeline(scheduler, kl(16, 0.3611, 0.1159), qwen3(2), chat_tokenizer(), denoiser)


PIPELINES = {
    "sd15": sd15,
    "sdxl": sdxl,
    "sd35-medium": sd3,
    "flux1-dev": flux1,
    "flux2-dev": flux2,
    "flux2-klein": flux2_klein,
    "ernie-image-turbo": ernie_image,
    "qwen-image": qwen_image,
    "z-image-turbo": z_image,
}
"""One base per family."""


def write(folder: Path) -> None:
    """Save all of `PIPELINES` below `folder`/bases."""
    for key, make in PIPELINES.items():
        torch.manual_seed(0)
        make().save_pretrained(folder / "bases" / key)
