"""The same held-out prompts with the same random numbers each time, to look at what training changes.

Images are shown by the run, those of its start beside those of now; texts are rows of its table of examples.
"""

from __future__ import annotations

from math import nan

from pydantic import Field

from mmalign import EvaluationContext, Evaluator, Parameters, Record, Response, describe_output, is_image


class SamplesConfig(Parameters):
    """Samples to look at."""

    prompts: int = Field(default=8, ge=1)
    """The first so many held-out prompts, one response each."""
    seed: int = Field(default=0, ge=0)
    """Seeds the sampling, so that only the weights differ from one evaluation to the next."""


class SamplesEvaluator(Evaluator):
    """Samples some held-out prompts; measures nothing.

    Attributes:
        images: of the latest evaluation, each record with its response, where that is an image.
        examples: likewise where it is none, without a score.
    """

    def __init__(self, prompts: int = 8, seed: int = 0) -> None:
        self.prompts = prompts
        self.seed = seed
        self.images: list[tuple[Record, object]] = []
        self.examples: list[tuple[Record, Response | str, float]] = []

    def evaluate(self, context: EvaluationContext) -> dict[str, float]:
        """Samples; the random numbers of whatever comes after are those without it. Returns no metric."""
        import torch

        records = context.records[: self.prompts]
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            groups = context.generate(records, 1)
        sampled = [(record, group[0]) for record, group in zip(records, groups, strict=True)]
        self.images = [(record, one.output) for record, one in sampled if is_image(one.output)]
        self.examples = [
            (record, describe_output(one.output) or one.response, nan)
            for record, one in sampled
            if not is_image(one.output)
        ]
        return {}
