"""The stream of training records: every record once an epoch, in an order that resuming does not change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from mmalign import DataError, Record
from mmalign.distribution import shard
from mmalign.sources.source import Source
from mmalign.sources.stream import RecordStream


def make_source(count: int, *, streaming: bool = False, stage: Callable[[Record], int] = lambda record: 0) -> Source:
    def iterate(source: Source) -> Iterator[Record]:
        yield from (Record.from_text("x", id=str(index)) for index in range(count))

    source = Source("memory", "fingerprint", iterate)
    if not streaming:
        source.load(stage)
    return source


def take(stream: RecordStream, *counts: int) -> list[str]:
    return [record.id for count in counts for record in stream.take(count)]


def test_every_record_comes_once_an_epoch() -> None:
    stream = RecordStream(make_source(7), shuffle=True, seed=3)
    ids = take(stream, 5, 5, 4)
    assert sorted(ids[:7]) == sorted(ids[7:]) == [str(index) for index in range(7)]


def test_epochs_and_seeds_differ_in_order() -> None:
    stream = RecordStream(make_source(50), shuffle=True, seed=0)
    first, second = take(stream, 50), take(stream, 50)
    other = take(RecordStream(make_source(50), shuffle=True, seed=1), 50)
    assert first != second and first != other
    assert first != [str(index) for index in range(50)]


def test_without_shuffling_records_come_in_the_order_of_the_file() -> None:
    assert take(RecordStream(make_source(3), shuffle=False, seed=0), 2, 3) == ["0", "1", "2", "0", "1"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("position", [0, 4, 6, 13])
def test_a_resumed_stream_goes_on_where_the_first_one_was(streaming: bool, position: int) -> None:
    whole = RecordStream(make_source(6, streaming=streaming), shuffle=True, seed=5)
    take(whole, position)
    resumed = RecordStream(make_source(6, streaming=streaming), shuffle=True, seed=5, position=position)
    assert whole.position == position
    assert take(whole, 4, 5) == take(resumed, 9)
    assert whole.position == resumed.position == position + 9


def by_parity(record: Record) -> int:
    """Odd records come first."""
    return -(int(record.id) % 2)


def test_stages_come_one_after_the_other_in_every_epoch() -> None:
    source = make_source(9, stage=by_parity)
    assert source.stages == (4, 5)
    stream = RecordStream(source, shuffle=True, seed=3)
    for _ in range(3):
        odd, even = take(stream, 4), take(stream, 5)
        assert sorted(odd) == ["1", "3", "5", "7"] and sorted(even) == ["0", "2", "4", "6", "8"]
    assert len({tuple(take(stream, 9)[:4]) for _ in range(8)}) > 1


def test_unshuffled_stages_keep_the_order_of_the_file() -> None:
    stream = RecordStream(make_source(5, stage=by_parity), shuffle=False, seed=0)
    assert take(stream, 3, 4) == ["1", "3", "0", "2", "4", "1", "3"]


def test_one_stage_is_the_plain_order() -> None:
    plain, staged = make_source(20), make_source(20, stage=lambda record: 7)
    assert staged.stages == plain.stages == (20,)
    streams = [RecordStream(source, shuffle=True, seed=2) for source in (plain, staged)]
    assert take(streams[0], 45) == take(streams[1], 45)


@pytest.mark.parametrize("position", [0, 3, 4, 11])
def test_a_resumed_stream_is_at_the_same_place_of_the_same_stage(position: int) -> None:
    whole = RecordStream(make_source(6, stage=by_parity), shuffle=True, seed=5)
    take(whole, position)
    resumed = RecordStream(make_source(6, stage=by_parity), shuffle=True, seed=5, position=position)
    assert take(whole, 4, 5) == take(resumed, 9)


def test_a_stream_may_be_asked_for_more_than_it_holds() -> None:
    assert Counter(take(RecordStream(make_source(3), shuffle=True, seed=0), 9)) == {"0": 3, "1": 3, "2": 3}


def test_a_streamed_source_starts_over_at_its_end() -> None:
    stream = RecordStream(make_source(3, streaming=True), shuffle=False, seed=0)
    assert take(stream, 2, 2, 3) == ["0", "1", "2", "0", "1", "2", "0"]


@pytest.mark.parametrize("streaming", [False, True])
def test_an_empty_source_is_an_error_and_not_an_endless_loop(streaming: bool) -> None:
    with pytest.raises(DataError, match="memory: no records to train on"):
        RecordStream(make_source(0, streaming=streaming), shuffle=False, seed=0).take(1)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shares_of_all_processes_are_the_whole(processes: int) -> None:
    items = list(range(7))
    shares = [shard(items, rank, processes, "here") for rank in range(processes)]
    assert sorted(item for share in shares for item in share) == items


def test_too_few_records_for_the_processes_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.eval: 1 records cannot be shared by 2 processes"):
        shard([1], 1, 2, "data.eval")
