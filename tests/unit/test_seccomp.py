"""The seccomp filter, run by an interpreter of its few instructions: what it allows and refuses on both architectures."""

import errno
import struct
from functools import cache

import pytest

from r1ray.sandbox.seccomp import ALLOW, AT_EMPTY_PATH, EXECUTED, FAIL, KILL, PID_MARK, X32, filter_bytes
from r1ray.sandbox.syscalls import ABSENT, AUDIT_ARCH, CHANGING, CONDITIONAL, EXECUTING, NUMBERS, numbers

MACHINES = list(NUMBERS)
DENIED, MISSING = FAIL | errno.EPERM, FAIL | errno.ENOSYS


@cache
def decoded(machine: str, *, changing: bool, executing: bool) -> list[tuple[int, ...]]:
    return list(struct.iter_unpack("<HBBI", filter_bytes(machine, changing=changing, executing=executing)))


def verdict(
    machine: str, number: int, *args: int, arch: int | None = None, changing: bool = True, executing: bool = False
) -> int:
    """The action of the kernel for this call."""
    arguments = [*args, *[0] * (6 - len(args))]
    data = struct.pack("<IIQ6Q", number, AUDIT_ARCH[machine] if arch is None else arch, 0, *arguments)
    code = decoded(machine, changing=changing, executing=executing)
    at = value = 0
    while True:
        kind, if_true, if_false, operand = code[at]
        match kind:
            case 0x06:
                return operand
            case 0x20:
                value, jump = struct.unpack_from("<I", data, operand)[0], 0
            case 0x15:
                jump = if_true if value == operand else if_false
            case 0x35:
                jump = if_true if value >= operand else if_false
            case 0x45:
                jump = if_true if value & operand else if_false
            case _:
                raise AssertionError(kind)
        at += 1 + jump


@pytest.mark.parametrize("machine", MACHINES)
def test_every_listed_call_is_allowed(machine: str) -> None:
    for name, number in numbers(machine).items():
        if name not in CONDITIONAL:
            assert verdict(machine, number) == (MISSING if name in ABSENT else ALLOW), name


@pytest.mark.parametrize("machine", MACHINES)
def test_program_without_its_own_folder_cannot_change_files(machine: str) -> None:
    """Landlock does not cover chmod and utime."""
    of = numbers(machine)
    assert {
        name for name, number in of.items() if verdict(machine, number, changing=False) != verdict(machine, number)
    } == {name for name in CHANGING if name in of}
    assert {"fchmodat", "utimensat", "truncate", "ftruncate", "unlinkat"} <= set(of) & set(CHANGING)


@pytest.mark.parametrize("machine", MACHINES)
def test_native_programs_may_also_execute_one_file(machine: str) -> None:
    execveat = numbers(machine)["execveat"]
    begin = (EXECUTED, 0x7FFF_0000_0000, 0x1000, 0x2000, AT_EMPTY_PATH)
    assert EXECUTED == 4, "where the zygote puts it"
    assert verdict(machine, execveat, *begin, executing=True) == ALLOW
    assert verdict(machine, execveat, *begin) == DENIED, "not for Python"
    for fd in (0, 3, 5, 0xFFFF_FF9C):  # the last is AT_FDCWD
        assert verdict(machine, execveat, fd, *begin[1:], executing=True) == DENIED
    for flags in (0, 0x100, 0x1100, 0x11000):
        assert verdict(machine, execveat, *begin[:4], flags, executing=True) == DENIED
    for number in set(range(600)) - {execveat}:
        for args in ((), (EXECUTED, 0, 0, 0, AT_EMPTY_PATH), (0, 15, 0, 0, 1)):
            assert verdict(machine, number, *args, executing=True) == verdict(machine, number, *args)


@pytest.mark.parametrize("machine", MACHINES)
def test_unlisted_calls_fail(machine: str) -> None:
    listed = {number for name, number in numbers(machine).items() if name not in EXECUTING}
    for number in set(range(600)) - listed:
        assert verdict(machine, number) == DENIED
    never = {
        "x86_64": (41, 49, 42, 57, 58, 59, 62, 101, 165, 272, 310, 319, 321, 322),
        "aarch64": (198, 200, 203, 221, 117, 40, 97, 281),
    }
    assert not listed & set(never[machine]), "socket, bind, connect, fork, execve, kill, ptrace, mount, unshare ..."


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("clone", (0x3D0F00,), (0x1200011,)),
        ("tgkill", (PID_MARK, 7, 6), (1, 7, 9)),
        ("prlimit64", (0, 7), (44, 7)),
        ("fcntl", (1, 3), (1, 8)),
        ("fcntl", (1, 4), (1, 10)),
        ("ioctl", (0, 0x5401), (0, 0x5412)),
        ("prctl", (15,), (8,)),
        ("sendto", (3, 4, 5, 0, 0), (3, 4, 5, 0, 1 << 40)),
        ("sendto", (3, 4, 5, 0, 0), (3, 4, 5, 0, 1)),
    ],
)
def test_arguments_decide_some_calls(
    machine: str, name: str, allowed: tuple[int, ...], refused: tuple[int, ...]
) -> None:
    number = numbers(machine)[name]
    assert (verdict(machine, number, *allowed), verdict(machine, number, *refused)) == (ALLOW, DENIED)


@pytest.mark.parametrize("machine", MACHINES)
def test_call_of_another_architecture_kills(machine: str) -> None:
    read = numbers(machine)["read"]
    assert verdict(machine, read, arch=0x40000003) == KILL
    assert verdict(machine, read | X32) == KILL


def test_unknown_machine_is_named() -> None:
    with pytest.raises(ValueError, match=r"riscv64.*x86_64 and aarch64"):
        filter_bytes("riscv64", changing=False)
