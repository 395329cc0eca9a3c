"""What a part announces about itself: a frozen record that names the heavy part by import string.

`"package.module:attribute"` lets parts be listed and checked without torch. Shapes: P prompts, N responses, T steps, M
pairs, K reward dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

LogProbKind = Literal["exact", "surrogate"]


@dataclass(frozen=True)
class Unbounded:
    """Says of a number in a config model why every finite one is right: `Annotated[float, Unbounded("a score")]`."""

    reason: str


class Parameters(BaseModel):
    """Base of every part's config model: unknown keys are errors, values do not change, docstrings are help.

    The fields are the keyword arguments of the part: `target(**fields)`; the part itself never sees this object.
    Numbers are finite, and have bounds (`Field(ge=0, le=1)`) or say why they have none (`Unbounded`).
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every part announces about itself.

    Attributes:
        name: how a config names the part.
        summary: one sentence, shown by `mmalign list`.
        config: import string of the `Parameters` subclass that validates the part's keys.
        paper: title and identifier, e.g. `"Direct Preference Optimization (arXiv:2305.18290)"`.
        aliases: other names that find this part, e.g. after a clash in the literature.
        requires: importable modules that the part needs beyond mmalign's own dependencies.
        extra: the extra that installs them, e.g. `"rewards"` for `pip install "mmalign[rewards]"`.
    """

    kind: ClassVar[str] = ""
    name: str
    summary: str
    config: str = "mmalign.contract.specs:Parameters"
    paper: str = ""
    aliases: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    extra: str = ""


@dataclass(frozen=True, kw_only=True)
class ModalitySpec(Spec):
    """A model family.

    Attributes:
        target: import string of a `Modality` subclass.
        provides: what its forward pass can give: `logps`, `entropy`, `values`, `forward_kl`, `reverse_kl`,
            `expected_logps` [N, T], `scores` [N], `states`, `hidden` [N, T, D], `layers` [N, T, L, D], `activations`
            [N, T, A], `context` [N, C, D]; see `Modality.step_outputs`.
        log_prob_kind: `exact`, or `surrogate` for a bound such as a negative denoising error.
    """

    kind: ClassVar[str] = "modality"
    target: str
    provides: tuple[str, ...] = ("logps",)
    log_prob_kind: LogProbKind = "exact"


@dataclass(frozen=True, kw_only=True)
class QuantitySpec(Spec):
    """A named tensor that objectives and advantages may need.

    Attributes:
        axes: its shape in the letters of the contract: `N`, `NT`, `NK`, `M`, `M2`, `P`, or `` for a scalar; `MI` for
            rows of responses, which is what the stage `companion` gives. Letters behind these may be any.
        names: parameter to quantity, where a parameter of the function has another name than what it gets.
        needs: at the stages `data` and `step`, quantities that have to be there beside those of the parameters: what
            the function finds in `batch.quantities`, or what `context` computes with.
        stage: when it is computed. `data`: from the records. `companion`: which further response a pair is scored
            with; see `mmalign.planning.companions`. `frozen`: once a round, without gradient. `step`: once an
            optimiser step over the whole global batch, without gradient (for batch-coupled losses). `policy`: in every
            micro-batch, from quantities that carry gradient.
        compute: import string of a function that returns a tensor. Its parameters name the quantities that it gets; a
            parameter `context: StepContext` (stage `step`) or `batch: Batch` (stage `data`; `batch.encode` is there)
            is filled by the engine. At stage `data`, axes `M` mean one number for each of `batch.comparisons()`. Stage
            `companion`: `f(record: Record, chosen: int, rejected: int) -> Record | None`. The fields of `config` are
            keyword-only parameters; a run sets them in `quantities: [{name: ..., parameters}]`.
        module: in the place of `compute`, at stage `policy`: import string of an `nn.Module` class that is built with
            `(model: Model, **parameters)` and trained with the policy. The parameters of its `forward` name what it
            gets, floats in float32: outputs of the policy's pass (`policy_hidden`, `policy_logps`, ...), other trained
            quantities, and what is known before the pass (`reference_layers`, `step_mask`, ...). A function that builds
            a module will do if `names` says what the parameters of `forward` get.
        min_prompts: prompts that a global batch must have for it to be more than a constant; runs with fewer are
            refused.
    """

    kind: ClassVar[str] = "quantity"
    axes: str
    names: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] | None = None
    stage: Literal["data", "companion", "frozen", "step", "policy"] = "policy"
    compute: str = ""
    module: str = ""
    min_prompts: int = 1


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec(Spec):
    """A loss over quantities.

    The loss is a pure function, and its signature is its declaration: the parameters before `*` are the quantities that
    it needs, by their names; those behind it are the fields of its config. It returns the loss of every element ([M],
    [P], [N] or [N, T] as `per` says; the engine masks, weights, reduces and scales) and a dictionary of detached
    per-element metrics (of the same shape; the engine averages them).

    Beside the quantities of the contract, `{source}_{sequence|mean}_logps` [N] and
    `{source}_{chosen|rejected}_{sequence|mean}_logps` [M] are derived from `{source}_logps`, and `{chosen|rejected}_X`
    [M, ...] from any `X` [N, ...] (`chosen_lengths`, `rejected_policy_logps` [M, T]). A companion `ROLE_row` is a third
    such side: `policy_ROLE_mean_logps`, `ROLE_lengths`; NaN for pairs without one.

    Attributes:
        loss: import string of the loss function.
        per: what one element of the loss is about: a `pair`, a `prompt`, a `response` or a `step`. The elements of
            `prompt` are the distinct values of `prompt_index`, ascending; all responses to one are given together.
        names: parameter to quantity, for a loss that several objectives share under other names.
        over: name of an [N] quantity; only responses that it marks (bool), or of which it knows a number (not NaN),
            count, also in the normalisation. A prompt counts where one of its responses does, a pair where both do;
            over a companion `ROLE_row`, a pair counts where there is one.
            Numbers about pairs or responses that do not count are given to the loss as 0.
        aggregation: default for `per="step"`: `step_mean`, `sequence_mean`, `sequence_sum` or `constant`.
        log_prob_kinds: the kinds of log-probs for which the loss means something.
        equation: the loss in one line of plain text.
        needs: what plugin API 1 listed here; refused with what to write in its place.
    """

    kind: ClassVar[str] = "objective"
    loss: str
    per: Literal["pair", "prompt", "response", "step"]
    names: Mapping[str, str] = field(default_factory=dict)
    over: str = ""
    aggregation: str = "step_mean"
    log_prob_kinds: tuple[LogProbKind, ...] = ("exact", "surrogate")
    equation: str = ""
    needs: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class AdvantageSpec(Spec):
    """An estimator of advantages: a pure function without gradient that returns [N] or [N, T].

    Its parameters before `*` name the quantities that it needs, e.g. `composite_rewards` and `prompt_index`; those
    behind it are the fields of its config.

    Attributes:
        names: parameter to quantity, where a parameter has another name than what it gets.
        needs: as for `ObjectiveSpec`.
        min_group: responses to a prompt that it must have for advantages other than 0; a collector that samples fewer
            is refused.
    """

    kind: ClassVar[str] = "advantage"
    function: str
    names: Mapping[str, str] = field(default_factory=dict)
    equation: str = ""
    min_group: int = 1
    needs: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class TargetSpec(Spec):
    """A part that is a class: `target` is its import string; it is built with the config's fields."""

    target: str


