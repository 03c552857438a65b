"""SIGTERM sets a flag, which is checked where a stage can stop."""

import os
import signal

import pytest

from r1ray.run import stop

pytestmark = pytest.mark.usefixtures("signals_as_before")


def test_a_run_without_a_signal_does_not_stop() -> None:
    stop.install_handler()
    assert not stop.stop_requested()
    stop.raise_if_stop_requested()


def test_sigterm_only_sets_the_flag() -> None:
    stop.install_handler()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.stop_requested()


def test_first_interrupt_sets_the_flag_and_a_second_one_ends_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    stop.install_handler()
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.stop_requested() and stop.stop_reason() == "stopped by SIGINT"
    assert "saving" in capfd.readouterr().err and signal.getsignal(signal.SIGINT) is signal.SIG_DFL


def test_every_check_raises_once_the_flag_is_set() -> None:
    stop.install_handler()
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(2):
        with pytest.raises(stop.Stopped, match="stopped by SIGTERM"):
            stop.raise_if_stop_requested()


def test_exit_code() -> None:
    assert stop.EXIT_CODE == 75
