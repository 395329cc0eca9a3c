"""What text rewards read of a sample."""

from __future__ import annotations

from mmalign import Sample


def response_text(sample: Sample) -> str:
    """Returns the decoded response; raises TypeError if the modality does not decode to text."""
    if not isinstance(sample.output, str):
        raise TypeError(f"this reward reads text, but the response decodes to {type(sample.output).__name__}")
    return sample.output
