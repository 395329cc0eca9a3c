"""Chat templates: from messages to text in which the pieces that the model has to produce are marked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError

from mmalign.data.records import Message, Part, Response
from mmalign.errors import ConfigError, DataError

Mode = Literal["closed", "opened", "continued"]

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'].capitalize() + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
"""For base models, whose tokenizers have no template: `User:`, a line break, the text, an empty line, `Assistant:`."""

TEXT = frozenset({"text"})
"""What a model reads that reads nothing else."""

Turn = dict[str, Any]
"""A message for a template: `role`, and `content`, a list of parts with `type` and, if it is text, `text`."""


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered response; `scored` ones are the policy's steps."""

    text: str
    scored: bool


class ChatFormat:
    """Renders messages with a tokenizer's template.

    Args:
        tokenizer: of transformers.
        template: instead of the tokenizer's own.
        system: system message of conversations that have none; None leaves it to the template, empty means none at all.
        reads: the types of content parts that a prompt may have. Where it is more than text, templates get the parts;
            else they get the text.
    """

    def __init__(self, tokenizer: Any, template: str | None, system: str | None, reads: Collection[str] = TEXT) -> None:
        self._tokenizer = tokenizer
        self.template: str = template or tokenizer.chat_template or PLAIN_TEMPLATE
        self._system = system
        self._reads = reads
        self._opening = self._start = ""
        if system == "":
            self._opening = self._find_opening()
        if reads != TEXT:
            self._start = self._find_start()

    @property
    def plain(self) -> bool:
        """True if the tokenizer has no template of its own and `PLAIN_TEMPLATE` stands in."""
        return self.template == PLAIN_TEMPLATE

    def render_prompt(self, messages: Sequence[Message], where: str) -> str:
        """Renders a prompt up to where the response starts; a last assistant message is left open."""
        chat = _to_chat(messages, where, self._reads)
        return self._render(chat, where, "continued" if chat[-1]["role"] == "assistant" else "opened")

    def render_response(self, prompt: Sequence[Message], response: Response, where: str) -> list[Segment]:
        """Renders what follows the rendered prompt: assistant turns are scored, unless their `train` is 0.

        The end of a turn belongs to it. Turns after the last assistant turn are left out.

        Raises:
            DataError: the template does not render the prompt as a prefix of the conversation.
        """
        history = _to_chat(prompt, where, self._reads)
        # A prompt that ends with an assistant message is the beginning of the response's first turn.
        begun = history.pop() if history[-1]["role"] == "assistant" else None
        done = self.render_prompt(prompt, where)
        segments = []
        for message, turn in zip(response.messages, _to_chat(response.messages, where, TEXT), strict=True):
            if turn["role"] != "assistant":
                history.append(turn)
                continue
            opened = done if begun else self._render(history, where, "opened")
            if opened != done:
                segments.append(Segment(_cut_prefix(opened, done, where), False))
            history.append(_text_turn("assistant", _text(begun) + _text(turn)) if begun else turn)
            done = _close_turn(opened, self._render(history, where, "closed"), _text(turn), where)
            segments.append(Segment(done[len(opened) :], message.train != 0))
            begun = None
        return segments

    def render_turn_end(self) -> str:
        """Renders what the template puts after the content of an assistant turn."""
        marker = "zqx"
        chat = [_text_turn("user", "q"), _text_turn("assistant", marker)]
        return self._render(chat, "modality.chat_template", "closed").rpartition(marker)[2]

    def _render(self, chat: list[Turn], where: str, mode: Mode) -> str:
        has_system = chat[0]["role"] == "system"
        if self._system and not has_system:
            chat = [_text_turn("system", self._system), *chat]
        try:
            text: str = self._tokenizer.apply_chat_template(
                chat if self._reads != TEXT else [{**turn, "content": _text(turn)} for turn in chat],
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=mode == "opened",
                continue_final_message=mode == "continued",
            )
        except (TemplateError, ValueError) as error:
            raise DataError(f"{where}: the chat template refuses these messages: {error}") from error
        shown = text if has_system or not self._opening else text.replace(self._opening, "", 1)
        return f"{self._start}{shown}"

    def _find_start(self) -> str:
        """Finds what a tokenizer puts before texts that do not begin with it, as transformers' processors let it do."""
        bos = self._tokenizer.bos_token
        written = self._render([_text_turn("user", "q")], "modality.chat_template", "closed").startswith(bos or "")
        added = self._tokenizer("").input_ids[:1] == [self._tokenizer.bos_token_id]
        return bos if added and not written else ""

    def _find_opening(self) -> str:
        """Finds what the template puts before a first user turn beyond what it puts before a later one."""
        user, assistant = _text_turn("user", "q"), _text_turn("assistant", "a")
        key = "modality.system"
        first = self._render([user], key, "closed")
        before = self._render([user, assistant], key, "closed")
        turn = self._render([user, assistant, user], key, "closed").removeprefix(before)
        if not first.endswith(turn):
            raise ConfigError(f"{key}: this chat template cannot be rendered without system text; give a chat_template")
        bos = getattr(self._tokenizer, "bos_token", None) or ""
        # ChatML models name the token that opens every turn as their beginning-of-sequence token.
        return first.removesuffix(turn).removeprefix("" if turn.startswith(bos) else bos)


def _to_chat(messages: Sequence[Message], where: str, reads: Collection[str]) -> list[Turn]:
    return [
        {"role": message.role, "content": [_to_content(part, message, where, reads) for part in message.content]}
        for message in messages
    ]


def _to_content(part: Part, message: Message, where: str, reads: Collection[str]) -> dict[str, str]:
    if part.type not in reads:
        known = " and ".join(sorted(reads))
        raise DataError(f"{where}: a part of this {message.role} message is of type {part.type}; {known} is read here")
    return {"type": "text", "text": part.text or ""} if part.type == "text" else {"type": part.type}


def _text_turn(role: str, text: str) -> Turn:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _text(turn: Turn) -> str:
    return "".join(part["text"] for part in turn["content"] if part["type"] == "text")


def _cut_prefix(text: str, prefix: str, where: str) -> str:
    if not text.startswith(prefix):
        raise DataError(
            f"{where}: the chat template renders earlier turns differently once later ones follow, so the turns of "
            "this response cannot be scored in place; use one response per turn, or another chat_template"
        )
    return text[len(prefix) :]


def _close_turn(opened: str, closed: str, content: str, where: str) -> str:
    """Returns the closed turn as a continuation of the opened one; some templates open and close a turn differently."""
    if closed.startswith(opened):
        return closed
    start = closed.rfind(content.strip())
    if start < 0 or not content.strip():
        raise DataError(f"{where}: the chat template does not show the response as written; give another chat_template")
    return opened + closed[start:]
