"""The sandbox that rewards use, from any thread: limits the number of concurrent runs, and retries.

a run that ends in sandbox_error      is repeated on a new zygote, up to RETRIES times
a run that is starved (killed at the wall limit with little CPU time used)
                                      is repeated alone on this machine, so that other load does not change a verdict
a program in C++                      is compiled first, once for all its inputs; each step is a separate run
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

from r1ray.sandbox.base import Executable, Program, RunResult, SandboxUnavailable
from r1ray.sandbox.cpp import Compiler
from r1ray.sandbox.spec import ZygoteSpec
from r1ray.sandbox.supervisor import Zygote

RETRIES = 2
LOCK_S = 120.0
QUEUE_LOCK, RUN_LOCK = "/tmp/r1ray-sandbox-queue.lock", "/tmp/r1ray-sandbox-run.lock"
"""Locks that all sandboxes of a machine share."""


class Sandbox:
    """`with Sandbox(spec, slots=2) as sandbox: sandbox.run(program)`.

    Args:
        slots: maximum number of concurrent runs. One per core is best, because programs are limited by CPU time.
    """

    def __init__(self, spec: ZygoteSpec, *, slots: int) -> None:
        self.spec = spec
        self._slots = threading.BoundedSemaphore(slots)
        self._change = threading.Lock()
        # The kernel kills a zygote with the thread that started it: one thread, which lives as long as the pool, starts them all.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="zygotes")
        self.num_runs = 0
        """Runs that have ended: shows progress while a long group of programs is scored."""
        self._zygote = self._start_zygote()
        self._retired: list[Zygote] = []
        self._compiler = Compiler(self._run)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, program: Program) -> RunResult:
        """Waits for a free slot; the wait ends, because every run ends at its limits.

        Raises SandboxUnavailable for C++ without g++.
        """
        if program.language == "python":
            return self._run(program)
        built = self._compiler.build(program.code)
        if isinstance(built, RunResult):
            return built
        result = self._run(Executable(file=built, stdin=program.stdin, limits=program.limits))
        if result.status == "runtime_error" and b"std::bad_alloc" in result.stderr:
            return replace(result, status="memory")
        return result

    def _run(self, program: Program | Executable) -> RunResult:
        with self._slots, machine_lock(alone=False):
            result = self._run_with_retries(program)
        self.num_runs += 1
        if result.starved:
            with self._slots, machine_lock(alone=True):
                result = self._run_with_retries(program)
            self.num_runs += 1
        return result

    def close(self) -> None:
        with self._change:
            for zygote in (self._zygote, *self._retired):
                zygote.close()
        self._starter.shutdown()

    def _run_with_retries(self, program: Program | Executable) -> RunResult:
        """Repeats the run on a new zygote while the sandbox itself fails."""
        for attempt in range(RETRIES + 1):
            zygote = self._current()
            result = zygote.run(program)
            if result.status != "sandbox_error" or attempt == RETRIES:
                return result
            self._replace(zygote)
        raise AssertionError

    def _current(self) -> Zygote:
        zygote = self._zygote
        if zygote.must_be_replaced:
            self._replace(zygote)
        return self._zygote

    def _replace(self, zygote: Zygote) -> None:
        """Replace it by a new zygote, unless another thread has done so; its runs continue to their end."""
        with self._change:
            if zygote is not self._zygote:
                return
            with suppress(SandboxUnavailable):  # then the old one stays, and its runs report why they fail
                self._zygote = self._start_zygote()
                self._retired = [old for old in (*self._retired, zygote) if not old.closed_when_idle()]

    def _start_zygote(self) -> Zygote:
        return self._starter.submit(Zygote, self.spec).result()


@contextmanager
def machine_lock(*, alone: bool) -> Iterator[None]:
    """A lock of this machine: shared by normal runs, exclusive for a run that must be alone.

    The exclusive holder locks the queue first, so that later runs do not delay it.
    """
    queue, run = _opened(QUEUE_LOCK), _opened(RUN_LOCK)
    try:
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        for lock in (queue, run):
            _hold(lock, kind)
        if not alone:
            fcntl.flock(queue, fcntl.LOCK_UN)
        yield
    finally:
        os.close(queue)
        os.close(run)


def _hold(lock: int, kind: int) -> None:
    """Waits at most LOCK_S: a process that holds the lock longer hangs and must not block the others."""
    deadline = time.monotonic() + LOCK_S
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            return fcntl.flock(lock, kind | fcntl.LOCK_NB)
        time.sleep(0.01)


def _opened(path: str) -> int:
    # The file belongs to the first user who needs it; others can lock it because they can read it. O_CREAT only if it does not
    # exist: in /tmp (sticky) the kernel may refuse O_CREAT on another user's file.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    return os.open(path, flags | os.O_CREAT, 0o644)
