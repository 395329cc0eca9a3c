"""What is set for the machine while a run trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign import api
from mmalign.hardware import flushed_subnormals

pytestmark = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this CPU keeps subnormal numbers")

SMALL = torch.tensor(1e-39)


def is_flushed() -> bool:
    return bool(SMALL * 0.5 == 0)


def test_numbers_that_small_are_zero_inside_and_numbers_again_outside() -> None:
    assert not is_flushed()
    with flushed_subnormals():
        assert is_flushed()
        with flushed_subnormals():
            assert is_flushed()
        assert is_flushed()
    assert not is_flushed()


def test_an_error_leaves_the_thread_as_it_was() -> None:
    with pytest.raises(KeyError), flushed_subnormals():
        raise KeyError
    assert not is_flushed()


def test_a_run_trains_with_them_flushed(
    toy_config: Callable[..., dict[str, Any]], write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    run_loop = api.run_loop
    monkeypatch.setattr("mmalign.api.run_loop", lambda run: (seen.append(is_flushed()), run_loop(run)))
    mmalign.train(write_config(toy_config()))
    assert seen == [True]
    assert not is_flushed()
