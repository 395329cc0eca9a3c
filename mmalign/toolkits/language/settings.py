"""What a network's configuration says of the tokens that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def find_context(settings: Any) -> int | None:
    """Returns how many positions a network reads; None if its configuration does not say.

    Args:
        settings: a configuration of transformers. Rotary positions that are stretched by a factor reach further than
            `max_position_embeddings` where that is the length before.
    """
    text = settings.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    if not isinstance(length, int) or length <= 0:
        return None
    return max(length, *(_stretched(rope, length) for rope in _ropes(text)), 0)


def find_vocabulary(settings: Any) -> int | None:
    """Returns how many tokens a network has an embedding for; None if its configuration does not say."""
    size = getattr(settings.get_text_config(), "vocab_size", None)
    return size if isinstance(size, int) and size > 0 else None


def _ropes(text: Any) -> list[Mapping[str, Any]]:
    """Lists the settings of rotary positions: one for all layers, or one for each kind of layer."""
    found = [getattr(text, name, None) for name in ("rope_parameters", "rope_scaling")]
    given = [one for one in found if isinstance(one, Mapping)]
    return [*given, *(kind for one in given for kind in one.values() if isinstance(kind, Mapping))]


def _stretched(rope: Mapping[str, Any], length: int) -> int:
    factor = rope.get("factor")
    if not isinstance(factor, int | float):
        return length
    return int((rope.get("original_max_position_embeddings") or length) * factor)
