"""What a warden's report means."""

import os
import signal

import pytest

from r1ray.sandbox.base import Limits
from r1ray.sandbox.supervisor import status_of
from r1ray.sandbox.zygote import MEMORY_EXIT, READY, first_word

LIMITS = Limits(cpu_s=2.0, wall_s=6.0)


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
        (0, None, 0.1, True, ("output_limit", "")),
    ],
)
def test_status(status: int, killed: str | None, cpu_s: float, flooded: bool, expected: tuple[str, str]) -> None:
    report = {"status": status, "killed": killed, "cpu_s": cpu_s, "waited_s": 5.0}
    assert status_of(report, LIMITS, flooded=flooded) == expected


@pytest.mark.parametrize(("waited_s", "starved"), [(0.0, False), (1.0, False), (2.0, True), (None, True)])
def test_who_sleeps_is_not_starved(waited_s: float | None, starved: bool) -> None:
    """Else a program that does nothing would be run twice, the second time with the machine to itself."""
    report = {"status": signal.SIGKILL, "killed": "wall", "cpu_s": 0.1, "waited_s": waited_s}
    assert status_of(report, LIMITS, flooded=False) == ("timeout", "starved" if starved else "")


@pytest.mark.parametrize(
    ("says", "closes", "heard"),
    [
        (READY, True, READY),
        (READY, False, READY),
        (READY + b"it cannot be executed", True, READY + b"it cannot be executed"),
        (b"OSError: landlock", True, b"OSError: landlock"),
        (b"", True, b""),
        (b"", False, b""),
    ],
)
def test_who_floods_at_once_has_begun_all_the_same(says: bytes, closes: bool, heard: bytes) -> None:
    """The supervisor ends the run while a slow warden has yet to hear of its beginning: that is no sandbox_error."""
    (ready, program), (kill, supervisor) = os.pipe(), os.pipe()
    os.write(program, says)
    os.close(supervisor)
    if closes:
        os.close(program)
    try:
        assert first_word(ready, kill) == heard
    finally:
        for fd in (ready, kill, *([] if closes else [program])):
            os.close(fd)
