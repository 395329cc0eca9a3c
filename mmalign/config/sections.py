"""Sections of the run configuration that name no plugin, or evaluators alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mmalign.config.components import Component
from mmalign.config.validation import one_or_many
from mmalign.contract.specs import Parameters

DecayRate = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(Parameters):
    """Optimisation."""

    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps; or give `epochs`. To go on exactly later, stop an online run at the end of a round."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training prompts, if `steps` is not given."""
    batch_size: int = Field(default=16, ge=1)
    """Prompts per optimiser step, over all processes and micro-batches."""
    micro_batch_size: int = Field(default=8, ge=1)
    """Responses per forward pass on one device; changes memory and speed, never the result."""
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """Also at most so many tokens (or other positions) per training pass; a prompt counts once for its responses."""
    prompts_per_round: int | None = Field(default=None, ge=1)
    """Online: prompts sampled before each round of updates; default one batch."""
    epochs_per_round: int = Field(default=1, ge=1)
    """Online: passes over the rollouts of a round."""
    overlap_parts: int = Field(default=1, ge=1)
    """Online: parts of a round; slow rewards score one while the next is sampled."""
    optimiser: Literal["adamw", "adafactor"] = "adamw"
    """adafactor: second moments of rows and columns alone, for full training where AdamW's do not fit; its rate is
    `learning_rate`, whatever the size of the weights."""
    learning_rate: float = Field(default=1e-5, gt=0, le=100)
    """Peak learning rate."""
    head_learning_rate: float | None = Field(default=None, gt=0, le=100)
    """Peak learning rate of what is trained beside the network: score and value heads, trained quantities; default
    `learning_rate`."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Decay of the learning rate after the warm-up, to zero at the last step."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0, le=1e4)
    """Decoupled weight decay on matrices."""
    adam_betas: tuple[DecayRate, DecayRate] = (0.9, 0.999)
    """adamw: decay rates of its moments."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients are clipped to this global norm; null switches clipping off."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Autocast of forward passes while weights stay as they are; auto: bf16 over frozen bfloat16 weights, else no."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights of the frozen network; auto: bfloat16 where the hardware multiplies it fast, if an adapter is trained."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seeds data order, sampling, dropout and initialisation."""
    log_every: int = Field(default=1, ge=1)
    """Steps between lines of the metrics log."""

    @model_validator(mode="after")
    def _check_betas(self) -> TrainConfig:
        if self.optimiser != "adamw" and self.adam_betas != type(self).model_fields["adam_betas"].default:
            raise ValueError(f"adam_betas: optimiser {self.optimiser!r} takes none; drop it")
        return self


class ReferenceConfig(Parameters):
    """What the policy is compared with, where an objective asks for it."""

    strategy: Literal["auto", "ema", "sync", "momentum", "past"] = "auto"
    """auto: the start, by adapter off or a frozen copy; ema: a moving average; sync: a recent policy;
    momentum: likewise, and the policy then goes on in the direction in which it went; past: drawn for every round
    among several earlier policies, the start included."""
    decay: float | None = Field(default=None, gt=0, lt=1)
    """ema: share of the average that stays at every optimiser step, e.g. 0.99."""
    every: int | None = Field(default=None, ge=1)
    """sync, momentum: optimiser steps after which the reference becomes the policy; past: from one earlier policy to
    the next."""
    momentum: float | None = Field(default=None, ge=0, le=1)
    """momentum: how far the policy goes on after every `every` steps, in what it went since the last time; e.g. 0.3."""
    keep: int | None = Field(default=None, ge=1)
    """past: how many of the latest earlier policies are drawn from, in memory and in checkpoints; e.g. 7."""
    cache: bool = True
    """Keep log-probs of stored responses under a reference that never changes on the disk; other runs share them."""

    @model_validator(mode="after")
    def _check_parameters(self) -> ReferenceConfig:
        own = {"decay": ("ema",), "every": ("sync", "momentum", "past"), "momentum": ("momentum",), "keep": ("past",)}
        for name, strategies in own.items():
            given = getattr(self, name) is not None
            if given != (self.strategy in strategies):
                raise ValueError(f"strategy {self.strategy!r} {'takes no' if given else 'needs'} `{name}`")
        return self


class EvaluationConfig(Parameters):
    """Held-out evaluation; always before and after training, if there are held-out data."""

    every: int = Field(default=0, ge=0)
    """Steps between evaluations during training; 0 for none."""
    evaluators: tuple[Component, ...] = ()
    """Evaluators beside the objective's own held-out loss and metrics."""
    examples: int = Field(default=3, ge=0)
    """Held-out responses shown side by side, before and after."""

    _accept_one = field_validator("evaluators", mode="before")(one_or_many)


class CheckpointConfig(Parameters):
    """What is saved, and when."""

    every_minutes: float = Field(default=10.0, ge=0, allow_inf_nan=False)
    """Minutes between checkpoints, the first one counted from the start; 0 for none by the time."""
    every: int = Field(default=0, ge=0)
    """Steps between checkpoints; 0 for none by steps."""
    at_end: bool = True
    """Also one after the last step; Ctrl-C and SIGTERM always leave one."""
    keep: int = Field(default=2, ge=1)
    """Newest checkpoints that are kept."""
    merged: bool = False
    """Also export the whole network with adapters merged in."""
