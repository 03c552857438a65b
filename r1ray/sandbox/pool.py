"""A sandbox as rewards use it: as many runs at a time as there are slots, from any thread, whatever happens to a zygote.

a run that ends in sandbox_error      is made again, on a new zygote, RETRIES times
a run that the wall clock ended while it had hardly been on the processor
                                      is made again alone on this machine: noisy neighbours change no verdict
a program in C++                      is built first, once however many inputs it is run on; each step is a run of its own
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

from r1ray.sandbox.base import Ended, Native, Program, SandboxUnavailable
from r1ray.sandbox.cpp import Compiler
from r1ray.sandbox.supervisor import Zygote, ZygoteSpec

RETRIES = 2
LOCK_S = 120.0
GATE, ROOM = "/tmp/r1ray-sandbox-gate.lock", "/tmp/r1ray-sandbox-room.lock"
"""All sandboxes of a machine meet at these."""


class Sandbox:
    """`with Sandbox(spec, slots=2) as sandbox: sandbox.run(program)`.

    Args:
        slots: runs at a time, best as many as there are cores: each judges by its own time on the processor.
    """

    def __init__(self, spec: ZygoteSpec, *, slots: int) -> None:
        self.spec = spec
        self._slots = threading.BoundedSemaphore(slots)
        self._change = threading.Lock()
        # The kernel ends a zygote with the thread that has started it: one thread starts them all.
        self._maker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="zygotes")
        self.num_runs = 0
        """That have ended: grows while a long group of programs is judged."""
        self._zygote = self._made()
        self._retired: list[Zygote] = []
        self._compiler = Compiler(self._judged)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, program: Program) -> Ended:
        """Waits for a slot, which others free at their limits. Raises SandboxUnavailable for C++ where there is no g++."""
        if program.language == "python":
            return self._judged(program)
        built = self._compiler.build(program.code)
        if isinstance(built, Ended):
            return built
        ended = self._judged(Native(file=built, stdin=program.stdin, limits=program.limits))
        if ended.status == "runtime_error" and b"std::bad_alloc" in ended.stderr:
            return replace(ended, status="memory")
        return ended

    def _judged(self, program: Program | Native) -> Ended:
        with self._slots, among_neighbours(alone=False):
            ended = self._tried(program)
        self.num_runs += 1
        if ended.starved:
            with self._slots, among_neighbours(alone=True):
                ended = self._tried(program)
            self.num_runs += 1
        return ended

    def close(self) -> None:
        with self._change:
            for zygote in (self._zygote, *self._retired):
                zygote.close()
        self._maker.shutdown()

    def _tried(self, program: Program | Native) -> Ended:
        """Again on a new zygote while the sandbox itself is what fails."""
        for attempt in range(RETRIES + 1):
            zygote = self._current()
            ended = zygote.run(program)
            if ended.status != "sandbox_error" or attempt == RETRIES:
                return ended
            self._replace(zygote)
        raise AssertionError

    def _current(self) -> Zygote:
        zygote = self._zygote
        if zygote.worn:
            self._replace(zygote)
        return self._zygote

    def _replace(self, zygote: Zygote) -> None:
        """By a new one, unless another thread has done it; the old one's runs go on to their end."""
        with self._change:
            if zygote is not self._zygote:
                return
            with suppress(SandboxUnavailable):  # then the old one goes on, and says why each run fails
                self._zygote = self._made()
                self._retired = [old for old in (*self._retired, zygote) if not old.closed_when_idle()]

    def _made(self) -> Zygote:
        return self._maker.submit(Zygote, self.spec).result()


@contextmanager
def among_neighbours(*, alone: bool) -> Iterator[None]:
    """Hold this machine with all others who run something, or alone.

    Who wants to be alone closes the gate first, so that those who come later do not keep it waiting.
    """
    gate, room = _opened(GATE), _opened(ROOM)
    try:
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        for lock in (gate, room):
            _hold(lock, kind)
        if not alone:
            fcntl.flock(gate, fcntl.LOCK_UN)
        yield
    finally:
        os.close(gate)
        os.close(room)


def _hold(lock: int, kind: int) -> None:
    """At most LOCK_S: who holds it longer hangs, and is no reason for others not to go on."""
    deadline = time.monotonic() + LOCK_S
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            return fcntl.flock(lock, kind | fcntl.LOCK_NB)
        time.sleep(0.01)


def _opened(path: str) -> int:
    # Of whoever came first: everybody may lock what he can read. Not created where it is there, which /tmp forbids others.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    return os.open(path, flags | os.O_CREAT, 0o644)
