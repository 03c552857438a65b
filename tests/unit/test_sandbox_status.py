"""The result of a run by the zygote's report."""

import os
import select
import signal
import time

import pytest

from r1ray.sandbox import confine
from r1ray.sandbox.base import Limits
from r1ray.sandbox.inside import MEMORY_EXIT, READY, SCRIPT, STARTED, Job
from r1ray.sandbox.supervisor import report_of, status_of
from r1ray.sandbox.zygote import KILLED, REPORT, Run

LIMITS = Limits(cpu_s=2.0, wall_s=6.0)
OVERDUE = ("sandbox_error", "the run did not start or end in time")


@pytest.mark.parametrize(
    ("status", "killed", "cpu_s", "flooded", "expected"),
    [
        (0, None, 0.1, False, ("ok", "")),
        (1 << 8, None, 0.1, False, ("runtime_error", "")),
        (MEMORY_EXIT << 8, None, 0.1, False, ("memory", "")),
        (signal.SIGSEGV, None, 0.1, False, ("runtime_error", "")),
        (signal.SIGKILL, None, 0.1, False, ("memory", "")),
        (signal.SIGKILL, None, 1.9, False, ("timeout", "")),
        (signal.SIGXCPU, None, 3.0, False, ("timeout", "")),
        (signal.SIGKILL, "cpu", 2.0, False, ("timeout", "")),
        (signal.SIGKILL, "wall", 1.5, False, ("timeout", "")),
        (signal.SIGKILL, "wall", 0.1, False, ("timeout", "starved")),
        (signal.SIGKILL, "tasks", 0.1, False, ("runtime_error", "")),
        (signal.SIGKILL, "supervisor", 0.1, True, ("output_limit", "")),
        (signal.SIGKILL, "supervisor", 0.1, False, OVERDUE),
        (signal.SIGKILL, "setup", 0.1, False, OVERDUE),
        (0, None, 0.1, True, ("output_limit", "")),
    ],
)
def test_status_of_a_report(
    status: int, killed: str | None, cpu_s: float, flooded: bool, expected: tuple[str, str]
) -> None:
    report = {"status": status, "killed": killed, "cpu_s": cpu_s, "waited_s": 5.0}
    assert status_of(report, LIMITS, flooded=flooded) == expected


@pytest.mark.parametrize(("waited_s", "starved"), [(0.0, False), (1.0, False), (2.0, True), (None, True)])
def test_a_sleeping_program_is_not_starved(waited_s: float | None, starved: bool) -> None:
    """Otherwise a program that does nothing would run twice, the second time alone on the machine."""
    report = {"status": signal.SIGKILL, "killed": "wall", "cpu_s": 0.1, "waited_s": waited_s}
    assert status_of(report, LIMITS, flooded=False) == ("timeout", "starved" if starved else "")


@pytest.mark.parametrize(
    ("says", "killed", "expected"),
    [
        (STARTED.pack(READY, 7.0), "supervisor", None),
        (STARTED.pack(READY, 7.0), None, None),
        (STARTED.pack(READY, 7.0) + b"it cannot be executed", None, "it cannot be executed"),
        (b"OSError: landlock", None, "OSError: landlock"),
        (b"", None, "it ended before it was ready"),
        (b"", "setup", "it ended before it was ready"),
    ],
)
@pytest.mark.parametrize("checked", [False, True])
def test_a_program_that_floods_at_once_has_started(
    says: bytes, killed: str | None, expected: str | None, checked: bool
) -> None:
    """The supervisor can stop a run before the zygote has read that it started: that is no sandbox_error."""
    (ready, program), (supervisor, channel) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(program, says)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(program)
    job = Job(kind=SCRIPT, wall_s=1e9, cpu_s=9, memory_bytes=0, file_bytes=0, stack_bytes=0, code_bytes=0, texts=[])
    run = Run(job, pid=pid, pidfd=os.pidfd_open(pid), channel=channel, ready=ready, copy_to=-1, shared=True)
    select.select([run.pidfd], [], [])
    if checked:  # the limits may be checked in between, and the message that was read then is not lost
        run.check_limits(time.monotonic(), shared=False)
    run.killed = KILLED.index(killed)
    run.finish()
    said = os.read(supervisor, 4096)
    os.close(supervisor)
    if expected is not None:
        assert said.decode() == expected and len(said) != REPORT.size
    else:
        report = report_of(said)
        assert (report["status"], report["killed"], report["waited_s"]) == (signal.SIGKILL, killed, None)


@pytest.mark.parametrize("abi", range(9))
def test_landlock_ruleset_has_the_size_that_the_kernel_supports(monkeypatch: pytest.MonkeyPatch, abi: int) -> None:
    """This machine's kernel accepts all of these sizes; older kernels accept only their own."""
    asked: list[int] = []
    monkeypatch.setattr(confine, "_syscall", lambda *args: asked.append(args[2]) or -1)
    monkeypatch.setattr(confine, "checked", lambda result, what: result)
    confine.Landlock([("/tmp", 1)], (), abi)
    assert asked[:1] == ([] if abi == 0 else [8] if abi < 4 else [16] if abi < 6 else [24])
