"""Counts are remembered by what they depend on; a cache that cannot be used costs time alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmalign.references.folders import cache_folder
from mmalign.references.parameter_counts import remember_counts


class Counter:
    def __init__(self, answer: tuple[int, int] | None) -> None:
        self.answer = answer
        self.calls = 0

    def __call__(self) -> tuple[int, int] | None:
        self.calls += 1
        return self.answer


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_same_facts_are_counted_once_and_others_anew() -> None:
    count = Counter((7, 3))
    assert [remember_counts(["a", "b"], count) for _ in range(3)] == [(7, 3)] * 3
    assert count.calls == 1
    assert remember_counts(["ab"], Counter((8, 8))) == (8, 8)


def test_nothing_and_errors_are_not_remembered() -> None:
    count = Counter(None)
    assert [remember_counts(["a"], count) for _ in range(2)] == [None, None] and count.calls == 2

    def fail() -> tuple[int, int]:
        raise ValueError("no such layer")

    for _ in range(2):
        with pytest.raises(ValueError, match="no such layer"):
            remember_counts(["b"], fail)


@pytest.mark.parametrize("content", ["", "[1]", "{}", '["x", "y"]', "\x00", "[1, 2, 3]", "null"])
def test_a_damaged_entry_is_counted_anew(content: str) -> None:
    remember_counts(["a"], Counter((7, 3)))
    (file,) = cache_folder("parameter_counts").glob("*.json")
    file.write_text(content)
    assert remember_counts(["a"], Counter((9, 4))) == (9, 4)
    assert remember_counts(["a"], Counter(None)) == (9, 4)


def test_a_cache_that_cannot_be_made_does_not_matter(root: Path) -> None:
    root.write_text("a file where the folder should be")
    assert remember_counts(["a"], Counter((7, 3))) == (7, 3)
