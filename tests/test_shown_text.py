"""Control characters of others' texts: which are shown, which stay, and that JSON is read back as it was."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.shown_text import dump_json, show_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("\x1b]8;;https://x.example\x1b\\here", "␛]8;;https://x.example␛\\here"),
        ("\x9b2J\x85", "<U+009B>2J<U+0085>"),
        ("a\x7fb\x08\r", "a␡b␈␍"),
        ("user\u202egpj.exe\u2066", "user<U+202E>gpj.exe<U+2066>"),
        ("pass\u200bword\ufeff\u2060", "pass<U+200B>word<U+FEFF><U+2060>"),
        ("soft\u00adhyphen\u2028line", "soft<U+00AD>hyphen<U+2028>line"),
        ("hidden\U000e0041\U000e0100", "hidden<U+E0041><U+E0100>"),
        ("\ud800half", "<U+D800>half"),
        ("pay\u200dpal \u200cx", "pay<U+200D>pal <U+200C>x"),
    ],
)
def test_what_steers_or_hides_is_shown(text: str, shown: str) -> None:
    assert show_controls(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain\n\ttext",
        "Grüße, 你好, שלום, مرحبا",
        "क्\u200dष",
        "می\u200cخواهم",  # noqa: RUF001
        "👩\u200d🔬 ❤️\u200d🔥",
        "[bold]x[/bold]",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert show_controls(text) == text


def test_line_breaks_are_shown_where_a_text_must_stay_on_its_line() -> None:
    assert show_controls("a\nb\tc", lines=False) == "a␊b␉c"


@given(st.text(st.characters()))
def test_nothing_that_steers_is_left_and_showing_twice_changes_nothing(text: str) -> None:
    shown = show_controls(text)
    left = {char for char in shown if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")}
    assert left <= {"\n", "\t"}
    assert not any(
        unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI") for char in shown
    )
    assert show_controls(shown) == shown
    shown.encode()


@given(st.dictionaries(st.text(), st.text(st.characters())))
def test_json_is_read_back_as_it_was_and_steers_nothing(document: dict[str, str]) -> None:
    text = dump_json(document)
    assert json.loads(text) == document
    assert show_controls(text) == text
