"""The process that runs model-written programs. `r1ray.sandbox.supervisor` starts it with the text of this file and its imports.

It has already imported what programs import, so that a run costs a fork and not a start of Python. For every job from its socket it
forks one process (`r1ray.sandbox.inside`). It watches the limits of all of them: it kills a program at its limits, or when the
supervisor stops it, and reports how it ended. It reads nothing that a program writes, and never blocks on one.

It has no secrets and nothing that decides a verdict: no expected output, no environment, no file descriptor of the parent.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress

from r1ray.sandbox import confine, inside
from r1ray.sandbox.confine import PR_SET_PDEATHSIG, Confinement, prctl
from r1ray.sandbox.inside import READY, STARTED, TOOL_WITH_COPIED_OUTPUT, Job

SETUP_S = 30.0
CHECK_S = 0.05
NEVER = float("inf")
CORES = len(os.sched_getaffinity(0))
FDS = ("code", "stdin", "stdout", "stderr", "channel")
"""Descriptors of every run, in this order. The report is sent over `channel`; closing its other end stops the run."""
DESCRIPTORS = struct.Struct(f"{len(FDS)}i")
JOB_BYTES = 1 << 14
KILLED = (None, "wall", "cpu", "tasks", "setup", "supervisor")
REPORT = struct.Struct("<iddBd")
"""Exit status, CPU seconds, wall seconds, index of KILLED, seconds it waited for a CPU when it was killed (below 0: unknown). Any
other report is text that says why the run could not start."""


class Run:
    """A running program and its limits."""

    __slots__ = (
        "channel",
        "copy_to",
        "folder",
        "forked",
        "job",
        "killed",
        "message",
        "next_check",
        "pid",
        "pidfd",
        "ready",
        "started",
        "waited_s",
    )

    def __init__(self, job: Job, *, pid: int, pidfd: int, channel: int, ready: int, copy_to: int, shared: bool) -> None:
        self.job, self.pid, self.pidfd, self.channel, self.ready, self.copy_to = (
            job,
            pid,
            pidfd,
            channel,
            ready,
            copy_to,
        )
        self.killed, self.waited_s, self.folder, self.started = 0, -1.0, -1, 0.0
        self.message = b""
        """Why the program could not be started or executed."""
        self.forked = time.monotonic()
        # Where all programs share one user's process limit, their threads are counted: a run must not use up what others need.
        self.next_check = self.forked + (CHECK_S if shared else min(job.wall_s, job.cpu_s / CORES))

    def read_messages(self) -> None:
        """Read the start time of the program, or why it failed. The wall limit counts from the start of the program and not from
        the fork, because confining the process can take long on a busy machine."""
        if self.job.kind == TOOL_WITH_COPIED_OUTPUT and self.folder < 0:
            with socket.socket(fileno=os.dup(self.ready)) as channel:
                self.folder = next(iter(socket.recv_fds(channel, 1, 1)[1]), -1)
            if not select.select([self.ready], [], [], 0)[0]:
                return
        message = os.read(self.ready, 1024)
        if message[:1] == READY and not self.started:
            _, self.started = STARTED.unpack_from(message)
            message = message[STARTED.size :]
        self.message += message

    def check_limits(self, now: float, *, shared: bool) -> None:
        """Kill the program if it is at a limit, otherwise set the time of the next check."""
        if self.killed:
            return
        if not self.started and select.select([self.ready], [], [], 0)[0]:
            self.read_messages()
        if self.started:
            left = {"wall": self.started + self.job.wall_s - now}
            with suppress(OSError):  # it has just ended
                # Several threads can use several CPU seconds in a second.
                left["cpu"] = (self.job.cpu_s - cpu_s(self.pid)) / CORES
            if shared and num_threads(self.pid) > confine.MAX_TASKS:
                left["tasks"] = 0.0
        else:
            left = {"setup": self.forked + SETUP_S - now}
        reason = min(left, key=lambda name: left[name])
        if left[reason] <= 0:
            self.kill(reason)
        else:
            self.next_check = now + max(0.001, min(left[reason], NEVER if self.started and not shared else CHECK_S))

    def kill(self, reason: str) -> None:
        """`reason`: one of KILLED."""
        waited = waited_s(self.pid)
        self.killed, self.waited_s, self.next_check = KILLED.index(reason), -1.0 if waited is None else waited, NEVER
        with suppress(ProcessLookupError):  # it has just ended
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def finish(self) -> None:
        """After the process has ended: report its status, or why it could not start."""
        used_s, now = cpu_s(self.pid), time.monotonic()
        status = os.waitpid(self.pid, 0)[1]
        self.read_messages()  # the rest: the process, which had the other end, is gone
        if self.message or not self.started:
            report = self.message or b"it ended before it was ready"
        else:
            report = REPORT.pack(status, used_s, now - self.started, self.killed, self.waited_s)
        if self.folder >= 0:
            copy_output(self.folder, self.copy_to)
            os.close(self.folder)
        if self.copy_to >= 0:
            os.close(self.copy_to)
        os.close(self.pidfd)
        os.close(self.ready)
        send_report(self.channel, report)


def serve(control: socket.socket) -> None:
    """Runs jobs until the supervisor closes its end of the socket."""
    confinement = prepare(control)
    shared, listening = not confinement.namespaces, control.fileno()
    poll, runs = select.poll(), dict[int, Run]()
    poll.register(listening, select.POLLIN)
    while True:
        next_check = NEVER
        for run in runs.values():
            next_check = min(next_check, run.next_check)
        # Start a new run before ended runs are closed (`poll` keeps the order): it could otherwise get the number of a closed
        # descriptor that is still in this list.
        for fd, _ in (
            poll.poll() if next_check == NEVER else poll.poll(max(0.0, 1000 * (next_check - time.monotonic())))
        ):
            if fd == listening:
                message, extra, _, _ = control.recvmsg(JOB_BYTES, socket.CMSG_SPACE(DESCRIPTORS.size))
                if not message:
                    return
                run = start(confinement, message, extra[0][2] if extra else b"", shared=shared)
                if run is not None:
                    runs[run.pidfd] = runs[run.channel] = run
                    poll.register(run.pidfd, select.POLLIN)
                    poll.register(run.channel, select.POLLIN)
            elif fd in runs:
                poll.unregister(fd)
                run = runs.pop(fd)
                if fd == run.channel:
                    run.kill("supervisor")
                    continue
                if run.channel in runs:
                    poll.unregister(run.channel)
                    del runs[run.channel]
                run.finish()
        if next_check != NEVER and time.monotonic() >= next_check:
            for run in list(runs.values()):
                run.check_limits(time.monotonic(), shared=shared)


def prepare(control: socket.socket) -> Confinement:
    """Set up this process as the supervisor's message says, and confirm it."""
    # Reserve the descriptor numbers of a program, so that the descriptors of runs get other numbers.
    while os.open("/dev/null", os.O_RDWR) < inside.FIRST_FREE:
        pass
    config = json.loads(control.recv(1 << 20))
    sys.path[:] = [path for path in sys.path if path] + config["path"]
    for module in config["preload"]:
        importlib.import_module(module)
    confinement = Confinement(config)
    inside.prepare()
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"landlock": confinement.abi}).encode())
    return confinement


