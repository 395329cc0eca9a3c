"""The reward: a distance worked out by hand."""

from __future__ import annotations

import pytest
from mmalign_trajectories.reach import Reach

from mmalign import Record, Response, Sample


def make_sample(*points: tuple[float, float], goal: str = "[3, 4]") -> Sample:
    record = Record.from_text(f'{{"start": [0, 0], "goal": {goal}}}', id="walk")
    return Sample(record, Response.from_text("r0", str(list(map(list, points)))), list(points))


def test_only_the_last_point_counts() -> None:
    # 3-4-5 triangle
    assert Reach(scale=1.0).score([make_sample((3, 4), (0, 0)), make_sample((0, 0), (3, 4))]) == [-5.0, 0.0]


def test_the_scale_is_the_unit_of_distance() -> None:
    assert Reach(scale=10.0).score([make_sample((0, 0))]) == [pytest.approx(-0.5)]


def test_every_path_is_scored_against_its_own_goal() -> None:
    assert Reach(scale=1.0).score([make_sample((0, 1)), make_sample((0, 1), goal="[0, 0]")]) == [
        pytest.approx(-(18**0.5)),
        -1.0,
    ]
