"""The process that runs model-written programs. `r1ray.sandbox.supervisor` starts it with the texts of this file and of `confine`.

It has imported what programs import, so that a run is a fork and not a start of Python. For every run that comes over its socket:

    zygote --fork--> warden: the clock. Kills the program at its limits, or when the supervisor is gone; reports how it ended.
        --fork--> program: gives up what it may do, says so with one byte, only then reads the code and runs it; or, where the
                  code is a file that the kernel executes, becomes that.

Nothing that is secret or decides a verdict is ever in here: no expected output, no environment, no file descriptor of the parent.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import types
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from r1ray.sandbox import confine
from r1ray.sandbox.confine import PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, Record, prctl

READY = b"\0"
MEMORY_EXIT, BROKEN_EXIT, NOT_EXECUTED_EXIT = 86, 99, 126
SETUP_S = 30.0
LOOK_S = 0.05
FDS = ("code", "stdin", "stdout", "stderr", "report", "kill")
"""What comes with every run, in this order."""
CODE_FD = 4
"""Of what is run, in the program's own process (`seccomp.EXECUTED`)."""
COPIED = "/tmp/output"
"""What a tool writes where it has no /proc to write to a descriptor by name."""
OVERLOADED = (errno.EAGAIN, errno.ENOMEM, errno.ENFILE)
"""Why nothing at all may be executable for a moment."""


def serve(control: socket.socket) -> None:
    """Until the supervisor closes its end."""
    config = json.loads(control.recv(1 << 20))
    sys.path[:] = [path for path in sys.path if path] + config["path"]
    for module in config["preload"]:
        importlib.import_module(module)
    config["own_bytes"], config["num_tasks"] = confine.virtual_bytes(), confine.num_tasks()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens are not waited for
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"landlock": confine.landlock_abi()}).encode())
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, len(FDS))
        if not message:
            return
        if os.fork() == 0:
            end_with(partial(warden, config, json.loads(message), dict(zip(FDS, fds)), control))  # noqa: B905  Python 3.9
        for fd in fds:
            os.close(fd)


def num_threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:  # it has just ended
        return 0


def waited_s(pid: int) -> float | None:
    """How long one of its threads has been ready to run without a processor; None where the kernel does not say.

    The longest, not all together: they wait for each other, which is nobody else's doing.
    """
    try:
        tasks = [f"/proc/{pid}/task/{task}/schedstat" for task in os.listdir(f"/proc/{pid}/task")]
        found = 0.0
        for path in tasks:
            with open(path) as file:
                found = max(found, int(file.read().split()[1]) / 1e9)
        return found
    except (OSError, IndexError, ValueError):
        return None


def end_with(work: Callable[[], None]) -> None:
    """Never back up the stack: this is a copy of the zygote."""
    code = BROKEN_EXIT
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def warden(config: Record, job: Record, fds: dict[str, int], control: socket.socket) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    report = ended(config, job, fds)
    os.write(fds["report"], json.dumps(report).encode())


def ended(config: Record, job: Record, fds: dict[str, int]) -> Record:
    """Run the program to its end; how it ended, or why it could not begin."""
    try:
        if config["namespaces"]:
            confine.new_namespaces(of_user=config["proc"])
    except OSError as error:
        return {"error": str(error)}
    ready, fds["ready"] = os.pipe()
    pid = os.fork()
    if pid == 0:
        end_with(lambda: program(config, job, fds))
    for name in ("code", "stdin", "stderr", "ready") + (() if job["copied"] else ("stdout",)):
        os.close(fds[name])
    said = first_word(ready, fds["kill"])
    start = time.monotonic()  # only now: on a busy machine giving everything up may take long
    if said != READY:
        os.kill(pid, signal.SIGKILL)
        os.wait4(pid, 0)
        return {"error": said.strip(READY).decode(errors="replace") or "it ended before it was ready"}
    killed, waited = watch(pid, fds["kill"], start, job)
    _, status, usage = os.wait4(pid, 0)
    cpu_s, wall_s = usage.ru_utime + usage.ru_stime, time.monotonic() - start
    if job["copied"]:
        copy_to(fds["stdout"])
    return {"status": status, "cpu_s": cpu_s, "wall_s": wall_s, "killed": killed, "waited_s": waited}


