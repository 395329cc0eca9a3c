"""The three networks: a class-conditional denoiser, and the digit classifier that reward and judge are copies of."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmalign_diffusion.digits.data import CLASSES, SIDE

NULL_CLASS = CLASSES
"""The class that stands for none, for classifier-free guidance."""

DENOISER: dict[str, Any] = {
    "sample_size": SIDE,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "num_class_embeds": CLASSES + 1,
}
"""Arguments of diffusers' UNet2DModel."""

SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "timestep_spacing": "trailing",
}
"""Arguments of diffusers' DDIMScheduler. Sampling starts at the last level, which is noise alone, so that it also draws
how dark an image is; there the clean image does not follow from a predicted noise, but it does from a velocity."""


def build_denoiser() -> Any:
    """Builds a UNet2DModel with random weights: [N, 1, 16, 16] in [-1, 1], timesteps and classes to the velocity."""
    from diffusers import UNet2DModel

    return UNet2DModel(**DENOISER)


def build_scheduler() -> Any:
    """Builds the DDIMScheduler of the cosine schedule (arXiv:2102.09672)."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(**SCHEDULER)


class DigitClassifier(nn.Module):
    """Four convolutions and a linear layer: pixels [N, 1, 16, 16] in [0, 1] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_block(1, 24),
            *_block(24, 48),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(48 * (SIDE // 4) ** 2, CLASSES),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns logits [N, 10]."""
        logits: Tensor = self.layers(2 * pixels - 1)
        return logits


def _block(channels: int, width: int) -> list[nn.Module]:
    """Two convolutions, then half the side."""
    return [
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
