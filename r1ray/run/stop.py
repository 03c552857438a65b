"""SIGTERM (`ray job stop`, an evicted pod, a reclaimed spot machine) and Ctrl-C make a run save and exit with 75.

The handler only sets a flag. A stage checks it before a step and while it waits for completions, when the weights are still those
of the last step, so that the checkpoint is exactly the end of that step. A second Ctrl-C ends the process at once.
"""

import os
import signal
import threading
from types import FrameType

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: not a failure; to continue, run the same command with resume=auto."""

_requested = threading.Event()
_reason = "stopped"


class Stopped(RuntimeError):
    """The run was asked to stop. A stage with unsaved progress saves it and re-raises this."""


def install_handler() -> None:
    """From now on SIGTERM and the first SIGINT mean save and exit."""

    def set_flag(number: int, frame: FrameType | None) -> None:
        global _reason
        name = signal.Signals(number).name
        if not _requested.is_set():
            _reason = f"stopped by {name}"
            # Not print: the signal may have interrupted one.
            os.write(
                2, f"r1ray: {name}: saving, then exiting with code {EXIT_CODE}. Ctrl-C ends the run at once\n".encode()
            )
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        _requested.set()

    signal.signal(signal.SIGTERM, set_flag)
    signal.signal(signal.SIGINT, set_flag)


def stop_requested() -> bool:
    return _requested.is_set()


def stop_reason() -> str:
    """For the message: `stopped by SIGTERM`."""
    return _reason


def raise_if_stop_requested() -> None:
    if stop_requested():
        raise Stopped(stop_reason())
