"""One score out of free text: the right one or none, whatever a judge writes around it."""

# ruff: noqa: RUF001 (characters that look alike are what this is about)

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign import RequestFailed
from mmalign_rewards.score_lines import read_score_line

SCALE = (0.0, 10.0)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Score: 8", 8),
        ("score = 8.5", 8.5),
        ("**Score:** 8/10", 8),
        ("**Score**: 9", 9),
        ("A score of 3 would be harsh. Score: 6", 6),
        ("SCORE 0", 0),
        ("Clear and to the point.\nScore (0-10): 7", 7),
        ("**Score [0-10]: 9**", 9),
        ("Score (from 0 to 10): 4", 4),
        ("Score (0–10): 7/10", 7),
        ("Score out of 10: 7", 7),
        ("Score on a scale of 0 to 10: 6", 6),
        ("Score: 7 (out of 10)", 7),
        ("Score: [[7]]", 7),
        ("Score — 7", 7),
        ("Score：７", 7),
        ("Score: ٣", 3),
        ("<score>7</score>", 7),
        ("So my final score is 8.", 8),
        ("Score: 3\nOn reflection:\n- Score: 8\n\nThank you!", 8),
    ],
)
def test_a_score_line(text: str, score: float) -> None:
    assert read_score_line(text, SCALE) == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would rather not say.",
        "7",
        "Score: 7-8",
        "Score: 7–8",
        "Score: 7 to 8",
        "Score: between 7 and 8",
        "Score: 7,5",
        "Score: 7²",
        "Score: 7½",
        "Score: 1e1",
        "Score: 70%",
        "Score: 7 8",
        "Score: 7.5.1",
        "Score: 7\u200b5",
        "Score: (7",
        "Score: 3 -> 8",
        "Score: ~~3~~",
        "Score -2",
        "Score: -2",
        "Score: 11",
        "Score: 4/5",
        "Score: 85/100",
        "Score (1-5): 4",
        "Score (clarity): 3",
        "Clarity score: 3",
        "Max score: 10",
        "The score is not 7",
        "Score (0-10):",
        "Score: 0-10",
        "Score: 7\nNo, make that 5",
        "Score: 7. Rather five.",
        "Score: 7\nI revise the score down.",
        "Score: 7\nClarity score: 3",
        "Score:\n7",
    ],
)
def test_what_is_not_sure_has_no_score(text: str) -> None:
    assert isinstance(read_score_line(text, SCALE), RequestFailed)


def test_without_a_known_scale_any_number_may_stand_there() -> None:
    assert read_score_line("Score: -2") == -2
    assert read_score_line("Score (0-100): 85") == 85
    assert isinstance(read_score_line("Score (0-100): 185"), RequestFailed)


LABELS = ("Score", "score", "SCORE", "Final score", "**Score**", "Overall Score", "My score", "_Score_")
SCALES = ("", " (0-10)", " [0-10]", " (0–10)", " (from 0 to 10)", " (out of 10)", " out of 10", " {0 to 10}", " (1-5)")
SEPARATORS = (":", ": ", " = ", " is ", " : ", "：", " — ", " - ", " ")
FORMS = ("{0}", "{0:.1f}", "**{0}**", "`{0}`", "[[{0}]]", "({0})", "{0}/10", "{0} / 10", "{0} out of 10", "{0}.")
FORMS += ("{0} points", "+{0}", "{0}/5", "{0}%", "{0}-{1}", "{0} or {1}", "{0} to {1}", "-{0}", "{0},5", "~{0}")
FORMS += ("{1} -> {0}", "{0} ({1} for style)", "not {1}", "at most {1}", "{0} {1}")
BEFORE = (
    "",
    "It is fine.\n",
    "Score: {1}\n",
    "Clarity score: {1}. ",
    "{1} points for style.\n- ",
    "I would say {1}/10.\n",
)
AFTER = ("", "\n", "\n\nThank you!", " ", "\nNo, {1}.", "\nStyle score: {1}", "\nRather {1}/10")
# What these say is not the first number, or not surely so.
UNSURE_FORMS = ("{0}%", "{0}-{1}", "{0} or {1}", "{0} to {1}", "-{0}", "{0},5", "~{0}", "not {1}", "at most {1}")
UNSURE_FORMS += ("{1} -> {0}", "{0} ({1} for style)", "{0} {1}", "{0}/5")


@settings(max_examples=2000, deadline=None, derandomize=True, database=None)
@given(
    parts=st.tuples(*map(st.sampled_from, (BEFORE, LABELS, SCALES, SEPARATORS, FORMS, AFTER))),
    score=st.integers(0, 10),
    other=st.integers(0, 10),
    digits=st.sampled_from(("0123456789", "０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩")),
)
def test_never_a_wrong_number(parts: tuple[str, ...], score: int, other: int, digits: str) -> None:
    before, label, scale, separator, form, after = parts
    number = form.format(score, other).translate(str.maketrans("0123456789", digits))
    text = before.format(score, other) + label + scale + separator + number + after.format(score, other)
    read = read_score_line(text, SCALE)
    sure = form not in UNSURE_FORMS or (form, score) == ("-{0}", 0)
    assert isinstance(read, RequestFailed) or (read == score and sure), text


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("scale", SCALES[:-1])
def test_what_judges_usually_write_is_read(label: str, scale: str) -> None:
    for form in ("{0}", "**{0}**", "{0}/10", "{0} out of 10", "{0}."):
        assert read_score_line(f"Good.\n{label}{scale}: {form.format(7)}", SCALE) == 7
