"""The rows of a record: messages and their parts, responses, scores, labels, tree nodes, notes, logs, media."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from mmalign.data.record_checks import require_json_object, require_one_content

T = TypeVar("T")
# Strict models take a Python list for a tuple only where told to; the elements stay strict.
Many: TypeAlias = Annotated[tuple[T, ...], Strict(False)]

Role = Literal["system", "developer", "user", "assistant", "tool"]
MediaType = Literal["image", "video", "audio", "latent"]


class Row(BaseModel):
    """Base of everything in a record: frozen, no unknown keys, no silent conversions, a null means the default."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _restore_nulls(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, Mapping) else data


class Part(Row):
    """A piece of content: a text part has `text`, any other names a `Media` by its `mid`.

    Attributes:
        start, end: the clip of a video or audio, in seconds.
    """

    type: Literal["text", "image", "video", "audio"]
    text: str | None = None
    media: str | None = None
    start: float | None = Field(default=None, ge=0)
    end: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Part:
        require_one_content(self)
        return self


class Function(Row):
    """What a tool call asks for.

    Attributes:
        arguments: a JSON object as a string; a model may have written something else.
    """

    name: str
    arguments: str = "{}"


class ToolCall(Row):
    """A call of a tool, in OpenAI's form; `id` is what the tool's message answers to."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: Function


class Message(Row):
    """A turn.

    Attributes:
        name: the speaker of a multi-agent dialogue, or the tool that answers.
        tool_calls: what an assistant turn asks of tools, beside its content.
        tool_call_id: the call that a tool turn answers.
        reasoning_content: what the assistant thought before its content; chat templates decide where it goes.
        extra: further keys that a chat template may read, a JSON object as a string.
        train: loss weight of the turn; null is 1 for assistant turns of a response and 0 for a prompt's. Where all
            turns of a prompt have one above 0 its tokens are scored like those of the response.
    """

    role: Role
    name: str | None = None
    content: Many[Part] = ()
    tool_calls: Many[ToolCall] = ()
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    extra: str | None = None
    train: float | None = Field(default=None, ge=0)

    _check_extra = field_validator("extra")(require_json_object)

    @property
    def text(self) -> str:
        """The text parts, joined by nothing."""
        return "".join(part.text for part in self.content if part.text is not None)

    def chat_fields(self, *, parsed: bool = True) -> dict[str, Any]:
        """Returns the message as chat templates and servers know it, without its content.

        Args:
            parsed: give arguments of tool calls as objects, as templates want them, not as JSON, as servers do.
        """
        known = {
            "name": self.name,
            "tool_calls": [_call_fields(call, parsed=parsed) for call in self.tool_calls] or None,
            "tool_call_id": self.tool_call_id,
            "reasoning_content": self.reasoning_content,
        }
        extra: dict[str, Any] = json.loads(self.extra) if self.extra else {}
        return {**extra, "role": self.role, **{key: value for key, value in known.items() if value is not None}}


class Variant(Row):
    """Another prompt for the same item: augmented media, added instructions, a score-conditioned prompt."""

    vid: str
    op: str | None = None
    prompt: Many[Message] = Field(min_length=1)


class Response(Row):
    """What a model, or a person, produced for the prompt: one or more turns.

    Attributes:
        model: what produced it.
        params: how it was sampled, a JSON object as a string.
    """

    rid: str
    messages: Many[Message] = Field(min_length=1)
    model: str | None = None
    params: str | None = None

    _check_params = field_validator("params")(require_json_object)

    @property
    def text(self) -> str:
        """The text of the assistant turns, joined by line breaks."""
        return "\n".join(message.text for message in self.messages if message.role == "assistant")

    @classmethod
    def from_text(cls, rid: str, text: str) -> Response:
        """Makes a response of one assistant turn."""
        return cls(rid=rid, messages=(_text_message("assistant", text),))


class Score(Row):
    """Numbers about one item.

    Attributes:
        level: `response` uses `value`; `vector` (objectives) and `step` (node or turn ids) use `values` and `keys`;
            `token` uses `values` and `spans`, half-open ranges in the tokens or characters that `source` names.
    """

    item: str
    name: str
    level: Literal["response", "vector", "step", "token"]
    value: float | None = None
    values: Many[float | None] = ()
    keys: Many[str] = ()
    spans: Many[Annotated[tuple[int, int], Strict(False)]] = ()
    source: str | None = None


class Label(Row):
    """A judgement: tie groups of items, best first.

    Attributes:
        order: pair `[["r0"], ["r1"]]`, tie `[["r0", "r1"]]`, ranking `[["r2"], ["r0", "r3"], ["r1"]]`.
        strength: margin, probability or edit cost; the sign of a `unary` label's strength is the verdict.
        annotator: `human:ID`, `lm:NAME`, `rule:...` or `click`.
        shots: record ids that show what `user` prefers.
    """

    kind: Literal["pair", "rank", "unary", "edit"]
    order: Many[Many[str]] = Field(min_length=1)
    strength: float | None = None
    annotator: str | None = None
    user: str | None = None
    context: str | None = None
    shots: Many[str] = ()


class Node(Row):
    """A node of the search tree; its parent comes before it. Advantages are Q - V(parent), or Q between siblings."""

    nid: str
    parent: str | None = None
    content: Many[Part] = ()
    actor: str | None = None
    prior: float | None = Field(default=None, ge=0, le=1)
    visits: int | None = Field(default=None, ge=0)
    V: float | None = None
    Q: float | None = None
    reward: float | None = None
    terminal: bool = False
    rid: str | None = None


class Note(Row):
    """Text about items: a rationale, critique, inferred preference, experience or feedback."""

    kind: str
    text: str
    items: Many[str] = ()
    author: str | None = None


class Log(Row):
    """An item as it was shown by a logging policy.

    Attributes:
        propensity: probability that `policy` showed the item there, 0 < propensity <= 1; `logp` in nats.
        position: place on the page, from 1.
        ts: seconds since 1970.
    """

    item: str
    policy: str | None = None
    propensity: float | None = Field(default=None, gt=0, le=1)
    logp: float | None = None
    position: int | None = Field(default=None, ge=1)
    outcome: float | None = None
    ts: float | None = None
    cov_keys: Many[str] = ()
    cov_values: Many[float] = ()


class Media(Row):
    """An image, video, audio or latent, stored once and referenced by `mid`.

    Attributes:
        uri: a path relative to the data file, an absolute path, a URL or a `data:` URI.
        width, height: pixels; `seconds`: length; `rate`: frames or samples a second.
    """

    mid: str
    type: MediaType
    uri: str
    sha256: str | None = None
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, ge=0)
    rate: float | None = Field(default=None, gt=0)


def _text_message(role: Role, text: str) -> Message:
    return Message(role=role, content=(Part(type="text", text=text),))


def _call_fields(call: ToolCall, *, parsed: bool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": call.function.name, "arguments": call.function.arguments}
    if parsed:
        function["arguments"] = _parse_arguments(call.function.arguments)
    return {**({} if call.id is None else {"id": call.id}), "type": "function", "function": function}


def _parse_arguments(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
