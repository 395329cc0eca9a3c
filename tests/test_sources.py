"""The stream of training records: every record once an epoch, in an order that resuming does not change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from mmalign import DataError, Record
from mmalign.data import Source
from mmalign.distribution import take_share
from mmalign.sources import RecordStream


def make_source(count: int, *, streaming: bool = False) -> Source:
    def iterate(source: Source) -> Iterator[Record]:
        yield from (Record.from_text("x", id=str(index)) for index in range(count))

    source = Source("memory", "fingerprint", iterate)
    if not streaming:
        source.load()
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
    shares = [take_share(items, rank, processes, "here") for rank in range(processes)]
    assert sorted(item for share in shares for item in share) == items


def test_too_few_records_for_the_processes_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.eval: 1 records cannot be shared by 2 processes"):
        take_share([1], 1, 2, "data.eval")
