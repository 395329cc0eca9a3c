"""Text put in front of a prompt: into the system message, or before the first user message."""

from __future__ import annotations

from typing import Literal

from mmalign import Message, Part

Role = Literal["system", "user"]


def prepend_text(prompt: tuple[Message, ...], text: str, role: Role) -> tuple[Message, ...]:
    """Returns the prompt with `text` and an empty line before it.

    Args:
        role: `system`: before the system message, which is made if there is none; `user`: before the first user
            message or, in a prompt without one, before the first message.
    """
    place = next((index for index, message in enumerate(prompt) if message.role == role), None)
    if place is None and role == "system":
        return (Message(role="system", content=(Part(type="text", text=text),)), *prompt)
    place = place or 0
    part = Part(type="text", text=f"{text}\n\n")
    changed = prompt[place].model_copy(update={"content": (part, *prompt[place].content)})
    return (*prompt[:place], changed, *prompt[place + 1 :])
