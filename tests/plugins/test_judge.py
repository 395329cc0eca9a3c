"""The reward that asks a chat model: what it asks, and which number it reads."""

from __future__ import annotations

import re
from typing import Any

import pytest
from scoring_server import Answer, ScoringServer

from mmalign import ConfigError, Record, Sample
from mmalign.config.validation import validate
from mmalign.json_requests import RequestConfig
from mmalign_rewards.judge import Judge, JudgeConfig, build_schema, read_pattern


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


def test_a_pattern_of_ones_own_reads_the_last_match_behind_the_reasoning(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(complete("<think>Note 1</think> Note 2, no: Note 3."))
    reward = Judge(scoring_server.url, "wise-1", "{response} {form}", pattern=r"Note (\d+)")
    assert reward.score(make_samples("good")) == [3]
    assert "response_format" not in scoring_server.requests[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("I would rather not say.", "no score in 'I would rather not say.'"),
        ("Score: inf", "expected a finite number as the score, got 'inf'"),
        ("Score: nan", "expected a finite number as the score, got 'nan'"),
        ("Score: good", "expected a finite number as the score, got 'good'"),
    ],
)
def test_a_pattern_without_a_number_says_so(text: str, message: str) -> None:
    assert message in str(read_pattern(text, re.compile("Score: (.*)")))


# -- structured output


def test_a_schema_is_asked_for_where_the_template_leaves_the_form_to_the_judge(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(complete('{"explanation": "5 of 9", "score": 7}'))
    reward = Judge(scoring_server.url, "wise-1")
    assert reward.score(make_samples("good", "better")) == [7, 7]
    assert [one["response_format"] for one in scoring_server.requests] == [build_schema(["score"])] * 2
    assert '{"explanation": "...", "score": N}' in scoring_server.requests[0]["messages"][0]["content"]


@pytest.mark.parametrize("status", [400, 404, 422, 501])
def test_a_server_without_schemas_is_asked_for_text_and_that_is_remembered(
    scoring_server: ScoringServer, status: int
) -> None:
    def judge(payload: dict[str, Any], earlier: int) -> Answer:
        refused = "response_format" in payload
        return Answer("unknown key", status=status) if refused else Answer(complete("Score: 7"))

    scoring_server.behave = judge
    reward = Judge(scoring_server.url, "wise-1", requests=RequestConfig(retries=0))
    assert reward.score(make_samples("good", "better", "best")) == [7, 7, 7]
    assert reward.score(make_samples("good")) == [7]
    assert ["response_format" in one for one in scoring_server.requests] == [True, False, False, False, False]
    assert '"Score: N"' in scoring_server.requests[1]["messages"][0]["content"]


def test_a_failure_that_the_schema_did_not_cause_decides_nothing(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer("too long", status=400)
    reward = Judge(scoring_server.url, "wise-1", requests=RequestConfig(retries=0))
    (failure,) = reward.score(make_samples("good"))
    assert str(failure) == "HTTP 400: '\"too long\"'"
    scoring_server.behave = lambda payload, earlier: Answer(complete("Score: 7"))
    assert reward.score(make_samples("good")) == [7]
    assert "response_format" in scoring_server.requests[-1]


@pytest.mark.parametrize(("structured", "template"), [("never", "{response} {form}"), ("auto", "{response} Score: N?")])
def test_no_schema_is_asked_for(structured: Any, template: str, scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(complete("Score: 7"))
    assert Judge(scoring_server.url, "m", template, structured=structured).score(make_samples("good")) == [7]
    assert "response_format" not in scoring_server.requests[0]


def test_an_answer_off_the_scale_has_no_score(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(complete("Score: 70"))
    (failure,) = Judge(scoring_server.url, "m").score(make_samples("good"))
    assert str(failure) == "expected a score from 0 to 10, got 70"
    assert Judge(scoring_server.url, "m", scale=(0, 100)).score(make_samples("good")) == [70]
    assert Judge(scoring_server.url, "m", "{response}").score(make_samples("good")) == [70]


# -- several criteria

CRITERIA = ("helpful", "verbose")


def test_a_judge_is_asked_for_an_object_of_all_criteria(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(complete('So: {"helpful": 7, "verbose": 2.5}'))
    reward = Judge(scoring_server.url, "wise-1", criteria=CRITERIA)
    assert reward.dimensions == CRITERIA
    assert reward.score(make_samples("good")) == [[7, 2.5]]
    question = scoring_server.requests[0]["messages"][0]["content"]
    form = '{"explanation": "...", "helpful": N, "verbose": N}, where each N is a number from 0 (worst) to 10'
    assert f"end with one line of JSON, {form}" in question
    assert scoring_server.requests[0]["response_format"] == build_schema(CRITERIA)


def test_a_template_may_say_where_the_form_of_the_answer_stands(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(complete("Score: 7"))
    Judge(scoring_server.url, "wise-1", "{response}|{form}", structured="never").score(make_samples("good"))
    question = scoring_server.requests[0]["messages"][0]["content"]
    assert question == 'good|"Score: N", where N is a number from 0 (useless) to 10 (could not be better)'


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"template": "Rate it."}, r"template: expected \{response\} in it"),
        ({"template": "{answer}"}, r"template: expected \{prompt\} and \{response\} as the only names"),
        ({"pattern": "Score: (\\d+"}, "pattern: not a regular expression"),
        ({"pattern": "Score: \\d+"}, "pattern: expected one group, which holds the score, got 0"),
        ({"pattern": "(\\d+)", "structured": "always"}, "structured: a pattern reads free text"),
        ({"scale": [10, 0]}, r"scale: expected \[lowest, highest\]"),
        ({"scale": [0, float("inf")]}, r"scale\[1\]: expected a finite number"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(JudgeConfig, {"url": "http://localhost/v1", "model": "m", **keys}, "rewards")
