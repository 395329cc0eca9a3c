"""TRL rows from records, and refusals where TRL's columns cannot say what a record says.

The null keys that Arrow adds are dropped, and an image part never carries a payload: TRL counts a part with an `image`
key as filled, and chat templates take any part with that key for an image. The images are in the column `images`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, Literal

from mmalign import DataError, Message, Node, Part, Record, suggest
from mmalign_formats.rows import write_media, write_messages, write_template

TrlForm = Literal["preference", "unpaired", "completion", "stepwise", "prompt"]
Row = dict[str, Any]
Messages = tuple[Message, ...]


def write_trl(record: Record, form: TrlForm | None = None, *, view: str | None = None) -> list[Row]:
    """Returns the rows that say what `record` says; there may be none.

    Args:
        form: `preference`: a row for each (better, worse) across the tie groups of a label, also between sibling nodes
            of the tree. `unpaired`: a row for each verdict. `completion`: a row for each target of supervised training.
            `stepwise`: a row for each terminal node, its steps labelled by Q > 0. `prompt`: the prompt alone. Default:
            the first of preference, unpaired and completion that the record has feedback or responses for, else prompt.
        view: of a dialogue of several agents, the one who is trained: other speakers' turns become user turns, and a
            pair is cut to its first differing turn.

    Raises:
        DataError: TRL's columns have no place for what the record says.
    """
    return [{**row, **write_template(record)} for row in _FORMS[form or _choose_form(record)](record, view)]


def _choose_form(record: Record) -> TrlForm:
    if any(label.kind != "unary" and len(label.order) > 1 for label in record.labels):
        return "preference"
    if record.labels:
        return "unpaired"
    if any(node.terminal and node.Q is not None for node in record.tree):
        return "stepwise"
    return "completion" if record.responses else "prompt"


# -- forms ------------------------------------------------------------------------------------------------------------


def _iter_preferences(record: Record, view: str | None) -> Iterator[Row]:
    for label in record.labels:
        if label.kind == "unary":
            continue
        for better, worse in combinations(label.order, 2):
            for chosen, rejected in product(better, worse):
                margin = {} if label.strength is None else {"margin": label.strength}
                for row in _iter_pair(record, chosen, rejected, view):
                    yield {**row, **margin}


def _iter_pair(record: Record, chosen: str, rejected: str, view: str | None) -> Iterator[Row]:
    prompt, other_prompt = (_find_prompt(record, item) for item in (chosen, rejected))
    if prompt != other_prompt:
        raise DataError(f"labels: {chosen} and {rejected} answer different prompts, which TRL rows cannot say")
    sides = [_find_turns(record, item) for item in (chosen, rejected)]
    shared = _count_shared(*sides)
    prompt, sides = (*prompt, *sides[0][:shared]), [side[shared:] for side in sides]
    if view is not None:
        # Later turns answer other histories, and a loss on the partner's turn would train the wrong agent.
        if any(side[0].name != view for side in sides):
            return
        sides = [side[:1] for side in sides]
    yield _build_row(record, view, prompt=prompt, chosen=sides[0], rejected=sides[1])


def _count_shared(chosen: Messages, rejected: Messages) -> int:
    longest = min(len(chosen), len(rejected)) - 1
    return next((place for place in range(longest) if chosen[place] != rejected[place]), longest)


def _iter_unpaired(record: Record, view: str | None) -> Iterator[Row]:
    for response, label in zip(record.responses, record.response_labels(), strict=True):
        if label in (0.0, 1.0):
            row = _build_row(record, view, prompt=record.prompt, completion=response.messages)
            yield {**row, "label": label == 1.0}


def _iter_completions(record: Record, view: str | None) -> Iterator[Row]:
    for response, target in zip(record.responses, record.targets(), strict=True):
        if target:
            yield _build_row(record, view, prompt=record.prompt, completion=response.messages)


def _iter_prompts(record: Record, view: str | None) -> Iterator[Row]:
    yield _build_row(record, view, prompt=record.prompt)


def _iter_stepwise(record: Record, view: str | None) -> Iterator[Row]:
    if any(part.type != "text" for message in record.prompt for part in message.content):
        raise DataError("prompt: stepwise rows hold text alone")
    for node in record.tree:
        if node.terminal:
            path = [step for step in _path(record, node) if step.content]
            texts = [_text(step.content) for step in path]
            yield {
                "prompt": "\n".join(message.text for message in record.prompt),
                # TRL puts a line break between steps itself.
                "completions": [*(text.removesuffix("\n") for text in texts[:-1]), *texts[-1:]],
                "labels": [_is_good(step) for step in path],
            }


def _is_good(node: Node) -> bool:
    if node.Q is None:
        raise DataError(f"tree: node {node.nid!r} has no Q, so its step has no label")
    return node.Q > 0


_FORMS: Mapping[TrlForm, Callable[[Record, str | None], Iterator[Row]]] = {
    "preference": _iter_preferences,
    "unpaired": _iter_unpaired,
    "completion": _iter_completions,
    "stepwise": _iter_stepwise,
    "prompt": _iter_prompts,
}


# -- items ------------------------------------------------------------------------------------------------------------


def _find_prompt(record: Record, item: str) -> Messages:
    if item.startswith("node:"):
        text = "".join(_text(step.content) for step in _path(record, _find_node(record, item))[:-1])
        prefix = Message(role="assistant", content=(Part(type="text", text=text),))
        return (*record.prompt, prefix) if text else record.prompt
    _, _, vid = item.partition("@")
    return next((variant.prompt for variant in record.variants if variant.vid == vid), record.prompt)


def _find_turns(record: Record, item: str) -> Messages:
    if item.startswith("node:"):
        return (Message(role="assistant", content=_find_node(record, item).content),)
    return next(response.messages for response in record.responses if response.rid == item.partition("@")[0])


def _find_node(record: Record, item: str) -> Node:
    return next(node for node in record.tree if f"node:{node.nid}" == item)


def _path(record: Record, node: Node) -> list[Node]:
    parents = {node.nid: node for node in record.tree}
    path = [node]
    while path[-1].parent is not None:
        path.append(parents[path[-1].parent])
    return path[::-1]


def _text(content: Sequence[Part]) -> str:
    if any(part.type != "text" for part in content):
        raise DataError("tree: a step with media has no TRL form")
    return "".join(part.text or "" for part in content)


# -- messages ---------------------------------------------------------------------------------------------------------


def _build_row(record: Record, view: str | None, **columns: Messages) -> Row:
    """Joins message columns with the media of their parts, in order."""
    turns = [turn for column in columns.values() for turn in column]
    speakers = {turn.name for turn in turns if turn.role == "assistant" and turn.name is not None}
    if view is None and len(speakers) > 1:
        raise DataError(f"responses: several agents speak ({', '.join(sorted(speakers))}); choose one as the view")
    if view is not None and speakers and view not in speakers:
        raise DataError(f"view: nobody is called {view!r}{suggest(view, speakers)}")
    media = write_media(record, turns)
    if set(media) - {"images"}:
        raise DataError(f"prompt: {next(iter(set(media) - {'images'}))} have no TRL form; sample frames as images")
    rows = {name: [_turn(turn, view, as_parts=bool(media)) for turn in column] for name, column in columns.items()}
    return {**rows, **media}


def _turn(message: Message, view: str | None, *, as_parts: bool) -> Row:
    partner = view is not None and message.name not in (None, view)
    (row,) = write_messages([message], as_parts=as_parts)
    if partner:
        row["content"] = _introduce(row["content"], f"{message.name}: ")
    if message.role != "tool":
        row.pop("name", None)  # TRL's templates show no speakers
    return {**row, "role": "user" if partner else message.role}


def _introduce(content: Any, speaker: str) -> Any:
    return f"{speaker}{content}" if isinstance(content, str) else [{"type": "text", "text": speaker}, *content]
