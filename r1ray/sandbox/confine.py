"""What a program's process gives up before it reads the code, each by itself. Part of the zygote: Python's own library only.

A run is a millisecond, and Python is slow at the first time it does a thing: what is the same for every run is made ready once, in
the zygote (`Walls`), and the run only makes the system calls.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import struct
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

Record = dict  # of what the supervisor has sent as JSON
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_GET_TID_ADDRESS = 1, 22, 24, 38, 40
CLONE_PIDFD, CLONE_NEWNS, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x1000, 0x00020000, 0x00200000, 0x01000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x08000000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
MAX_TASKS = 64
"""Threads of one program."""
MAX_FILES = 64
LIMITED = (
    *(resource.RLIMIT_AS, resource.RLIMIT_CORE, resource.RLIMIT_CPU),
    *(resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_STACK),
)
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
FS_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
"""By ABI; from 5 on (1 << 16) - 1."""

# Without letting go of the interpreter's lock: nobody else is here to take it.
libc = ctypes.PyDLL(None, use_errno=True)
_syscall, _prctl, _mount = libc.syscall, libc.prctl, libc.mount
_syscall.restype, _syscall.argtypes = ctypes.c_long, [ctypes.c_long] * 6
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_capset = libc.capset
_mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


_NO_CAPABILITIES = struct.pack("<Ii", 0x20080522, 0), struct.pack("<6I", *[0] * 6)  # version 3


def checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int) -> None:
    checked(_prctl(option, value, 0, 0, 0), f"prctl {option}")


class Fork:
    """`fork()`: (0, -1) in a new process, (its pid, its pidfd) here. In the namespaces that `flags` ask for, as their pid 1.

    By the system call itself, for the namespaces, and for what `os.fork` does besides: Python and its modules make their locks anew
    then, in case another thread has held one. The zygote has one thread, if no package has started more; which id that has in the
    new process is all the C library must learn.
    """

    def __init__(self, number: int, flags: int) -> None:
        address, self._pidfd = ctypes.c_long(), ctypes.c_int(-1)
        # A kernel without this leaves the zygote's own id there, which no thread has that can ever meet it.
        known = _prctl(PR_GET_TID_ADDRESS, ctypes.addressof(address), 0, 0, 0) == 0
        if not known and flags:
            raise OSError(0, "the kernel does not say where a thread's id is kept (CONFIG_CHECKPOINT_RESTORE)")
        flags |= CLONE_PIDFD | signal.SIGCHLD | ((CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID) if known else 0)
        # Architectures differ in which of the last two it is; the other one is not looked at.
        self._arguments = (number, flags, 0, ctypes.addressof(self._pidfd), address.value, address.value)
        self._alone = num_threads() == 1

    def __call__(self) -> tuple[int, int]:
        if self._alone:
            pid = checked(_syscall(*self._arguments), "clone")
        else:
            ctypes.pythonapi.PyOS_BeforeFork()
            pid = _syscall(*self._arguments)
            (ctypes.pythonapi.PyOS_AfterFork_Parent if pid else ctypes.pythonapi.PyOS_AfterFork_Child)()
            checked(pid, "clone")
        return pid, self._pidfd.value if pid else -1


def num_threads() -> int:
    """Of this process, those of libraries too where there is a /proc to ask."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


