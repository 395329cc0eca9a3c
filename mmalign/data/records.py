"""Records: one prompt with any number of responses and the feedback on them; one line of JSON each.

Every key has one type everywhere, because Arrow refuses mixed types: message content is always a list of parts, and
free-form extras are a JSON *string* (`Record.meta`, `Response.params`). Feedback is kept in long tables (`scores`,
`labels`, ...) whose rows name an *item*: a response `rid`, a response under a variant prompt `rid@vid`, or a tree node
`node:nid`. Null means missing, never 0. Writers drop nulls and empty lists; readers restore them.

The rows are defined in `mmalign.data.record_rows`; what must hold between fields in `mmalign.data.record_checks`. No
torch here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from math import isnan, nan
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from mmalign.data.chat_messages import message_from_chat
from mmalign.data.json_text import parse_json
from mmalign.data.record_checks import check_record, describe_invalid, require_json_object, require_json_objects
from mmalign.data.record_rows import (
    Function,
    Label,
    Log,
    Many,
    Media,
    Message,
    Node,
    Note,
    Part,
    Response,
    Row,
    Score,
    ToolCall,
    Variant,
)

__all__ = [
    "SCHEMA",
    "Function",
    "Label",
    "Log",
    "Media",
    "Message",
    "Node",
    "Note",
    "Part",
    "Record",
    "Response",
    "Score",
    "ToolCall",
    "Variant",
    "message_from_chat",
]

SCHEMA = "mmalign/1"


class Record(Row):
    """One prompt, its responses and what is known about them: the 14 fields of schema `mmalign/1`.

    Attributes:
        id: unique in a data set.
        schema_name: key `schema` on disk.
        prompt: the history up to where responses start; its last role is user, tool, or an assistant prefix.
        tools: what the assistant may call, a JSON list of function schemas as a string; see `tool_schemas`.
        chat_template_kwargs: arguments of the chat template, a JSON object as a string; see `template_arguments`.
        meta: anything the core does not need, a JSON object as a string; see `metadata`.
    """

    model_config = ConfigDict(populate_by_name=True)

    id: str = ""
    schema_name: Literal["mmalign/1"] = Field(default="mmalign/1", alias="schema")
    prompt: Many[Message] = Field(min_length=1)
    variants: Many[Variant] = ()
    responses: Many[Response] = ()
    scores: Many[Score] = ()
    labels: Many[Label] = ()
    tree: Many[Node] = ()
    notes: Many[Note] = ()
    logged: Many[Log] = ()
    media: Many[Media] = ()
    tools: str | None = None
    chat_template_kwargs: str | None = None
    meta: str | None = None

    _check_objects = field_validator("meta", "chat_template_kwargs")(require_json_object)
    _check_tools = field_validator("tools")(require_json_objects)

    @model_validator(mode="after")
    def _check(self) -> Record:
        check_record(self)
        return self

    # -- making and writing records ----------------------------------------------------------------------------------

    @classmethod
    def from_text(
        cls,
        prompt: str | Sequence[Mapping[str, Any]],
        responses: Sequence[str] = (),
        *,
        id: str = "",
        system: str | None = None,
    ) -> Record:
        """Makes a record of plain text.

        Args:
            prompt: the user's message, or chat messages (`{"role", "content"}`, content a string or a list of parts).
            responses: assistant turns; they are named `r0`, `r1`, ...
            system: a system message to put first.
        """
        turns: Sequence[Mapping[str, Any]] = (
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        )
        opening = [{"role": "system", "content": system}] if system is not None else []
        return cls.from_dict(
            {
                "id": id,
                "prompt": [message_from_chat(turn) for turn in (*opening, *turns)],
                "responses": [Response.from_text(f"r{index}", text) for index, text in enumerate(responses)],
            }
        )

    @classmethod
    def from_dict(cls, data: Any) -> Record:
        """Checks plain data, nulls and missing keys restored; raises DataError naming the field."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise describe_invalid(error, cls) from None

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Reads one line of JSON; raises DataError naming the field."""
        return cls.from_dict(parse_json(line))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data without nulls and empty lists; `from_dict` gives back an equal record."""
        rows = self.model_dump(mode="json", exclude_defaults=True, exclude={"id", "schema_name"})
        return {"id": self.id, "schema": SCHEMA, **rows}

    def to_json(self) -> str:
        """Returns one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def with_responses(self, responses: Sequence[Response]) -> Record:
        """Returns the prompt with other responses; feedback on the old ones is dropped. Nothing is checked again."""
        gone: dict[str, Any] = {name: () for name in ("scores", "labels", "tree", "notes", "logged")}
        return self.model_copy(update={**gone, "responses": tuple(responses)})

    # -- what parts read ---------------------------------------------------------------------------------------------

    @property
    def prompt_text(self) -> str:
        """The text of the last user message; empty if there is none."""
        return next((message.text for message in reversed(self.prompt) if message.role == "user"), "")

    @property
    def metadata(self) -> dict[str, Any]:
        """`meta`, parsed."""
        parsed: dict[str, Any] = json.loads(self.meta) if self.meta else {}
        return parsed

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """`tools`, parsed."""
        parsed: list[dict[str, Any]] = json.loads(self.tools) if self.tools else []
        return parsed

    @property
    def template_arguments(self) -> dict[str, Any]:
        """`chat_template_kwargs`, parsed."""
        parsed: dict[str, Any] = json.loads(self.chat_template_kwargs) if self.chat_template_kwargs else {}
        return parsed

    def pair_indices(self) -> list[tuple[int, int, float]]:
        """Returns (chosen, rejected, strength or NaN) of every comparison: all (better, worse) across tie groups.

        Ties, and items that are not plain responses (`rid@vid`, `node:nid`), give none.
        """
        return [
            (chosen, rejected, nan if label.strength is None else label.strength)
            for chosen, rejected, label in self.comparisons()
        ]

    def count_pairs(self) -> int:
        """Returns how many (better, worse) there are across the tie groups of all labels, without making them."""
        total = 0
        for label in self.labels:
            sizes = [len(group) for group in label.order]
            # Of all pairs of two different items those inside a tie group do not count.
            total += (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2
        return total

    def comparisons(self) -> list[tuple[int, int, Label]]:
        """Returns (chosen, rejected, label) of what `pair_indices` returns, in the same order."""
        return [
            (chosen, rejected, label)
            for label, groups in self._orders()
            for better, worse in combinations(groups, 2)
            for chosen, rejected in product(better, worse)
        ]

    def variant_comparisons(self) -> list[tuple[str, str, Label]]:
        """Returns (chosen, rejected, label) of the comparisons in which an item has a variant prompt."""
        return [
            (chosen, rejected, label)
            for label in self.labels
            if label.kind != "unary" and any("@" in item for group in label.order for item in group)
            if not any(item.startswith("node:") for group in label.order for item in group)
            for better, worse in combinations(label.order, 2)
            for chosen, rejected in product(better, worse)
        ]

    def item_record(self, item: str) -> Record:
        """Returns the record of one item, a response `rid` or `rid@vid`: with it alone, and the variant's prompt."""
        rid, _, vid = item.partition("@")
        prompt = next((variant.prompt for variant in self.variants if variant.vid == vid), self.prompt)
        alone = self.with_responses([response for response in self.responses if response.rid == rid])
        return alone.model_copy(update={"prompt": prompt})

    def response_labels(self) -> list[float]:
        """Returns for every response 1 (desirable), 0 (undesirable) or NaN (unknown).

        `unary` verdicts come first, then the best and the worst of each comparison; the first label that tells counts.
        """
        verdicts: dict[int, float] = {}
        for label in self.labels:
            if label.kind == "unary" and label.strength:
                for index in self._indices(label.order[0]):
                    verdicts.setdefault(index, float(label.strength > 0))
        for _, groups in self._orders():
            if len(groups) > 1:
                for index, verdict in (*product(groups[0], (1.0,)), *product(groups[-1], (0.0,))):
                    verdicts.setdefault(index, verdict)
        return self._per_response(verdicts)

    def ratings(self) -> list[float]:
        """Returns for every response its value of the first response-level score name in `scores`; NaN if missing."""
        rows = [row for row in self.scores if row.level == "response" and row.value is not None]
        values: dict[int, float] = {}
        for row in rows:
            for index in self._indices([row.item]):
                if row.name == rows[0].name and row.value is not None:
                    values.setdefault(index, row.value)
        return self._per_response(values)

    def ranks(self) -> list[float]:
        """Returns for every response its place in the first `rank` label, 1 best, ties alike; NaN if not ranked."""
        ranking = next((groups for label, groups in self._orders() if label.kind == "rank"), [])
        places = {index: float(place) for place, group in enumerate(ranking, start=1) for index in group}
        return self._per_response(places)

    def targets(self) -> list[bool]:
        """Returns which responses supervised training imitates: the desirable ones, else the best rated, else all."""
        labels, ratings = self.response_labels(), self.ratings()
        if not all(map(isnan, labels)):
            return [label == 1 for label in labels]
        known = [rating for rating in ratings if not isnan(rating)]
        return [rating == max(known) for rating in ratings] if known else [True] * len(self.responses)

    def _orders(self) -> Iterator[tuple[Label, list[list[int]]]]:
        index_of = {response.rid: index for index, response in enumerate(self.responses)}
        for label in self.labels:
            if label.kind != "unary" and all(item in index_of for group in label.order for item in group):
                yield label, [[index_of[item] for item in group] for group in label.order]

    def _indices(self, items: Sequence[str]) -> list[int]:
        index_of = {response.rid: index for index, response in enumerate(self.responses)}
        return [index_of[item] for item in items if item in index_of]

    def _per_response(self, values: Mapping[int, float]) -> list[float]:
        return [values.get(index, nan) for index in range(len(self.responses))]
