"""The reward that asks a chat model: what it asks, and which number it reads."""

from __future__ import annotations

import re
from math import nan
from typing import Any

import pytest
from scoring_server import Answer, ScoringServer

from mmalign import ConfigError, Record, Sample
from mmalign.config.validation import validate
from mmalign.json_requests import RequestConfig
from mmalign_rewards.judge import PATTERN, Judge, JudgeConfig, read_score, read_scores


def make_samples(*texts: str) -> list[Sample]:
    record = Record.from_text("Say {it}.", texts)
    return [Sample(record, response, response.text) for response in record.responses]


def complete(text: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


def test_one_question_a_sample_and_one_score_each(scoring_server: ScoringServer) -> None:

    def judge(payload: dict[str, Any], earlier: int) -> Answer:
        question = payload["messages"][0]["content"]
        return Answer(complete(f"It says {question!r}.\nScore: {len(question.rpartition('|')[2])}"))

    scoring_server.behave = judge
    reward = Judge(scoring_server.url + "/", "wise-1", "Rate {{0-10}}: {prompt}|{response}", options={"max_tokens": 9})
    assert reward.score(make_samples("good", "be{}st")) == [4, 6]
    # The two requests go out together; either may arrive first.
    assert {
        "model": "wise-1",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Rate {0-10}: Say {it}.|good"}],
    } in scoring_server.requests


def test_the_default_question_shows_prompt_and_response(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(complete("Score: 7"))
    assert Judge(scoring_server.url, "wise-1").score(make_samples("Here it is.")) == [7]
    (request,) = scoring_server.requests
    assert request["temperature"] == 0
    assert "Say {it}." in request["messages"][0]["content"] and "Here it is." in request["messages"][0]["content"]


def test_what_the_judge_does_not_answer_has_no_score(scoring_server: ScoringServer) -> None:

    def judge(payload: dict[str, Any], earlier: int) -> Answer:
        if "second" in payload["messages"][0]["content"]:
            return Answer(status=503)
        return Answer(complete("score 5"))

    scoring_server.behave = judge
    reward = Judge(scoring_server.url, "wise-1", requests=RequestConfig(retries=1, backoff=0.01))
    first, second = reward.score(make_samples("first", "second"))
    assert first == 5
    assert str(second) == "HTTP 503: 'null' (tried 2 times)"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 8", 8),
        ("score = 8.5", 8.5),
        ("**Score:** 8/10", 8),
        ("Score: -2", -2),
        ("A score of 3 would be harsh. Score: 6", 6),
        ("SCORE 0", 0),
    ],
)
def test_the_last_score_counts(text: str, score: float) -> None:
    assert read_score(complete(text), re.compile(PATTERN)) == score


@pytest.mark.parametrize(
    ("answer", "pattern", "message"),
    [
        (complete("I would rather not say."), PATTERN, "no score in 'I would rather not say.'"),
        (complete(None), PATTERN, "no score in 'None'"),
        (complete([{"type": "text"}]), PATTERN, "no score in"),
        ({"choices": []}, PATTERN, "expected a chat completion, got"),
        ({"error": "no such model"}, PATTERN, "expected a chat completion, got"),
        (["x"], PATTERN, "expected a chat completion, got"),
        (complete("Score: inf"), "Score: (.*)", "expected a finite number as the score, got 'inf'"),
        (complete("Score: good"), "Score: (.*)", "expected a finite number as the score, got 'good'"),
    ],
)
def test_an_answer_without_a_score_says_so(answer: Any, pattern: str, message: str) -> None:
    failure = read_score(answer, re.compile(pattern))
    assert isinstance(failure, Exception)
    assert message in str(failure)


# -- several criteria

CRITERIA = ("helpful", "verbose")


def test_a_judge_is_asked_for_an_object_of_all_criteria(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(complete('So: {"helpful": 7, "verbose": 2.5}'))
    reward = Judge(scoring_server.url, "wise-1", criteria=CRITERIA)
    assert reward.dimensions == CRITERIA
    assert reward.score(make_samples("good")) == [[7, 2.5]]
    question = scoring_server.requests[0]["messages"][0]["content"]
    assert 'end with one line of JSON, {"helpful": N, "verbose": N}, where each N is a number from 0' in question


def test_a_template_may_say_where_the_form_of_the_answer_stands(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(complete("Score: 7"))
    Judge(scoring_server.url, "wise-1", "{response}|{form}").score(make_samples("good"))
    question = scoring_server.requests[0]["messages"][0]["content"]
    assert question == 'good|"Score: N", where N is a number from 0 (useless) to 10 (could not be better)'


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ('{"helpful": 1, "verbose": 2}', [1, 2]),
        ('```json\n{"verbose": 2,\n "helpful": 1}\n```', [1, 2]),
        ('First {"helpful": 9, "verbose": 9}, no: {"helpful": 1, "verbose": 2, "why": "{}"} {"done": 1}', [1, 2]),
        ('{"scores": {"helpful": 1, "verbose": 2}}', [1, 2]),
        ('{"helpful": 1, "verbose": null}', [1, nan]),
    ],
)
def test_the_last_object_with_all_criteria_counts(text: str, scores: list[float]) -> None:
    assert read_scores(complete(text), CRITERIA) == pytest.approx(scores, nan_ok=True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (complete('{"helpful": 1}'), """no score in '{"helpful": 1}'"""),
        (complete('{"helpful": 1, "verbose": 2'), "no score in"),
        (complete("{" * 5000), "no score in"),
        (complete('{"a":' * 5000), "no score in"),
        (complete(None), "no score in 'None'"),
        (complete('{"helpful": 1, "verbose": "2"}'), "expected a finite number as the score, got '2'"),
        (complete('{"helpful": 1, "verbose": Infinity}'), "expected a finite number as the score, got inf"),
        ({"choices": []}, "expected a chat completion, got"),
    ],
)
def test_an_answer_without_all_criteria_says_so(answer: Any, message: str) -> None:
    failure = read_scores(answer, CRITERIA)
    assert isinstance(failure, Exception)
    assert message in str(failure)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"template": "Rate it."}, r"template: expected \{response\} in it"),
        ({"template": "{answer}"}, r"template: expected \{prompt\} and \{response\} as the only names"),
        ({"pattern": "Score: (\\d+"}, "pattern: not a regular expression"),
        ({"pattern": "Score: \\d+"}, "pattern: expected one group, which holds the score, got 0"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(JudgeConfig, {"url": "http://localhost/v1", "model": "m", **keys}, "rewards")
