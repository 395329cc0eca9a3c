"""Every pair twice: with the reasoning trace that was sampled, and with an empty one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import Field

from mmalign import DataError, Message, Parameters, Part, Record, Response, Transform
from mmalign_transforms.cutting import split_pair
from mmalign_transforms.reading import count_unpaired, iter_comparisons
from mmalign_transforms.tally import Tally

NAME = "bvpo"


class BvpoConfig(Parameters):
    """Pairs with and without a reasoning trace."""

    opening: str = Field(default="<think>", min_length=1)
    """What a trace starts with; where a response lacks it, as the prompt ends with it, the trace is its beginning."""
    closing: str = Field(default="</think>", min_length=1)
    """What a trace ends with."""
    empty: str = "\n\n"
    """What stands between them in an empty trace: what the model's template writes with thinking switched off."""


@dataclass(eq=False, kw_only=True)
class Bvpo(Transform):
    """Makes two records of every pair, whose label has the `context` `trace` or `empty`.

    The fields are those of `BvpoConfig`. Half of the records are of either sort, so their mean is the even mix.

    Source: arXiv:2510.05095.
    """

    opening: str
    closing: str
    empty: str

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields the pair with its traces, then the pair without."""
        tally = Tally(NAME)
        for record in records:
            tally.add("labels (no pair of plain responses)", count_unpaired(record))
            for index, comparison in enumerate(iter_comparisons(record)):
                if comparison.label.context is not None:
                    raise DataError(
                        f"{NAME}: record {record.id!r}: a label has the context {comparison.label.context!r} already; "
                        "expected none, 'trace' or 'empty' is put there"
                    )
                traced = split_pair(record, comparison, f"{index}-trace")
                stripped = tuple(self._strip(record, response) for response in traced.responses)
                yield _in_context(traced, "trace")
                empty = traced.model_copy(update={"id": f"{record.id}/{index}-empty", "responses": stripped})
                yield _in_context(empty, "empty")
        tally.report()

    def _strip(self, record: Record, response: Response) -> Response:
        """Empties the first trace of the response."""
        for turn, message in enumerate(response.messages):
            for place, part in enumerate(message.content):
                if message.role == "assistant" and part.text is not None and self.closing in part.text:
                    text = strip_trace(part.text, self.opening, self.closing, self.empty)
                    return _replace_text(response, turn, place, text)
        raise DataError(
            f"{NAME}: record {record.id!r}: response {response.rid!r} has no trace that ends with {self.closing!r}; "
            "set opening and closing to the delimiters of your model"
        )


def strip_trace(text: str, opening: str, closing: str, empty: str) -> str:
    """Replaces the first trace by an empty one.

    >>> strip_trace("<think>2 + 2</think>4", "<think>", "</think>", "")
    '<think></think>4'
    >>> strip_trace("2 + 2</think>4", "<think>", "</think>", "")
    '</think>4'
    """
    trace, _, rest = text.partition(closing)
    before, opened, _ = trace.partition(opening)
    return f"{before}{opening}{empty}{closing}{rest}" if opened else f"{empty}{closing}{rest}"


def _replace_text(response: Response, turn: int, place: int, text: str) -> Response:
    message = response.messages[turn]
    content = (*message.content[:place], Part(type="text", text=text), *message.content[place + 1 :])
    changed: Message = message.model_copy(update={"content": content})
    return response.model_copy(
        update={"messages": (*response.messages[:turn], changed, *response.messages[turn + 1 :])}
    )


def _in_context(record: Record, context: str) -> Record:
    labels = tuple(label.model_copy(update={"context": context}) for label in record.labels)
    return record.model_copy(update={"labels": labels})
