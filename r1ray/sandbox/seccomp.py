"""The seccomp filter of a program, as bytes for the kernel. The supervisor builds it; the program's process installs it.

another architecture, or an x32 call on x86-64       the process is killed
a call that `syscalls` allows                        allowed, some calls only with certain arguments
a call that must look unimplemented                  ENOSYS
any other call                                       EPERM
"""

import errno
import struct

from r1ray.sandbox import inside
from r1ray.sandbox.syscalls import ABSENT, AUDIT_ARCH, CHANGING, CONDITIONAL, EXECUTING, numbers

PID_MARK = 0x5EEDF11D
"""Placeholder for the program's process id, which is known only after the fork."""

LOAD, JUMP_EQUAL, JUMP_ABOVE, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
DENY = FAIL | errno.EPERM
NUMBER, ARCH = 0, 4
X32 = 0x40000000

CLONE_THREAD = 0x00010000
F_SETOWN, F_SETSIG, F_SETOWN_EX, F_NOTIFY = 8, 10, 15, 1026
TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX = 0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451
PR_SET_NAME, PR_GET_NAME, PR_SET_VMA = 15, 16, 0x53564D41

EXECUTED, AT_EMPTY_PATH = inside.CODE_FD, 0x1000

Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, operand)."""


def filter_bytes(machine: str, *, changing: bool, executing: bool = False) -> bytes:
    """The filter for this machine: struct sock_filter, one after another, little-endian.

    Args:
        changing: whether calls that change files are allowed.
        executing: whether the file behind descriptor EXECUTED may be executed. The call can also contain a path, which is in
            memory where a filter cannot read it: Landlock and the mounts prevent that other files are executed.
    """
    number_of = numbers(machine)
    code: list[Instruction] = [
        (LOAD, 0, 0, ARCH),
        (JUMP_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (JUMP_ABOVE, 0, 1, X32),
        (RETURN, 0, 0, KILL),
    ]
    blocks = {
        number: _block(name)
        for name, number in number_of.items()
        if (changing or name not in CHANGING) and (executing or name not in EXECUTING)
    }
    code += _search(blocks)
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _search(blocks: dict[int, list[Instruction]]) -> list[Instruction]:
    """The block for the loaded number, found by binary search; other numbers are denied.

    Before it installs a filter the kernel runs it for every system call number: with a linear list that takes three times as long.
    """
    ranges: list[tuple[int, list[Instruction]]] = []
    for number in range(max(blocks) + 2):
        block = blocks.get(number, [(RETURN, 0, 0, DENY)])
        if not ranges or block != ranges[-1][1]:
            ranges.append((number, block))

    def halved(low: int, high: int) -> list[Instruction]:
        if high - low == 1:
            return ranges[low][1]
        middle = (low + high) // 2
        below = halved(low, middle)
        assert len(below) < 256, "a jump offset is one byte"
        return [(JUMP_ABOVE, len(below), 0, ranges[middle][0]), *below, *halved(middle, high)]

    return halved(0, len(ranges))


def _block(name: str) -> list[Instruction]:
    if name in CONDITIONAL:
        return _conditional(name)
    return [(RETURN, 0, 0, FAIL | errno.ENOSYS if name in ABSENT else ALLOW)]


def _conditional(name: str) -> list[Instruction]:
    """Instructions that return for any arguments."""
    deny: list[Instruction] = [(RETURN, 0, 0, DENY)]
    match name:
        case "clone":  # only threads, no processes
            return [_load(0), (JUMP_ANY_BIT, 0, 1, CLONE_THREAD), (RETURN, 0, 0, ALLOW), *deny]
        case "tgkill":  # a signal to itself (abort, pthread_kill)
            return _one_of(0, PID_MARK)
        case "prlimit64":  # only of itself
            return _one_of(0, 0)
        case "fcntl":  # no settings that send signals
            return _none_of(1, F_SETOWN, F_SETSIG, F_SETOWN_EX, F_NOTIFY)
        case "ioctl":
            return _one_of(1, TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX)
        case "prctl":
            return _one_of(0, PR_SET_NAME, PR_GET_NAME, PR_SET_VMA)
        case "sendto":  # only on a connected pair, not to an address
            zero = [_load(4), (JUMP_EQUAL, 1, 0, 0), *deny, _load(4, high=True), (JUMP_EQUAL, 1, 0, 0), *deny]
            return [*zero, (RETURN, 0, 0, ALLOW)]
        case "execveat":  # only of descriptor EXECUTED
            return [_load(4), (JUMP_EQUAL, 1, 0, AT_EMPTY_PATH), *deny, *_one_of(0, EXECUTED)]
    raise AssertionError(name)


def _one_of(argument: int, *values: int) -> list[Instruction]:
    tests = [(JUMP_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [_load(argument), *tests, (RETURN, 0, 0, DENY), (RETURN, 0, 0, ALLOW)]


def _none_of(argument: int, *values: int) -> list[Instruction]:
    tests = [(JUMP_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [_load(argument), *tests, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DENY)]


def _load(argument: int, *, high: bool = False) -> Instruction:
    """One half of an argument; by default the lower one, which is all that the kernel reads of an int."""
    return (LOAD, 0, 0, 16 + 8 * argument + (4 if high else 0))
