"""Keys of the diffusion modalities. No torch here, except what a named family's own module imports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from mmalign import ConfigError, LoRAParameters, Parameters, suggest
from mmalign_diffusion.families import find_family

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
"""What a denoiser's output is: the noise, a x noise - b x latent, the clean latent, noise - latent."""

Weight = Literal["constant", "snr", "min_snr", "elbo"]

Timestep = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1)]


class FamilyComponent(Parameters):
    """A family by its name, with its own keys."""

    model_config = ConfigDict(extra="allow")
    name: str
    """Which family."""

    @property
    def own(self) -> dict[str, Any]:
        """The family's own keys, checked, with defaults."""
        checked = find_family(self.name).parameters.model_validate(self.model_extra or {})
        return {name: getattr(checked, name) for name in type(checked).model_fields}

    @model_validator(mode="after")
    def _check(self) -> FamilyComponent:
        try:
            _ = self.own
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("modality.family: ")) from None
        except ValidationError as error:
            raise ValueError("; ".join(self._explain(one) for one in error.errors(include_url=False))) from None
        return self

    def _explain(self, error: ErrorDetails) -> str:
        key = ".".join(map(str, error["loc"]))
        if error["type"] == "extra_forbidden":
            return f"{key}: unknown key{suggest(key, find_family(self.name).parameters.model_fields)}"
        return f"{key}: {error['msg']}"


class Noising(Parameters):
    """How the noisy latent is obtained from the clean one."""

    strategy: Literal["forward", "ddim_inversion", "renoise"] = "forward"
    """forward: a random noise is added; ddim_inversion: by the sampler run backwards; renoise: likewise, with every
    step corrected by iterating it."""
    noise: Literal["shared", "independent"] = "shared"
    """Whether responses to one prompt get the same noise, or each its own. Of inversions: only their `eta` term."""
    steps: int = Field(default=10, ge=1)
    """Steps of the inversion from the clean latent to the noisiest level; a lower level takes fewer."""
    eta: float = Field(default=0.0, ge=0)
    """Random part that every step of the inversion adds, in units of the sampler's deviation; InPO: 0.1."""
    guidance: float = Field(default=1.0, ge=0)
    """Classifier-free guidance during the inversion; 1 is none."""
    variant: Literal["source", "destination"] = "destination"
    """Which level the network is told in a step: the one it leaves, as in InPO's code, or the one it reaches."""
    iterations: int = Field(default=1, ge=1)
    """renoise: predictions in every step, each at the result of the one before; 2 with average 2 are those of SmPO."""
    average: int = Field(default=1, ge=1)
    """renoise: how many of the last predictions of a step are averaged."""
    level: Literal["exact", "official"] = "exact"
    """exact: the last step ends at the drawn timestep; official: at the next level of the grid, as InPO's code does."""
    offset: int = Field(default=1, ge=0)
    """official: first level of the grid, `steps_offset` of the scheduler."""
    network: str = "policy"
    """Which network inverts: `policy`, `reference` (moving as `reference.strategy` says), or a teacher by name."""
    round_trip: float = Field(default=0.0, ge=0, le=1)
    """Share of records that are also denoised back, to log the error as `inversion/round_trip_error`."""

    @property
    def inverts(self) -> bool:
        """True if a network is needed."""
        return self.strategy != "forward"

    @model_validator(mode="after")
    def _check(self) -> Noising:
        if not 1 <= self.average <= self.iterations:
            raise ValueError(f"average: expected 1 to the {self.iterations} iterations, got {self.average}")
        if self.strategy != "renoise" and self.iterations > 1:
            raise ValueError(f"iterations: strategy {self.strategy!r} takes none; use renoise")
        if self.round_trip and not self.inverts:
            raise ValueError("round_trip: forward noising is not an inversion; drop it")
        return self


