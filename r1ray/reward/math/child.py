"""The process in which math-verify runs: started by its path, reads and writes JSON lines, imports nothing of r1ray.

    stdin   {"golds": [READ, ...], "answer": READ}        stdout  {"verdict": "correct"}, one line for each line read
    READ    {"text", "tree", "sides", "sign", "ambiguous"}, by `process`

math-verify may compute forever, use all memory or end the process, and its own timeouts need SIGALRM in a main thread. So this
process only imports it, and forks a worker for the comparisons. The worker sets kernel timers (CPU and wall) whose default action
ends it in any state; the next worker is forked with everything imported. Texts were read by `expression`; where that grammar has no
reading, model text reaches math-verify's LaTeX grammar. Its plain-expression reader, which evaluates Python, is never used.

    verdicts   correct incorrect | timeout memory crash, which the answer caused
"""

import importlib.util
import json
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
_X, _TWO, _THREE = ["sym", "x"], ["num", "2", None], ["num", "3", None]
_OBJECTS = (
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\x\end{pmatrix}"),
    (r"[1,2]\cup[2,3]", "[1,4]"),
)
_TREES: tuple[tuple[list[Any], list[Any]], ...] = (
    (["+", ["^", _X, _TWO], ["num", "1", None]], ["*", _X, ["fn", "sin", _X]]),
    (["^", _TWO, ["num", "1/2", None]], ["*", ["const", "pi"], ["fn", "ln", _THREE]]),
    (["*", _TWO, _X], ["+", _X, _X]),
)
WARM_UP: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *(({"text": "", "tree": gold}, {"text": "", "tree": answer}) for gold, answer in _TREES),
    *(
        ({"text": gold, "tree": None, "ambiguous": False}, {"text": answer, "tree": None, "ambiguous": False})
        for gold, answer in _OBJECTS
    ),
]
CRASHED, OUT_OF_MEMORY = 2, 3


def main(cpu_s: float, memory_bytes: int) -> None:
    verdicts = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library's prints must not be read as a verdict
    verify = Verifier().is_correct
    verdicts.write(b'{"verdict": "ready"}\n')
    worker = Worker(verify, cpu_s, memory_bytes)
    for request in sys.stdin.buffer:
        verdicts.write(json.dumps({"verdict": worker.ask(request)}).encode() + b"\n")


class Verifier:
    """The comparison, warmed up: the first ones build tables, which all forks then share."""

    def __init__(self) -> None:
        # By its path: a package on sys.path would have to be imported whole.
        path = Path(__file__).with_name("algebra.py")
        spec = importlib.util.spec_from_file_location("algebra", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._algebra: Any = module.Algebra()
        for gold, answer in WARM_UP:
            self.is_correct([gold], answer)

    def is_correct(self, golds: list[dict[str, Any]], answer: dict[str, Any]) -> bool:
        """Whether the answer equals any of the golds. What sympy or math-verify cannot compare is not equal."""
        return any(self._equal(gold, answer) for gold in golds)

    def _equal(self, gold: dict[str, Any], answer: dict[str, Any]) -> bool:
        try:
            return self._algebra.equal(gold, answer)
        except MemoryError:
            raise
        except Exception:  # of any kind: the libraries raise what they meet, for instance TypeError for infinities
            return False


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