def copy_to(fd: int) -> None:
    """What a tool has written in its /tmp, which is this process's too. It has made a file there, or nothing."""
    with suppress(OSError):
        found = os.open(COPIED, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(found, "rb") as file, open(fd, "wb") as copy:
            copy.write(file.read())


def first_word(ready: int, kill: int) -> bytes:
    """What the program says before it begins, to the end, which comes when it closes its side or executes a file; so far as it has
    come when the supervisor ends the run, or it takes too long. A program may be ended before its beginning is heard of here."""
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    poll.register(kill, select.POLLIN)
    said = b""
    while True:
        events = [fd for fd, _ in poll.poll(1000 * SETUP_S)]
        more = os.read(ready, 500) if ready in events else b""
        if not more:
            return said
        said += more


def watch(pid: int, kill_fd: int, start: float, job: Record) -> tuple[str | None, float | None]:
    """(why it was killed: "wall", "cpu", "tasks" or "supervisor", None when it ended by itself; how long it had waited).

    Where all programs share a user's limit of processes, the warden counts the program's threads: they are its neighbours' too.
    """
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(kill_fd, select.POLLIN)
    cpu_clock = (~pid << 3) | 2  # as clock_getcpuclockid makes it
    cores = len(os.sched_getaffinity(0))
    while True:
        left = {"wall": start + job["wall_s"] - time.monotonic()}
        with suppress(OSError):  # it has just ended
            # Two threads use two seconds in one.
            left["cpu"] = (job["cpu_s"] - time.clock_gettime(cpu_clock)) / cores
        soonest = min(left.values())
        if soonest <= 0:
            break
        if not job["in_namespace"] and num_threads(pid) > confine.MAX_TASKS:
            left = {"tasks": 0}
            break
        pause = soonest if job["in_namespace"] else min(soonest, LOOK_S)
        ready = [fd for fd, _ in poll.poll(max(1.0, 1000 * pause))]
        if pidfd in ready:
            return None, None
        if kill_fd in ready:
            left = {"supervisor": 0}
            break
    waited = waited_s(1 if job["in_namespace"] else pid)  # what is mounted at /proc is the program's then
    os.kill(pid, signal.SIGKILL)
    return min(left, key=lambda name: left[name]), waited


def program(config: Record, job: Record, fds: dict[str, int]) -> None:
    """In the program's process: everything is given up before the code is read."""
    try:
        give_up(config, job, fds)
    except BaseException as error:
        os.write(fds["ready"], f"{type(error).__name__}: {error}".encode()[:500])
        os._exit(BROKEN_EXIT)
    os.write(fds["ready"], READY)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if job["native"]:
        execute(job, fds)
    os.close(fds["ready"])
    with open(fds["code"], "rb") as file:
        code = file.read()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os._exit(exit_code(lambda: run_function(code, job) if job["function"] else run_script(code)))


def execute(job: Record, fds: dict[str, int]) -> None:
    """Become the file. That a program's file cannot be executed is the program's own doing: its author chose what is in it."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        confine.memory(job)
        os.execve(fds["code"], job["arguments"], {})
    except (OSError, MemoryError) as error:
        ours = not job["bare"] or isinstance(error, MemoryError) or error.errno in OVERLOADED
        os.write(fds["ready"] if ours else 2, b"it cannot be executed: " + str(error).encode())
    os._exit(NOT_EXECUTED_EXIT)


def give_up(config: Record, job: Record, fds: dict[str, int]) -> None:
    os.setsid()
    quiet = os.open("/dev/null", os.O_RDWR)
    # The results of a function go out through a descriptor that its prints do not reach.
    out = [fds["stdout"], fds["stderr"]] if not job["function"] else [quiet, quiet]
    wanted = [fds["stdin"], *out, fds["ready"], fds["code"]] + ([fds["stdout"]] if job["function"] else [])
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in wanted]
    for number, fd in enumerate(aside):
        os.dup2(fd, number, inheritable=number < 3)
    os.closerange(len(wanted), 1 << 16)
    fds.update(ready=3, code=CODE_FD)
    confine.limits(config, job)
    if config["uid"] is not None:
        os.setgroups([])
        os.setresgid(config["uid"], config["uid"], config["uid"])
        os.setresuid(config["uid"], config["uid"], config["uid"])
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it
    if config["namespaces"]:
        confine.own_mounts(config, job)
        confine.no_capabilities()
    confine.limit("RLIMIT_FSIZE", job["file_bytes"])  # not before: a copy of its standard input may be larger
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if confine.landlock_abi() or not config["namespaces"]:
        confine.landlock(config["bare" if job["bare"] else "readable"])
    own = struct.pack("<I", os.getpid())
    instructions = bytes.fromhex(config["filters"]["native" if job["native"] else "python"])
    confine.seccomp(instructions.replace(struct.pack("<I", config["pid_mark"]), own))


def exit_code(work: Callable[[], None]) -> int:
    """As the interpreter ends: what was not caught is printed, threads are waited for, what is buffered is written."""
    code = 0
    try:
        work()
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


def module(name: str) -> dict[str, Any]:
    made = types.ModuleType(name)
    sys.modules[name] = made
    return made.__dict__


def run_script(code: bytes) -> None:
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
    sys.argv = ["program.py"]
    exec(compile(code, "program.py", "exec"), module("__main__"))


def run_function(code: bytes, job: Record) -> None:
    """One JSON line for every case. A forged line is a forged return value, and no more."""
    encode, write, name = json.JSONEncoder().encode, os.write, job["function"]
    with open(0, "rb", closefd=False) as file:
        cases = [json.loads(line) for line in file]
    sys.stdin = sys.__stdin__ = io.StringIO()
    space = module("solution")
    exec(compile(code, "solution.py", "exec"), space)
    function = space[name] if name in space else getattr(space["Solution"](), name)
    for case in cases:
        line = (encode(function(*case)) + "\n").encode()
        while line:
            line = line[write(5, line) :]


def main() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    serve(socket.socket(fileno=int(sys.argv[1])))