def start(confinement: Confinement, message: bytes, received: bytes, *, shared: bool) -> Run | None:
    """Start the program in a new process. None where that failed, which is reported to the supervisor."""
    if len(received) != DESCRIPTORS.size:  # out of descriptors: the supervisor notices that the channel is closed
        for (fd,) in struct.iter_unpack("i", received):
            os.close(fd)
        return None
    code, stdin, stdout, stderr, channel = DESCRIPTORS.unpack(received)
    job = Job.unpacked(message)
    copied = job.kind == TOOL_WITH_COPIED_OUTPUT
    try:
        if copied:
            ready, theirs = (end.detach() for end in socket.socketpair())
        else:
            ready, theirs = os.pipe()
    except OSError as error:
        return start_failed(error, channel, (code, stdin, stdout, stderr))
    try:
        pid, pidfd = confinement.fork()
    except OSError as error:
        return start_failed(error, channel, (code, stdin, stdout, stderr, ready, theirs))
    if pid == 0:
        inside.run_program(confinement, job, code, stdin, stdout, stderr, theirs)
    close = os.close
    close(code)
    close(stdin)
    close(stderr)
    close(theirs)
    if not copied:
        close(stdout)
    return Run(job, pid=pid, pidfd=pidfd, channel=channel, ready=ready, copy_to=stdout if copied else -1, shared=shared)


def start_failed(error: OSError, channel: int, fds: tuple[int, ...]) -> None:
    """Report a run that could not be started for lack of descriptors, processes or memory."""
    for fd in fds:
        os.close(fd)
    send_report(channel, f"the run cannot be started: {error}".encode())


def send_report(channel: int, report: bytes) -> None:
    with suppress(OSError):  # the supervisor is gone
        os.write(channel, report)
    os.close(channel)


def copy_output(folder: int, to: int) -> None:
    """Copy the file that a tool has written to its folder, if it has written one."""
    with suppress(OSError):
        found = os.open(inside.OUTPUT_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        with open(found, "rb") as file, open(to, "wb", closefd=False) as written:
            written.write(file.read())


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process that has not been reaped yet."""
    return time.clock_gettime((~pid << 3) | 2)  # the clock id that clock_getcpuclockid returns


def num_threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:  # it has just ended
        return 0


def waited_s(pid: int) -> float | None:
    """Seconds for which a thread of the process was ready to run without getting a CPU; None where the kernel does not report it.

    The maximum over its threads and not the sum, because threads also wait for each other.
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


def main() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    serve(socket.socket(fileno=int(sys.argv[1])))
