"""What of a chat completion may be read: what stands behind the reasoning of a whole answer."""

from __future__ import annotations

from typing import Any

import pytest

from mmalign import RequestFailed
from mmalign_rewards.chat_answers import read_answer


def complete(content: Any, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Score: 8", "Score: 8"),
        ("<think>score: 3?</think>Score: 8", "Score: 8"),
        ("score: 3?</think>Score: 8", "Score: 8"),
        ("<think>3<think>4</think>5</think>Score: 8", "Score: 8"),
        ("[THINK]score: 3[/THINK]Score: 8", "Score: 8"),
        ("◁think▷score: 3◁/think▷Score: 8", "Score: 8"),
        ("<seed:think>score: 3</seed:think>Score: 8", "Score: 8"),
        ("<Thinking effort='low'>3</Thinking>Score: 8", "Score: 8"),
        ("<|begin_of_thought|>3<|end_of_thought|>Score: 8", "Score: 8"),
        ("<|channel|>analysis<|message|>score: 3<|end|><|channel|>final<|message|>Score: 8", "Score: 8"),
        ([{"type": "text", "text": "Score: 8"}], "Score: 8"),
        ([{"type": "thinking", "thinking": "Score: 3"}, {"type": "text", "text": "Score: 8"}], "Score: 8"),
        ([{"type": "text", "text": "Score: 1"}, {"type": "text", "text": "0"}], "Score: 1\n0"),
    ],
)
def test_the_text_behind_the_reasoning(content: Any, text: str) -> None:
    assert read_answer(complete(content)) == text


def test_reasoning_in_a_field_of_its_own_is_not_read() -> None:
    assert read_answer(complete("Score: 8", reasoning_content="Score: 3", reasoning="Score: 2")) == "Score: 8"
    assert isinstance(read_answer(complete(None, reasoning_content="Score: 3")), RequestFailed)


@pytest.mark.parametrize("finish", ["stop", None, "eos", "tool_calls"])
def test_a_finished_answer_is_read(finish: str | None) -> None:
    assert read_answer(complete("Score: 8", finish)) == "Score: 8"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (complete("Score: 8", "length"), "cut off at the token limit; raise options.max_tokens"),
        (complete("Score: 8", "content_filter"), "content filter"),
        (complete("<think>score: 3, but"), "reasoning does not end"),
        (complete("<think>a<think>b</think>Score: 3"), "reasoning does not end"),
        (complete("<think>3</think>Score: 8 <think>or"), "reasoning does not end"),
        (complete("<|channel|>analysis<|message|>score: 3"), "without a last channel"),
        (complete(None, refusal="I cannot."), "the model refused: 'I cannot.'"),
        (complete([{"type": "image_url", "image_url": {}}]), "expected text"),
        (complete(["Score: 8"]), "expected text"),
        (complete(None), "no score in 'None'"),
        (complete(7), "no score in '7'"),
        ({"choices": []}, "expected a chat completion, got"),
        ({"choices": None}, "expected a chat completion, got"),
        ({"choices": [{"message": None}]}, "expected a chat completion, got"),
        ({"error": "no such model"}, "expected a chat completion, got"),
        (["x"], "expected a chat completion, got"),
        (RequestFailed("HTTP 503"), "HTTP 503"),
    ],
)
def test_an_answer_that_may_not_be_whole_says_why(answer: Any, message: str) -> None:
    failure = read_answer(answer)
    assert isinstance(failure, RequestFailed)
    assert message in str(failure)
