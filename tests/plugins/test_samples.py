"""The evaluator `samples` on responses written by hand: seeds, what is an image and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from image_toy_plugin import draw

from mmalign import EncodedResponse, EvaluationContext, Generated, Record, Response
from mmalign_evaluators.samples import SamplesConfig, SamplesEvaluator

PROMPTS = [Record.from_text(text, id=text) for text in ("one", "two", "three")]


def evaluate(evaluator: SamplesEvaluator) -> list[float]:
    """Evaluates on images of random pixels, a text for `two`; returns what was drawn from the generator."""
    drawn: list[float] = []

    def generate(records: Sequence[Record], count: int) -> list[list[Generated]]:
        assert count == 1
        drawn.extend(torch.rand(len(records)).tolist())
        return [[make(record, level) for level in torch.randint(4, (1,)).tolist()] for record in records]

    context = EvaluationContext(PROMPTS, cast("Any", None), generate)
    assert evaluator.evaluate(context) == {}
    return drawn


def make(record: Record, level: int) -> Generated:
    output = None if record.id == "two" else draw([level] * 6)
    return Generated(Response.from_text("r", "text"), EncodedResponse({}, 1, 1), None, output=output)


def test_every_evaluation_draws_the_same_and_leaves_the_generator_as_it_was() -> None:
    evaluator = SamplesEvaluator(seed=3)
    before = torch.get_rng_state()
    first = evaluate(evaluator)
    torch.rand(5)
    assert evaluate(evaluator) == first
    assert evaluate(SamplesEvaluator(seed=4)) != first
    torch.set_rng_state(before)
    evaluate(evaluator)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_and_texts_are_kept_apart() -> None:
    evaluator = SamplesEvaluator()
    evaluate(evaluator)
    assert [record.id for record, _ in evaluator.images] == ["one", "three"]
    assert [(record.id, response.text) for record, response, _ in evaluator.examples] == [("two", "text")]


def test_only_the_first_prompts_are_sampled() -> None:
    evaluator = SamplesEvaluator(**SamplesConfig(prompts=1).model_dump())
    assert len(evaluate(evaluator)) == 1 and len(evaluator.images) == 1
