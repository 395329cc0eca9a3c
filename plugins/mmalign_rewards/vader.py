"""Sentiment of the response by VADER: a lexicon and rules, no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmalign import Reward, Sample
from mmalign_rewards.texts import response_text


class Vader(Reward):
    """The compound score of the response: -1 most negative, 1 most positive, 0 neutral or without known words.

    Source: Hutto and Gilbert, VADER (ICWSM 2014).
    """

    deterministic = True

    def __init__(self) -> None:
        self._analyser: Any = None

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Returns one score in [-1, 1] a sample; raises TypeError if an output is not a text."""
        if self._analyser is None:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

            self._analyser = SentimentIntensityAnalyzer()
        return [self._analyser.polarity_scores(response_text(sample))["compound"] for sample in samples]