class Timesteps(Parameters):
    """Which noise levels are trained at."""

    strategy: Literal["uniform", "range", "importance", "snr", "table"] = "uniform"
    """uniform: all; range: uniform in `range`; importance: logit-normal; snr: by the signal-to-noise ratio; table: one
    of `table`."""
    range: tuple[Timestep, Timestep] | None = None
    """range: first timestep and the one after the last."""
    table: tuple[Timestep, ...] = ()
    """table: timesteps, e.g. 249, 499, 749, 999 of distilled models."""
    mean: float = Field(default=0.0, ge=-100, le=100)
    """importance: mean of the logit of the level."""
    std: float = Field(default=1.0, gt=0)
    """importance: deviation of the logit of the level."""
    draws: int = Field(default=1, ge=1)
    """Timesteps per response: each is a step, so that a response's log-prob averages over so many."""
    fixed: bool = False
    """One timestep and noise a record for the whole run, so that reference log-probs are computed once and kept."""

    @model_validator(mode="after")
    def _check(self) -> Timesteps:
        for name, strategy in (("range", "range"), ("table", "table")):
            if bool(getattr(self, name)) != (self.strategy == strategy):
                raise ValueError(f"{name}: strategy {strategy!r} needs it, and no other takes it")
        if self.range is not None and not 0 <= self.range[0] < self.range[1]:
            raise ValueError(f"range: expected [low, high] with 0 <= low < high, got {list(self.range)}")
        return self


class BaseConfig(Parameters):
    """A denoiser and how records become its inputs."""

    family: FamilyComponent
    """The kind of model: a name, or `{name: ..., parameters}`."""
    model: str | None = None
    """Folder or hub id of the model; families that build their own network need none."""
    prediction: Prediction | None = None
    """What the denoiser's output is, where the model's own settings are wrong; default what they say."""
    size: Side | tuple[Side, Side] | None = None
    """Side, or [height, width], of images in pixels; default the model's own."""
    guidance: float = Field(default=1.0, ge=0)
    """Classifier-free guidance of sampling, where the decoding sets none; 1 is none."""
    lora: LoRAParameters | None = None
    """Train a low-rank adapter; without it all weights of the denoiser are trained."""
    generation_batch_size: int = Field(default=16, ge=1)
    """Responses that are sampled at the same time."""

    @field_validator("family", mode="before")
    @classmethod
    def _accept_name(cls, family: Any) -> Any:
        return {"name": family} if isinstance(family, str) else dict(family) if isinstance(family, Mapping) else family


class DiffusionConfig(BaseConfig):
    """A denoiser scored by its denoising error at drawn noise levels."""

    noising: Noising = Noising()
    """How the noisy latent is obtained."""
    timesteps: Timesteps = Timesteps()
    """Which noise levels are trained at."""
    weight: Weight = "constant"
    """Weight of a level's error: constant, or by the signal-to-noise ratio."""
    snr_gamma: float = Field(default=5.0, gt=0)
    """min_snr: the ratio is cut off here."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of squared errors over the entries of a latent. Published betas of Diffusion-DPO go with the mean."""
    drop_condition: float | None = Field(default=None, ge=0, le=1)
    """Share of records that are trained without their prompt; default 0.2 where the model has a null condition."""


class DiffusionPathConfig(BaseConfig):
    """A denoiser scored by the Gaussian steps of its sampler."""

    sde: Literal["ddim", "flow_grpo", "dance_grpo"] = "ddim"
    """The stochastic step: DDIM's, as in DDPO, or for flow models that of Flow-GRPO or of DanceGRPO."""
    eta: float = Field(default=1.0, gt=0)
    """Scale of the noise of a step: DDIM's eta, Flow-GRPO's noise level (0.7), DanceGRPO's eta (0.3)."""
    window: tuple[Timestep, Timestep] | None = None
    """Only steps from the first to before the second are stochastic and trained; default all."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of those steps that is trained, resampled for every response."""
    steps_per_pass: int | None = Field(default=None, ge=1)
    """Score so many steps of the sampler at a time and recompute them in the backward pass: less memory, more time."""
    detach_null: bool = False
    """With guidance, no gradient through the prediction without the prompt, as in Flow-GRPO: less memory."""
    shared_noise: bool = False
    """All responses to a prompt start from the same noise, as in DanceGRPO."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of log-densities over a latent's entries: the sum is the true one, published clip ranges go with the mean."""
