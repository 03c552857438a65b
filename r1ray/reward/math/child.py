"""The process in which math-verify runs: started by its path, reads and writes JSON lines, imports nothing of r1ray.

    stdin   {"golds": [...], "answer": "..."}             stdout  {"verdict": "correct"}, one line for each line read

math-verify may compute forever, use all memory or end the process, and its own timeouts need SIGALRM in a main thread. So this
process only imports it, and forks a worker for the comparisons. The worker sets kernel timers (CPU and wall) whose default action
ends it in any state; the next worker is forked with everything imported. Model text reaches only the LaTeX grammar: math-verify's
plain-expression reader, which evaluates Python, is never used.

    verdicts   correct incorrect | timeout memory crash, which the answer caused
"""

import importlib
import json
import logging
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

WALL_FACTOR = 3
"""Wall seconds per CPU second, so that an honest answer does not time out on a busy machine."""
RECYCLE = 500
"""Requests after which a worker is replaced: sympy's caches grow towards the memory limit."""
CLEAR_DIFFERENCE, ROUNDED_TOLERANCE, EXACT_TOLERANCE = 1e-3, 1e-4, 1e-12
"""Relative differences of two numbers: above CLEAR_DIFFERENCE they differ. They are equal up to ROUNDED_TOLERANCE if one of them is
a decimal, up to EXACT_TOLERANCE if none is."""
ZERO_TOLERANCE = 1e-60
"""Smaller absolute differences count as rounding errors."""
WARM_UP = (
    (r"\frac{\sqrt{2}}{2} + \pi", r"\frac{1}{\sqrt{2}} + \ln 2"),
    ("x^2+5x+6", "(x+2)(x+3)"),
    ("x^2 + 1", "(1, 2)"),
    ("y=2x+1", "2x-y+1=0"),
    (r"\{1, \sqrt{2}\}", r"\{\sqrt{2}, 1\}"),
)
CRASHED, OUT_OF_MEMORY = 2, 3


def main(cpu_s: float, memory_bytes: int) -> None:
    verdicts = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library's prints must not be read as a verdict
    verify = Algebra().is_correct
    verdicts.write(b'{"verdict": "ready"}\n')
    worker = Worker(verify, cpu_s, memory_bytes)
    for request in sys.stdin.buffer:
        verdicts.write(json.dumps({"verdict": worker.ask(request)}).encode() + b"\n")


class Algebra:
    """math-verify, imported and warmed up: the first parses build tables, which all forks then share."""

    def __init__(self) -> None:
        self._library: Any = importlib.import_module("math_verify")
        self._sympy: Any = importlib.import_module("sympy")
        parser: Any = importlib.import_module("math_verify.parser")
        logging.disable(logging.CRITICAL)
        # units.py has compared the units: math-verify would drop them, and also the t of 5t. typography.py has repaired LaTeX.
        plain = parser.NormalizationConfig(
            nits=False, malformed_operators=False, basic_latex=True, units=False, boxed="all", equations=False
        )
        self._config = self._library.LatexExtractionConfig(
            boxed_match_priority=0, try_extract_without_anchor=False, normalization_config=plain
        )
        self._parsed_golds: dict[str, list[Any]] = {}
        for gold, answer in WARM_UP:
            self.is_correct([gold], answer)

    def is_correct(self, golds: list[str], answer: str) -> bool:
        """Whether the answer equals any of the golds."""
        parsed_answer = self._read(answer)
        for gold in golds:
            if gold not in self._parsed_golds:
                self._parsed_golds[gold] = self._read(gold)
            parsed_gold = self._parsed_golds[gold]
            pairs = list(zip(parsed_gold, parsed_answer, strict=False))
            if any(self._differ(*pair) for pair in pairs):
                continue
            # verify is not symmetric: the gold comes first
            equal = self._library.verify(parsed_gold, parsed_answer, timeout_seconds=None)
            if equal and all(self._same_size(*pair) for pair in pairs):
                return True
        return False

    def _read(self, text: str) -> list[Any]:
        # The timeouts of math-verify are off: they would cancel the timers that limit this process.
        boxed = f"\\boxed{{{text}}}"
        return self._library.parse(boxed, [self._config], fallback_mode="no_fallback", parsing_timeout=None)

    def _differ(self, gold: Any, answer: Any) -> bool:
        """Whether two functions of the same variables clearly differ at one point, which `simplify` takes long to find."""
        if not all(isinstance(side, self._sympy.Expr) and not side.is_Symbol for side in (gold, answer)):
            return False
        names = sorted(gold.free_symbols, key=str)
        if not names or gold.free_symbols != answer.free_symbols:
            return False
        point = {name: self._sympy.Rational(7 + 4 * index, 5 + index) for index, name in enumerate(names)}
        try:
            here, there = (complex(side.subs(point).evalf(15)) for side in (gold, answer))
        except (ArithmeticError, TypeError, ValueError):
            return False
        return abs(here - there) > CLEAR_DIFFERENCE * (abs(here) + abs(there))

    def _same_size(self, gold: Any, answer: Any) -> bool:
        """math-verify takes numbers with a tiny difference as equal, also when the numbers are tiny: 10^{-20}, 10^{-21}."""
        if not all(isinstance(side, self._sympy.Expr) and side.is_number for side in (gold, answer)):
            return True
        limit = ROUNDED_TOLERANCE if any(side.has(self._sympy.Float) for side in (gold, answer)) else EXACT_TOLERANCE
        difference = abs((gold - answer).evalf(30))
        return bool(difference <= limit * abs(gold.evalf(30)) or difference < ZERO_TOLERANCE)


