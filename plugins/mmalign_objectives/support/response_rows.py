"""Which response of which record stands in which row of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mmalign import Batch, Record, Response


def iter_responses(batch: Batch) -> Iterator[tuple[Record, Response]]:
    """Yields record and response of every row, [N]; the batch holds all responses to its prompts, in their order."""
    seen: Counter[int] = Counter()
    for prompt in batch.quantities["prompt_index"].tolist():
        record = batch.records[prompt]
        yield record, record.responses[seen[prompt]]
        seen[prompt] += 1
