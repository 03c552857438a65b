"""The steps that confine a program's process before it reads the code. Part of the zygote: standard library only.

A run takes a millisecond, and Python is slow when it does something for the first time. So whatever is the same for every run is
prepared once, in the zygote (`Confinement`), and a run only makes the system calls.
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

Record = dict  # what the supervisor has sent as JSON
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_GET_TID_ADDRESS = 1, 22, 24, 38, 40
CLONE_PIDFD, CLONE_NEWNS, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x1000, 0x00020000, 0x00200000, 0x01000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x08000000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
MAX_TASKS = 64
"""Threads per program."""
MAX_FILES = 64
LIMITED = (
    *(resource.RLIMIT_AS, resource.RLIMIT_CORE, resource.RLIMIT_CPU),
    *(resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_STACK),
)
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
FS_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
"""{Landlock ABI: access rights that it knows}; from 5 on (1 << 16) - 1."""

# PyDLL keeps the interpreter lock during calls: no other thread needs it.
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
    """`fork()`: returns (0, -1) in the new process and (its pid, its pidfd) in the parent. With namespace `flags` the new process
    is pid 1 in its namespaces.

    Uses the clone system call directly, because `os.fork` cannot create namespaces and resets the locks of Python and its modules
    in case another thread holds one. The zygote has a single thread unless a package has started more, so that is not needed; only
    the C library must get the thread's new id.
    """

    def __init__(self, number: int, flags: int) -> None:
        address, self._pidfd = ctypes.c_long(), ctypes.c_int(-1)
        # Without PR_GET_TID_ADDRESS the C library of the new process keeps the zygote's thread id, which none of its threads has.
        known = _prctl(PR_GET_TID_ADDRESS, ctypes.addressof(address), 0, 0, 0) == 0
        if not known and flags:
            raise OSError(0, "the kernel does not say where a thread's id is kept (CONFIG_CHECKPOINT_RESTORE)")
        flags |= CLONE_PIDFD | signal.SIGCHLD | ((CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID) if known else 0)
        # The thread pointer argument is one of the last two, depending on the architecture; the kernel ignores the other.
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
    """Threads of this process, including those of libraries where /proc is available."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()


