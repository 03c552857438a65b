"""The process that runs model-written programs. `r1ray.sandbox.supervisor` starts it with the text of this file and its imports.

It has imported what programs import, so that a run is a fork and not a start of Python. For every run that comes over its socket it
forks one process (`r1ray.sandbox.inside`), and is then the clock of all of them: kills a program at its limits, or when the
supervisor has let go of it, and reports how it ended. It reads nothing that a program has written, and waits for none of them.

Nothing that is secret or decides a verdict is ever in here: no expected output, no environment, no file descriptor of the parent.
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
from r1ray.sandbox.confine import PR_SET_PDEATHSIG, Walls, prctl
from r1ray.sandbox.inside import BEGUN, COPIED_TOOL, READY, Job

SETUP_S = 30.0
LOOK_S = 0.05
NEVER = float("inf")
CORES = len(os.sched_getaffinity(0))
FDS = ("code", "stdin", "stdout", "stderr", "line")
"""What comes with every run, in this order. Over its line the run is reported; that the other end is closed ends it."""
DESCRIPTORS = struct.Struct(f"{len(FDS)}i")
JOB_BYTES = 1 << 14
KILLED = (None, "wall", "cpu", "tasks", "setup", "supervisor")
REPORT = struct.Struct("<iddBd")
"""Exit status, seconds on the processor and on the clock, index of KILLED, how long it had waited for a processor until then (below
0: nobody knows). Whatever else is reported is text: why it could not begin."""


class Run:
    """A program on its way, and the clock over it."""

    __slots__ = (
        "begun",
        "copy_to",
        "due",
        "folder",
        "forked",
        "job",
        "killed",
        "line",
        "pid",
        "pidfd",
        "ready",
        "said",
        "waited_s",
    )

    def __init__(self, job: Job, *, pid: int, pidfd: int, line: int, ready: int, copy_to: int, shared: bool) -> None:
        self.job, self.pid, self.pidfd, self.line, self.ready, self.copy_to = job, pid, pidfd, line, ready, copy_to
        self.killed, self.waited_s, self.folder, self.begun = 0, -1.0, -1, 0.0
        self.said = b""
        """Why it could not begin, or be executed."""
        self.forked = time.monotonic()
        # Where all programs share a user's limit of processes their threads are counted: they are the neighbours' too.
        self.due = self.forked + (LOOK_S if shared else min(job.wall_s, job.cpu_s / CORES))

    def hear(self) -> None:
        """Take what it says of its beginning. The wall clock runs only from there: on a busy machine giving everything up may take
        long."""
        if self.job.kind == COPIED_TOOL and self.folder < 0:
            with socket.socket(fileno=os.dup(self.ready)) as line:
                self.folder = next(iter(socket.recv_fds(line, 1, 1)[1]), -1)
            if not select.select([self.ready], [], [], 0)[0]:
                return
        said = os.read(self.ready, 1024)
        if said[:1] == READY and not self.begun:
            _, self.begun = BEGUN.unpack_from(said)
            said = said[BEGUN.size :]
        self.said += said

    def look(self, now: float, *, shared: bool) -> None:
        """Is it at a limit, and when to look again."""
        if self.killed:
            return
        if not self.begun and select.select([self.ready], [], [], 0)[0]:
            self.hear()
        if self.begun:
            left = {"wall": self.begun + self.job.wall_s - now}
            with suppress(OSError):  # it has just ended
                left["cpu"] = (self.job.cpu_s - cpu_s(self.pid)) / CORES  # two threads use two seconds in one
            if shared and num_threads(self.pid) > confine.MAX_TASKS:
                left["tasks"] = 0.0
        else:
            left = {"setup": self.forked + SETUP_S - now}
        why = min(left, key=lambda name: left[name])
        if left[why] <= 0:
            self.kill(why)
        else:
            self.due = now + max(0.001, min(left[why], NEVER if self.begun and not shared else LOOK_S))

    def kill(self, why: str) -> None:
        """`why`: one of KILLED."""
        waited = waited_s(self.pid)
        self.killed, self.waited_s, self.due = KILLED.index(why), -1.0 if waited is None else waited, NEVER
        with suppress(ProcessLookupError):  # it has just ended
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def end(self) -> None:
        """It has ended: say how, or why it could not begin."""
        used_s, now = cpu_s(self.pid), time.monotonic()
        status = os.waitpid(self.pid, 0)[1]
        self.hear()  # all of it: nobody else has the other end
        if self.said or not self.begun:
            report = self.said or b"it ended before it was ready"
        else:
            report = REPORT.pack(status, used_s, now - self.begun, self.killed, self.waited_s)
        if self.folder >= 0:
            copy(self.folder, self.copy_to)
            os.close(self.folder)
        if self.copy_to >= 0:
            os.close(self.copy_to)
        os.close(self.pidfd)
        os.close(self.ready)
        tell(self.line, report)


def serve(control: socket.socket) -> None:
    """Until the supervisor closes its end."""
    walls = made_ready(control)
    shared, listening = not walls.namespaces, control.fileno()
    poll, runs = select.poll(), dict[int, Run]()
    poll.register(listening, select.POLLIN)
    while True:
        due = NEVER
        for run in runs.values():
            due = min(due, run.due)
        # A new run comes first (`poll` keeps the order): no descriptor in this list is closed and given to it before its turn.
        for fd, _ in poll.poll() if due == NEVER else poll.poll(max(0.0, 1000 * (due - time.monotonic()))):
            if fd == listening:
                message, extra, _, _ = control.recvmsg(JOB_BYTES, socket.CMSG_SPACE(DESCRIPTORS.size))
                if not message:
                    return
                run = begin(walls, message, extra[0][2] if extra else b"", shared=shared)
                if run is not None:
                    runs[run.pidfd] = runs[run.line] = run
                    poll.register(run.pidfd, select.POLLIN)
                    poll.register(run.line, select.POLLIN)
            elif fd in runs:
                poll.unregister(fd)
                run = runs.pop(fd)
                if fd == run.line:
                    run.kill("supervisor")
                    continue
                if run.line in runs:
                    poll.unregister(run.line)
                    del runs[run.line]
                run.end()
        if due != NEVER and time.monotonic() >= due:
            for run in list(runs.values()):
                run.look(time.monotonic(), shared=shared)


def made_ready(control: socket.socket) -> Walls:
    """This process, by what the supervisor says; which is told that it is."""
    # What comes with a run is not to be where a program's own descriptors will be.
    while os.open("/dev/null", os.O_RDWR) < inside.FIRST_FREE:
        pass
    config = json.loads(control.recv(1 << 20))
    sys.path[:] = [path for path in sys.path if path] + config["path"]
    for module in config["preload"]:
        importlib.import_module(module)
    walls = Walls(config)
    inside.prepare()
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"landlock": walls.abi}).encode())
    return walls


def begin(walls: Walls, message: bytes, received: bytes, *, shared: bool) -> Run | None:
    """In a process of its own, from here on. None where it could not be begun, which the supervisor is told."""
    if len(received) != DESCRIPTORS.size:  # there was no room for more: the supervisor finds its line closed
        for (fd,) in struct.iter_unpack("i", received):
            os.close(fd)
        return None
    code, stdin, stdout, stderr, line = DESCRIPTORS.unpack(received)
    job = Job.unpacked(message)
    copied = job.kind == COPIED_TOOL
    try:
        if copied:
            ready, theirs = (end.detach() for end in socket.socketpair())
        else:
            ready, theirs = os.pipe()
    except OSError as error:
        return not_begun(error, line, (code, stdin, stdout, stderr))
    try:
        pid, pidfd = walls.fork()
    except OSError as error:
        return not_begun(error, line, (code, stdin, stdout, stderr, ready, theirs))
    if pid == 0:
        inside.program(walls, job, code, stdin, stdout, stderr, theirs)
    close = os.close
    close(code)
    close(stdin)
    close(stderr)
    close(theirs)
    if not copied:
        close(stdout)
    return Run(job, pid=pid, pidfd=pidfd, line=line, ready=ready, copy_to=stdout if copied else -1, shared=shared)


def not_begun(error: OSError, line: int, fds: tuple[int, ...]) -> None:
    """There were not enough descriptors, processes or memory."""
    for fd in fds:
        os.close(fd)
    tell(line, f"a run cannot be begun: {error}".encode())


def tell(line: int, report: bytes) -> None:
    with suppress(OSError):  # the supervisor is gone
        os.write(line, report)
    os.close(line)


def copy(folder: int, to: int) -> None:
    """What a tool has written in its folder. It has made a file there, or nothing."""
    with suppress(OSError):
        found = os.open(inside.COPIED, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        with open(found, "rb") as file, open(to, "wb", closefd=False) as written:
            written.write(file.read())


def cpu_s(pid: int) -> float:
    """Seconds on the processor of all its threads, until it is waited for."""
    return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid makes it


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


def main() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    serve(socket.socket(fileno=int(sys.argv[1])))
