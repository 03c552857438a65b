"""How a zygote is started: its command, its environment, and what programs can read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1ray.sandbox import confine, inside, supplied, zygote
from r1ray.sandbox.base import Readable, Tier

READ = 0b1101
READ_WRITE_FILE = 0b0110
ALL_BUT_EXECUTE = 0xFFFE
"""Bits of Landlock's access rights."""
# As few as possible: every run copies and removes the mounts of its bubblewrap.
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random")
STDLIB = (
    *("array", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime", "decimal", "enum"),
    *("fractions", "functools", "heapq", "itertools", "math", "numbers", "operator", "queue", "random", "re"),
    *("statistics", "string", "textwrap", "threading", "typing"),
)
"""Modules that contest programs import; they are loaded before a program starts."""
ENVIRONMENT = {
    **{"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
    # For numpy: its threads would not survive a fork.
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
}
"""The whole environment of programs: nothing of this process's environment is passed on."""


_MODULES = {module.__name__: Path(module.__file__ or "").read_text() for module in (confine, supplied, inside, zygote)}
STARTER = f"""
import sys, types
for name, text in {{"r1ray": "", "r1ray.sandbox": "", **{_MODULES!r}}}.items():
    made = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), made.__dict__)
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own, made)
made.main()
"""
"""Passes the zygote's modules as text, because the zygote may not be able to read r1ray's files from inside the sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteSpec:
    """Settings with which zygotes are started."""

    python: str
    preload: Sequence[str] = STDLIB
    path: Sequence[str] = ()
    """Folders from which the preloaded packages are imported."""
    uid: int | None = None
    """The user id of programs; None: the user who runs r1ray."""
    tier: Tier = "T2"
    refused: Sequence[str] = ()
    """Why the stronger tiers do not work, one reason each."""

    @property
    def folders(self) -> list[str]:
        """Folders that programs can read: the system, the interpreter and its packages."""
        prefix = str(Path(self.python).resolve().parents[1])
        return list(dict.fromkeys(["/usr", *([] if prefix.startswith("/usr") else [prefix]), *self.path]))

    @property
    def readable(self) -> Readable:
        folders = [*self.folders, "/lib", "/lib64", "/bin", "/etc/localtime", "/etc/ld.so.cache"]
        return [*((folder, READ) for folder in folders), *self.minimal]

    @property
    def minimal(self) -> Readable:
        """Paths for a compiled program, which needs no file of the system and must not find any that it could execute."""
        own = [("/tmp", ALL_BUT_EXECUTE), ("/proc", READ & ALL_BUT_EXECUTE)]  # /dev/shm is /tmp
        return [*((device, READ_WRITE_FILE) for device in DEVICES), *(own if self.tier != "T2" else [])]

    def command(self, fd: int) -> list[str]:
        start = [self.python, "-s", "-S", "-B", "-c", STARTER, str(fd)]
        return start if self.tier == "T2" else [*bubblewrap(self), *start]


def bubblewrap(spec: ZygoteSpec) -> list[str]:
    """The outer sandbox of tier T1: only the folders that programs can read, no network, no other processes."""
    binds = [part for folder in spec.folders for part in ("--ro-bind", folder, folder)]
    links = [part for name in ("bin", "lib", "lib64") for part in ("--symlink", f"usr/{name}", f"/{name}")]
    # Debian's numpy finds libblas.so.3 through /etc/alternatives, which only has links.
    names = ("/etc/localtime", "/etc/ld.so.cache", "/etc/alternatives")
    files = [part for name in names for part in ("--ro-bind-try", name, name)]
    proc = ["--proc", "/proc"] if spec.tier == "T1" else ["--dir", "/proc", "--cap-add", "CAP_SYS_ADMIN"]
    devices = [part for name in DEVICES for part in ("--dev-bind", name, name)]
    streams = {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    devices += [part for name, to in streams.items() for part in ("--symlink", f"/proc/self/{to}", f"/dev/{name}")]
    return [
        *("bwrap", "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--hostname", "sandbox"),
        *binds,
        *links,
        *files,
        *proc,
        *devices,
        *("--dir", "/dev/shm", "--dir", "/tmp"),  # where each run mounts its own folder
        *("--remount-ro", "/", "--chdir", "/", "--"),
    ]
