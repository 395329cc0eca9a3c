"""Self-revision: the policy answers, then improves on its own answer, as often as it is told to.

What a model learns from `srpo` is used here: it saw a response and an instruction, and gave a better response.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from mmalign import Collector, DataError, Generate, Generated, Message, Parameters, Part, Record, Rollout


class ReviseConfig(Parameters):
    """Self-revision."""

    group_size: int = Field(default=1, ge=1)
    """Answers to each prompt, each of which is revised by itself."""
    revisions: int = Field(default=1, ge=0)
    """How often an answer is revised; 0 leaves it as it is."""
    instruction: str = "Give a better answer."
    """The message that follows an answer; as in training, e.g. that of the quantity `rejected_to_chosen_row`."""
    keep: bool = False
    """Keep the answers that were revised, before their revisions; without it the last ones alone are left."""


class ReviseCollector(Collector):
    """Samples answers, then revisions of them, each from a prompt that ends with the answer before it.

    A revision is a response to the original prompt: that is what its record says and what rewards see. Its `encoded`
    holds the prompt that it was sampled from, and so do its log-probs.

    Source: arXiv:2406.01660, inference with the self-improvement policy.
    """

    def __init__(
        self, group_size: int = 1, revisions: int = 1, instruction: str = "Give a better answer.", keep: bool = False
    ) -> None:
        self.group_size = group_size
        self.revisions = revisions
        self.instruction = instruction
        self.keep = keep

    def collect(self, prompts: Sequence[Record], generate: Generate) -> list[Rollout]:
        """Returns one rollout a prompt, in order; revision after revision, in the order of the answers.

        Raises:
            DataError: a prompt ends with a begun turn, which no later turn can follow.
        """
        rounds = [[list(group) for group in generate(prompts, self.group_size)]]
        for _ in range(self.revisions):
            rounds.append(self._revise(prompts, rounds[-1], generate))
        kept = rounds if self.keep else rounds[-1:]
        groups = [[one for own in kept for one in own[place]] for place in range(len(prompts))]
        return [Rollout.build(record, group) for record, group in zip(prompts, groups, strict=True)]

    def _revise(
        self, prompts: Sequence[Record], groups: Sequence[Sequence[Generated]], generate: Generate
    ) -> list[list[Generated]]:
        asked = [self._ask(record, one) for record, group in zip(prompts, groups, strict=True) for one in group]
        revised = iter(generate(asked, 1))
        return [[next(revised)[0] for _ in group] for group in groups]

    def _ask(self, record: Record, answer: Generated) -> Record:
        if record.prompt[-1].role == "assistant":
            raise DataError(
                f"revise: record {record.id!r}: its prompt ends with a begun turn; expected one of the user, so that "
                "the answer can be shown and a better one asked for"
            )
        request = Message(role="user", content=(Part(type="text", text=self.instruction),))
        prompt = (*record.prompt, *answer.response.messages, request)
        return record.with_responses([]).model_copy(update={"prompt": prompt})
