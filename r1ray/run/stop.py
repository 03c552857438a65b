"""SIGTERM (`ray job stop`, an evicted pod, a reclaimed spot machine) makes a run save and exit with 75.

The handler only sets a flag. A stage checks it before a step and while it waits for completions, when the weights are still those
of the last step, so that the checkpoint is exactly the end of that step.
"""

import signal
import threading
from types import FrameType

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: not a failure; to continue, run the same command with resume=auto."""

_requested = threading.Event()


class Stopped(RuntimeError):
    """The run was asked to stop. A stage with unsaved progress saves it and re-raises this."""


def install_handler() -> None:
    """From now on SIGTERM means save and exit."""

    def set_flag(number: int, frame: FrameType | None) -> None:
        _requested.set()

    signal.signal(signal.SIGTERM, set_flag)


def stop_requested() -> bool:
    return _requested.is_set()


def raise_if_stop_requested() -> None:
    if stop_requested():
        raise Stopped("stopped by SIGTERM")
