"""What must hold between the fields of a record, and the wording of what does not.

Checks raise ValueError whose message starts with the field's path (`labels[0].order: ...`); `describe_invalid` turns
what pydantic collects into one DataError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mmalign.data.json_text import parse_json, shorten
from mmalign.errors import DataError, suggest

if TYPE_CHECKING:
    from mmalign.data.records import Label, Message, Part, Record

_SHOWN = 3
_EXPECTED = {
    "missing": "missing",
    "string_type": "expected a string",
    "float_type": "expected a number",
    "int_type": "expected a whole number",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list",
    "model_type": "expected an object",
    "model_attributes_type": "expected an object",
    "finite_number": "expected a finite number, or null for missing",
    "too_short": "expected at least one",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than_equal": "expected at most {le}",
    "literal_error": "expected {expected}",
}


def require_json_object(text: str | None) -> str | None:
    """Checks a JSON string field (`meta`, `params`, `extra`, `chat_template_kwargs`)."""
    if text is None:
        return None
    try:
        parsed = parse_json(text)
    except DataError as error:
        expected = "expected a JSON object as a string, e.g. '{\"a\": 1}'"
        raise ValueError(f"{expected}, got {shorten(text)}: {str(error).split('; expected')[0]}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"expected a JSON object as a string, got {shorten(text)}")
    return text


def require_json_objects(text: str | None) -> str | None:
    """Checks a JSON string field that holds a list of objects (`tools`)."""
    if text is None:
        return None
    try:
        parsed = parse_json(text)
    except DataError:
        parsed = None
    if not isinstance(parsed, list) or not all(isinstance(one, dict) for one in parsed):
        raise ValueError(f"expected a JSON list of objects as a string, got {shorten(text)}")
    return text


def require_one_content(part: Part) -> None:
    """Checks that a text part has text, any other part media, and that a clip does not end before it starts."""
    wanted, other = ("text", "media") if part.type == "text" else ("media", "text")
    if getattr(part, wanted) is None or getattr(part, other) is not None:
        raise ValueError(f"expected a {part.type} part to have {wanted!r} and no {other!r}")
    if part.start is not None and part.end is not None and part.start >= part.end:
        raise ValueError(f"expected start < end, got {part.start} and {part.end}")


def check_record(record: Record) -> None:
    """Checks everything that holds between fields; raises ValueError naming the field."""
    _check_prompt(record)
    for field, key in (("variants", "vid"), ("responses", "rid"), ("tree", "nid"), ("media", "mid")):
        _check_unique(field, key, [getattr(row, key) for row in getattr(record, field)])
    _check_responses(record)
    _check_media(record)
    _check_items(record)
    _check_scores(record)
    _check_labels(record)
    _check_tree(record)
    _check_logged(record)


def _check_prompt(record: Record) -> None:
    last = record.prompt[-1]
    if last.role in ("system", "developer"):
        raise ValueError(f"prompt: expected the last role to be user, tool or assistant, got {last.role!r}")
    if last.tool_calls and last.role == "assistant":
        raise ValueError("prompt: its last message calls tools; expected their answers after it, or it in a response")
    for place, message in _iter_messages(record):
        if message.tool_calls and message.role != "assistant":
            raise ValueError(f"{place}.tool_calls: only an assistant calls tools, got role {message.role!r}")


def _iter_messages(record: Record) -> Iterator[tuple[str, Message]]:
    yield from ((f"prompt[{turn}]", message) for turn, message in enumerate(record.prompt))
    for index, variant in enumerate(record.variants):
        yield from ((f"variants[{index}].prompt[{turn}]", message) for turn, message in enumerate(variant.prompt))
    for index, response in enumerate(record.responses):
        yield from ((f"responses[{index}].messages[{turn}]", one) for turn, one in enumerate(response.messages))


def _check_unique(field: str, key: str, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for index, name in enumerate(ids):
        if name in seen:
            raise ValueError(f"{field}[{index}].{key}: {name!r} is used twice")
        seen.add(name)


def _check_responses(record: Record) -> None:
    for index, response in enumerate(record.responses):
        if "@" in response.rid or response.rid.startswith("node:"):
            raise ValueError(f"responses[{index}].rid: '@' and 'node:' are reserved, got {response.rid!r}")
        if all(message.role != "assistant" for message in response.messages):
            raise ValueError(f"responses[{index}].messages: expected at least one assistant message")
        if response.messages[0].role != "assistant":
            first = response.messages[0].role
            raise ValueError(
                f"responses[{index}].messages[0]: a response begins with an assistant message, got a {first} message; "
                "what comes before it belongs into the prompt"
            )


def _check_media(record: Record) -> None:
    types = {media.mid: media.type for media in record.media}
    for place, part in _iter_parts(record):
        if part.media is None:
            continue
        if part.media not in types:
            raise ValueError(f"{place}.media: no media {part.media!r}{suggest(part.media, types)}")
        if types[part.media] not in (part.type, "latent"):
            raise ValueError(f"{place}.type: {part.type!r}, but media {part.media!r} is of type {types[part.media]!r}")


def _iter_parts(record: Record) -> Iterator[tuple[str, Part]]:
    for field, message in _iter_messages(record):
        yield from ((f"{field}.content[{place}]", part) for place, part in enumerate(message.content))
    for index, node in enumerate(record.tree):
        for place, part in enumerate(node.content):
            yield f"tree[{index}].content[{place}]", part


def _check_items(record: Record) -> None:
    rids = {response.rid for response in record.responses}
    vids = {variant.vid for variant in record.variants}
    nodes = {f"node:{node.nid}" for node in record.tree}
    for place, item in _iter_items(record):
        rid, at, vid = item.partition("@")
        if item not in nodes and (rid not in rids or (at and vid not in vids)):
            raise ValueError(f"{place}: no item {item!r}{suggest(item, rids | nodes)}")


def _iter_items(record: Record) -> Iterator[tuple[str, str]]:
    for index, score in enumerate(record.scores):
        yield f"scores[{index}].item", score.item
    for index, label in enumerate(record.labels):
        for group in label.order:
            yield from ((f"labels[{index}].order", item) for item in group)
    for index, note in enumerate(record.notes):
        yield from ((f"notes[{index}].items", item) for item in note.items)
    for index, log in enumerate(record.logged):
        yield f"logged[{index}].item", log.item


def _check_scores(record: Record) -> None:
    for index, score in enumerate(record.scores):
        beside = {"response": None, "vector": score.keys, "step": score.keys, "token": score.spans}[score.level]
        if beside is None and score.values:
            raise ValueError(f"scores[{index}].values: a score of level 'response' uses 'value'")
        if beside is not None and (score.value is not None or len(beside) != len(score.values) or not beside):
            columns = "values and spans" if score.level == "token" else "values and keys"
            raise ValueError(f"scores[{index}].values: level {score.level!r} needs {columns} of one length, no value")
        if any(not 0 <= start < end for start, end in score.spans):
            raise ValueError(f"scores[{index}].spans: expected 0 <= start < end")


def _check_labels(record: Record) -> None:
    for index, label in enumerate(record.labels):
        problem = _find_label_problem(label)
        if problem:
            raise ValueError(f"labels[{index}].{problem}")


def _find_label_problem(label: Label) -> str | None:
    items = [item for group in label.order for item in group]
    if not all(label.order):
        return "order: a tie group is empty"
    if len(set(items)) < len(items):
        return "order: an item appears twice"
    if label.kind in ("pair", "edit") and len(label.order) > 2:
        return f"order: a {label.kind} has two groups (or one, a tie), got {len(label.order)}; use kind 'rank'"
    if label.kind == "unary" and len(items) != 1:
        return f"order: a unary label is about one item, got {len(items)}"
    if label.kind == "unary" and label.strength is None:
        return "strength: missing; its sign is the verdict of a unary label"
    return None


def _check_tree(record: Record) -> None:
    rids = {response.rid for response in record.responses}
    earlier: set[str] = set()
    for index, node in enumerate(record.tree):
        if (node.parent is None) != (index == 0):
            raise ValueError(f"tree[{index}].parent: expected null for the first node, the root, and only there")
        if node.parent is not None and node.parent not in earlier:
            raise ValueError(f"tree[{index}].parent: no earlier node {node.parent!r}{suggest(node.parent, earlier)}")
        if node.rid is not None and node.rid not in rids:
            raise ValueError(f"tree[{index}].rid: no response {node.rid!r}{suggest(node.rid, rids)}")
        earlier.add(node.nid)


def _check_logged(record: Record) -> None:
    shown = set()
    for index, log in enumerate(record.logged):
        if len(log.cov_keys) != len(log.cov_values):
            raise ValueError(f"logged[{index}].cov_values: expected one value for each of cov_keys")
        if (log.item, log.policy, log.ts) in shown:
            raise ValueError(f"logged[{index}].item: {log.item!r} is shown twice; expected one row per shown item")
        shown.add((log.item, log.policy, log.ts))


# -- wording ----------------------------------------------------------------------------------------------------------


def describe_invalid(error: ValidationError, model: type[BaseModel]) -> DataError:
    """Words what pydantic found as `field: expected ..., got ...`, the first few of them."""
    details = error.errors(include_url=False)
    places = {detail["loc"][:length] for detail in details for length in range(len(detail["loc"]))}
    # A list whose elements are wrong is reported as empty, too.
    problems = [_describe(detail, model) for detail in details if detail["loc"] not in places]
    more = len(problems) - _SHOWN
    return DataError("; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else ""))


def _describe(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path, kind, got = _format_path(detail["loc"]), detail["type"], detail["input"]
    prefix = f"{path}: " if path else ""
    if kind == "extra_forbidden":
        name = str(detail["loc"][-1])
        return f"{prefix}unknown key{suggest(name, _known_keys(model, detail['loc']))}"
    if kind == "value_error":
        return prefix + str(detail["ctx"]["error"])
    expected = _EXPECTED.get(kind, detail["msg"]).format(**detail.get("ctx", {}))
    if kind == "tuple_type" and detail["loc"][-1] == "content":
        expected = 'expected a list of parts, e.g. [{"type": "text", "text": "..."}]'
    return prefix + (expected if kind in ("missing", "too_short") else f"{expected}, got {shorten(got)}")


def _format_path(loc: tuple[int | str, ...]) -> str:
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    return path.removeprefix(".")


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    for key in loc[:-1]:
        if isinstance(key, str):
            model = _element_model(model, key)
    return [info.alias or name for name, info in model.model_fields.items()]


def _element_model(model: type[BaseModel], field: str) -> type[BaseModel]:
    element, *_ = get_args(model.model_fields[field].annotation)
    return cast("type[BaseModel]", element)
