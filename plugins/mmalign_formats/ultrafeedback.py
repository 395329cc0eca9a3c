"""UltraFeedback: rated completions of an instruction, and the pairs that were made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmalign import DataError, Layout, Record, dump_json, parse_json
from mmalign_formats.drafts import Draft, pair, read_number, read_text, score
from mmalign_formats.media import Turn
from mmalign_formats.rows import is_compared, require_text, split_opening, write_messages
from mmalign_formats.turns import add_system, join_prompt, read_message, read_turns

PAIR = ("prompt", "chosen", "rejected")
SCORES = (("score_chosen", "score_rejected"), ("chosen-rating", "rejected-rating"))
_OVERALL = "overall_score"
_OF_COMPLETION = ("response", "model", _OVERALL, "fine-grained_score", "annotations", "critique")


class UltraFeedback(Layout):
    """Reads UltraFeedback with all completions, and the rows with scores of both sides; writes either."""

    holds = frozenset(
        {"scores", "labels", "responses.model", "responses.params", "notes", "notes.kind", "notes.text", "notes.items"}
    )

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record with ratings; that of a pair is also compared."""
        return _read_pair(columns, name) if "chosen" in columns else _read_completions(columns, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns a row for every comparison of two rated responses, else one with all completions."""
        if is_compared(record):
            return [_write_pair(record, chosen, rejected) for chosen, rejected, _ in record.pair_indices()]
        return [_write_completions(record)] if record.responses else []


# -- reading ----------------------------------------------------------------------------------------------------------


def _read_pair(columns: Mapping[str, Any], name: str) -> Record:
    prompt = add_system(read_turns(columns["prompt"], "prompt", "user"), columns.get("system"))
    given = {side: read_message(columns[side], side) for side in PAIR[1:]}
    if "messages" in columns and read_turns(columns["messages"], "messages") != given["chosen"]:
        raise DataError("messages: another conversation than 'chosen'; drop one of the two columns")
    prompt, sides = join_prompt(prompt, given)
    names = next(names for names in SCORES if all(one in columns for one in names))
    scores = [score(index, "score", read_number(columns, one)) for index, one in enumerate(names)]
    models = [columns.get(f"{side}-model") for side in PAIR[1:]]
    facts = {index: {"model": str(model)} for index, model in enumerate(models) if model is not None}
    return Draft(prompt, sides, labels=pair(), scores=scores, facts=facts).finish(columns, name)


def _read_completions(columns: Mapping[str, Any], name: str) -> Record:
    listed = columns["completions"]
    if not isinstance(listed, list | tuple) or not all(isinstance(one, Mapping) for one in listed):
        raise DataError("completions: expected a list of objects with 'response'")
    prompt = add_system([{"role": "user", "content": read_text(columns, "instruction")}], columns.get("system"))
    draft = Draft(prompt, [])
    responses, facts = [], {}
    for index, one in enumerate(listed):
        given = {key: value for key, value in one.items() if value is not None}
        if not isinstance(given.get("response"), str):
            raise DataError(f"completions[{index}].response: expected a string")
        responses.append([{"role": "assistant", "content": given["response"]}])
        facts[index] = _read_facts(given)
        draft.scores.extend(_read_scores(given, index))
        if given.get("critique"):
            draft.notes.append({"kind": "critique", "text": str(given["critique"]), "items": [f"r{index}"]})
    # The first score is what ratings are read from: that of the whole comes before those of single aspects.
    draft.scores.sort(key=lambda one: one["name"] != _OVERALL)
    draft.responses, draft.facts = responses, facts
    return draft.finish(columns, name)


def _read_facts(given: Mapping[str, Any]) -> Turn:
    rest = {key: value for key, value in given.items() if key not in _OF_COMPLETION}
    if "annotations" in given:
        rest["annotations"] = given["annotations"]
    model = {"model": str(given["model"])} if "model" in given else {}
    return {**model, **({"params": dump_json(rest)} if rest else {})}


def _read_scores(given: Mapping[str, Any], index: int) -> list[Turn]:
    scores = [score(index, key, read_number(given, key)) for key in (_OVERALL, "fine-grained_score") if key in given]
    annotations = given.get("annotations")
    for aspect, told in annotations.items() if isinstance(annotations, Mapping) else ():
        rating = told.get("Rating") if isinstance(told, Mapping) else None
        # Some ratings are "N/A".
        if isinstance(rating, str | int | float) and str(rating).replace(".", "", 1).isdigit():
            scores.append(score(index, aspect, float(rating)))
    return scores


# -- writing ----------------------------------------------------------------------------------------------------------


def _value(record: Record, index: int, name: str | None) -> float | None:
    item = record.responses[index].rid
    found = (one.value for one in record.scores if one.item == item and name in (None, one.name))
    return next(found, None)


def _write_pair(record: Record, chosen: int, rejected: int) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt": write_messages(record.prompt)}
    for side, index, column in zip(PAIR[1:], (chosen, rejected), SCORES[0], strict=True):
        value, response = _value(record, index, None), record.responses[index]
        if value is None:
            raise DataError(f"scores: {response.rid} has none; such rows hold a score of each side")
        row |= {side: write_messages(response.messages), column: value}
        row |= {f"{side}-model": response.model} if response.model else {}
    return row


def _write_completions(record: Record) -> dict[str, Any]:
    system, turns = split_opening(record.prompt)
    instruction = require_text(turns, "prompt")
    completions = []
    for index, response in enumerate(record.responses):
        critiques = [one.text for one in record.notes if one.kind == "critique" and one.items == (response.rid,)]
        told: dict[str, Any] = {"response": require_text(response.messages, response.rid)}
        told |= {"model": response.model} if response.model else {}
        told |= {name: value for name in _OF_COMPLETION[2:4] if (value := _value(record, index, name)) is not None}
        told |= {"critique": critiques[0]} if critiques else {}
        told |= parse_json(response.params) if response.params else {}
        completions.append(told)
    return {"instruction": instruction, "completions": completions, **({"system": system} if system else {})}
