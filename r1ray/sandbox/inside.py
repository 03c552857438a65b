"""Runs in a program's own process, from the fork to its end. Part of the zygote: standard library only.

The process confines itself, reports that it is ready, and only then reads the code and runs it, or executes the file. It is a copy
of the zygote and never returns.
"""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
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
from r1ray.sandbox.confine import Confinement
from r1ray.sandbox.supplied import RECURSION_LIMIT, supplied

READY = b"\0"
STARTED = struct.Struct("<cd")
"""READY, and the time."""
MEMORY_EXIT, BROKEN_EXIT, NOT_EXECUTED_EXIT = 86, 99, 126
READY_FD, CODE_FD, RESULTS_FD, FIRST_FREE = 3, 4, 5, 6
"""Descriptors of the program's process, besides the standard three; the zygote does not use these numbers. CODE_FD is the file that
may be executed (`seccomp.EXECUTED`), RESULTS_FD gets the results of a function."""
OUTPUT_FILE = "output"
"""The output file of a tool where there is no /proc: there it cannot write to a descriptor by name."""
OVERLOADED = (errno.EAGAIN, errno.ENOMEM, errno.ENFILE)
"""Errors that can make any execution fail for a moment."""
SCRIPT, FUNCTION, EXECUTABLE, TOOL, TOOL_WITH_COPIED_OUTPUT = range(5)
"""Kinds of runs. From EXECUTABLE on the kernel executes a file: a static program, a tool of the system, a tool that writes
OUTPUT_FILE."""

INTEGER_KEYS = b"integer keys"


class Job(NamedTuple):
    """What to run. Numbers come first, so that unpacking is one step (`confine` says why that matters)."""

    kind: int
    wall_s: float
    cpu_s: float
    memory_bytes: int
    file_bytes: int
    stack_bytes: int
    code_bytes: int
    texts: list[bytes]
    """The name of a function and INTEGER_KEYS or nothing, or the arguments of the executed file."""

    def packed(self) -> bytes:
        return _NUMBERS.pack(*self[:-1]) + b"\0".join(self.texts)

    @classmethod
    def unpacked(cls, message: bytes) -> Job:
        return cls._make((*_NUMBERS.unpack_from(message), message[_NUMBERS.size :].split(b"\0")))


_NUMBERS = struct.Struct("<Bdd4Q")


def prepare() -> None:
    """In the zygote: creates the main module and `sys.stdin`, `stdout` and `stderr` of the programs.

    They use descriptors 0, 1 and 2, which every run replaces: 0 by a file, 1 and 2 by pipes. Python caches whether a stream is
    seekable, so during this call 0 is a file and 1 and 2 are pipes too.
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
    for name in ("exit", "quit"):  # the module `site` adds them, which is not loaded
        setattr(builtins, name, _sitebuiltins.Quitter(name, ""))
    if hasattr(sys, "set_int_max_str_digits"):  # from Python 3.10.7
        sys.set_int_max_str_digits(0)
    for name in ("__main__", "solution"):
        sys.modules[name] = types.ModuleType(name)
    vars(sys.modules["solution"])["__builtins__"] = supplied()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run_program(
    confinement: Confinement, job: Job, code: int, stdin: int, stdout: int, stderr: int, ready: int
) -> None:
    """Confine this process and run the job with these descriptors; does not return."""
    status = BROKEN_EXIT
    try:
        try:
            confine_process(confinement, job, code, stdin, stdout, stderr, ready)
            os.write(READY_FD, STARTED.pack(READY, time.monotonic()))
        except BaseException as error:
            os.write(READY_FD, f"{type(error).__name__}: {error}".encode()[:500])
            os._exit(BROKEN_EXIT)
        if job.kind >= EXECUTABLE:
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
    """Execute the file. If a program's file cannot be executed, that is the program's error: its author chose the content."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        confine.limit_memory(job.memory_bytes)
        os.execve(CODE_FD, job.texts, {})
    except (OSError, MemoryError) as error:
        ours = job.kind != EXECUTABLE or isinstance(error, MemoryError) or error.errno in OVERLOADED
        os.write(READY_FD if ours else 2, b"it cannot be executed: " + str(error).encode())
    os._exit(NOT_EXECUTED_EXIT)


def confine_process(
    confinement: Confinement, job: Job, code: int, stdin: int, stdout: int, stderr: int, ready: int
) -> None:
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
    native = job.kind >= EXECUTABLE
    confinement.set_limits(job.memory_bytes, job.cpu_s, job.stack_bytes)
    confinement.drop_user()
    if confinement.namespaces:
        confinement.mount_private(job.file_bytes, native=native, minimal=job.kind == EXECUTABLE)
        if (
            job.kind == TOOL_WITH_COPIED_OUTPUT
        ):  # the zygote copies the output from this folder, which only this process can see
            with socket.socket(fileno=os.dup(READY_FD)) as line:
                socket.send_fds(line, [READY], [os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)])
        confinement.drop_capabilities(native=native)
    confinement.landlock(minimal=job.kind == EXECUTABLE)
    os.closerange(RESULTS_FD + (job.kind == FUNCTION), 1 << 16)
    confinement.set_file_limits(job.file_bytes)
    confinement.seccomp(native=native)


def exit_code(run: Callable[[bytes, Job], None], text: bytes, job: Job) -> int:
    """Ends like the interpreter: prints an uncaught exception, waits for threads, flushes buffers. Returns the exit code."""
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
    exec(compile(text, "program.py", "exec", dont_inherit=True), sys.modules["__main__"].__dict__)


def run_function(text: bytes, job: Job) -> None:
    """Writes one JSON line per case. A program that forges a line only forges a return value."""
    encode, write, name = json.JSONEncoder().encode, os.write, job.texts[0].decode()
    with open(0, "rb", closefd=False) as file:
        cases = [json.loads(line) for line in file]
    if INTEGER_KEYS in job.texts[1:]:
        cases = [[*map(with_integer_keys, case[:1]), *case[1:]] for case in cases]
    sys.setrecursionlimit(RECURSION_LIMIT)
    sys.stdin = sys.__stdin__ = io.StringIO()
    space = sys.modules["solution"].__dict__
    exec(compile(text, "solution.py", "exec", dont_inherit=True), space)
    function = space[name] if name in space else getattr(space["Solution"](), name)
    for case in cases:
        line = (encode(function(*case)) + "\n").encode()
        while line:
            line = line[write(RESULTS_FD, line) :]


def with_integer_keys(value: object) -> object:
    """An object whose keys are all whole numbers, with integers as keys: JSON has made texts of them. Any other value unchanged."""
    try:
        return {int(key): item for key, item in value.items()} if type(value) is dict else value
    except ValueError:
        return value
