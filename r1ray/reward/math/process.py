"""math-verify in a child process that may hang, run out of memory or die: the caller gets a verdict in each case.

`math_verify` is never imported here. Works from any thread: Ray runs actor methods off the main thread, where the library's own
SIGALRM timeouts fail silently and score everything 0.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from r1ray.reward.math.expression import Ambiguous, Unsupported, parse
from r1ray.reward.math.structure import relation_of

CPU_S = 2.0
"""Limit of one comparison; usual ones take milliseconds, the first ones, which load code, some tenths of a second."""
MEMORY_BYTES = 1 << 30
START_S = 120.0
"""Importing sympy and the LaTeX grammar takes 2 s alone and far longer on a machine that is starting everything at once."""
ANSWER_S = 20.0
"""The child ends a comparison itself after 3 * CPU_S of wall time, or after twice that if it repeats the comparison: the worker was
killed from outside or got no CPU. So a child that does not answer for this long hangs.
"""
RETRY_S = 30.0
"""A child that failed twice in a row is not started again for so long: every completion that needs it would wait for the start."""


class VerifierDown(RuntimeError):
    """The child cannot be started or does not answer, which is no fault of a completion."""


DROPPED = re.compile(r"\\text|\\operatorname|[':]")
"""What math-verify drops, or reads as something else."""


@lru_cache(maxsize=2_000)
def as_read(text: str) -> dict[str, Any]:
    """A text as the child takes it: an expression or a relation as trees; others, if they have one reading, for math-verify."""
    found: dict[str, Any] = {"text": text, "tree": None, "sides": None, "sign": None, "ambiguous": False}
    try:
        relation = relation_of(text)
        if relation:
            left, sign, right = relation
            return found | {"sides": [parse(left), parse(right)], "sign": sign}
        return found | {"tree": parse(text)}
    except Ambiguous:
        return found | {"ambiguous": True}
    except Unsupported:
        return found | {"ambiguous": DROPPED.search(text) is not None}


class MathVerifier:
    """One child process. `verify` may be called from any thread; one comparison runs at a time."""

    def __init__(self, *, cpu_s: float = CPU_S, memory_bytes: int = MEMORY_BYTES) -> None:
        script = Path(__file__).with_name("child.py")
        self._command = [sys.executable, "-P", str(script), str(cpu_s), str(memory_bytes)]
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._down: tuple[float, str] = (0.0, "")
        """(monotonic time before which it is not started again, reason)"""

    def verify(self, golds: Sequence[str], answer: str) -> str:
        """ "correct", "incorrect", or how the answer ended the process: "timeout", "memory", "crash".

        A child that died is restarted once.

        Raises:
            VerifierDown: there is no working child.
        """
        read = as_read(answer)
        if read["ambiguous"]:
            return "incorrect"
        request = json.dumps({"golds": [as_read(gold) for gold in golds], "answer": read}).encode() + b"\n"
        with self._lock:
            until, why = self._down
            if time.monotonic() < until:
                raise VerifierDown(why)
            try:
                return self._ask(request)
            except (VerifierDown, OSError):
                self._stop()
            try:
                return self._ask(request)
            except (VerifierDown, OSError) as error:
                self._stop()
                why = f"the maths verification process failed: {error}"
                self._down = (time.monotonic() + RETRY_S, why)
                raise VerifierDown(why) from error

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _ask(self, request: bytes) -> str:
        if self._child is None:
            # A process group for the child, so that one signal ends it and its worker.
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
            self._read_verdict(self._child, START_S)
        assert self._child.stdin is not None
        self._child.stdin.write(request)
        return self._read_verdict(self._child, ANSWER_S)

    def _read_verdict(self, child: subprocess.Popen[bytes], seconds: float) -> str:
        """The next line of the child. Waits until there is one, the child ends, or the deadline passes."""
        assert child.stdout is not None
        deadline = time.monotonic() + seconds
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise VerifierDown(f"no answer within {seconds:.0f} s")
            chunk = os.read(child.stdout.fileno(), 4096)
            if not chunk:
                raise VerifierDown("it ended (its output is in the log of this worker)")
            line += chunk
        return json.loads(line)["verdict"]

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()
        child.wait()
