"""Every extension point of mmalign, in the order in which a run meets them.

A plugin is a module (or an object) with functions marked `@mmalign.hookimpl`, named in an entry point of the group
`mmalign`. There are two sorts of hooks:

- `register_<kind>s()` return a list of frozen specs. They run once, when plugins are loaded, on every rank, before
  torch is imported: name heavy classes by import string. A name given twice is an error that names both plugins.
- `on_<event>(...)` observe a run. They run on every rank, in the order of the plugins' names, and return nothing,
  except `on_checkpoint_saving`, whose results are stored. An exception in an observer stops the run.

A module may set `MMALIGN_API = 2`; a plugin written for another version is refused and listed as incompatible.
"""

# A hook spec is a signature and a docstring; it is never called.
# mypy: disable-error-code="empty-body"
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from mmalign.contract.batch import Batch
    from mmalign.contract.engine import Run
    from mmalign.contract.specs import (
        AdvantageSpec,
        CollectorSpec,
        ConformanceSpec,
        DecodingSpec,
        EngineSpec,
        EvaluatorSpec,
        FormatSpec,
        ModalitySpec,
        ObjectiveSpec,
        QuantitySpec,
        RewardSpec,
        TransformSpec,
    )
    from mmalign.contract.values import Rollout

API_VERSION = 2
GROUP = "mmalign"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


# -- registration: what there is ------------------------------------------------------------------------------------


@hookspec
def register_modalities() -> list[ModalitySpec]:
    """Model families: loading, encoding, step log-probabilities, generation.

    Example:

        @mmalign.hookimpl
        def register_modalities():
            return [ModalitySpec(name="gaussian", summary="2-D paths", target="my_pkg.gaussian:Gaussian")]
    """


@hookspec
def register_quantities() -> list[QuantitySpec]:
    """New named tensors that objectives may need, with the function that computes them.

    The function's parameters name the quantities that it is computed from.

    Example:

        @mmalign.hookimpl
        def register_quantities():
            return [QuantitySpec(name="surprise", axes="N", compute="my_pkg.q:surprise")]
    """


@hookspec
def register_objectives() -> list[ObjectiveSpec]:
    """Losses over quantities; the parameters of the loss name what it needs.

    Example:

        @mmalign.hookimpl
        def register_objectives():
            return [ObjectiveSpec(name="mine", summary="...", loss="my_pkg.mine:mine_loss", per="pair")]
    """


@hookspec
def register_advantages() -> list[AdvantageSpec]:
    """Estimators that turn rewards into advantages.

    Example:

        @mmalign.hookimpl
        def register_advantages():
            return [AdvantageSpec(name="mine", summary="...", function="my_pkg.mine:mine_advantages")]
    """


@hookspec
def register_rewards() -> list[RewardSpec]:
    """Scorers of responses.

    Example:

        @mmalign.hookimpl
        def register_rewards():
            return [RewardSpec(name="brevity", summary="...", target="my_pkg.brevity:Brevity")]
    """


@hookspec
def register_formats() -> list[FormatSpec]:
    """Forms of data: files that become rows (`FileFormatSpec`), and rows that become records (`LayoutSpec`).

    Example:

        @mmalign.hookimpl
        def register_formats():
            return [LayoutSpec(name="quiz", summary="...", target="my_pkg.quiz:Quiz", columns=(("question", "best"),))]
    """


@hookspec
def register_transforms() -> list[TransformSpec]:
    """Functions from records to records, applied when data are read.

    Example:

        @mmalign.hookimpl
        def register_transforms():
            return [TransformSpec(name="shorten", summary="...", target="my_pkg.shorten:Shorten")]
    """


@hookspec
def register_collectors() -> list[CollectorSpec]:
    """Ways to turn prompts into rollouts with the current policy.

    Example:

        @mmalign.hookimpl
        def register_collectors():
            return [CollectorSpec(name="tree", summary="...", target="my_pkg.tree:TreeCollector")]
    """


