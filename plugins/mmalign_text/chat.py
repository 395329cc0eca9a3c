"""Chat templates: from messages to text in which the pieces that the model has to produce are marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError

from mmalign import ConfigError, DataError, Message, Response

Mode = Literal["closed", "opened", "continued"]

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'].capitalize() + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
"""For base models, whose tokenizers have no template: `User:`, a line break, the text, an empty line, `Assistant:`."""


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
    """

    def __init__(self, tokenizer: Any, template: str | None, system: str | None) -> None:
        self._tokenizer = tokenizer
        self.template: str = template or tokenizer.chat_template or PLAIN_TEMPLATE
        self._system = system
        self._opening = ""
        if system == "":
            self._opening = self._find_opening()

    @property
    def plain(self) -> bool:
        """True if the tokenizer has no template of its own and `PLAIN_TEMPLATE` stands in."""
        return self.template == PLAIN_TEMPLATE

    def render_prompt(self, messages: Sequence[Message], where: str) -> str:
        """Renders a prompt up to where the response starts; a last assistant message is left open."""
        chat = _to_chat(messages, where)
        return self._render(chat, where, "continued" if chat[-1]["role"] == "assistant" else "opened")

    def render_response(self, prompt: Sequence[Message], response: Response, where: str) -> list[Segment]:
        """Renders what follows the rendered prompt: assistant turns are scored, unless their `train` is 0.

        The end of a turn belongs to it. Turns after the last assistant turn are left out.

        Raises:
            DataError: the template does not render the prompt as a prefix of the conversation.
        """
        history = _to_chat(prompt, where)
        # A prompt that ends with an assistant message is the beginning of the response's first turn.
        begun = history.pop() if history[-1]["role"] == "assistant" else None
        done = self.render_prompt(prompt, where)
        segments = []
        for message, turn in zip(response.messages, _to_chat(response.messages, where), strict=True):
            if turn["role"] != "assistant":
                history.append(turn)
                continue
            opened = done if begun else self._render(history, where, "opened")
            if opened != done:
                segments.append(Segment(_cut_prefix(opened, done, where), False))
            history.append({**turn, "content": begun["content"] + turn["content"]} if begun else turn)
            done = _close_turn(opened, self._render(history, where, "closed"), turn["content"], where)
            segments.append(Segment(done[len(opened) :], message.train != 0))
            begun = None
        return segments

    def render_turn_end(self) -> str:
        """Renders what the template puts after the content of an assistant turn."""
        marker = "zqx"
        chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": marker}]
        return self._render(chat, "modality.chat_template", "closed").rpartition(marker)[2]

    def _render(self, chat: list[dict[str, str]], where: str, mode: Mode) -> str:
        has_system = chat[0]["role"] == "system"
        if self._system and not has_system:
            chat = [{"role": "system", "content": self._system}, *chat]
        try:
            text: str = self._tokenizer.apply_chat_template(
                chat,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=mode == "opened",
                continue_final_message=mode == "continued",
            )
        except (TemplateError, ValueError) as error:
            raise DataError(f"{where}: the chat template refuses these messages: {error}") from error
        return text if has_system or not self._opening else text.replace(self._opening, "", 1)

    def _find_opening(self) -> str:
        """Finds what the template puts before a first user turn beyond what it puts before a later one."""
        user, assistant = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
        key = "modality.system"
        first = self._render([user], key, "closed")
        before = self._render([user, assistant], key, "closed")
        turn = self._render([user, assistant, user], key, "closed").removeprefix(before)
        if not first.endswith(turn):
            raise ConfigError(f"{key}: this chat template cannot be rendered without system text; give a chat_template")
        bos = getattr(self._tokenizer, "bos_token", None) or ""
        # ChatML models name the token that opens every turn as their beginning-of-sequence token.
        return first.removesuffix(turn).removeprefix("" if turn.startswith(bos) else bos)


def _to_chat(messages: Sequence[Message], where: str) -> list[dict[str, str]]:
    for message in messages:
        for part in message.content:
            if part.type != "text":
                raise DataError(f"{where}: a {message.role} message has an {part.type} part; modality text reads text")
    return [{"role": message.role, "content": message.text} for message in messages]


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
