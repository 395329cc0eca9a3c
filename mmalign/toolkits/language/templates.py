"""Which chat template a model is used with, and which arguments a template knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError, meta

from mmalign.errors import ConfigError, MmalignError, suggest

KEY = "modality.chat_template"

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'].capitalize() + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
"""For base models, whose tokenizers have no template: `User:`, a line break, the text, an empty line, `Assistant:`."""

_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
_RESERVED = frozenset(
    (
        *("messages", "conversation", "tools", "chat_template", "add_generation_prompt", "continue_final_message"),
        *("tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors"),
        *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    )
)
_GLOBALS = frozenset(("range", "dict", "lipsum", "cycler", "joiner", "namespace", "raise_exception", "strftime_now"))


@dataclass(frozen=True)
class ChatTemplate:
    """A template, as Jinja text.

    Attributes:
        text: for records without tools.
        with_tools: for records with tools: of several named templates the one called `tool_use`, as in transformers.
        own: True if it is what the tokenizer, or the processor, would use by itself.
    """

    text: str
    with_tools: str
    own: bool

    @property
    def plain(self) -> bool:
        """True if it is `PLAIN_TEMPLATE`."""
        return self.text == PLAIN_TEMPLATE


def choose_template(given: str | None, own: str | Mapping[str, str] | None) -> ChatTemplate:
    """Chooses the template of a model.

    Args:
        given: the configuration's: Jinja text, the name of one of several templates, or a file; None for the model's.
        own: the model's template, or several by name; None if it has none, then it is `PLAIN_TEMPLATE`.

    Raises:
        ConfigError: there are several, none of them called `default`, or `given` is none of the above.
    """
    named = dict(own) if isinstance(own, Mapping) else {}
    if given is not None:
        text = named.get(given) or read_template(given, named)
        return ChatTemplate(text, text, own=False)
    if named and "default" not in named:
        raise ConfigError(f"{KEY}: the model has several, none of them the default; name one of {_list(named)}")
    text = named.get("default") or (own if isinstance(own, str) else "")
    if not text:
        return ChatTemplate(PLAIN_TEMPLATE, PLAIN_TEMPLATE, own=False)
    return ChatTemplate(text, named.get("tool_use", text), own=True)


def read_template(given: str, named: Mapping[str, str] = {}) -> str:
    """Returns a template that is given as Jinja text, or as a file that holds it.

    Raises:
        ConfigError: it is neither.
    """
    if "{" in given:
        return given
    try:
        return Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        known = f", nor the name of one of the model's: {_list(named)}" if named else ""
        raise ConfigError(
            f"{KEY}: {given!r} is neither a template (it has no braces) nor a readable text file{known}"
        ) from None


def names_file(given: str) -> bool:
    """Returns whether what is given can only be a file, so that it can be read before the model's own are known."""
    return "{" in given or "/" in given or bool(Path(given).suffix)


def check_arguments(arguments: Mapping[str, Any], template: str, where: str, error: type[MmalignError]) -> None:
    """Checks the names of further arguments of a template.

    Raises:
        error: one that the template does not know, or that is not the user's to give; the message starts with `where`.
    """
    for name in arguments:
        if name in _RESERVED:
            raise error(f"{where}: {name!r} is set by mmalign; expected further arguments of the chat template")
        known = known_arguments(template)
        if known is not None and name not in known:
            raise error(f"{where}: the chat template knows no {name!r}{suggest(name, known - _RESERVED - _GLOBALS)}")


@lru_cache(maxsize=16)
def known_arguments(template: str) -> frozenset[str] | None:
    """Returns the names that a template reads but does not set; None if it cannot be parsed here."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False)
    try:
        return frozenset(meta.find_undeclared_variables(environment.parse(_GENERATION.sub("", template))))
    except TemplateError:
        return None


def _list(named: Mapping[str, str]) -> str:
    return ", ".join(map(repr, sorted(named)))