@hookspec
def register_decodings() -> list[DecodingSpec]:
    """Ways to generate: logits rules, guidance, truncation.

    Example:

        @mmalign.hookimpl
        def register_decodings():
            return [DecodingSpec(name="min_p", summary="...", target="my_pkg.min_p:MinP")]
    """


@hookspec
def register_engines() -> list[EngineSpec]:
    """Where responses are sampled: in this process, or by a server.

    Example:

        @mmalign.hookimpl
        def register_engines():
            return [EngineSpec(name="my_server", summary="...", target="my_pkg.engine:MyEngine")]
    """


@hookspec
def register_evaluators() -> list[EvaluatorSpec]:
    """Metrics of a model on held-out records.

    Example:

        @mmalign.hookimpl
        def register_evaluators():
            return [EvaluatorSpec(name="diversity", summary="...", target="my_pkg.diversity:Diversity")]
    """


@hookspec
def register_conformance() -> list[ConformanceSpec]:
    """How to compute a golden-vector case of a given method with this plugin's own functions.

    Example:

        @mmalign.hookimpl
        def register_conformance():
            return [ConformanceSpec(method="mine", compute="my_pkg.golden:mine")]
    """


# -- life cycle: what happens in a run ------------------------------------------------------------------------------


@hookspec
def on_run_configured(run: Run) -> None:
    """The plan stands, models are loaded, nothing is trained yet. `run` may be read, not changed.

    Example:

        @mmalign.hookimpl
        def on_run_configured(run):
            print(run.config.train)
    """


@hookspec
def on_experience_collected(run: Run, rollouts: list[Rollout]) -> None:
    """A collector returned rollouts; rewards are not computed yet, or not all. Online runs only, once a round.

    With `train.overlap_parts` the rewards that score in the background have scored the rollouts already.

    Example:

        @mmalign.hookimpl
        def on_experience_collected(run, rollouts):
            count = sum(len(rollout.responses) for rollout in rollouts)
    """


@hookspec
def on_rewards_computed(run: Run, batch: Batch) -> None:
    """`batch.quantities["rewards"]` [N, K] is filled in; advantages are not. Once a round.

    Example:

        @mmalign.hookimpl
        def on_rewards_computed(run, batch):
            mean = batch.quantities["rewards"].mean(0)
    """


@hookspec
def on_step_starting(run: Run, batch: Batch) -> None:
    """An optimiser step on `batch` (this rank's share, all its micro-batches) is about to start.

    Example:

        @mmalign.hookimpl
        def on_step_starting(run, batch):
            seen = len(batch)
    """


@hookspec
def on_step_ended(run: Run, metrics: Mapping[str, float]) -> None:
    """The optimiser step is done; `metrics` are averages over the global batch. `run.step` is already raised.

    Example:

        @mmalign.hookimpl
        def on_step_ended(run, metrics):
            if metrics["loss"] > 10: ...
    """


@hookspec
def on_evaluated(run: Run, metrics: Mapping[str, float]) -> None:
    """A held-out evaluation finished.

    Example:

        @mmalign.hookimpl
        def on_evaluated(run, metrics):
            best = max(metrics.get("reward_accuracy", 0.0), 0.0)
    """


@hookspec
def on_checkpoint_saving(run: Run) -> Any:
    """Returns this plugin's state (JSON-serialisable) to be stored in the checkpoint, or None.

    Example:

        @mmalign.hookimpl
        def on_checkpoint_saving(run):
            return {"seen": 12}
    """


@hookspec
def on_checkpoint_restored(run: Run, state: Mapping[str, Any]) -> None:
    """A run resumed. `state` maps plugin names to what `on_checkpoint_saving` returned; take your own.

    Example:

        @mmalign.hookimpl
        def on_checkpoint_restored(run, state):
            mine = state.get("my_plugin", {})
    """


@hookspec
def on_report_writing(run: Run, directory: Path) -> None:
    """The run is over and its report is being written to `directory`; a plugin may add files. Main rank only.

    Example:

        @mmalign.hookimpl
        def on_report_writing(run, directory):
            (directory / "mine.md").write_text("...")
    """
