"""SIGTERM (`ray job stop`, an evicted pod, a reclaimed spot machine) and Ctrl-C make a run save and exit with 75.

The handler only sets a flag. A stage checks it before a step and while it waits for completions, when the weights are still those
of the last step, so that the checkpoint is exactly the end of that step. A second Ctrl-C ends the process at once.
"""

import os
import signal
from types import FrameType

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: not a failure; to continue, run the same command with resume=auto."""

_received: signal.Signals | None = None
"""The first signal that asked the run to stop."""


class Stopped(RuntimeError):
    """The run was asked to stop. A stage with unsaved progress saves it and re-raises this."""


def install_handler() -> None:
    """From now on SIGTERM and the first SIGINT mean save and exit."""

    def set_flag(number: int, frame: FrameType | None) -> None:
        global _received
        if _received is None:
            _received = signal.Signals(number)
            what = f"{_received.name}: saving, then exiting with code {EXIT_CODE}. Ctrl-C ends the run at once"
            os.write(2, f"r1ray: {what}\n".encode())  # not print: the signal may have interrupted one
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, set_flag)
    signal.signal(signal.SIGINT, set_flag)


def stop_requested() -> bool:
    return _received is not None


def stop_reason() -> str:
    """For the message: `stopped by SIGTERM`."""
    return f"stopped by {_received.name}" if _received else "stopped"


def raise_if_stop_requested() -> None:
    if stop_requested():
        raise Stopped(stop_reason())
