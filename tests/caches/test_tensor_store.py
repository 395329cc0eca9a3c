"""Results of frozen networks on the disk: computed once, found again bit for bit, computed again where damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmalign import TensorStore, cache_folder
from mmalign.cli.cache import count_entries


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


INPUTS = [{"ids": torch.tensor([1, 2])}, {"ids": torch.tensor([3, 4])}, {"ids": torch.tensor([1, 2])}]


class Encoder:
    """Doubles its input; remembers how many inputs every call had."""

    def __init__(self, inputs: Sequence[Mapping[str, Tensor]] = INPUTS) -> None:
        self.inputs, self.calls = inputs, list[int]()

    def __call__(self, places: list[int]) -> list[dict[str, Tensor]]:
        self.calls.append(len(places))
        batch = torch.stack([self.inputs[place]["ids"] for place in places]).to(torch.bfloat16) * 2
        return [{"hidden": row} for row in batch]


def test_equal_inputs_are_computed_once_and_later_runs_find_them() -> None:
    encoder, store = Encoder(), TensorStore("doubles", lambda: {"weights": "a"})
    first = store.fetch(INPUTS, encoder)
    assert [one["hidden"].tolist() for one in first] == [[2, 4], [6, 8], [2, 4]]
    again = TensorStore("doubles", lambda: {"weights": "a"})
    second = again.fetch(INPUTS, encoder)
    assert all(torch.equal(one["hidden"], two["hidden"]) for one, two in zip(first, second, strict=True))
    assert first[0]["hidden"].dtype == torch.bfloat16
    assert (encoder.calls, store.found, store.computed, again.found, again.computed) == ([2], 1, 2, 3, 0)
    assert count_entries(cache_folder("doubles")) == 2


def test_another_network_or_dtype_is_another_result() -> None:
    encoder = Encoder()
    TensorStore("doubles", lambda: {"weights": "a"}).fetch(INPUTS, encoder)
    TensorStore("doubles", lambda: {"weights": "b"}).fetch(INPUTS, encoder)
    TensorStore("doubles", lambda: {"weights": "a"}).fetch([{"ids": one["ids"].int()} for one in INPUTS], encoder)
    assert encoder.calls == [2, 2, 2]


def test_damaged_results_are_computed_again(cache: Path) -> None:
    encoder, store = Encoder(), TensorStore("doubles", dict)
    store.fetch(INPUTS, encoder)
    connection = sqlite3.connect(cache / "doubles" / "rows.sqlite")
    with connection:
        connection.execute("UPDATE rows SET value = substr(value, 1, 20)")
    connection.close()
    assert store.fetch(INPUTS[:1], encoder)[0]["hidden"].tolist() == [2, 4]
    assert (store.damaged, encoder.calls) == (1, [2, 1])


def test_a_disk_that_refuses_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "file"))
    store = TensorStore("doubles", dict)
    assert store.fetch(INPUTS[:1], Encoder())[0]["hidden"].tolist() == [2, 4]
    assert store.fetch([], Encoder()) == []
