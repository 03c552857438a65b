"""Asked to stop (SIGTERM: `ray job stop`, a pod that is evicted, a spot machine that goes), a run saves and ends with 75.

The handler only takes a note. A stage looks at it before a step, and while it waits for completions, when the weights are still
those of the last step: so what is saved is exactly the end of that step.
"""

import signal
import threading
from types import FrameType

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command with resume=auto goes on."""

_asked = threading.Event()


class Stopped(RuntimeError):
    """The run was asked to stop; where there is something to save, the stage does so before it lets this through."""


def listen() -> None:
    """From now on SIGTERM means: save and end."""

    def note(number: int, frame: FrameType | None) -> None:
        _asked.set()

    signal.signal(signal.SIGTERM, note)


def asked() -> bool:
    return _asked.is_set()


def raise_if_asked() -> None:
    if asked():
        raise Stopped("asked to stop (SIGTERM)")
