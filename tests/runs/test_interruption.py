"""Signals: the first asks to stop, the second stops, and the handlers of before come back."""

from __future__ import annotations

import logging
import signal
import threading

import pytest

from mmalign.training.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop(number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    with Interruption() as interruption:
        assert not interruption.requested
        with caplog.at_level(logging.WARNING):
            signal.raise_signal(number)
        assert interruption.requested
    assert "stopping after this round and saving" in caplog.text


def test_a_second_signal_stops_at_once() -> None:
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interruption.requested


def test_the_handlers_of_before_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="in the middle"), Interruption():
        assert signal.getsignal(signal.SIGINT) is not before[0]
        raise ValueError("in the middle")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_other_threads_leave_the_handlers_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with Interruption():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