@dataclass(frozen=True, kw_only=True)
class RewardSpec(TargetSpec):
    """A `Reward` subclass."""

    kind: ClassVar[str] = "reward"


@dataclass(frozen=True, kw_only=True)
class TransformSpec(TargetSpec):
    """A `Transform` subclass."""

    kind: ClassVar[str] = "transform"


@dataclass(frozen=True, kw_only=True)
class CollectorSpec(TargetSpec):
    """A `Collector` subclass.

    Attributes:
        provides: feedback that it puts on the records of its rollouts: `pairs`, `labels`, `ratings`, `ranks`.
        stored: its rollouts are made with `Rollout.extend`: they hold the stored responses of the data with all
            feedback on them, too, so that one run trains on both.
    """

    kind: ClassVar[str] = "collector"
    provides: tuple[str, ...] = ()
    stored: bool = False


@dataclass(frozen=True, kw_only=True)
class DecodingSpec(TargetSpec):
    """A `Decoding` subclass."""

    kind: ClassVar[str] = "decoding"


@dataclass(frozen=True, kw_only=True)
class EngineSpec(TargetSpec):
    """An `Engine` subclass."""

    kind: ClassVar[str] = "engine"


@dataclass(frozen=True, kw_only=True)
class EvaluatorSpec(TargetSpec):
    """An `Evaluator` subclass."""

    kind: ClassVar[str] = "evaluator"


@dataclass(frozen=True, kw_only=True)
class FormatSpec(TargetSpec):
    """A form of data: a `FileFormatSpec` or a `LayoutSpec`.

    Attributes:
        writes: True if `mmalign data convert` can write it.
    """

    kind: ClassVar[str] = "format"
    writes: bool = False


@dataclass(frozen=True, kw_only=True)
class FileFormatSpec(FormatSpec):
    """How a file becomes rows: a `FileFormat` subclass.

    Attributes:
        suffixes: ends of the names of such files, e.g. `(".csv", ".csv.gz")`; the longest that fits counts.
        source: what it reads: a `file`, a `folder` that its `accepts` says yes to, or a name on the `hub`.
    """

    suffixes: tuple[str, ...] = ()
    source: Literal["file", "folder", "hub"] = "file"


@dataclass(frozen=True, kw_only=True)
class LayoutSpec(FormatSpec):
    """How a row becomes a record: a `Layout` subclass.

    Attributes:
        columns: the sets of columns that tell the layout; a row that has one of them whole is of this layout, unless a
            larger set of another one is there.
        optional: other columns that it reads; `id` is read everywhere.
        whole: True if it is given all columns and refuses those that it does not know; else these go to `meta`.
    """

    columns: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ()
    whole: bool = False

    @cached_property
    def known(self) -> frozenset[str]:
        """All columns that it reads."""
        return frozenset({"id", *self.optional, *(name for names in self.columns for name in names)})


@dataclass(frozen=True)
class ConformanceSpec:
    """How to compute the cases of a method; several specs may share one.

    Attributes:
        method: the `method` of the cases.
        compute: import string of `f(inputs, hparams) -> result`. Inputs are float64 tensors (null is NaN), or what the
            file says where that is no array of numbers. The result is a tensor or a dictionary of tensors, of which a
            bare `expected` is compared with the first; None if the case is not one for this function.
        inputs: names of inputs that a case must have.
        hparams: names of hyper-parameters that a case must have.
        given: columns of an `expected` table that say what its rows are about, e.g. timesteps; the function finds each
            among its inputs, one value a row, and returns a list of dictionaries, one a row.
        parts: names of the plugin's own parts whose formula the cases show; empty for the part named like the method.
    """

    kind: ClassVar[str] = "conformance"
    method: str
    compute: str
    inputs: tuple[str, ...] = ()
    hparams: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