class Walls:
    """What is made ready for all runs of a zygote; the methods are each a part of giving everything up."""

    def __init__(self, config: Record) -> None:
        self.uid, self.namespaces, self.proc = config["uid"], config["namespaces"], config["proc"]
        self._folders = [folder.encode() for folder in config["folders"]]
        self._zygote, self._own_bytes = os.getpid(), virtual_bytes()
        # Where it has a user or a namespace of its own; else all that the user who runs r1ray does counts too.
        tasks = MAX_TASKS if self.uid is not None or self.namespaces else num_tasks() + 1000
        self._tasks = (tasks, tasks)
        self._hard = {number: highest(number) for number in LIMITED}
        set_limit(resource.RLIMIT_CORE, (0, 0))
        # Both are inherited, and nobody gets back what they took.
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        uid, gid = os.geteuid(), os.getegid()
        maps = {b"setgroups": b"deny", b"uid_map": b"%d %d 1" % (uid, uid), b"gid_map": b"%d %d 1" % (gid, gid)}
        self._same_user = [(b"/proc/self/" + name, text) for name, text in maps.items()]
        flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC if self.namespaces else 0
        self.fork = Fork(config["clone"], flags | (CLONE_NEWUSER if self.proc else 0))
        self.abi = landlock_abi()
        fresh = ("/tmp", "/proc") if self.namespaces else ()
        self._readable, self._bare = (Landlock(config[name], fresh, self.abi) for name in ("readable", "bare"))
        self._python, self._native = (
            Filter(bytes.fromhex(config["filters"][name]), config["pid_mark"]) for name in ("python", "native")
        )

    def limit(self, memory_bytes: int, cpu_s: float, stack_bytes: int) -> None:
        hard = self._hard
        for number, value in (
            (resource.RLIMIT_AS, self._own_bytes + memory_bytes),
            (resource.RLIMIT_CPU, int(cpu_s) + 1),
            (resource.RLIMIT_STACK, stack_bytes),
        ):
            value = min(value, hard[number])
            set_limit(number, (value, value))
        set_limit(resource.RLIMIT_NPROC, self._tasks)

    def limit_files(self, file_bytes: int) -> None:
        """Last: these are in the way of giving things up. A copy of standard input may be larger than a file may be."""
        for number, value in ((resource.RLIMIT_NOFILE, MAX_FILES), (resource.RLIMIT_FSIZE, file_bytes)):
            value = min(value, self._hard[number])
            set_limit(number, (value, value))

    def become_nobody(self) -> None:
        """And end when the zygote does."""
        if self.uid is not None:
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # not before: a change of user clears it
        if not self.namespaces and os.getppid() != self._zygote:  # in a bubble its end is everybody's
            raise OSError(errno.ESRCH, "the zygote has ended")

    def own_mounts(self, file_bytes: int, *, native: bool, bare: bool) -> None:
        """A fresh, small folder to write in, by two names; and of the processes no more than its own. A native program executes
        nothing that it writes there, and finds nothing where the system would be: it may be where Landlock is not.

        Who it is stays the same, in a user namespace with its own limit of processes. Without /proc nobody can say so: then the
        user namespace stays bubblewrap's, and all runs share its limit.
        """
        if self.proc:
            for name, text in self._same_user:
                fd = os.open(name, os.O_WRONLY)
                os.write(fd, text)
                os.close(fd)
        mount(None, b"/", None, MS_REC | MS_PRIVATE)
        own = MS_NOSUID | MS_NODEV | (MS_NOEXEC if native else 0)
        mount(b"tmpfs", b"/tmp", b"tmpfs", own, b"size=%d,nr_inodes=1000,mode=1777" % (2 * file_bytes))
        mount(b"/tmp", b"/dev/shm", None, MS_BIND)  # with the flags of what it is
        for folder in self._folders if bare else ():
            if os.path.isdir(folder):  # else it was in one that is hidden already
                mount(b"tmpfs", folder, b"tmpfs", MS_RDONLY | own, b"size=4096,nr_inodes=1")
        if self.proc:
            mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, b"subset=pid")
        else:  # /dev/stdin leads there
            size = os.fstat(0).st_size
            options = b"size=%d,nr_inodes=10,mode=755" % (size + (1 << 20))
            mount(b"tmpfs", b"/proc", b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
            os.makedirs("/proc/self/fd")
            with open("/proc/self/fd/0", "wb") as file:
                file.write(os.pread(0, size, 0))
        os.chdir(b"/tmp")

    def no_capabilities(self, *, native: bool) -> None:
        """Not even those over its own user namespace. The bounding set says what executing a file could give: a Python program's
        filter lets it execute none."""
        for number in range(64) if native else ():
            if _prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
                break
        checked(_capset(*_NO_CAPABILITIES), "capset")

    def landlock(self, *, bare: bool) -> None:
        if self.abi or not self.namespaces:
            (self._bare if bare else self._readable).restrict()

    def seccomp(self, *, native: bool) -> None:
        (self._native if native else self._python).install()


set_limit = resource.setrlimit


def highest(number: int) -> int:
    """To which a limit can be set."""
    hard = resource.getrlimit(number)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def memory(most: int) -> None:
    """For what is executed next: the interpreter is gone then, and what it takes with it."""
    most = min(most, resource.getrlimit(resource.RLIMIT_AS)[1])
    set_limit(resource.RLIMIT_AS, (most, most))


def num_tasks() -> int:
    """Threads of this user's, now."""
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == os.geteuid():
                found += len(os.listdir(f"/proc/{pid}/task"))
    return found


def virtual_bytes() -> int:
    """Of address space that the interpreter takes itself."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return smallest_limit()


def smallest_limit() -> int:
    """The least limit of address space under which one more page is had: where there is no /proc to ask."""
    page, (soft, hard) = resource.getpagesize(), resource.getrlimit(resource.RLIMIT_AS)
    low, high = 0, 1 << 40 if hard == resource.RLIM_INFINITY else hard
    while high - low > page:
        middle = (low + high) // 2 // page * page
        set_limit(resource.RLIMIT_AS, (middle, hard))
        try:
            mmap.mmap(-1, page).close()
            high = middle
        except (OSError, MemoryError):
            low = middle
    set_limit(resource.RLIMIT_AS, (soft, hard))
    return low


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, options: bytes = b"") -> None:
    if _mount(source, target, kind, flags, options) < 0:
        checked(-1, f"mount {target.decode()}")


def landlock_abi() -> int:
    """0 where the kernel has none."""
    return max(0, _syscall(LANDLOCK_CREATE, 0, 0, 1, 0, 0))


class Landlock:
    """No path but these, and those read-only; no TCP; no signals to others and no abstract sockets, where the kernel knows them.

    Rules are about files and not names, and a ruleset is a list of them: one serves all runs, each of which confines itself by it
    and stands in a domain of its own. Only where some of the paths are a run's own mounts is there a ruleset for each.

    Args:
        fresh: of the paths, the folders that are not there before the run.
    """

    def __init__(self, readable: Sequence[tuple[str, int]], fresh: Sequence[str], abi: int) -> None:
        self.abi, self._rights = abi, FS_RIGHTS.get(abi, (1 << 16) - 1)
        attributes = struct.pack("<QQQ", self._rights, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
        size = 24 if abi >= 6 else 16 if abi >= 4 else 8  # an older kernel refuses what it does not know
        self._attributes = ctypes.create_string_buffer(attributes[:size], size)
        self._where, self._size = ctypes.addressof(self._attributes), len(self._attributes)
        there = (
            [(path, allowed) for path, allowed in readable if path not in fresh and os.path.exists(path)] if abi else []
        )
        self._rules = [self._rule(path, allowed) for path, allowed in distinct(there)]
        self._fresh = [(path.encode(), allowed & self._rights) for path, allowed in readable if path in fresh]
        self._one = ctypes.create_string_buffer(_RULE.size)
        self._ready = self._made() if abi and not self._fresh else -1

    def _rule(self, path: str, allowed: int) -> ctypes.Array[ctypes.c_char]:
        if not os.path.isdir(path):
            allowed &= 0b111  # rights of directories are refused on files
        return ctypes.create_string_buffer(_RULE.pack(allowed & self._rights, os.open(path, os.O_PATH)), _RULE.size)

    def _made(self) -> int:
        ruleset = checked(_syscall(LANDLOCK_CREATE, self._where, self._size, 0, 0, 0), "landlock")
        for rule in self._rules:
            if _syscall(LANDLOCK_ADD, ruleset, 1, ctypes.addressof(rule), 0, 0) < 0:
                checked(-1, "landlock")
        for path, allowed in self._fresh:
            _RULE.pack_into(self._one, 0, allowed, os.open(path, os.O_PATH))
            if _syscall(LANDLOCK_ADD, ruleset, 1, ctypes.addressof(self._one), 0, 0) < 0:
                checked(-1, "landlock")
        return ruleset

    def restrict(self) -> None:
        if not self.abi:
            raise OSError(0, "the kernel has no Landlock")
        ruleset = self._made() if self._fresh else self._ready
        checked(_syscall(LANDLOCK_RESTRICT, ruleset, 0, 0, 0, 0), "landlock")


_RULE = struct.Struct("<Qi")


def distinct(paths: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Without those that lie below another one with the same rights, as /lib does where it is /usr/lib."""
    real: dict[str, int] = {}
    for path, allowed in paths:
        real[os.path.realpath(path)] = real.get(os.path.realpath(path), 0) | allowed
    return [
        (path, allowed)
        for path, allowed in real.items()
        if not any(path.startswith(other + "/") and allowed == real[other] for other in real)
    ]


class Filter:
    """A seccomp filter with a place for the id of the process that it is for."""

    def __init__(self, instructions: bytes, pid_mark: int) -> None:
        mark = struct.pack("<I", pid_mark)
        self._places = [at for at in range(4, len(instructions), 8) if instructions[at : at + 4] == mark]
        self._code = ctypes.create_string_buffer(instructions, len(instructions))
        header = struct.pack("@HP", len(instructions) // 8, ctypes.addressof(self._code))
        self._header = ctypes.create_string_buffer(header, len(header))

    def install(self) -> None:
        for at in self._places:
            struct.pack_into("<I", self._code, at, os.getpid())
        checked(_prctl(PR_SET_SECCOMP, 2, ctypes.addressof(self._header), 0, 0), "seccomp")
