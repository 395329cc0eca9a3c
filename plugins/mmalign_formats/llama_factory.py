"""Preferences as LLaMA-Factory reads them, in ShareGPT's and Alpaca's columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmalign import Layout, Record
from mmalign_formats.alpaca import answer, read_instruction
from mmalign_formats.drafts import Draft, pair, read_flag, read_text, verdict
from mmalign_formats.rows import (
    CONVERSATION,
    is_compared,
    iter_pairs,
    iter_verdicts,
    joined,
    write_media,
    write_speakers,
    write_template,
)
from mmalign_formats.sharegpt import read_conversation
from mmalign_formats.turns import join_prompt, read_message, split_last


class LlamaFactory(Layout):
    """Reads LLaMA-Factory's preferences; writes those with `conversations`."""

    holds = CONVERSATION | {"labels"}

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record of a comparison or a verdict."""
        talks = "conversations" in columns
        if "kto_tag" in columns:
            if talks:
                prompt, response = split_last(read_conversation(columns), "conversations")
            else:
                prompt, response = read_instruction(columns), answer(read_text(columns, "output"))
            return Draft(prompt, [response], labels=verdict(read_flag(columns, "kto_tag"))).finish(columns, name)
        prompt = read_conversation(columns) if talks else read_instruction(columns)
        given = {side: read_message(columns[side], side) for side in ("chosen", "rejected")}
        prompt, sides = join_prompt(prompt, given)
        return Draft(prompt, sides, labels=pair()).finish(columns, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns a row for every comparison, else for every verdict."""
        return list(_iter_comparisons(record) if is_compared(record) else _iter_verdicts(record))


def _iter_comparisons(record: Record) -> Iterator[dict[str, Any]]:
    for chosen, rejected, _ in iter_pairs(record):
        sides = {name: write_speakers(one) for name, one in (("chosen", chosen), ("rejected", rejected))}
        single = {name: one[0] if len(one) == 1 else one for name, one in sides.items()}
        row = {"conversations": write_speakers(record.prompt), **single, **write_template(record)}
        yield {**row, **write_media(record, joined(record.prompt, chosen, rejected))}


def _iter_verdicts(record: Record) -> Iterator[dict[str, Any]]:
    for response, good in iter_verdicts(record):
        messages = joined(record.prompt, response)
        row = {"conversations": write_speakers(messages), "kto_tag": good, **write_template(record)}
        yield {**row, **write_media(record, messages)}
