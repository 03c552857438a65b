"""The process in which math-verify runs: started by path, talks JSON lines, imports nothing of r1ray.

    stdin   {"golds": [...], "answer": "..."}             stdout  {"verdict": "right"}, one line for each line read

math-verify may compute for ever, eat all memory or end the process, and its own timeouts need SIGALRM in a main thread. So this
process only imports it, and forks a worker that does the work. The worker arms kernel timers (CPU and wall) whose default action
ends it whatever it is doing; the next worker is a fork away, with everything imported. Model text reaches the LaTeX grammar alone:
math-verify's plain-expression reader, which evaluates Python, is never used.

    verdicts   right wrong | timeout memory crash: the answer's own doing
"""

import importlib
import json
import logging
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, BinaryIO

WALL_FACTOR = 3
"""Wall seconds per CPU second: on a busy machine an honest answer must not time out."""
RECYCLE = 500
"""Requests after which a worker is replaced: sympy's caches grow towards the memory limit."""
CRASHED, OUT_OF_MEMORY = 2, 3


def main(cpu_s: float, memory_bytes: int) -> None:
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not be taken for a verdict
    verify = load()
    replies.write(b'{"verdict": "ready"}\n')
    worker = Worker(verify, cpu_s, memory_bytes)
    for request in sys.stdin.buffer:
        replies.write(json.dumps({"verdict": worker.ask(request)}).encode() + b"\n")


def load() -> Any:
    """A function (golds, answer) -> bool, imported and used once: the first parse builds tables that forks then share."""
    library: Any = importlib.import_module("math_verify")
    parser: Any = importlib.import_module("math_verify.parser")
    logging.disable(logging.CRITICAL)
    # Open-R1's settings for answers: what is not written as LaTeX should be written is not repaired.
    plain = parser.NormalizationConfig(
        nits=False, malformed_operators=False, basic_latex=True, units=True, boxed="all", equations=False
    )
    options = {"boxed_match_priority": 0, "try_extract_without_anchor": False}
    of_answer = library.LatexExtractionConfig(**options, normalization_config=plain)
    of_gold = library.LatexExtractionConfig(**options)
    parsed_golds: dict[str, list[Any]] = {}

    def read(text: str, config: Any) -> list[Any]:
        # The timeouts of math-verify are off: they would disarm the timer that guards this process.
        return library.parse(f"\\boxed{{{text}}}", [config], fallback_mode="no_fallback", parsing_timeout=None)

    def is_right(golds: list[str], answer: str) -> bool:
        parsed_answer = read(answer, of_answer)
        for gold in golds:
            if gold not in parsed_golds:
                parsed_golds[gold] = read(gold, of_gold)
            # verify is not symmetric: the gold comes first
            if library.verify(parsed_golds[gold], parsed_answer, timeout_seconds=None):
                return True
        return False

    is_right([r"\frac{\sqrt{2}}{2}", "(1, 2)"], "x^2 + 1")
    return is_right


class Worker:
    """The process that may be lost, and the pipes to it."""

    def __init__(self, verify: Any, cpu_s: float, memory_bytes: int) -> None:
        self._verify, self._cpu_s, self._memory_bytes = verify, cpu_s, memory_bytes
        self._start()

    def ask(self, request: bytes) -> str:
        if self._asked >= RECYCLE:
            self._end()
            self._start()
        # Killed from outside is not the answer's doing, unless it happens to the same answer again (the machine's memory ran out).
        verdict = self._try(request)
        return self._try(request) if verdict == "memory" and self._killed else verdict

    def _try(self, request: bytes) -> str:
        self._asked += 1
        self._killed = False
        with suppress(BrokenPipeError):  # the worker died while it had nothing to do: its status says how
            self._requests.write(request)
        verdict = self._verdicts.readline()
        if verdict:
            return verdict.decode().strip()
        status = self._end()
        self._start()
        if os.WIFSIGNALED(status):
            self._killed = os.WTERMSIG(status) == signal.SIGKILL
            late = os.WTERMSIG(status) in (signal.SIGALRM, signal.SIGPROF)
            return "timeout" if late else "memory" if self._killed else "crash"
        return "memory" if os.WEXITSTATUS(status) == OUT_OF_MEMORY else "crash"

    def _start(self) -> None:
        requests, self_requests = os.pipe()
        self_verdicts, verdicts = os.pipe()
        self._asked = 0
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self_requests)
            os.close(self_verdicts)
            code = CRASHED
            try:
                self._serve(os.fdopen(requests, "rb"), os.fdopen(verdicts, "wb", buffering=0))
                code = 0
            finally:
                os._exit(code)  # never back up the stack: this is a copy of the supervisor
        os.close(requests)
        os.close(verdicts)
        self._requests = os.fdopen(self_requests, "wb", buffering=0)
        self._verdicts = os.fdopen(self_verdicts, "rb")

    def _end(self) -> int:
        self._requests.close()
        self._verdicts.close()
        return os.waitpid(self._pid, 0)[1]

    def _serve(self, lines: BinaryIO, out: BinaryIO) -> None:
        """In the worker. Not one file may be written, and the process ends by itself when a timer goes off."""
        resource.setrlimit(resource.RLIMIT_AS, (self._memory_bytes, self._memory_bytes))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for line in lines:
            request = json.loads(line)
            signal.setitimer(signal.ITIMER_PROF, self._cpu_s)
            signal.setitimer(signal.ITIMER_REAL, self._cpu_s * WALL_FACTOR)
            try:
                right = self._verify(request["golds"], request["answer"])
            except MemoryError:
                os._exit(OUT_OF_MEMORY)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            out.write(b"right\n" if right else b"wrong\n")


if __name__ == "__main__":
    main(cpu_s=float(sys.argv[1]), memory_bytes=int(sys.argv[2]))
