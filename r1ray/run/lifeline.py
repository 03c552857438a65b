"""Ends the driver when the Ray that it uses is gone.

Without its raylet or its GCS no call of the driver ever returns, or only after many timeouts. So a thread, which calls nothing of
Ray, looks after them: of a local Ray at its processes, of a cluster at the port of its GCS. Ray itself survives the loss of its
dashboard and of its log monitor.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

VITAL = {"raylet": "raylet", "gcs_server": "GCS server"}
"""{program: its name in messages}."""
POLL_S = 0.2
REACHED_WITHIN_S = 10.0
"""How long the start waits for a cluster's GCS: its head may be starting too."""
CONNECT_TIMEOUT_S = 5.0
RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""How long Ray waits for a cluster's GCS to come back, 60 s by default; then it aborts the process without a cause."""
MARGIN_S = 10.0

Processes = Sequence["subprocess.Popen[bytes]"]
Lost = Callable[[], str | None]
"""Why Ray is gone; None while it is there."""


class Lifeline:
    """`with Lifeline(lost, end=...):` calls `end` with the cause, once, as soon as `lost` gives one. `end` should not return."""

    def __init__(self, lost: Lost, *, end: Callable[[str], object], poll_s: float = POLL_S) -> None:
        self._lost, self._end, self._poll_s = lost, end, poll_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="lifeline")

    def __enter__(self) -> "Lifeline":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(CONNECT_TIMEOUT_S + self._poll_s)

    def _run(self) -> None:
        while not self._stopped.wait(self._poll_s):
            cause = self._lost()
            if cause and not self._stopped.is_set():
                self._end(cause)
                return


def local_loss(processes: Processes, *, logs: Path) -> Lost:
    """For a local Ray with these processes and log files. Those that the driver itself has `signalled` do not count."""

    # Of each program the last one: a Ray that did not start in time was started again.
    vital = {VITAL[_program(process)]: process for process in processes if _program(process) in VITAL}

    def lost() -> str | None:
        for name, process in vital.items():
            if not getattr(process, "signalled", False) and process.poll() is not None:
                return f"Ray's {name} (process {process.pid}) {_how(process)}{_agent(logs) if name == 'raylet' else ''}"
        return None

    return lost


def cluster_loss(address: str, *, patience_s: float | None = None) -> Lost:
    """For the cluster whose GCS is at host:port; a GCS that is restarted may be away for a while."""
    if patience_s is None:
        patience_s = max(MARGIN_S, float(os.environ.get(RECONNECT, "60")) - MARGIN_S)
    answered = time.monotonic()

    def lost() -> str | None:
        nonlocal answered
        error = connect_error(address)
        if error is None:
            answered = time.monotonic()
        elif (seconds := time.monotonic() - answered) > patience_s:
            return f"the Ray cluster at {address} has not answered for {seconds:.0f} s ({error})"
        return None

    return lost


def refuse_dead_address(address: str, *, within_s: float = REACHED_WITHIN_S) -> None:
    """Raises ConnectionError when nothing listens at host:port. (ray.init would take two minutes and name no address.)"""
    end = time.monotonic() + within_s
    while (error := connect_error(address)) is not None:
        if time.monotonic() >= end:
            raise ConnectionError(
                f"no Ray cluster answers at {address} ({error}), which RAY_ADDRESS or cluster.address names. Start one there (ray "
                "start --head), correct the address, or unset RAY_ADDRESS: then the run starts a Ray of its own on this machine"
            )
        time.sleep(min(1.0, within_s))


def connect_error(address: str) -> str | None:
    """Why no connection to host:port is possible; None if one is, or if the address has another form, which is left to Ray."""
    found = re.fullmatch(r"\[?([\w.:-]+?)\]?:(\d+)", address)
    if not found:
        return None
    try:
        with socket.create_connection((found[1], int(found[2])), timeout=CONNECT_TIMEOUT_S):
            return None
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)


def kill_groups(processes: Processes) -> None:
    """SIGKILL the process groups of Ray's processes, which have sessions of their own: its workers are in that of the raylet."""
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def end_process(message: str, *, code: int, processes: Processes) -> None:
    """End this process at once, whatever its other threads wait for, and the local Ray."""
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    kill_groups(processes)
    os._exit(code)


def _program(process: "subprocess.Popen[bytes]") -> str:
    return Path(str(process.args[0])).name if isinstance(process.args, list) else ""


def _how(process: "subprocess.Popen[bytes]") -> str:
    code = process.returncode
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"has ended (exit code {code})"


def _agent(logs: Path) -> str:
    """The agent without which the raylet ends itself, if that was the reason."""
    with suppress(OSError):
        if found := re.search(
            r"Agent process with name (\w+) exited", (logs / "raylet.out").read_text(errors="replace")
        ):
            return f" because its {found[1].replace('_', ' ')} had ended"
    return ""
