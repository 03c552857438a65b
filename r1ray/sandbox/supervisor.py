"""The trusted side of the sandbox: starts zygotes, sends them jobs, reads outputs up to their limits, and determines the results.

A program's output is only handled as bytes: it is never parsed, compiled, unpickled or printed.
"""

import fcntl
import json
import os
import platform
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from r1ray.sandbox import inside, seccomp, zygote
from r1ray.sandbox.base import (
    OUTPUT,
    STDERR_BYTES,
    STDERR_KEPT,
    Executable,
    Limits,
    Program,
    RunResult,
    SandboxUnavailable,
    Status,
    Tier,
)
from r1ray.sandbox.spec import ENVIRONMENT, ZygoteSpec
from r1ray.sandbox.syscalls import numbers

START_S = 60.0
GRACE_S = 5.0
"""Time for the zygote's report, on top of the wall limit."""
CPU_MARGIN_S = 0.15
STACK_BYTES = 64 << 20
CPP_STACK_BYTES = 256 << 20
"""As on Codeforces, because solutions in C++ recurse that deep. Their threads take less (`r1ray.sandbox.cpp`)."""
MAX_RUNS = 1000
"""Runs after which a zygote is replaced."""


class Zygote:
    """One zygote, usable from any thread. The kernel kills it with the thread that created it."""

    def __init__(self, spec: ZygoteSpec) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.spec, in_bubblewrap = spec, spec.tier != "T2"
        # bubblewrap keeps the user id. No process limit applies to root, so root starts it as the unprivileged user.
        as_user = (
            {"user": spec.uid, "group": spec.uid, "extra_groups": []} if in_bubblewrap and spec.uid is not None else {}
        )
        with theirs, self._start_errors(spec):
            self._process: Any = subprocess.Popen(
                spec.command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                **as_user,
            )
        config = {
            "preload": list(spec.preload),
            "path": list(spec.path),
            "uid": None if in_bubblewrap else spec.uid,
            "namespaces": in_bubblewrap,
            "proc": spec.tier == "T1",
            "folders": spec.folders,
            "readable": spec.readable,
            "minimal": spec.minimal,
            "filters": {
                kind: seccomp.filter_bytes(platform.machine(), changing=in_bubblewrap, executing=kind == "native").hex()
                for kind in ("python", "native")
            },
            "pid_mark": seccomp.PID_MARK,
            "clone": numbers(platform.machine())["clone"],
        }
        self._lock = threading.Lock()
        self.runs = self._active = 0
        try:
            self._control.send(json.dumps(config).encode())
            self._control.settimeout(START_S)
            self.features: Mapping[str, Any] = json.loads(self._control.recv(1 << 16))
        except (OSError, ValueError) as error:
            printed = self.close()[-500:]
            raise SandboxUnavailable(
                f"{spec.python} cannot run programs for the sandbox: {error}; it printed: {printed}"
            ) from error

    @contextmanager
    def _start_errors(self, spec: ZygoteSpec) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._control.close()
            raise SandboxUnavailable(f"{spec.command(0)[0]} cannot be started for the sandbox: {error}") from error

    def run(self, program: Program | Executable) -> RunResult:
        """Start one run and wait for its end, at most for its wall limit and the time to start and stop it.

        C++ programs go through `r1ray.sandbox.pool.Sandbox`, which compiles them first.
        """
        assert isinstance(program, Executable) or program.language == "python"
        try:
            ours, theirs = open_descriptors(program)
        except OSError as error:
            return RunResult(status="sandbox_error", reason=f"the run cannot be started: {error}")
        try:
            try:
                job = job_of(program, self.spec.tier).packed()
                assert len(job) <= zygote.JOB_BYTES
                descriptors = zygote.DESCRIPTORS.pack(*(theirs[name] for name in zygote.FDS))
                with self._lock:
                    self.runs, self._active = self.runs + 1, self._active + 1
                    self._control.sendmsg([job], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            finally:
                for fd in theirs.values():
                    os.close(fd)
            return self._result(program, ours)
        except OSError as error:
            return RunResult(status="sandbox_error", reason=f"the zygote is gone: {error}")
        finally:
            with self._lock:
                self._active -= 1
            for fd in ours.values():
                os.close(fd)

    def _result(self, program: Program | Executable, ours: dict[str, int]) -> RunResult:
        read, flooded = collect(
            {name: ours[name] for name in ("stdout", "stderr", "channel") if name in ours},
            end=lambda: stop_run(ours["channel"]),
            most={"stdout": program.limits.output_bytes, "stderr": STDERR_BYTES, "channel": 4096},
            kept={"stderr": STDERR_KEPT},
            deadline=time.monotonic() + zygote.SETUP_S + program.limits.wall_s + GRACE_S,
        )
        if len(read["channel"]) != zygote.REPORT.size:
            reason = read["channel"].decode(errors="replace") or "the zygote sent no report"
            return RunResult(status="sandbox_error", reason=reason)
        report = report_of(read["channel"])
        result = {"cpu_s": report["cpu_s"], "wall_s": report["wall_s"]}
        status, reason = status_of(report, program.limits, flooded=flooded)
        written = os.pread(ours["file"], program.limits.file_bytes, 0) if "file" in ours else read["stdout"]
        return RunResult(status=status, reason=reason, stdout=written, stderr=read["stderr"], **result)

    def close(self) -> str:
        """Kill the zygote and its runs; returns what it printed to standard error."""
        self._control.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            printed: bytes = self._process.communicate(timeout=GRACE_S)[1]
        except subprocess.TimeoutExpired:
            return ""
        return printed.decode(errors="replace")

    @property
    def must_be_replaced(self) -> bool:
        return self.runs >= MAX_RUNS or self._process.poll() is not None

    def closed_when_idle(self) -> bool:
        """Close the zygote if it has no runs; returns whether it was closed."""
        with self._lock:
            if self._active:
                return False
        self.close()
        return True


def open_descriptors(program: Program | Executable) -> tuple[dict[str, int], dict[str, int]]:
    """({name: our end}, {name: the zygote's end}) of a run. A tool's output file is `file`, instead of `stdout`."""
    ours: dict[str, int] = {}
    theirs: dict[str, int] = {}
    try:
        theirs["code"] = code_descriptor(program)
        theirs["stdin"] = memory_file(program.stdin)
        if isinstance(program, Executable) and program.writes_file:
            theirs["stdout"] = os.memfd_create("", os.MFD_CLOEXEC)
            ours["file"] = os.dup(theirs["stdout"])
        for name in ("stdout", "stderr"):
            if name not in theirs:
                ours[name], theirs[name] = os.pipe()
                os.fchmod(theirs[name], 0o200)  # a program that opened it by name for reading would wait for ever
        ours["channel"], theirs["channel"] = (end.detach() for end in socket.socketpair())
    except OSError:
        for fd in (*ours.values(), *theirs.values()):
            os.close(fd)
        raise
    return ours, theirs


def stop_run(channel: int) -> None:
    """Makes the zygote kill the run; its report still arrives."""
    with socket.socket(fileno=os.dup(channel)) as end:
        end.shutdown(socket.SHUT_WR)


def code_descriptor(program: Program | Executable) -> int:
    """A descriptor of the code or file to run."""
    if isinstance(program, Executable) and isinstance(program.file, str):
        return os.open(program.file, os.O_RDONLY | os.O_CLOEXEC)
    code = program.code if isinstance(program, Program) else program.file
    assert isinstance(code, bytes)
    return memory_file(code)


def job_of(program: Program | Executable, tier: Tier) -> inside.Job:
    """The job that is sent to the zygote."""
    limits = program.limits
    if isinstance(program, Program):
        kind = inside.SCRIPT if program.function is None else inside.FUNCTION
        texts = [program.function or "", *([inside.INTEGER_KEYS.decode()] if program.integer_keys else [])]
    elif isinstance(program.file, bytes):
        kind, texts = inside.EXECUTABLE, program.arguments
    elif program.writes_file and tier == "T1-noproc":
        kind = inside.TOOL_WITH_COPIED_OUTPUT
        texts = [f"/tmp/{inside.OUTPUT_FILE}" if part == OUTPUT else part for part in program.arguments]
    else:
        kind, texts = inside.TOOL, program.arguments
    return inside.Job(
        kind=kind,
        wall_s=limits.wall_s,
        cpu_s=limits.cpu_s,
        memory_bytes=limits.memory_bytes,
        file_bytes=limits.file_bytes,
        stack_bytes=CPP_STACK_BYTES if kind == inside.EXECUTABLE else STACK_BYTES,
        code_bytes=len(program.code) if isinstance(program, Program) else 0,
        texts=[text.encode() for text in texts],
    )


def report_of(data: bytes) -> dict[str, Any]:
    """A zygote's report, unpacked."""
    status, cpu_s, wall_s, killed, waited_s = zygote.REPORT.unpack(data)
    waited_s = waited_s if waited_s >= 0 else None
    return {"status": status, "cpu_s": cpu_s, "wall_s": wall_s, "killed": zygote.KILLED[killed], "waited_s": waited_s}


def status_of(report: Mapping[str, Any], limits: Limits, *, flooded: bool) -> tuple[Status, str]:
    """(status, reason) that follow from a zygote's report. Rewards only use whether the status is `ok`, because a program can fake
    the kind of failure."""
    status = report["status"]
    if flooded:
        return "output_limit", ""
    if report["killed"] == "wall":
        waited_s = report["waited_s"]
        ready = waited_s is None or waited_s > limits.wall_s / 4  # a program that sleeps is not starved
        return "timeout", "starved" if ready and report["cpu_s"] < limits.cpu_s / 2 else ""
    if report["killed"] == "tasks":
        return "runtime_error", ""
    if report["killed"] in ("setup", "supervisor"):
        return "sandbox_error", "the run did not start or end in time"
    by_kernel = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU)
    if report["killed"] == "cpu" or (by_kernel and report["cpu_s"] >= limits.cpu_s - CPU_MARGIN_S):
        return "timeout", ""
    if os.WIFSIGNALED(status):
        return ("memory" if os.WTERMSIG(status) == signal.SIGKILL else "runtime_error"), ""
    match os.WEXITSTATUS(status):
        case 0:
            return "ok", ""
        case inside.MEMORY_EXIT:
            return "memory", ""
        case _:
            return "runtime_error", ""


