"""Kept log-probs: found only where nothing that decides them differs, and never a cause of other results."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mmalign
from mmalign import EncodedResponse
from mmalign.references.reference import AdapterOff, FrozenCopy
from mmalign.references.reference_cache import ReferenceCache
from mmalign.references.row_store import RowStore


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own; returns where the rows will be."""
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reference_logps" / "rows.sqlite"


def encode(*ids: int, dtype: torch.dtype = torch.long, **more: Tensor) -> EncodedResponse:
    return EncodedResponse({"ids": torch.tensor(ids, dtype=dtype), **more}, steps=len(ids), size=len(ids))


class Scorer:
    """Log-probs that nobody else would compute; counts the responses."""

    def __init__(self, factor: float = -0.1) -> None:
        self.factor = factor
        self.calls: list[int] = []

    def __call__(self, responses: Sequence[EncodedResponse]) -> Tensor:
        self.calls.append(len(responses))
        rows = [self.factor * response.tensors["ids"].float() for response in responses]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.nan)


RESPONSES = [encode(1, 2, 3), encode(7), encode(4, 5)]


def test_rows_are_computed_once_and_come_back_bit_for_bit() -> None:
    scorer, cache = Scorer(), ReferenceCache(dict)
    first = cache.logps(RESPONSES, 1.0, scorer)
    expected = torch.tensor([[1, 2, 3], [7, 0, 0], [4, 5, 0]]) * torch.tensor(-0.1)
    assert torch.equal(first, expected) and first.dtype == torch.float32
    again = ReferenceCache(dict)
    assert torch.equal(again.logps(RESPONSES[::-1], 1.0, scorer), expected[[2, 1, 0]])
    assert scorer.calls == [3]
    assert (cache.found, cache.computed, again.found, again.computed) == (0, 3, 3, 0)


def test_only_what_is_missing_is_computed() -> None:
    scorer, cache = Scorer(), ReferenceCache(dict)
    cache.logps(RESPONSES[:1], 1.0, scorer)
    rows = cache.logps([encode(9, 9), *RESPONSES], 1.0, scorer)
    assert scorer.calls == [1, 3]
    assert rows[:, 0].tolist() == pytest.approx([-0.9, -0.1, -0.7, -0.4])


def test_what_cannot_be_a_float_keeps_its_bits() -> None:
    values = torch.tensor([[-torch.inf, 1e-42, -0.0]])
    cache = ReferenceCache(dict)
    cache.logps([encode(1, 2, 3)], 1.0, lambda responses: values)
    row = cache.logps([encode(1, 2, 3)], 1.0, Scorer())
    assert torch.equal(row.view(torch.int32), values.view(torch.int32))


def test_no_responses_are_no_rows() -> None:
    assert ReferenceCache(dict).logps([], 1.0, Scorer()).shape == (0, 0)


def test_of_equal_responses_one_row_stands() -> None:
    """Scored in one batch they may differ in their last bits; a resumed run will find one of them."""
    cache = ReferenceCache(dict)
    twice = [encode(1), encode(1)]
    rows = cache.logps(twice, 1.0, lambda responses: torch.tensor([[-1.0], [-1.0000001]]))
    assert rows.tolist() == [[-1.0], [-1.0]] == cache.logps(twice, 1.0, Scorer()).tolist()


def test_the_row_of_a_faster_run_stands() -> None:
    cache = ReferenceCache(dict)

    def score(responses: Sequence[EncodedResponse]) -> Tensor:
        ReferenceCache(dict).logps(responses, 1.0, Scorer(-0.2))  # another run, while this one computes
        return Scorer(-0.1)(responses)

    assert cache.logps([encode(5)], 1.0, score).tolist() == [[-1.0]]


