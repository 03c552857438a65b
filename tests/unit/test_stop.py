"""Asked to stop: the signal leaves a note, and the note is read where a stage can stop."""

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
    stop._asked.clear()


def test_nothing_stops_a_run_that_was_not_asked() -> None:
    stop.listen()
    assert not stop.asked()
    stop.raise_if_asked()


def test_sigterm_is_noted_and_does_nothing_else() -> None:
    stop.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.asked()


def test_the_note_ends_the_run_where_it_is_looked_at_as_often_as_that_is() -> None:
    stop.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(2):
        with pytest.raises(stop.Stopped, match="asked to stop"):
            stop.raise_if_asked()


def test_the_exit_code_is_none_of_the_others() -> None:
    assert stop.EXIT_CODE == 75
