"""A run: the assembled parts with their models loaded, and the few numbers that say how far it is.

`Run.state` and `Run.tensors` are what a checkpoint holds; `mmalign.training.startup` builds a run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from mmalign.compute.backend import Backend
from mmalign.config.run_config import RunConfig
from mmalign.contract.batch import Batch
from mmalign.contract.values import Model
from mmalign.data.records import Record
from mmalign.errors import CheckpointError
from mmalign.losses.objectives import Objective
from mmalign.masking import mask_values
from mmalign.media.checks import MediaSkips
from mmalign.monitoring.learning import LearningWatch
from mmalign.monitoring.metrics_log import MetricsLog
from mmalign.networks.policy import Policy
from mmalign.planning.assembly import Assembly
from mmalign.references.reference import MovingReference
from mmalign.sources.source import Source
from mmalign.sources.stream import RecordStream

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """Everything a round of training touches.

    Attributes:
        assembly: parts and plan.
        accelerator: device, precision and processes.
        model: the loaded policy network and what is known of it.
        policy: the trained module, unwrapped; `backend.policy` is the one to call.
        optimiser: over the trainable parameters.
        backend: computes quantities.
        stream: the training records, in their order.
        held_out: records to evaluate on; empty if there are none.
        log: writes `metrics.jsonl` and feeds trackers.
        output: folder of the run.
        total_steps: optimiser steps of the whole run.
        step: finished optimiser steps.
        round: finished rounds.
        before: metrics of the first evaluation.
        after: metrics of the latest evaluation.
        examples_before: (prompt, response) rows of the first evaluation.
        examples_after: (prompt, response) rows of the latest evaluation.
        held_out_batch: the held-out records with what is computed once for them; filled in at the first evaluation.
        loaded: digests of what was loaded, see `mmalign.results.loaded`; on the main process, once it trains.
        changes: what has changed since the run began, where it was resumed: step, key, old and new value.
        stop_signal: number of the signal that ended the run early; 0 if none did.
        left_out: ids of records, by split, that were left out for their media when the run began.
        skips: by split, what happens to records whose images cannot be read while the run goes on.
        truncation_told: True once the log has said that responses are cut.
        learning: watches for steps that change nothing, or too much.
    """

    assembly: Assembly
    accelerator: Accelerator
    model: Model
    policy: Policy
    optimiser: torch.optim.Optimizer
    backend: Backend
    stream: RecordStream
    source: Source
    held_out: tuple[Record, ...]
    log: MetricsLog
    output: Path
    total_steps: int
    step: int = 0
    round: int = 0
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    examples_before: list[tuple[str, str]] = field(default_factory=list)
    examples_after: list[tuple[str, str]] = field(default_factory=list)
    held_out_batch: Batch | None = None
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    skips: Mapping[str, MediaSkips] = field(default_factory=dict)
    loaded: dict[str, Any] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    stop_signal: int = 0
    truncation_told: bool = False
    learning: LearningWatch = field(default_factory=LearningWatch)

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.assembly.config

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objectives that are summed."""
        return self.assembly.objectives

    @property
    def hooks(self) -> Any:
        """The life-cycle hooks of all loaded plugins."""
        return self.assembly.registry.plugin_set.manager.hook

    @property
    def examples(self) -> list[tuple[str, str, str]]:
        """Held-out prompts with a response of the start model and of the latest one."""
        pairs = zip(self.examples_before, self.examples_after, strict=False)
        return [(prompt, old, new) for (prompt, old), (_, new) in pairs]

    @property
    def interrupted(self) -> bool:
        """True if a signal ended the run early."""
        return self.stop_signal != 0 and not self.finished

    @property
    def finished(self) -> bool:
        """True when no step is left."""
        return self.step >= self.total_steps

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Names and parameters that the optimiser changes."""
        return {name: value for name, value in self.policy.named_parameters() if value.requires_grad}

    def state(self) -> dict[str, Any]:
        """The JSON part of a checkpoint."""
        return {
            "step": self.step,
            "round": self.round,
            "position": self.stream.position,
            "before": self.before,
            "examples_before": self.examples_before,
            "config": mask_values(self.config.model_dump(mode="json")),
            "data": self.source.fingerprint,
            "loaded": self.loaded,
            "changes": self.changes,
            "left_out": {split: list(ids) for split, ids in self.left_out.items()},
            "rewards": self.assembly.scorer.composition.state() if self.assembly.scorer else None,
            "reference_cache": next((i for one in self.backend.caches if (i := one.identity()) is not None), None),
            "running_sums": self.backend.running_sums,
            "plugins": self._plugin_states(),
        }

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensor part of a checkpoint: trained weights, buffers, the optimiser's moments, a moving reference."""
        trainable = self.trainable()
        buffers = {name for name, _ in self.policy.named_buffers()}
        weights = {k: v for k, v in self.policy.state_dict().items() if k in trainable or k in buffers}
        moments = {
            f"{name}|{key}": torch.as_tensor(value)
            for name, parameter in trainable.items()
            for key, value in self.optimiser.state.get(parameter, {}).items()
        }
        reference = self.backend.reference
        anchor = {"reference": reference.tensors()} if isinstance(reference, MovingReference) else {}
        return {"policy": weights, "optimiser": moments, **anchor}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Puts a checkpoint back, which `mmalign.results.resuming` has compared with this run.

        Raises:
            CheckpointError: its tensors do not fit the model.
        """
        self.restore_weights(tensors, state)
        self._restore_moments(tensors["optimiser"])
        for cache in self.backend.caches[:1]:
            cache.check_identity(state["reference_cache"])
        if self.assembly.scorer:
            self.assembly.scorer.composition.restore(state["rewards"])
        self.round = state["round"]
        self.stream.position = state["position"]
        self.before = dict(state["before"])
        self.examples_before = [cast("tuple[str, str]", tuple(row)) for row in state["examples_before"]]
        self.hooks.on_checkpoint_restored(run=self, state=state["plugins"])

    def restore_weights(self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Puts back what generating and evaluating need of a checkpoint; data, rewards and decoding may be others.

        Raises:
            CheckpointError: its tensors do not fit the model.
        """
        missing = set(self.trainable()) - set(tensors["policy"])
        if missing:
            raise CheckpointError(f"the checkpoint lacks trained weights of this model, e.g. {sorted(missing)[0]!r}")
        _check_shapes(tensors["policy"], self.policy.state_dict())
        self.policy.load_state_dict(dict(tensors["policy"]), strict=False)
        if isinstance(self.backend.reference, MovingReference):
            self.backend.reference.restore(tensors.get("reference", {}))
        self.backend.running_sums.update(state.get("running_sums", {}))
        self.step = state["step"]

    def _restore_moments(self, moments: Mapping[str, Tensor]) -> None:
        by_name = self.trainable()
        for entry, value in moments.items():
            name, _, key = entry.rpartition("|")
            if name not in by_name:
                raise CheckpointError(f"the checkpoint has trained {name!r}, which this model does not train")
            parameter = by_name[name]
            # A step counter stays on the CPU.
            device = value.device if key == "step" else parameter.device
            self.optimiser.state[parameter][key] = value.to(device)

    def _plugin_states(self) -> dict[str, Any]:
        states = {}
        for implementation in self.hooks.on_checkpoint_saving.get_hookimpls():
            state = implementation.function(**{name: self for name in implementation.argnames})
            if state is not None:
                states[implementation.plugin_name] = state
        return states


def _check_shapes(stored: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    for name, value in stored.items():
        if name in own and own[name].shape != value.shape:
            raise CheckpointError(
                f"the checkpoint's {name!r} is {tuple(value.shape)}, that of this model {tuple(own[name].shape)}; "
                "the model is not the one that was trained"
            )
