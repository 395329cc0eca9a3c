"""The values that travel between parts: encoded and sampled responses, rollouts, what a reward sees, a loaded model.

Shapes: P prompts, N responses, T steps, S scored steps of all of them, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmalign.data.records import Record, Response


@dataclass(frozen=True)
class EncodedResponse:
    """One response with its prompt, as the model reads it. Tensors are on the CPU.

    Attributes:
        tensors: the modality's own inputs, e.g. `prompt_ids` [P], `response_ids` [R].
        steps: T of this response, the number of scored steps; never 0.
        size: positions in the forward pass (tokens, frames), for batching by budget.
        shared: those of them that other responses to the same prompt have, too.
        truncated: positions that were cut off to fit a limit.
    """

    tensors: Mapping[str, Tensor]
    steps: int
    size: int
    shared: int = 0
    truncated: int = 0


@dataclass(frozen=True)
class Anchor:
    """Another model's distribution of every step, to compare the policy's with; kept as states, which are small.

    Attributes:
        states: [N, T, D], the output `states` of that model.
        logits: its head, states [S, D] to logits [S, V].
    """

    states: Tensor
    logits: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Generated:
    """A response that the policy sampled.

    Attributes:
        response: what records store and rewards see.
        encoded: exactly the sampled steps; encoding `response` again need not give the same tokens.
        behaviour_logps: [T], log-prob of every step under the distribution it was sampled from, float32, CPU; None
            where the engine could not tell, until the backend has filled them in.
        finished: False when the step limit cut the response off.
        rescored: True if the engine could not tell, so the current policy computed `behaviour_logps`.
        output: what rewards and people see, e.g. a PIL image; None where `Modality.decode` tells it from `response`.
    """

    response: Response
    encoded: EncodedResponse
    behaviour_logps: Tensor | None
    finished: bool = True
    rescored: bool = False
    output: Any = None


@dataclass(frozen=True)
class Rollout:
    """A prompt with the responses sampled for it.

    Attributes:
        record: its responses end with those of `responses`, in order; any before them are stored ones.
    """

    record: Record
    responses: tuple[Generated, ...]

    @property
    def stored(self) -> tuple[Response, ...]:
        """The responses of the record that were not sampled."""
        return self.record.responses[: len(self.record.responses) - len(self.responses)]

    @classmethod
    def build(cls, record: Record, responses: Sequence[Generated]) -> Rollout:
        """Joins a prompt with what was sampled for it; the responses are renamed `r0`, `r1`, ... in order."""
        renamed = tuple(
            replace(one, response=one.response.model_copy(update={"rid": f"r{index}"}))
            for index, one in enumerate(responses)
        )
        return cls(record.with_responses([one.response for one in renamed]), renamed)

    @classmethod
    def extend(cls, record: Record, responses: Sequence[Generated]) -> Rollout:
        """Puts what was sampled for a record behind its stored responses, which stay with all feedback on them.

        The sampled ones are renamed `s0`, `s1`, ...; names that the record has already are left out.
        """
        taken = {response.rid for response in record.responses}
        names = (name for name in (f"s{index}" for index in count()) if name not in taken)
        renamed = tuple(
            replace(one, response=one.response.model_copy(update={"rid": name}))
            for one, name in zip(responses, names, strict=False)
        )
        joined = (*record.responses, *(one.response for one in renamed))
        return cls(record.model_copy(update={"responses": joined}), renamed)


@dataclass(frozen=True)
class Sample:
    """What a reward sees of a response: the record it answers, the response, and the decoded output.

    Attributes:
        record: the prompt with its metadata (`record.prompt_text`, `record.metadata`).
        response: the response as a record stores it.
        output: what the modality decodes it to: a string, a PIL image, a waveform, an array.
        steps: its scored steps; None where it was not encoded.
    """

    record: Record
    response: Response
    output: Any
    steps: int | None = None


@dataclass(frozen=True)
class Vocabulary:
    """What the steps of a model are chosen from, to tell whether two models choose from the same.

    Attributes:
        name: where it came from, for errors.
        digest: equal for two vocabularies only if each choice means the same in both.
        size: V, the width of the logits; some models have more than their vocabulary needs.
    """

    name: str
    digest: str
    size: int


@dataclass
class Model:
    """A loaded policy network.

    Attributes:
        network: the trainable module; with an adapter, the peft model.
        hidden_size: width of the hidden states that score and value heads read; 0 if there are none.
        name: where the weights came from, for reports.
        layers: number L of layers of the output `layers`; 0 if the modality does not provide it.
    """

    network: nn.Module
    hidden_size: int = 0
    name: str = ""
    layers: int = 0
