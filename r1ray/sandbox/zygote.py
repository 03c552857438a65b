"""The process that runs model-written programs. `r1ray.sandbox.supervisor` starts it with this file's text, its only one.

It has imported what programs import, so that a run is a fork and not a start of Python. For every run that comes over its socket:

    zygote --fork--> warden: the clock. Kills the program at its limits, or when the supervisor is gone; reports how it ended.
        --fork--> program: gives up what it may do, says so with one byte, only then reads the code and runs it.

Nothing that is secret or decides a verdict is ever in here: no expected output, no environment, no file descriptor of the parent.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

Record = dict  # of what the supervisor has sent as JSON
READY = b"R"
MEMORY_EXIT, BROKEN_EXIT = 86, 99
SETUP_S = 30.0
FDS = ("code", "stdin", "stdout", "stderr", "report", "kill")
"""What comes with every run, in this order."""
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ_ONLY = 0b1101
"""Landlock: execute, read a file, read a directory."""
FS_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
"""By ABI; from 5 on (1 << 16) - 1."""

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, *args: int) -> int:
    return checked(libc.prctl(option, *(ctypes.c_ulong(arg) for arg in args)), f"prctl {option}")


def serve(control: socket.socket) -> None:
    """Until the supervisor closes its end."""
    config = json.loads(control.recv(1 << 20))
    sys.path[:] = [path for path in sys.path if path] + config["path"]
    for module in config["preload"]:
        importlib.import_module(module)
    config["filter"] = bytes.fromhex(config["filter"])
    config["own_bytes"] = virtual_bytes()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens are not waited for
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"landlock": landlock_abi()}).encode())
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, len(FDS))
        if not message:
            return
        if os.fork() == 0:
            end_with(partial(warden, config, json.loads(message), dict(zip(FDS, fds)), control))  # noqa: B905  Python 3.9
        for fd in fds:
            os.close(fd)


def virtual_bytes() -> int:
    """Of address space that the interpreter takes itself; a generous guess where there is no /proc to ask."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 512 << 20


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
            new_namespaces(of_user=config["proc"])
    except OSError as error:
        return {"error": str(error)}
    ready, fds["ready"] = os.pipe()
    pid = os.fork()
    if pid == 0:
        end_with(lambda: program(config, job, fds))
    for name in ("code", "stdin", "stdout", "stderr", "ready"):
        os.close(fds[name])
    said = first_word(ready, fds["kill"])
    start = time.monotonic()  # only now: on a busy machine giving everything up may take long
    if said != READY:
        os.kill(pid, signal.SIGKILL)
        os.wait4(pid, 0)
        return {"error": said.decode(errors="replace") or "it ended before it was ready"}
    killed = watch(pid, fds["kill"], start, job)
    _, status, usage = os.wait4(pid, 0)
    cpu_s = usage.ru_utime + usage.ru_stime
    return {"status": status, "cpu_s": cpu_s, "wall_s": time.monotonic() - start, "killed": killed}


def first_word(ready: int, kill: int) -> bytes:
    """What the program says before it begins, to the end; nothing when the supervisor has gone or it takes too long."""
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    poll.register(kill, select.POLLIN)
    events = [fd for fd, _ in poll.poll(1000 * SETUP_S)]
    return os.read(ready, 500) if ready in events and kill not in events else b""


def watch(pid: int, kill_fd: int, start: float, job: Record) -> str | None:
    """Why it was killed: "wall", "cpu" or "supervisor"; None when it ended by itself."""
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
        ready = [fd for fd, _ in poll.poll(max(1.0, 1000 * soonest))]
        if pidfd in ready:
            return None
        if kill_fd in ready:
            left = {"supervisor": 0}
            break
    os.kill(pid, signal.SIGKILL)
    return min(left, key=lambda name: left[name])


def program(config: Record, job: Record, fds: dict[str, int]) -> None:
    """In the program's process: everything is given up before the code is read."""
    try:
        confine(config, job, fds)
    except BaseException as error:
        os.write(fds["ready"], f"{type(error).__name__}: {error}".encode()[:500])
        os._exit(BROKEN_EXIT)
    os.write(fds["ready"], READY)
    os.close(fds["ready"])
    with open(fds["code"], "rb") as file:
        code = file.read()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os._exit(exit_code(lambda: run_function(code, job) if job["function"] else run_script(code)))


