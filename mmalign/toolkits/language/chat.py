"""Chat templates: from messages to text in which the pieces that the model has to produce are marked."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from mmalign.data.records import Message, Part, Record, Response
from mmalign.errors import ConfigError, DataError
from mmalign.toolkits.language.notes import Notes
from mmalign.toolkits.language.stored_text import any_of, special_texts
from mmalign.toolkits.language.templates import KEY, ChatTemplate, check_arguments
from mmalign.toolkits.language.turns import Answer, Segment, Turn, TurnLocator, add_text, text_of, text_turn

TEXT = frozenset({"text"})
"""What a model reads that reads nothing else."""

_FOREIGN = (TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a chat template, which is somebody else's program, fails with."""

_REASONING = re.compile(r"(?:\.|\[['\"])(?:reasoning_content|reasoning|thinking)\b")
_MARKER = "zqx"


@dataclass(frozen=True)
class _Setting:
    """What a record brings along for the template, beside messages."""

    where: str
    template: str
    tools: list[dict[str, Any]] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


class ChatFormat:
    """Renders records with a chat template.

    Args:
        tokenizer: of transformers.
        template: see `choose_template`.
        system: system message of conversations that have none; None leaves it to the template, empty means none at all.
        reads: the types of content parts that a prompt may have. Where it is more than text, templates get the parts;
            else they get the text.
        arguments: further arguments of the template; those of a record come before them.

    Raises:
        ConfigError: arguments that the template does not know, or a system text that cannot be left out.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: ChatTemplate,
        system: str | None,
        reads: Collection[str] = TEXT,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.template = template
        self.notes = Notes()
        self._system = system
        self._reads = reads
        self._arguments = dict(arguments or {})
        self._probe = _Setting(KEY, template.text, arguments=self._arguments)
        self._head = self._opening = self._start = ""
        check_arguments(self._arguments, template.text, f"{KEY}_kwargs", ConfigError)
        if system == "":
            self._head, self._opening = self._find_opening()
        if reads != TEXT:
            self._start = self._find_start()

    def render_prompt(self, record: Record, where: str) -> str:
        """Renders the prompt of a record up to where the response starts; a last assistant message is left open.

        Raises:
            DataError: the template refuses it, or shows nothing of its tools.
        """
        setting = self._read_setting(record, where)
        chat = self._to_chat(record.prompt, setting)
        text = self._continue(chat, setting) if chat[-1]["role"] == "assistant" else self._open(chat, setting)
        if setting.tools and self._is_same(chat, setting, chat, replace(setting, tools=None)):
            raise DataError(
                f"{where}: it has tools, but the chat template shows none; give a modality.chat_template that does, or "
                "rename the column"
            )
        return text

    def render_response(self, record: Record, response: Response, prompt: str, where: str) -> list[Segment]:
        """Renders what follows the rendered prompt: assistant turns are scored, unless their `train` is 0.

        The end of a turn belongs to it. Turns after the last assistant turn are left out.

        Raises:
            DataError: the template refuses the conversation, or its turns have no place; see `TurnLocator`.
        """
        setting = self._read_setting(record, where)
        history = self._to_chat(record.prompt, setting)
        # A prompt that ends with an assistant message is the beginning of the response's first turn.
        begun = text_of(history.pop()) if history[-1]["role"] == "assistant" else ""
        turns = self._to_chat(response.messages, setting, answer=True)
        while turns and turns[-1]["role"] != "assistant":
            turns.pop()
        if not turns:
            return []
        trained = [message.train != 0 for message in response.messages]
        answer = Answer(prompt, history, begun, turns, trained, where)
        self._check_calls(answer, setting)
        return self._locator(setting).locate(answer)

    @cached_property
    def turn_end(self) -> str:
        """What the template puts after the content of a last assistant turn."""
        chat = [text_turn("user", "q"), text_turn("assistant", _MARKER)]
        return self._plainly(chat, self._probe).rpartition(_MARKER)[2]

    def fingerprint(self) -> str:
        """Returns what changes how all records are rendered, as text."""
        further = sorted(self._arguments.items())
        templates = self.template.text, self.template.with_tools
        return repr((*templates, further)) if further or templates[0] != templates[1] else templates[0]

    # -- what a record brings along

    def _read_setting(self, record: Record, where: str) -> _Setting:
        tools = record.tool_schemas or None
        template = self.template.with_tools if tools else self.template.text
        own = record.template_arguments
        check_arguments(own, template, f"{where}: chat_template_kwargs", DataError)
        return _Setting(where, template, tools, {**self._arguments, **own})

    def _to_chat(self, messages: Sequence[Message], setting: _Setting, *, answer: bool = False) -> list[Turn]:
        return [self._to_turn(message, setting, answer=answer) for message in messages]

    def _to_turn(self, message: Message, setting: _Setting, *, answer: bool) -> Turn:
        # What a model answers is text; what it sees and hears is asked of it.
        reads = TEXT if answer and message.role == "assistant" else self._reads
        content = [_to_content(part, message, setting.where, reads) for part in message.content]
        turn = {**message.chat_fields(), "content": content}
        if message.role == "developer" and "developer" not in setting.template:
            turn["role"] = "system"
        if message.reasoning_content and not _shows_reasoning(setting.template):
            self.notes.add("the chat template shows no reasoning_content, which is left out", setting.where)
        return turn

    def _check_calls(self, answer: Answer, setting: _Setting) -> None:
        """Raises DataError where the template leaves out the tool calls of a turn."""
        for place, turn in enumerate(answer.turns):
            if turn.get("tool_calls"):
                before = [*answer.history, *answer.turns[:place]]
                without = {key: value for key, value in turn.items() if key != "tool_calls"}
                if self._is_same([*before, turn], setting, [*before, without], setting):
                    raise DataError(
                        f"{answer.where}: turn {place + 1} calls tools, but the chat template shows no tool calls; "
                        "give a modality.chat_template that does"
                    )

    def _locator(self, setting: _Setting) -> TurnLocator:
        def render(turns: Sequence[Turn], *, opened: bool) -> str:
            return self._open(turns, setting) if opened else self._plainly(turns, setting)

        shows = _shows_reasoning(setting.template)
        return TurnLocator(render, self.turn_end, self._special, setting.template, shows_reasoning=shows)

    @cached_property
    def _special(self) -> re.Pattern[str]:
        return any_of(special_texts(self._tokenizer))

    # -- rendering

    def _is_same(self, chat: Sequence[Turn], setting: _Setting, less: Sequence[Turn], without: _Setting) -> bool:
        """Returns whether the template shows a conversation as it shows another one that lacks something of it."""
        shown = self._plainly(chat, setting)
        try:
            return shown == self._plainly(less, without)
        except DataError:  # it cannot be shown without
            return False

    def _plainly(self, chat: Sequence[Turn], setting: _Setting) -> str:
        return self._render(chat, setting, opened=False)

    def _open(self, chat: Sequence[Turn], setting: _Setting) -> str:
        return self._render(chat, setting, opened=True)

    def _continue(self, chat: Sequence[Turn], setting: _Setting) -> str:
        """Renders a conversation whose last turn, the assistant's, goes on."""
        number = 0
        while (marker := f"q{number}zx") in setting.template or any(marker in repr(turn) for turn in chat):
            number += 1
        marked = [*chat[:-1], add_text(chat[-1], after=f"{marker} ")]
        pieces = self._plainly(marked, setting).split(marker)
        if len(pieces) != 2:
            raise DataError(f"{setting.where}: the chat template cannot leave the prompt's assistant turn open")
        # A template that drops space at the end of a turn drops that before the marker, too.
        return pieces[0] if pieces[1].startswith(" ") else pieces[0].rstrip()

    def _render(self, chat: Sequence[Turn], setting: _Setting, *, opened: bool) -> str:
        has_system = chat[0]["role"] in ("system", "developer")
        if self._system and not has_system:
            chat = [text_turn("system", self._system), *chat]
        try:
            text = self._apply(chat, setting, opened=opened)
        except _FOREIGN as error:
            raise DataError(f"{setting.where}: the chat template refuses these messages: {error}") from error
        if self._opening and not has_system:
            text = self._cut_opening(text, setting)
        return f"{self._start}{text}"

    def _apply(self, chat: Sequence[Turn], setting: _Setting, *, opened: bool) -> str:
        shown = chat if self._reads != TEXT else [{**turn, "content": text_of(turn)} for turn in chat]
        options = {"tools": setting.tools, "chat_template": setting.template, "add_generation_prompt": opened}
        try:
            return str(self._tokenizer.apply_chat_template(shown, tokenize=False, **options, **setting.arguments))
        except TypeError:
            if not any(turn.get("tool_calls") for turn in chat):
                raise
            # Some templates add up the arguments of calls as text, as they come from a server.
            written = [
                {**turn, "tool_calls": _write_arguments(turn["tool_calls"])} if "tool_calls" in turn else turn
                for turn in shown
            ]
            return str(self._tokenizer.apply_chat_template(written, tokenize=False, **options, **setting.arguments))

    def _cut_opening(self, text: str, setting: _Setting) -> str:
        written = self._head + self._opening
        if not text.startswith(written):
            raise DataError(
                f"{setting.where}: modality.system is empty, but the chat template writes tools or arguments into its "
                "system text; leave modality.system out, or give another chat_template"
            )
        return self._head + text[len(written) :]

    def _find_start(self) -> str:
        """Finds what a tokenizer puts before texts that do not begin with it, as transformers' processors let it do."""
        bos = self._tokenizer.bos_token
        written = self._plainly([text_turn("user", "q")], self._probe).startswith(bos or "")
        added = self._tokenizer("").input_ids[:1] == [self._tokenizer.bos_token_id]
        return bos if added and not written else ""

    def _find_opening(self) -> tuple[str, str]:
        """Finds what the template puts before a first user turn beyond what it puts before a later one.

        Returns:
            the beginning of the sequence, which stays, and that.
        """
        user, assistant = text_turn("user", "q"), text_turn("assistant", "a")
        first = self._plainly([user], self._probe)
        before = self._plainly([user, assistant], self._probe)
        turn = self._plainly([user, assistant, user], self._probe).removeprefix(before)
        if not first.endswith(turn):
            expected = "give a chat_template"
            raise ConfigError(f"modality.system: this chat template cannot be rendered without system text; {expected}")
        bos = getattr(self._tokenizer, "bos_token", None) or ""
        # ChatML models name the token that opens every turn as their beginning-of-sequence token.
        head = "" if turn.startswith(bos) or not first.startswith(bos) else bos
        return head, first.removesuffix(turn).removeprefix(head)


def _to_content(part: Part, message: Message, where: str, reads: Collection[str]) -> dict[str, str]:
    if part.type not in reads:
        known = " and ".join(sorted(reads))
        raise DataError(f"{where}: a part of this {message.role} message is of type {part.type}; {known} is read here")
    return {"type": "text", "text": part.text or ""} if part.type == "text" else {"type": part.type}


def _shows_reasoning(template: str) -> bool:
    return _REASONING.search(template) is not None


def _write_arguments(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in calls
    ]
