"""What a program's process gives up before it reads the code, each by itself. Part of the zygote: Python's own library only."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Sequence
from contextlib import suppress

Record = dict  # of what the supervisor has sent as JSON
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x4000, 0x40000
MAX_TASKS = 64
"""Threads of one program."""
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
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


def limits(config: Record, job: Record) -> None:
    for name, value in (
        ("RLIMIT_AS", config["own_bytes"] + job["memory_bytes"]),
        ("RLIMIT_CPU", int(job["cpu_s"]) + 1),
        ("RLIMIT_NOFILE", 64),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_STACK", job["stack_bytes"]),
    ):
        limit(name, value)
    # Where it has a user or a namespace of its own; else all that the user who runs r1ray does counts too.
    alone = config["uid"] is not None or config["namespaces"]
    most = MAX_TASKS if alone else config["num_tasks"] + 1000
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def limit(name: str, value: int) -> None:
    number = getattr(resource, name)
    hard = resource.getrlimit(number)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(number, (value, value))


def memory(job: Record) -> None:
    """For what is executed next: the interpreter is gone then, and what it takes with it."""
    most = min(job["memory_bytes"], resource.getrlimit(resource.RLIMIT_AS)[1])
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def num_tasks() -> int:
    """Threads of this user's, now."""
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == os.geteuid():
                found += len(os.listdir(f"/proc/{pid}/task"))
    return found


def virtual_bytes() -> int:
    """Of address space that the interpreter takes itself; a generous guess where there is no /proc to ask."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 512 << 20


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
    """Fresh, small folders to write in; and of the processes no more than its own. A native program executes nothing that it writes
    there, and finds nothing where the system would be: it may be where Landlock is not."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    size = f"size={job['file_bytes'] * 2},nr_inodes=1000,mode=1777"
    for folder in ("/tmp", "/dev/shm"):
        mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV | (MS_NOEXEC if job["native"] else 0), size)
    for folder in config["folders"] if job["bare"] else ():
        if os.path.isdir(folder):  # else it was in one that is hidden already
            mount("tmpfs", folder, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4096,nr_inodes=1")
    if config["proc"]:
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "subset=pid")
    else:  # /dev/stdin leads there
        size = os.fstat(0).st_size + (1 << 20)
        mount("tmpfs", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"size={size},nr_inodes=10,mode=755")
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
