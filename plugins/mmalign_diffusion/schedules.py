"""Noise schedules: how much of the clean latents and of the noise is in noisy latents, x_t = a_t x0 + b_t noise.

Timesteps are the integers 0 (least noise) to T - 1; a negative one is the final level, where sampling ends. All is
computed in float64: near t = 0 the coefficients differ from 1 and 0 by less than half precision resolves.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmalign import ConfigError, suggest


class Schedule(ABC):
    """Coefficients of T levels of noise and of the final one.

    Attributes:
        steps: T.
    """

    def __init__(self, signal: Tensor, noise: Tensor) -> None:
        """Keeps a and b, each [T + 1] in float64: the final level, then t = 0 to T - 1."""
        self._tables = {signal.device: (signal, noise)}
        self.steps = len(signal) - 1

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Looks up (a, b), each float64 of the shape and on the device of `timesteps`, integers below T.

        Raises:
            ValueError: a timestep is no integer, or T or more.
        """
        if timesteps.is_floating_point():
            raise ValueError(f"timesteps: expected integers, got {timesteps.dtype}")
        if timesteps.numel() and int(timesteps.max()) >= self.steps:
            raise ValueError(f"timesteps: expected at most {self.steps - 1}, got {int(timesteps.max())}")
        device = timesteps.device
        if device not in self._tables:
            signal, noise = next(iter(self._tables.values()))
            self._tables[device] = signal.to(device), noise.to(device)
        index = timesteps.long().clamp(min=-1) + 1
        signal, noise = self._tables[device]
        return signal[index], noise[index]

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratios a^2 / b^2, float64; infinite where there is no noise."""
        a, b = self.coefficients(timesteps)
        return (a / b) ** 2

    @abstractmethod
    def network_timesteps(self, timesteps: Tensor) -> Tensor:
        """What the network is told about `timesteps`; the final level is told as t = 0 where it knows no other."""


class VariancePreserving(Schedule):
    """Diffusion: a^2 + b^2 = 1."""

    def __init__(self, alphas_cumprod: Tensor, *, final_level: float = 1.0) -> None:
        """Takes a^2 of every level.

        Args:
            alphas_cumprod: [T], falling, in [0, 1].
            final_level: a^2 of the final level. Many Stable Diffusion schedulers end at `alphas_cumprod[0]`
                (`set_alpha_to_one: false`).

        Raises:
            ValueError: not such numbers.
        """
        levels = torch.cat([torch.tensor([final_level], dtype=torch.float64), _check_levels(alphas_cumprod)])
        if not bool((levels.diff() <= 0).all()):
            raise ValueError("alphas_cumprod: expected numbers that fall with the timestep and stay below final_level")
        super().__init__(levels.sqrt(), (1 - levels).sqrt())

    def network_timesteps(self, timesteps: Tensor) -> Tensor:
        """The timesteps themselves, at least 0."""
        return timesteps.clamp(min=0)


class Flow(Schedule):
    """Flow matching: a = 1 - sigma, b = sigma. The final level is sigma = 0."""

    def __init__(self, sigmas: Tensor) -> None:
        """Takes sigma of every level: [T], rising, in [0, 1].

        Raises:
            ValueError: not such numbers.
        """
        levels = torch.cat([torch.zeros(1, dtype=torch.float64), _check_levels(sigmas)])
        if not bool((levels.diff() >= 0).all()):
            raise ValueError("sigmas: expected numbers that rise with the timestep")
        super().__init__(1 - levels, levels)

    def network_timesteps(self, timesteps: Tensor) -> Tensor:
        """T sigma, as float32, which is what flow networks are trained on."""
        return (self.steps * self.coefficients(timesteps)[1]).float()


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """Moves noise levels in [0, 1] towards more noise, for images of more pixels: exp(mu) is diffusers' dynamic shift.

    >>> shift_sigmas(torch.tensor([0.0, 0.5, 1.0]), 3.0)
    tensor([0.0000, 0.7500, 1.0000])
    """
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def read_schedule(config: Mapping[str, Any]) -> Schedule:
    """Builds the schedule that a network was trained on from the configuration of its diffusers scheduler.

    Args:
        config: what `scheduler_config.json` holds. With `use_dynamic_shifting` the levels are the unshifted ones.

    Raises:
        ConfigError: a scheduler without a schedule of this kind, or an unknown value; the message names the key.
    """
    steps = config.get("num_train_timesteps", 1000)
    if str(config.get("_class_name", "")).startswith("FlowMatch"):
        return _read_flow(config, steps, "shift")
    if config.get("use_flow_sigmas"):
        return _read_flow(config, steps, "flow_shift")
    levels = torch.cumprod(1 - _read_betas(config, steps), 0)
    if "snr_shift_scale" in config:
        scale = config["snr_shift_scale"]
        levels = levels / (scale + (1 - scale) * levels)
    if config.get("rescale_betas_zero_snr"):
        levels = _rescale_to_zero_snr(levels)
    ends_clean = config.get("set_alpha_to_one", True) and config.get("final_sigmas_type", "zero") == "zero"
    return VariancePreserving(levels, final_level=1.0 if ends_clean else float(levels[0]))


def _read_flow(config: Mapping[str, Any], steps: int, key: str) -> Flow:
    if config.get("invert_sigmas"):
        raise ConfigError("scheduler.invert_sigmas: a flow that runs from noise at 0 to data at 1 is not supported")
    sigmas = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return Flow(sigmas if config.get("use_dynamic_shifting") else shift_sigmas(sigmas, config.get(key) or 1.0))


def _read_betas(config: Mapping[str, Any], steps: int) -> Tensor:
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float64)
    if "beta_schedule" not in config:
        name = config.get("_class_name", "without a name")
        raise ConfigError(
            f"scheduler {name}: expected one of flow matching (FlowMatch...) or one with a beta_schedule, from which "
            "the noise levels of training follow"
        )
    start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    schedules = {
        "linear": lambda: torch.linspace(start, end, steps, dtype=torch.float64),
        "scaled_linear": lambda: torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2,
        "squaredcos_cap_v2": lambda: _cosine_betas(steps),
    }
    name = config["beta_schedule"]
    if name not in schedules:
        raise ConfigError(f"scheduler.beta_schedule: unknown {name!r}{suggest(str(name), schedules)}")
    return schedules[name]()


def _cosine_betas(steps: int) -> Tensor:
    times = torch.arange(steps + 1, dtype=torch.float64) / steps
    levels = torch.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - levels[1:] / levels[:-1]).clamp(max=0.999)


def _rescale_to_zero_snr(levels: Tensor) -> Tensor:
    """Moves a linearly so that the last level is pure noise and the first one stays (arXiv:2305.08891)."""
    signal = levels.sqrt()
    first, last = signal[0], signal[-1]
    return ((signal - last) * first / (first - last)) ** 2


def _check_levels(levels: Tensor) -> Tensor:
    if levels.dim() != 1 or not len(levels):
        raise ValueError(f"expected one number per timestep, got shape {tuple(levels.shape)}")
    levels = levels.detach().to("cpu", torch.float64)
    if not bool(((levels >= 0) & (levels <= 1)).all()):
        raise ValueError("expected noise levels in [0, 1]")
    return levels
