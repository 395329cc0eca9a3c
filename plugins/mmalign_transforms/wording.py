"""Templates of text that a transform writes into prompts."""

from __future__ import annotations

from collections.abc import Callable
from string import Formatter


def require_fields(*fields: str) -> Callable[[str], str]:
    """Returns a check that a template has exactly these fields; it raises ValueError and returns the template."""

    def check(template: str) -> str:
        try:
            found = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        except ValueError as error:
            raise ValueError(f"not a template: {error}; write {{{{ and }}}} for braces") from None
        if found != set(fields):
            expected = ", ".join(f"{{{field}}}" for field in fields)
            raise ValueError(f"expected {expected} in the template, found {sorted(found) or 'none'}")
        return template

    return check


def format_number(value: float) -> str:
    """Writes a number as people do: without decimals where it is whole.

    >>> format_number(8.0), format_number(7.25)
    ('8', '7.25')
    """
    return f"{value:g}"