KNOWN = encode(1, 2, mask=torch.tensor([True, False]))
CHANGED = {
    "another id": encode(1, 3, mask=torch.tensor([True, False])),
    "another dtype": encode(1, 2, dtype=torch.int32, mask=torch.tensor([True, False])),
    "another mask": encode(1, 2, mask=torch.tensor([True, True])),
    "another shape": encode(1, 2, mask=torch.tensor([[True, False]])),
    "another name": encode(1, 2, marks=torch.tensor([True, False])),
    "one more tensor": encode(1, 2, mask=torch.tensor([True, False]), pixels=torch.zeros(2, 2)),
    "other steps": EncodedResponse(KNOWN.tensors, steps=1, size=2),
}


@pytest.mark.parametrize("name", CHANGED)
def test_another_response_is_computed(name: str) -> None:
    scorer, cache = Scorer(), ReferenceCache(dict)
    cache.logps([KNOWN, encode(1, 2, mask=torch.tensor([True, False]))], 1.0, scorer)
    cache.logps([CHANGED[name]], 1.0, scorer)
    assert cache.computed == 3


def test_another_temperature_or_reference_is_computed() -> None:
    scorer = Scorer()
    for context, temperature in (({"weights": "a"}, 1.0), ({"weights": "b"}, 1.0), ({"weights": "a"}, 0.5)):
        ReferenceCache(lambda context=context: context).logps([KNOWN], temperature, scorer)
    assert scorer.calls == [1, 1, 1]


def test_the_weights_are_read_only_if_there_is_something_to_score() -> None:
    described = []
    cache = ReferenceCache(lambda: described.append(True) or {})
    assert not described and cache.identity() is None
    for _ in range(3):
        cache.logps(RESPONSES, 1.0, Scorer())
    assert described == [True]


def test_a_damaged_row_is_computed_again(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    scorer, kept = Scorer(), ReferenceCache(dict)
    expected = kept.logps(RESPONSES, 1.0, scorer)
    with sqlite3.connect(cache) as connection:
        connection.execute("UPDATE rows SET value = zeroblob(length(value)) WHERE length(value) = 8")
    connection.close()
    for _ in range(2):
        assert torch.equal(kept.logps(RESPONSES, 1.0, scorer), expected)
    assert scorer.calls == [3, 1] and kept.damaged == 1
    assert "1 damaged rows are dropped" in caplog.text


def test_a_run_goes_on_where_nothing_can_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "file"))
    scorer, cache = Scorer(), ReferenceCache(dict)
    for _ in range(2):
        assert torch.equal(cache.logps(RESPONSES, 1.0, scorer), Scorer()(RESPONSES).nan_to_num())
    assert scorer.calls == [3, 3] and cache.identity() is None
    assert caplog.text.count("not kept from now on") == 1


# -- whole runs