class Worker:
    """The process that may be killed, and the pipes to it."""

    def __init__(self, verify: Any, cpu_s: float, memory_bytes: int) -> None:
        self._verify, self._cpu_s, self._memory_bytes = verify, cpu_s, memory_bytes
        self._start()

    def ask(self, request: bytes) -> str:
        if self._asked >= RECYCLE:
            self._end()
            self._start()
        # The answer counts as the cause only if a worker is killed from outside, or gets no CPU on a busy machine, twice in a row.
        verdict = self._try(request)
        return self._try(request) if self._external else verdict

    def _try(self, request: bytes) -> str:
        self._asked += 1
        self._external = False
        used_before = cpu_seconds(self._pid)
        with suppress(BrokenPipeError):  # the worker died while idle: its exit status says how
            self._requests.write(request)
        verdict = self._verdicts.readline()
        if verdict:
            return verdict.decode().strip()
        status, used = self._end()
        self._start()
        if os.WIFSIGNALED(status):
            starved = os.WTERMSIG(status) == signal.SIGALRM and used - used_before < self._cpu_s / 2
            killed = os.WTERMSIG(status) == signal.SIGKILL
            self._external = starved or killed
            timed_out = os.WTERMSIG(status) in (signal.SIGALRM, signal.SIGPROF)
            return "timeout" if timed_out else "memory" if killed else "crash"
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
                os._exit(code)  # never return up the stack: this is a copy of the supervisor
        os.close(requests)
        os.close(verdicts)
        self._requests = os.fdopen(self_requests, "wb", buffering=0)
        self._verdicts = os.fdopen(self_verdicts, "rb")

    def _end(self) -> tuple[int, float]:
        """(exit status, CPU seconds used)"""
        self._requests.close()
        self._verdicts.close()
        _, status, usage = os.wait4(self._pid, 0)
        return status, usage.ru_utime + usage.ru_stime

    def _serve(self, lines: BinaryIO, out: BinaryIO) -> None:
        """Runs in the worker. It may write no file, and a timer that expires ends the process."""
        resource.setrlimit(resource.RLIMIT_AS, (self._memory_bytes, self._memory_bytes))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for line in lines:
            request = json.loads(line)
            signal.setitimer(signal.ITIMER_PROF, self._cpu_s)
            signal.setitimer(signal.ITIMER_REAL, self._cpu_s * WALL_FACTOR)
            try:
                correct = self._verify(request["golds"], request["answer"])
            except MemoryError:
                os._exit(OUT_OF_MEMORY)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            out.write(b"correct\n" if correct else b"incorrect\n")


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, which may have ended but must not have been waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(cpu_s=float(sys.argv[1]), memory_bytes=int(sys.argv[2]))
