"""A tiny denoiser with cross-attention, for the family `custom`: 8 x 8 numbers, a prompt of two vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign import Record, quiet_loading
from mmalign_diffusion.families.custom import Denoiser


def read_prompt(record: Record) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(record.prompt_text))
    return {"encoder_hidden_states": torch.randn(2, 6, generator=generator)}


def build(seed: int = 0) -> Denoiser:
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(), quiet_loading(local=True):
        torch.manual_seed(seed)
        network = UNet2DConditionModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            attention_head_dim=2,
            cross_attention_dim=6,
        )
    null = {"encoder_hidden_states": torch.zeros(2, 6)}
    settings = {"beta_schedule": "linear", "num_train_timesteps": 1000}
    return Denoiser(network, settings, (1, 8, 8), condition=read_prompt, null=null)