@pytest.fixture
def forward_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of responses of every forward pass of a fixed reference, as they happen."""
    passes: list[int] = []

    def counting(active: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def enter(self: Any) -> Iterator[Any]:
            with active(self) as network:

                def forward(responses: Sequence[EncodedResponse], plan: Any) -> Any:
                    passes.append(len(responses))
                    return network(responses, plan)

                yield forward

        return enter

    for reference in (AdapterOff, FrozenCopy):
        monkeypatch.setattr(reference, "active", counting(reference.active))
    return passes


@pytest.fixture
def text_config(tiny_text_model: Path, toy_pairs: Path, tmp_path: Path, write_config: Any) -> Callable[..., Path]:
    def write(name: str, **sections: Any) -> Path:
        data = {"path": str(toy_pairs)}
        config = {
            "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
            "data": {"train": data, "eval": {**data, "limit": 4}},
            "objective": {"name": "dpo"},
            "train": {"steps": 4, "batch_size": 4, "micro_batch_size": 3, "learning_rate": 1e-2, "dtype": "float32"},
            "output": str(tmp_path / name),
        }
        return write_config({**config, **sections}, f"{name}.yaml")

    return write


def weights_of(run: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.trainable().values()]


@pytest.mark.parametrize("objective", ["dpo", "kto"])
@pytest.mark.parametrize("adapter", [{"rank": 2}, None], ids=["adapter", "full"])
def test_a_second_run_makes_no_reference_pass(
    objective: str, adapter: Any, text_config: Callable[..., Path], forward_passes: list[int]
) -> None:
    first = mmalign.train(text_config("first", objective={"name": objective}), {"modality.lora": adapter})
    assert sum(forward_passes) > 0
    forward_passes.clear()
    second = mmalign.train(text_config("second", objective={"name": objective}), {"modality.lora": adapter})
    assert forward_passes == []
    assert all(map(torch.equal, weights_of(first), weights_of(second)))
    assert first.before == second.before and first.after == second.after


@pytest.mark.parametrize("adapter", [{"rank": 4, "targets": ["q_proj"]}, None], ids=["another adapter", "none"])
def test_a_run_with_other_settings_finds_the_same_rows(
    adapter: Any, text_config: Callable[..., Path], forward_passes: list[int]
) -> None:
    mmalign.train(text_config("first"))
    forward_passes.clear()
    changes = {"objective": {"name": "ipo"}, "train.seed": 3, "train.batch_size": 5, "modality.lora": adapter}
    mmalign.train(text_config("second"), changes)
    assert forward_passes == []


CHANGES: dict[str, dict[str, Any]] = {
    "chat template": {"modality.chat_template": "{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"},
    "system message": {"modality.system": "Be brief."},
    "weights' dtype": {"train.dtype": "bfloat16"},
    "autocast": {"train.mixed_precision": "bf16"},
    "attention": {"modality.attention": "eager"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_values_is_computed_anew(
    name: str, text_config: Callable[..., Path], forward_passes: list[int]
) -> None:
    overrides = {"train.steps": 1, "train.batch_size": 2, "data.eval": None}
    mmalign.train(text_config("first"), overrides)
    expected = sum(forward_passes)
    forward_passes.clear()
    mmalign.train(text_config("second"), overrides | CHANGES[name])
    assert sum(forward_passes) == expected == 4


def test_a_run_that_keeps_rows_equals_one_that_does_not(text_config: Callable[..., Path], cache: Path) -> None:
    """In the first epoch, where both score the same responses together."""
    overrides = {"train.steps": 2, "data.eval": None}
    without = mmalign.train(text_config("without"), {**overrides, "reference.cache": False})
    assert without.backend.reference_cache is None and not cache.exists()
    kept = mmalign.train(text_config("kept"), overrides)
    found = mmalign.train(text_config("found"), overrides)
    assert kept.backend.reference_cache.computed == found.backend.reference_cache.found == 16
    for run in (kept, found):
        assert all(map(torch.equal, weights_of(without), weights_of(run)))


def test_held_out_records_are_kept(text_config: Callable[..., Path], forward_passes: list[int]) -> None:
    config = text_config("run")
    mmalign.evaluate(config)
    assert sum(forward_passes) == 8
    mmalign.evaluate(config)
    assert sum(forward_passes) == 8


def test_sampled_responses_are_not_kept(toy_online: Any, write_config: Any, cache: Path) -> None:
    objective = [{"name": "grpo"}, {"name": "kl_penalty", "weight": 0.1}]
    evaluators = {"every": 2, "evaluators": [{"name": "generation"}]}
    run = mmalign.train(write_config(toy_online(objective=objective, evaluation=evaluators)))
    assert "kl" in " ".join(run.after)
    assert not cache.exists()


def test_a_moving_reference_is_not_kept(text_config: Callable[..., Path], cache: Path) -> None:
    run = mmalign.train(text_config("run", reference={"strategy": "ema", "decay": 0.5}))
    assert run.backend.reference_cache is None and not cache.exists()


def test_two_models_share_one_file(text_config: Callable[..., Path], tmp_path: Path, cache: Path) -> None:
    other = mmalign.build_tiny_text_model(tmp_path / "other", seed=1)
    first = mmalign.train(text_config("first"))
    count = RowStore(cache).count()
    second = mmalign.train(text_config("second"), {"modality.model": str(other)})
    assert RowStore(cache).count() == 2 * count
    assert first.before["loss"] == pytest.approx(second.before["loss"], abs=1e-5)
