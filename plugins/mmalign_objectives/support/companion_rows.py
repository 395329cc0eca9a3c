"""Which further responses a pair is scored with: a gold answer, an explanation, or its responses as revisions.

Functions of the stage `companion`: they get a record and the places of the chosen and the rejected response, and return
a record with the prompt and the one response that play the role, or None.
"""

from __future__ import annotations

from dataclasses import replace
from math import isnan

from mmalign import Message, Parameters, Part, QuantitySpec, Record, Response

_GOLD_ROW = QuantitySpec(
    name="gold_row",
    summary="The response to the same prompt that a `unary` label praises most, else the best rated.",
    compute=f"{__name__}:find_gold",
    axes="MI",
    stage="companion",
)
SPECS = (
    _GOLD_ROW,
    replace(
        _GOLD_ROW,
        name="rationale_row",
        summary="The note of kind `rationale` about a pair, as the answer to the question why.",
        compute=f"{__name__}:build_rationale",
        config=f"{__name__}:RationaleConfig",
    ),
    replace(
        _GOLD_ROW,
        name="rejected_to_chosen_row",
        summary="The chosen response as a revision of the rejected one.",
        compute=f"{__name__}:revise_rejected_into_chosen",
        config=f"{__name__}:RevisionConfig",
    ),
    replace(
        _GOLD_ROW,
        name="chosen_to_rejected_row",
        summary="The rejected response as a revision of the chosen one.",
        compute=f"{__name__}:revise_chosen_into_rejected",
        config=f"{__name__}:RevisionConfig",
    ),
    replace(
        _GOLD_ROW,
        name="chosen_to_chosen_row",
        summary="The chosen response as a revision of itself.",
        compute=f"{__name__}:revise_chosen_into_itself",
        config=f"{__name__}:RevisionConfig",
    ),
    replace(
        _GOLD_ROW,
        name="rejected_to_rejected_row",
        summary="The rejected response as a revision of itself.",
        compute=f"{__name__}:revise_rejected_into_itself",
        config=f"{__name__}:RevisionConfig",
    ),
)


class RationaleConfig(Parameters):
    """How the model is asked why a response is preferred."""

    instruction: str = "Response A: {chosen}\nResponse B: {rejected}\nExplain why response A is better."
    """What is added to the last message of the user; {chosen} and {rejected} are replaced by the responses."""


class RevisionConfig(Parameters):
    """How the model is asked to improve an answer."""

    instruction: str = "Give a better answer."
    """The message that follows the answer."""


def find_gold(record: Record, chosen: int, rejected: int) -> Record | None:
    """Finds the gold response: the one that a `unary` label praises most, else the best rated; None without either."""
    verdicts = {label.order[0][0]: label.strength or 0.0 for label in record.labels if label.kind == "unary"}
    praised = {one.rid: verdicts[one.rid] for one in record.responses if verdicts.get(one.rid, 0.0) > 0}
    ratings = zip(record.responses, record.ratings(), strict=True)
    values = praised or {one.rid: rating for one, rating in ratings if not isnan(rating)}
    if not values:
        return None
    best = max(values, key=lambda rid: values[rid])
    return record.with_responses([one for one in record.responses if one.rid == best])


def build_rationale(record: Record, chosen: int, rejected: int, *, instruction: str) -> Record | None:
    """Asks for the explanation of a pair and answers with the first note of kind `rationale` about both responses.

    A note without items is about all of them.
    """
    better, worse = record.responses[chosen], record.responses[rejected]
    texts = [note.text for note in record.notes if note.kind == "rationale" and _is_about(note.items, better, worse)]
    if not texts:
        return None
    question = instruction.replace("{chosen}", better.text).replace("{rejected}", worse.text)
    asked = _ask(record.prompt, question)
    return record.with_responses([Response.from_text("rationale", texts[0])]).model_copy(update={"prompt": asked})


def revise_rejected_into_chosen(record: Record, chosen: int, rejected: int, *, instruction: str) -> Record | None:
    """The chosen response as a revision of the rejected one."""
    return _revise(record, rejected, chosen, instruction)


def revise_chosen_into_rejected(record: Record, chosen: int, rejected: int, *, instruction: str) -> Record | None:
    """The rejected response as a revision of the chosen one."""
    return _revise(record, chosen, rejected, instruction)


def revise_chosen_into_itself(record: Record, chosen: int, rejected: int, *, instruction: str) -> Record | None:
    """The chosen response as a revision of itself."""
    return _revise(record, chosen, chosen, instruction)


def revise_rejected_into_itself(record: Record, chosen: int, rejected: int, *, instruction: str) -> Record | None:
    """The rejected response as a revision of itself."""
    return _revise(record, rejected, rejected, instruction)


def _revise(record: Record, before: int, after: int, instruction: str) -> Record | None:
    if record.prompt[-1].role == "assistant":
        return None  # responses go on with a begun turn, which no later turn can follow
    prompt = (*record.prompt, *record.responses[before].messages, _user_message(instruction))
    return record.with_responses([record.responses[after]]).model_copy(update={"prompt": prompt})


def _is_about(items: tuple[str, ...], *responses: Response) -> bool:
    return not items or {response.rid for response in responses} <= set(items)


def _ask(prompt: tuple[Message, ...], question: str) -> tuple[Message, ...]:
    # Chat templates refuse two turns of the user in a row.
    last = prompt[-1]
    if last.role != "user":
        return (*prompt, _user_message(question))
    content = (*last.content, Part(type="text", text=f"\n\n{question}"))
    return (*prompt[:-1], last.model_copy(update={"content": content}))


def _user_message(text: str) -> Message:
    return Message(role="user", content=(Part(type="text", text=text),))
