"""What a warden's report means."""

import signal

import pytest

from r1ray.sandbox.base import Limits, Program
from r1ray.sandbox.supervisor import status_of
from r1ray.sandbox.zygote import MEMORY_EXIT

PROGRAM = Program(code=b"", limits=Limits(cpu_s=2.0, wall_s=6.0))


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
        (signal.SIGKILL, "supervisor", 0.1, True, ("output_limit", "")),
        (0, None, 0.1, True, ("output_limit", "")),
    ],
)
def test_status(status: int, killed: str | None, cpu_s: float, flooded: bool, expected: tuple[str, str]) -> None:
    assert status_of({"status": status, "killed": killed, "cpu_s": cpu_s}, PROGRAM, flooded=flooded) == expected