class Confinement:
    """Everything that is prepared once for all runs of a zygote. Each method is one step of confining a process."""

    def __init__(self, config: Record) -> None:
        self.uid, self.namespaces, self.proc = config["uid"], config["namespaces"], config["proc"]
        self._folders = [folder.encode() for folder in config["folders"]]
        self._zygote, self._own_bytes = os.getpid(), virtual_bytes()
        # The kernel counts all threads of a user. Programs that run as r1ray's own user without a namespace share its count.
        tasks = MAX_TASKS if self.uid is not None or self.namespaces else num_tasks() + 1000
        self._tasks = (tasks, tasks)
        self._hard = {number: max_limit(number) for number in LIMITED}
        set_limit(resource.RLIMIT_CORE, (0, 0))
        # Programs inherit this and the limit above, and can undo neither.
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        uid, gid = os.geteuid(), os.getegid()
        maps = {b"setgroups": b"deny", b"uid_map": b"%d %d 1" % (uid, uid), b"gid_map": b"%d %d 1" % (gid, gid)}
        self._same_user = [(b"/proc/self/" + name, text) for name, text in maps.items()]
        flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC if self.namespaces else 0
        self.fork = Fork(config["clone"], flags | (CLONE_NEWUSER if self.proc else 0))
        self.abi = landlock_abi()
        fresh = ("/tmp", "/proc") if self.namespaces else ()
        self._readable, self._minimal = (Landlock(config[name], fresh, self.abi) for name in ("readable", "minimal"))
        self._python, self._native = (
            Filter(bytes.fromhex(config["filters"][name]), config["pid_mark"]) for name in ("python", "native")
        )

    def set_limits(self, memory_bytes: int, cpu_s: float, stack_bytes: int) -> None:
        hard = self._hard
        for number, value in (
            (resource.RLIMIT_AS, self._own_bytes + memory_bytes),
            (resource.RLIMIT_CPU, int(cpu_s) + 1),
            (resource.RLIMIT_STACK, stack_bytes),
        ):
            value = min(value, hard[number])
            set_limit(number, (value, value))
        set_limit(resource.RLIMIT_NPROC, self._tasks)

    def set_file_limits(self, file_bytes: int) -> None:
        """Called after all steps that open or write files: a copy of standard input, for instance, may be larger than the limit."""
        for number, value in ((resource.RLIMIT_NOFILE, MAX_FILES), (resource.RLIMIT_FSIZE, file_bytes)):
            value = min(value, self._hard[number])
            set_limit(number, (value, value))

    def drop_user(self) -> None:
        """Change to the unprivileged user, and be killed when the zygote ends."""
        if self.uid is not None:
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
        if not self.namespaces and os.getppid() != self._zygote:  # in bubblewrap the kernel kills everything with it
            raise OSError(errno.ESRCH, "the zygote has ended")

    def mount_private(self, file_bytes: int, *, native: bool, minimal: bool) -> None:
        """Mount a small empty folder as /tmp and /dev/shm, where the program can write, and a /proc that shows only its own
        processes. A native program cannot execute anything that it writes there. With `minimal` the folders of the system are
        hidden, because the kernel may lack Landlock.

        The user id stays the same, in a user namespace with its own limit of processes. Without /proc the ids cannot be mapped:
        then the run stays in bubblewrap's user namespace, and all runs share its limit.
        """
        if self.proc:
            for name, text in self._same_user:
                fd = os.open(name, os.O_WRONLY)
                os.write(fd, text)
                os.close(fd)
        mount(None, b"/", None, MS_REC | MS_PRIVATE)
        own = MS_NOSUID | MS_NODEV | (MS_NOEXEC if native else 0)
        mount(b"tmpfs", b"/tmp", b"tmpfs", own, b"size=%d,nr_inodes=1000,mode=1777" % (2 * file_bytes))
        mount(b"/tmp", b"/dev/shm", None, MS_BIND)  # inherits the flags of /tmp
        for folder in self._folders if minimal else ():
            if os.path.isdir(folder):  # otherwise it was below a folder that is hidden already
                mount(b"tmpfs", folder, b"tmpfs", MS_RDONLY | own, b"size=4096,nr_inodes=1")
        if self.proc:
            mount(b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, b"subset=pid")
        else:  # /dev/stdin is a link to /proc/self/fd/0
            size = os.fstat(0).st_size
            options = b"size=%d,nr_inodes=10,mode=755" % (size + (1 << 20))
            mount(b"tmpfs", b"/proc", b"tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
            os.makedirs("/proc/self/fd")
            with open("/proc/self/fd/0", "wb") as file:
                file.write(os.pread(0, size, 0))
        os.chdir(b"/tmp")

    def drop_capabilities(self, *, native: bool) -> None:
        """Drop all capabilities, including those over the user namespace of the process. The bounding set limits what executing
        a file can grant; the seccomp filter does not let Python programs execute any."""
        for number in range(64) if native else ():
            if _prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
                break
        checked(_capset(*_NO_CAPABILITIES), "capset")

    def landlock(self, *, minimal: bool) -> None:
        if self.abi or not self.namespaces:
            (self._minimal if minimal else self._readable).restrict()

    def seccomp(self, *, native: bool) -> None:
        (self._native if native else self._python).install()


set_limit = resource.setrlimit


def max_limit(number: int) -> int:
    """The highest value to which a limit can be set."""
    hard = resource.getrlimit(number)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def limit_memory(most: int) -> None:
    """Limit the address space of the file that is executed next, which replaces the interpreter."""
    most = min(most, resource.getrlimit(resource.RLIMIT_AS)[1])
    set_limit(resource.RLIMIT_AS, (most, most))


def num_tasks() -> int:
    """Current number of threads of this user."""
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == os.geteuid():
                found += len(os.listdir(f"/proc/{pid}/task"))
    return found


def virtual_bytes() -> int:
    """Address space of the interpreter itself."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return smallest_limit()


def smallest_limit() -> int:
    """The smallest limit of address space under which one more page can be mapped. Used where /proc is not available."""
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
    """0 where the kernel has no Landlock."""
    return max(0, _syscall(LANDLOCK_CREATE, 0, 0, 1, 0, 0))


class Landlock:
    """Allows only these paths, read-only. Where the kernel supports it, also blocks TCP, signals to other processes and abstract
    sockets.

    Rules refer to files, not to names, and a ruleset is a list of rules. All runs use one ruleset, and each gets its own domain.
    But if each run mounts some of the paths itself (/tmp, /proc), these are other files in each run, so it needs its own ruleset.

    Args:
        fresh: those of the paths that each run mounts itself.
    """

    def __init__(self, readable: Sequence[tuple[str, int]], fresh: Sequence[str], abi: int) -> None:
        self.abi, self._rights = abi, FS_RIGHTS.get(abi, (1 << 16) - 1)
        attributes = struct.pack("<QQQ", self._rights, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
        size = 24 if abi >= 6 else 16 if abi >= 4 else 8  # an older kernel rejects a larger struct
        self._attributes = ctypes.create_string_buffer(attributes[:size], size)
        self._where, self._size = ctypes.addressof(self._attributes), len(self._attributes)
        there = (
            [(path, allowed) for path, allowed in readable if path not in fresh and os.path.exists(path)] if abi else []
        )
        self._rules = [self._rule(path, allowed) for path, allowed in distinct(there)]
        self._fresh = [(path.encode(), allowed & self._rights) for path, allowed in readable if path in fresh]
        self._one = ctypes.create_string_buffer(_RULE.size)
        self._ready = self._create() if abi and not self._fresh else -1

    def _rule(self, path: str, allowed: int) -> ctypes.Array[ctypes.c_char]:
        if not os.path.isdir(path):
            allowed &= 0b111  # the kernel rejects rights of directories on files
        return ctypes.create_string_buffer(_RULE.pack(allowed & self._rights, os.open(path, os.O_PATH)), _RULE.size)

    def _create(self) -> int:
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
        ruleset = self._create() if self._fresh else self._ready
        checked(_syscall(LANDLOCK_RESTRICT, ruleset, 0, 0, 0, 0), "landlock")


_RULE = struct.Struct("<Qi")


def distinct(paths: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The real paths, without those inside another path that has the same rights: /lib is one where it is a link to /usr/lib."""
    real: dict[str, int] = {}
    for path, allowed in paths:
        real[os.path.realpath(path)] = real.get(os.path.realpath(path), 0) | allowed
    return [
        (path, allowed)
        for path, allowed in real.items()
        if not any(path.startswith(other + "/") and allowed == real[other] for other in real)
    ]


class Filter:
    """A seccomp filter into which the id of its process is written."""

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
