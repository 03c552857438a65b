"""SIGTERM sets a flag, which is checked where a stage can stop."""

import os
import signal
from collections.abc import Iterator

import pytest

from r1ray.run import stop


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    stop._requested.clear()


def test_a_run_without_a_signal_does_not_stop() -> None:
    stop.install_handler()
    assert not stop.stop_requested()
    stop.raise_if_stop_requested()


def test_sigterm_only_sets_the_flag() -> None:
    stop.install_handler()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.stop_requested()


def test_every_check_raises_once_the_flag_is_set() -> None:
    stop.install_handler()
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(2):
        with pytest.raises(stop.Stopped, match="stopped by SIGTERM"):
            stop.raise_if_stop_requested()


def test_exit_code() -> None:
    assert stop.EXIT_CODE == 75
