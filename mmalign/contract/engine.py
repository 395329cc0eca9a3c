"""What plugins may ask of a running engine: the policy, the networks of a run, the backend, the run itself.

These are interfaces; the engine's own classes fit them. Shapes: N responses, T steps, K reward dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mmalign.contract.batch import Batch
    from mmalign.contract.values import EncodedResponse, Generated, Rollout
    from mmalign.data.records import Record


class Policy(Protocol):
    """A network with the heads that are trained beside it, as `Modality.step_outputs` gets it."""

    @property
    def network(self) -> nn.Module:
        """The modality's module."""

    @property
    def heads(self) -> Any:
        """Modules by name: `scores` (one number a response), `values` (one a step), those of trained quantities."""


class Networks(Protocol):
    """The current policy, the reference, if there is one, and the teachers."""

    @property
    def device(self) -> torch.device:
        """Where they are."""

    def use(self, name: str) -> AbstractContextManager[nn.Module]:
        """Yields a network in evaluation mode, without gradient, in the precision of the run.

        Args:
            name: `policy`, `reference`, or that of a teacher; it must be in `Modality.required_networks`.

        Raises:
            PluginError: the run has no such network.
        """


class Backend(Protocol):
    """Scores, samples and encodes with the networks of a run, without gradient."""

    @property
    def device(self) -> torch.device:
        """Where scoring happens."""

    @property
    def processes(self) -> int:
        """Number of processes of the run."""

    @property
    def process_index(self) -> int:
        """Which of them this is."""

    @property
    def sum_over_processes(self) -> Callable[[Tensor], Tensor]:
        """Adds a tensor up over all processes."""

    @property
    def running_sums(self) -> dict[str, list[float]]:
        """Sum and count behind every `StepContext.running_mean`; part of a checkpoint."""

    @property
    def online(self) -> bool:
        """True if the run samples responses."""

    @property
    def has_reference(self) -> bool:
        """True if reference log-probs can be computed."""

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Names of the K reward dimensions."""

    def encode(self, records: Sequence[Record], *, targets_only: bool | None = None) -> Batch:
        """Encodes records with their stored responses and feedback."""

    def encode_responses(self, records: Sequence[Record]) -> list[EncodedResponse]:
        """Encodes the stored responses of all records, without their feedback."""

    def policy_logps(self, responses: Sequence[EncodedResponse]) -> Tensor:
        """Computes log-probs [N, T] under the current policy."""

    def score_with_reference(self, responses: Sequence[EncodedResponse], *, stored: bool) -> Tensor:
        """Computes log-probs [N, T] under the reference; what is `stored` in a data set is cached."""

    def generate(self, records: Sequence[Record], count: int, network: str = "policy") -> list[list[Generated]]:
        """Samples `count` responses to every prompt with the run's engine and decoding."""

    def score_rollouts(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Scores every response: [N, K], float32, NaN where a scorer could not score."""

    def compose(self, rewards: Tensor) -> Tensor:
        """Combines reward dimensions [N, K] into one reward [N]."""

    def quantities_of(self, rollouts: Sequence[Rollout], names: Sequence[str]) -> dict[str, Tensor]:
        """Computes `policy_logps`, `reference_logps` or `behaviour_logps` of rollouts, and `step_mask`, on the CPU."""


class Run(Protocol):
    """A run, as life-cycle hooks see it."""

    @property
    def config(self) -> Any:
        """The validated configuration, a `RunConfig`."""

    @property
    def policy(self) -> Policy:
        """The trained network with its heads."""

    @property
    def backend(self) -> Backend:
        """Scores and samples."""

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """The optimiser over the trained parameters."""

    @property
    def output(self) -> Path:
        """Folder of the run."""

    @property
    def step(self) -> int:
        """Finished optimiser steps."""

    @property
    def round(self) -> int:
        """Finished rounds."""

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""

    @property
    def before(self) -> Mapping[str, float]:
        """Metrics of the first evaluation."""

    @property
    def after(self) -> Mapping[str, float]:
        """Metrics of the latest evaluation."""
