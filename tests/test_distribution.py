"""What is shared out over processes is found in its order again."""

from __future__ import annotations

import pytest

from mmalign.distribution import gather_shares, list_following, shard


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("count", [3, 4, 7])
def test_the_following_item_is_that_of_one_process(count: int, processes: int) -> None:
    items = list(range(count))
    shares = [shard(items, rank, processes, "batch") for rank in range(processes)]
    following = {
        item: after
        for rank, share in enumerate(shares)
        for item, after in zip(share, list_following(shares, rank), strict=True)
    }
    assert following == {item: (item + 1) % count for item in items}


def test_what_a_share_has_lost_is_passed_over() -> None:
    # Of 0 to 4 the second process has lost 1: its 3 has moved up.
    shares = [[0, 2, 4], [3]]
    assert list_following(shares, 0) == [3, 4, 0]
    assert list_following(shares, 1) == [2]


def test_one_process_gathers_its_own() -> None:
    assert gather_shares(["a", "b"]) == [["a", "b"]]