def collect(
    sources: Mapping[str, int],
    *,
    end: Callable[[], None],
    most: Mapping[str, int],
    deadline: float,
    kept: Mapping[str, int],
) -> tuple[dict[str, bytes], bool]:
    """({name: bytes read}, whether one source exceeded its maximum). Calls `end` once, when a source exceeds it
    or at the deadline. Of a source in `kept` only so many bytes are returned.
    """
    read, left = {name: bytearray() for name in sources}, dict(most)
    name_of = {fd: name for name, fd in sources.items()}
    poll = select.poll()
    for fd in name_of:
        os.set_blocking(fd, False)
        poll.register(fd, select.POLLIN)
    flooded, killed = False, False
    while name_of:
        for fd, _ in poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
            name = name_of[fd]
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                poll.unregister(fd)
                del name_of[fd]
            elif len(chunk) <= left[name]:
                left[name] -= len(chunk)
                read[name] += chunk[: kept.get(name, most[name]) - len(read[name])]
            else:
                flooded = True
        overdue = time.monotonic() >= deadline
        if (flooded or overdue) and not killed:
            killed = True
            end()
            deadline = time.monotonic() + GRACE_S
        elif overdue:
            break
    return {name: bytes(data) for name, data in read.items()}, flooded


def memory_file(data: bytes) -> int:
    """A read-only descriptor of a sealed memory file with these bytes."""
    fd = os.memfd_create("", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        os.lseek(fd, 0, os.SEEK_SET)
    except OSError:
        os.close(fd)
        raise
    return fd
