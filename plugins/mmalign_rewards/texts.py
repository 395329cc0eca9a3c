"""What text rewards read of a sample, and how they put it into a text of their own."""

from __future__ import annotations

from mmalign import Sample


def response_text(sample: Sample) -> str:
    """Returns the decoded response; raises TypeError if the modality does not decode to text."""
    if not isinstance(sample.output, str):
        raise TypeError(f"this reward reads text, but the response decodes to {type(sample.output).__name__}")
    return sample.output


def check_template(template: str, optional: str = "") -> str:
    """Returns a template that `str.format` fills with `prompt` and `response`; raises ValueError for another.

    Args:
        optional: a name that it may hold, too.
    """
    try:
        template.format(prompt="", response="", **({optional: ""} if optional else {}))
    except (KeyError, IndexError, ValueError):
        beside = f", beside {{{optional}}}" if optional else ""
        raise ValueError(f"expected {{prompt}} and {{response}} as the only names in braces{beside}") from None
    if "{response}" not in template:
        raise ValueError("expected {response} in it")
    return template
