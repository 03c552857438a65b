"""In a program's own process, from the fork to its end. Part of the zygote: Python's own library only.

It gives up what it may do, says so, only then reads the code and runs it; or, where the code is a file that the kernel executes,
becomes that. Nobody comes back from here: this is a copy of the zygote.
"""

from __future__ import annotations

import atexit
import errno
import io
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import types
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from r1ray.sandbox import confine
from r1ray.sandbox.confine import Walls

READY = b"\0"
BEGUN = struct.Struct("<cd")
"""READY, and when."""
MEMORY_EXIT, BROKEN_EXIT, NOT_EXECUTED_EXIT = 86, 99, 126
READY_FD, CODE_FD, RESULTS_FD, FIRST_FREE = 3, 4, 5, 6
"""Of the program's process, beside the usual three; the zygote keeps clear of them. CODE_FD is what may be executed
(`seccomp.EXECUTED`), RESULTS_FD where the results of a function go."""
COPIED = "output"
"""What a tool writes in its folder where it has no /proc to write to a descriptor by name."""
OVERLOADED = (errno.EAGAIN, errno.ENOMEM, errno.ENFILE)
"""Why nothing at all may be executable for a moment."""
SCRIPT, FUNCTION, NATIVE, TOOL, COPIED_TOOL = range(5)
"""What a run may be. From NATIVE on the kernel executes it: a static program, a tool of the system's, one that writes COPIED."""


class Job(NamedTuple):
    """What is to be run. Numbers first, so that reading it is one step (`confine` says why that matters)."""

    kind: int
    wall_s: float
    cpu_s: float
    memory_bytes: int
    file_bytes: int
    stack_bytes: int
    code_bytes: int
    texts: list[bytes]
    """The name of a function, or the arguments of what is executed."""

    def packed(self) -> bytes:
        return _NUMBERS.pack(*self[:-1]) + b"\0".join(self.texts)

    @classmethod
    def unpacked(cls, message: bytes) -> Job:
        return cls._make((*_NUMBERS.unpack_from(message), message[_NUMBERS.size :].split(b"\0")))


_NUMBERS = struct.Struct("<Bdd4Q")


def prepare() -> None:
    """In the zygote: the main module and `sys.stdin`, `stdout` and `stderr` of the programs to come.

    They are of 0, 1 and 2, whatever that will be. 0 is a file here and the others are pipes, as in every run: what can be done with
    them is remembered.
    """
    usual = [os.dup(fd) for fd in range(3)]
    reading, writing = os.pipe()
    file = os.memfd_create("")
    for number, fd in enumerate((file, writing, writing)):
        os.dup2(fd, number)
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8"
    )
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    for number, fd in enumerate(usual):
        os.dup2(fd, number)
    for fd in (*usual, reading, writing, file):
        os.close(fd)
    sys.argv = ["program.py"]
    for name in ("__main__", "solution"):
        sys.modules[name] = types.ModuleType(name)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def program(walls: Walls, job: Job, code: int, stdin: int, stdout: int, stderr: int, ready: int) -> None:
    """The whole of it, with these descriptors; does not return."""
    status = BROKEN_EXIT
    try:
        try:
            give_up(walls, job, code, stdin, stdout, stderr, ready)
            os.write(READY_FD, BEGUN.pack(READY, time.monotonic()))
        except BaseException as error:
            os.write(READY_FD, f"{type(error).__name__}: {error}".encode()[:500])
            os._exit(BROKEN_EXIT)
        if job.kind >= NATIVE:
            execute(job)
        os.close(READY_FD)
        if "random" in sys.modules:
            sys.modules["random"].seed()
        text = os.read(CODE_FD, job.code_bytes)
        os.close(CODE_FD)
        status = exit_code(run_script if job.kind == SCRIPT else run_function, text, job)
    finally:
        os._exit(status)


def execute(job: Job) -> None:
    """Become the file. That a program's file cannot be executed is the program's own doing: its author chose what is in it."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        confine.memory(job.memory_bytes)
        os.execve(CODE_FD, job.texts, {})
    except (OSError, MemoryError) as error:
        ours = job.kind != NATIVE or isinstance(error, MemoryError) or error.errno in OVERLOADED
        os.write(READY_FD if ours else 2, b"it cannot be executed: " + str(error).encode())
    os._exit(NOT_EXECUTED_EXIT)


def give_up(walls: Walls, job: Job, code: int, stdin: int, stdout: int, stderr: int, ready: int) -> None:
    dup2 = os.dup2
    dup2(ready, READY_FD, False)
    dup2(code, CODE_FD, False)
    if job.kind == FUNCTION:  # its prints do not reach its results
        dup2(stdout, RESULTS_FD)
        stdout = stderr = os.open("/dev/null", os.O_RDWR)
    dup2(stdin, 0)
    dup2(stdout, 1)
    dup2(stderr, 2)
    os.setsid()
    native = job.kind >= NATIVE
    walls.limit(job.memory_bytes, job.cpu_s, job.stack_bytes)
    walls.become_nobody()
    if walls.namespaces:
        walls.own_mounts(job.file_bytes, native=native, bare=job.kind == NATIVE)
        if job.kind == COPIED_TOOL:  # what it is going to write is nowhere but in there
            with socket.socket(fileno=os.dup(READY_FD)) as line:
                socket.send_fds(line, [READY], [os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)])
        walls.no_capabilities(native=native)
    walls.landlock(bare=job.kind == NATIVE)
    os.closerange(RESULTS_FD + (job.kind == FUNCTION), 1 << 16)
    walls.limit_files(job.file_bytes)
    walls.seccomp(native=native)


def exit_code(run: Callable[[bytes, Job], None], text: bytes, job: Job) -> int:
    """As the interpreter ends: what was not caught is printed, threads are waited for, what is buffered is written."""
    code = 0
    try:
        run(text, job)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except MemoryError:
        code = MEMORY_EXIT
    except BaseException as error:
        code = 1
        with suppress(BaseException):
            sys.excepthook(type(error), error, error.__traceback__)
    for last in (
        vars(threading)["_shutdown"],
        atexit._run_exitfuncs,
        lambda: sys.stdout.flush(),
        lambda: sys.stderr.flush(),
    ):
        try:
            last()
        except MemoryError:
            code = code or MEMORY_EXIT
        except BaseException:
            code = code or 1
    return code & 0xFF


def run_script(text: bytes, job: Job) -> None:
    exec(compile(text, "program.py", "exec"), sys.modules["__main__"].__dict__)


def run_function(text: bytes, job: Job) -> None:
    """One JSON line for every case. A forged line is a forged return value, and no more."""
    encode, write, name = json.JSONEncoder().encode, os.write, job.texts[0].decode()
    with open(0, "rb", closefd=False) as file:
        cases = [json.loads(line) for line in file]
    sys.stdin = sys.__stdin__ = io.StringIO()
    space = sys.modules["solution"].__dict__
    exec(compile(text, "solution.py", "exec"), space)
    function = space[name] if name in space else getattr(space["Solution"](), name)
    for case in cases:
        line = (encode(function(*case)) + "\n").encode()
        while line:
            line = line[write(RESULTS_FD, line) :]
