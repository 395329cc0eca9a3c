"""A tiny random model in the folder format that `class_unet` loads, for tests and examples."""

from __future__ import annotations

from pathlib import Path

import torch

from mmalign import quiet_loading


def build_tiny_class_unet(
    folder: str | Path,
    *,
    size: int = 8,
    channels: int = 1,
    classes: int = 4,
    prediction: str = "epsilon",
    seed: int = 0,
) -> Path:
    """Writes a class-conditional `UNet2DModel` of about 30 thousand random weights with a schedule of 1000 levels.

    Args:
        size: side of its images in pixels.
        channels: 1 (grayscale) or 3 (RGB).
        classes: class embeddings; take the last one as the null class.
        prediction: `epsilon`, `v_prediction` or `sample`, or `flow` for a flow-matching schedule.
        seed: of the weights; the generators' state is left as it was.

    Returns:
        the folder.
    """
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel

    with torch.random.fork_rng(), quiet_loading(local=True):
        torch.manual_seed(seed)
        network = UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
            attention_head_dim=8,
            num_class_embeds=classes,
        )
        network.save_pretrained(folder)
        if prediction == "flow":
            FlowMatchEulerDiscreteScheduler().save_pretrained(folder)
        else:
            DDIMScheduler(prediction_type=prediction).save_pretrained(folder)
    return Path(folder)
