"""What a plugin author writes: the base classes of the parts; that of modalities is in `mmalign.contract.modality`.

Objectives and advantages have no base class: they are pure functions of tensors. What announces a part is in
`mmalign.contract.specs`, what travels between parts in `mmalign.contract.values`.

Shapes: P prompts, N responses, T steps, M pairs, K reward dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from torch import nn

    from mmalign.contract.decoding import Decoding
    from mmalign.contract.engine import Backend
    from mmalign.contract.modality import Modality
    from mmalign.contract.values import Generated, Rollout, Sample
    from mmalign.data.records import Record, Response


class Reward(ABC):
    """A scorer of responses, built with the fields of its config model.

    Attributes:
        dimensions: names of the numbers that it gives a response, e.g. `("helpful", "verbose")`; empty for one number.
            Known once the reward is built, before it loads anything.
        deterministic: True if equal samples get equal scores, bit for bit, always: whatever else is in the batch, on
            whatever machine. Only then may scores be cached.
        background: True if `score` may run in a thread of its own while the policy samples: it does not compute on the
            policy's device, and draws no number from a global random generator. Only then may scoring overlap.
        costly: True if `score` loads a model or asks a server; `check` does not call it. Others are asked for the score
            of one response.
    """

    dimensions: tuple[str, ...] = ()
    deterministic: bool = False
    background: bool = False
    costly: bool = False

    @abstractmethod
    def score(self, samples: Sequence[Sample]) -> Sequence[float | Sequence[float] | Exception]:
        """Scores every sample; higher is better.

        Returns:
            for every sample a number, NaN where there is none; with `dimensions`, one number for each of them, in that
            order; or an exception that says why the sample has no score at all.
        """


class Transform(ABC):
    """Records to records, in a stream; may drop, change, split or merge them.

    Equal records give equal results in every pass and every process: what is random is seeded by a parameter and the
    record's id. Feedback that is left out is counted and said. Records that `apply` does not yield are counted by the
    engine; `leave_out` says why.

    Attributes:
        whole: True if it looks at all records before it yields the first one; refused for streamed data.
    """

    whole: bool = False

    @abstractmethod
    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields the transformed records.

        Raises:
            DataError: a record is unsuitable; the message names the transform, the record and what was expected.
        """

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Counts records that `apply` does not yield, by reason; the counts are said when a pass is done."""
        counts: Counter[str] = self.__dict__.setdefault("_left_out", Counter())
        counts[reason] += count

    def take_reasons(self) -> Counter[str]:
        """Returns what `leave_out` has counted and begins anew."""
        counts: Counter[str] = self.__dict__.pop("_left_out", Counter())
        return counts

    def stage(self, record: Record) -> int:
        """Returns the stage of training that a record belongs to, once the last transform has yielded it.

        Every epoch visits the stages in ascending order, and shuffling stays inside a stage. A transform that overrides
        this is refused for streamed data.
        """
        return 0


class Engine(ABC):
    """Where responses are sampled: in this process, or by a server. Built with the fields of its config model.

    Attributes:
        follows_policy: False if it may sample with other weights than the current policy's; held-out
            evaluation then samples in this process.
    """

    follows_policy: ClassVar[bool] = True

    def check(self, modality: Modality, decoding: Decoding) -> None:  # noqa: B027 (an author need not override it)
        """Checks, before anything is loaded, that this engine can sample for the other parts of the run.

        Raises:
            ConfigError: it cannot.
        """

    def prompts_per_draw(self, modality: Modality, count: int) -> int | None:
        """Tells where a call of `generate` may be cut in two at no cost; see `Modality.prompts_per_draw`."""
        return None

    @abstractmethod
    def generate(
        self, modality: Modality, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        """Samples `count` responses to the prompt of each record (P lists of `count`), without gradient.

        Args:
            network: the current policy's network, in evaluation mode.
        """


Generate = Callable[["Sequence[Record]", int], "list[list[Generated]]"]


class Collector(ABC):
    """Prompts to rollouts by sampling the policy.

    Attributes:
        independent_group: responses that it samples to every prompt by one call of `generate` for all prompts, if no
            prompt affects another's rollout; it may then be called on parts of the prompts, and must not read
            `behaviour_logps`. None for any other way of collecting.
        network: which network is sampled: `policy`, or `reference`, whose samples are then what stored responses are
            elsewhere, not fresh ones of the policy.
    """

    independent_group: int | None = None
    network: Literal["policy", "reference"] = "policy"

    @abstractmethod
    def collect(self, prompts: Sequence[Record], generate: Generate) -> list[Rollout]:
        """Samples responses with `generate(records, count)`, which returns a list of `count` for each record."""


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluator may use.

    Attributes:
        records: the held-out records.
        backend: computes quantities of records and rollouts without gradient.
        generate: samples the policy with the run's decoding and a fixed seed.
    """

    records: Sequence[Record]
    backend: Backend
    generate: Generate
    extras: Mapping[str, Any] = field(default_factory=dict)


class Evaluator(ABC):
    """Metrics of a model on held-out records.

    Attributes:
        examples: (record, response, score) rows of the latest evaluation, for reports; empty if it samples nothing. In
            place of a response that has no text stands what `describe_output` says of it.
        images: (record, PIL image) rows of the latest evaluation, one for a record; the run shows them beside those of
            its start.
    """

    examples: Sequence[tuple[Record, Response | str, float]] = ()
    images: Sequence[tuple[Record, Any]] = ()

    @abstractmethod
    def evaluate(self, context: EvaluationContext) -> dict[str, float]:
        """Returns metrics by name."""
