"""Training of the denoiser and of the classifiers. Equal seeds and step counts give equal weights on equal machines."""

from __future__ import annotations

import copy
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from mmalign import has_fast_bfloat16
from mmalign_diffusion.digits.data import Digits
from mmalign_diffusion.digits.networks import NULL_CLASS, DigitClassifier, build_denoiser, build_scheduler

_BATCH = 64
_NULL_SHARE = 0.1
_EMA_DECAY = 0.995
_LEARNING_RATE = 2e-3
_WARM_UP = 0.05


@dataclass(frozen=True)
class Budget:
    """When training ends: after `steps` updates or `seconds`, whichever come first.

    Attributes:
        seconds: wall time; how many updates it holds depends on the machine.
        steps: updates; None for no limit.
    """

    seconds: float
    steps: int | None = None

    def share(self, started: float, done: int) -> float:
        """Returns which share is spent, 1 or more at the end: of the steps if they are limited, else of the time.

        Args:
            started: monotonic time of the start.
            done: updates since then.
        """
        of_time = (time.monotonic() - started) / self.seconds
        return of_time if of_time >= 1 or self.steps is None else done / self.steps


@dataclass(frozen=True)
class Trained:
    """A denoiser and what it took.

    Attributes:
        network: with the averaged weights.
        steps: updates.
        loss: mean squared error of the velocity, a mean over the last tenth of the updates.
    """

    network: Any
    steps: int
    loss: float


def train_denoiser(digits: Digits, budget: Budget, seed: int) -> Trained:
    """Trains on the mean squared error of the predicted velocity (arXiv:2202.00512) with AdamW; averages the weights.

    A tenth of the images loses its class, which trains the unconditional prediction of classifier-free guidance. The
    learning rate falls to zero with the budget.
    """
    torch.manual_seed(seed)
    network = build_denoiser().train()
    average = copy.deepcopy(network).requires_grad_(False).eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
    levels = build_scheduler().alphas_cumprod  # [1000]
    losses: list[float] = []
    started = time.monotonic()
    while (spent := budget.share(started, len(losses))) < 1:
        for group in optimiser.param_groups:
            group["lr"] = _LEARNING_RATE * min(spent / _WARM_UP, 1 - spent)
        with _autocast():
            loss = _denoising_error(network, digits, levels)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        _update_average(average, network, len(losses))
    tail = losses[-math.ceil(len(losses) / 10) :]
    return Trained(average, len(losses), math.fsum(tail) / len(tail))


def _denoising_error(network: Any, digits: Digits, levels: Tensor) -> Tensor:
    batch = digits.rows(torch.randint(len(digits), (_BATCH,)))
    labels = torch.where(torch.rand(_BATCH) < _NULL_SHARE, NULL_CLASS, batch.labels)
    timesteps = torch.randint(len(levels), (_BATCH,))
    signal = levels[timesteps].view(-1, 1, 1, 1)
    noise = torch.randn_like(batch.pixels)
    clean = 2 * batch.pixels - 1
    noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
    velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
    return functional.mse_loss(network(noisy, timesteps, labels).sample.float(), velocity)


@torch.no_grad()
def _update_average(average: Any, network: Any, step: int) -> None:
    # Shorter at first, or the random start would weigh for hundreds of updates.
    decay = min(_EMA_DECAY, (1 + step) / (10 + step))
    for own, new in zip(average.parameters(), network.parameters(), strict=True):
        own.lerp_(new, 1 - decay)


def _autocast() -> AbstractContextManager[Any]:
    # Elsewhere bfloat16 is slower than float32.
    fast = has_fast_bfloat16(torch.device("cpu"))
    return torch.autocast("cpu", torch.bfloat16) if fast else nullcontext()


def train_classifier(digits: Digits, steps: int, seed: int) -> DigitClassifier:
    """Trains a classifier with AdamW and one cycle of the learning rate, on digits varied at random."""
    torch.manual_seed(seed)
    network = DigitClassifier()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps)
    for _ in range(steps):
        batch = digits.rows(torch.randint(len(digits), (_BATCH,)))
        loss = functional.cross_entropy(network(_vary(batch.pixels)), batch.labels)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return network.eval()


def _vary(pixels: Tensor) -> Tensor:
    """Turns by up to 12 degrees, scales by up to an eighth and moves by up to one pixel, each image on its own."""
    count = len(pixels)
    angle = (torch.rand(count) - 0.5) * math.radians(24)
    scale = 1 + (torch.rand(count) - 0.5) / 4
    moves = (torch.rand(count, 2) - 0.5) * (4 / pixels.shape[-1])
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cosine, -sine, moves[:, 0]], 1), torch.stack([sine, cosine, moves[:, 1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, align_corners=False)


@torch.no_grad()
def classification_accuracy(network: DigitClassifier, pixels: Tensor, labels: Tensor) -> float:
    """Computes the share of images [N, 1, 16, 16] that are seen as their class [N]."""
    return float((network(pixels).argmax(dim=1) == labels).float().mean())