def confine(config: Record, job: Record, fds: dict[str, int]) -> None:
    os.setsid()
    quiet = os.open("/dev/null", os.O_RDWR)
    # The results of a function go out through a descriptor that its prints do not reach.
    out = [fds["stdout"], fds["stderr"]] if not job["function"] else [quiet, quiet]
    wanted = [fds["stdin"], *out, fds["ready"], fds["code"]] + ([fds["stdout"]] if job["function"] else [])
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in wanted]
    for number, fd in enumerate(aside):
        os.dup2(fd, number)
    os.closerange(len(wanted), 1 << 16)
    fds.update(ready=3, code=4)
    limits(config, job)
    if config["uid"] is not None:
        os.setgroups([])
        os.setresgid(config["uid"], config["uid"], config["uid"])
        os.setresuid(config["uid"], config["uid"], config["uid"])
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it
    if config["namespaces"]:
        own_mounts(config, job)
        no_capabilities()
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if landlock_abi() or not config["namespaces"]:
        landlock(config["readable"])
    own = struct.pack("<I", os.getpid())
    seccomp(config["filter"].replace(struct.pack("<I", config["pid_mark"]), own))


def new_namespaces(*, of_user: bool) -> None:
    """A user, mounts, processes and IPC of its own for the process that is forked next; it becomes pid 1: with it, all others end.

    Without /proc nobody can say who the user is: then it stays bubblewrap's, and all runs share its limit of processes.
    """
    uid, gid = os.geteuid(), os.getegid()
    user = CLONE_NEWUSER if of_user else 0
    checked(libc.unshare(user | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        if of_user:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def own_mounts(config: Record, job: Record) -> None:
    """Fresh, small folders to write in; and of the processes no more than its own."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    size = f"size={job['file_bytes'] * 2},nr_inodes=1000,mode=1777"
    for folder in ("/tmp", "/dev/shm"):
        mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, size)
    if config["proc"]:
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid")
    else:  # /dev/stdin leads there
        mount("tmpfs", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        os.makedirs("/proc/self/fd")
        with open("/proc/self/fd/0", "wb") as file:
            file.write(os.pread(0, os.fstat(0).st_size, 0))
    os.chdir("/tmp")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    checked(libc.mount(*texts, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def no_capabilities() -> None:
    """Not even those over its own user namespace."""
    for number in range(64):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) < 0:
            break
    header = struct.pack("<Ii", 0x20080522, 0)  # version 3
    checked(libc.capset(header, struct.pack("<6I", *[0] * 6)), "capset")


def limits(config: Record, job: Record) -> None:
    own = config["own_bytes"]
    memory = own + job["memory_bytes"]
    for name, value in (
        ("RLIMIT_AS", memory),
        ("RLIMIT_CPU", int(job["cpu_s"]) + 1),
        ("RLIMIT_FSIZE", job["file_bytes"]),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_STACK", 64 << 20),
    ):
        limit = getattr(resource, name)
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    if (
        config["uid"] is not None or config["namespaces"]
    ):  # else it would count the processes of the user who runs r1ray
        resource.setrlimit(resource.RLIMIT_NPROC, (64, 64))


def landlock_abi() -> int:
    """0 where the kernel has none."""
    return max(0, libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1)))


def landlock(readable: Sequence[tuple[str, int]]) -> None:
    """No path but these, and those read-only; no TCP; no signals to others and no abstract sockets, where the kernel knows them."""
    abi = landlock_abi()
    if not abi:
        raise OSError(0, "the kernel has no Landlock")
    rights = FS_RIGHTS.get(abi, (1 << 16) - 1)
    attributes = struct.pack("<QQQ", rights, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = checked(libc.syscall(LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint(0)), "landlock")
    for path, allowed in readable:
        if os.path.exists(path):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            if not os.path.isdir(path):
                allowed &= 0b111  # rights of directories are refused on files
            rule = struct.pack("<Qi", allowed & rights, fd)
            checked(libc.syscall(LANDLOCK_ADD, ruleset, 1, rule, ctypes.c_uint(0)), f"landlock {path}")
            os.close(fd)
    checked(libc.syscall(LANDLOCK_RESTRICT, ruleset, ctypes.c_uint(0)), "landlock")
    os.close(ruleset)


def seccomp(instructions: bytes) -> None:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    header = struct.pack("@HP", len(instructions) // 8, ctypes.addressof(code))
    whole = ctypes.create_string_buffer(header, len(header))
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(whole), 0, 0)


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


if __name__ == "__main__":
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    serve(socket.socket(fileno=int(sys.argv[1])))
