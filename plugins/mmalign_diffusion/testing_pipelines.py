"""Tiny random pipelines of every family, as `from_pretrained` of diffusers loads them, for tests and benchmarks.

Nothing is downloaded: tokenizers know single characters.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from mmalign import quiet_loading

FamilyName = Literal["stable_diffusion", "sdxl", "sd3", "flux", "pixart"]

WIDTH = 32
"""Features of a text encoder."""
_TRANSFORMER: dict[str, Any] = {"patch_size": 2, "in_channels": 4, "num_layers": 2, "num_attention_heads": 4}
_TRANSFORMER["attention_head_dim"] = 8


def build_tiny_pipeline(
    folder: str | Path,
    family: FamilyName,
    *,
    size: int = 16,
    prediction: str = "epsilon",
    widths: tuple[int, int] = (16, 8),
    seed: int = 0,
) -> Path:
    """Writes a pipeline of about 100 thousand random weights; its autoencoder halves the sides of images.

    Args:
        family: whose classes.
        size: side of its images in pixels.
        prediction: of `stable_diffusion` and `sdxl`: `epsilon` or `v_prediction`.
        widths: channels of the first block of a UNet and of an autoencoder; the second blocks have twice as many.
        seed: of the weights; the state of torch's global generator is left as it was.

    Returns:
        the folder.
    """
    with torch.random.fork_rng(devices=[]), quiet_loading(local=True):
        torch.manual_seed(seed)
        pipeline = _BUILDERS[family](size // 2, prediction, widths)
        pipeline.save_pretrained(folder)
    return Path(folder)


def _build_stable_diffusion(side: int, prediction: str, widths: tuple[int, int]) -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        unet=_build_unet(side, widths[0], cross_attention_dim=WIDTH),
        vae=_build_vae(widths[1]),
        text_encoder=_build_clip(projected=False),
        tokenizer=build_clip_tokenizer(),
        scheduler=_build_ddim(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _build_sdxl(side: int, prediction: str, widths: tuple[int, int]) -> Any:
    from diffusers import StableDiffusionXLPipeline

    told = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    told |= {"projection_class_embeddings_input_dim": 6 * 8 + WIDTH, "cross_attention_dim": 2 * WIDTH}
    return StableDiffusionXLPipeline(
        unet=_build_unet(side, widths[0], **told),
        vae=_build_vae(widths[1]),
        text_encoder=_build_clip(projected=False),
        text_encoder_2=_build_clip(projected=True),
        tokenizer=build_clip_tokenizer(),
        tokenizer_2=build_clip_tokenizer(),
        scheduler=_build_ddim(prediction),
        add_watermarker=False,
    )


def _build_sd3(side: int, prediction: str, widths: tuple[int, int]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        **_TRANSFORMER,
        sample_size=side,
        out_channels=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=2 * side,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        vae=_build_vae(widths[1], shift_factor=0.1, scaling_factor=1.5),
        text_encoder=_build_clip(projected=True),
        text_encoder_2=_build_clip(projected=True),
        text_encoder_3=_build_t5(2 * WIDTH),
        tokenizer=build_clip_tokenizer(),
        tokenizer_2=build_clip_tokenizer(),
        tokenizer_3=build_t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def _build_flux(side: int, prediction: str, widths: tuple[int, int]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return FluxPipeline(
        transformer=transformer,
        vae=_build_vae(widths[1], shift_factor=0.1, scaling_factor=0.4),
        text_encoder=_build_clip(projected=False),
        text_encoder_2=_build_t5(WIDTH),
        tokenizer=build_clip_tokenizer(),
        tokenizer_2=build_t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=1.15, base_shift=0.5),
    )


def _build_pixart(side: int, prediction: str, widths: tuple[int, int]) -> Any:
    from diffusers import DDIMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        **_TRANSFORMER,
        sample_size=side,
        out_channels=8,
        cross_attention_dim=32,
        caption_channels=WIDTH,
        use_additional_conditions=False,
    )
    return PixArtAlphaPipeline(
        transformer=transformer,
        vae=_build_vae(widths[1]),
        text_encoder=_build_t5(WIDTH),
        tokenizer=build_t5_tokenizer(),
        scheduler=DDIMScheduler(beta_end=0.02, clip_sample=False, timestep_spacing="trailing"),
    )


_BUILDERS: dict[str, Callable[[int, str, tuple[int, int]], Any]] = {
    "stable_diffusion": _build_stable_diffusion,
    "sdxl": _build_sdxl,
    "sd3": _build_sd3,
    "flux": _build_flux,
    "pixart": _build_pixart,
}


def _build_unet(side: int, width: int, **settings: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=side,
        in_channels=4,
        out_channels=4,
        block_out_channels=(width, 2 * width),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=4,
        use_linear_projection=True,
        **settings,
    )


def _build_vae(width: int, **settings: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(width, 2 * width),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        **settings,
    )


def _build_clip(*, projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = build_clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def _build_t5(features: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(build_t5_tokenizer()), d_model=features, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    return T5EncoderModel(config).eval()


def _build_ddim(prediction: str) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
        prediction_type=prediction,
    )


def build_clip_tokenizer() -> Any:
    """Builds a tokenizer of CLIP whose tokens are bytes, inside and at the end of a word."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=24)


def build_t5_tokenizer() -> Any:
    """Builds a tokenizer whose tokens are bytes; the others are those of T5: `<pad>` 0, `</s>` 1, `<unk>` 2."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = ["<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=24, **names)
