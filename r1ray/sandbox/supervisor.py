"""The trusted side of the sandbox: starts zygotes, hands them runs, reads what comes out within its limits, and says how it ended.

A program's output is bytes here and nothing else: nothing of it is parsed, compiled, unpickled or printed.
"""

import fcntl
import json
import os
import platform
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ray.sandbox import confine, inside, seccomp, zygote
from r1ray.sandbox.base import OUTPUT, Ended, Limits, Native, Program, Readable, SandboxUnavailable, Status, Tier
from r1ray.sandbox.syscalls import numbers

READ = 0b1101
READ_WRITE_FILE = 0b0110
BUT_EXECUTE = 0xFFFE
"""Landlock's rights, by their bits."""
# All that there are: every run copies the mounts of its bubble, and takes them down.
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random")
START_S = 60.0
GRACE_S = 5.0
"""Beyond the wall limit, for the zygote's report."""
CPU_MARGIN_S = 0.15
STACK_BYTES = 64 << 20
CPP_STACK_BYTES = 256 << 20
"""As on Codeforces, where solutions in C++ recurse as deep as that. Their threads take less (`r1ray.sandbox.cpp`)."""
RECYCLE = 1000
"""Runs after which a zygote is replaced."""
STDLIB = (
    *("array", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime", "decimal", "enum"),
    *("fractions", "functools", "heapq", "itertools", "math", "numbers", "operator", "queue", "random", "re"),
    *("statistics", "string", "textwrap", "threading", "typing"),
)
"""What programs of contests import, there before they begin."""
ENVIRONMENT = {
    **{"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
    # Of numpy: the threads of its own would not survive a fork.
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
}
"""All of it: nothing of ours goes in."""


_MODULES = {module.__name__: Path(module.__file__ or "").read_text() for module in (confine, inside, zygote)}
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
"""The zygote reads no file of ours: where it starts there may be none that it may read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteSpec:
    """How zygotes are started."""

    python: str
    preload: Sequence[str] = STDLIB
    path: Sequence[str] = ()
    """Folders from which the preloaded packages are imported."""
    uid: int | None = None
    """Whose rights a program has; None: those of the user who runs r1ray."""
    tier: Tier = "T2"
    refused: Sequence[str] = ()
    """Why no stronger tier was taken, one reason each."""

    @property
    def folders(self) -> list[str]:
        """What programs may read: the system, the interpreter and its packages."""
        prefix = str(Path(self.python).resolve().parents[1])
        return list(dict.fromkeys(["/usr", *([] if prefix.startswith("/usr") else [prefix]), *self.path]))

    @property
    def readable(self) -> Readable:
        folders = [*self.folders, "/lib", "/lib64", "/bin", "/etc/localtime", "/etc/ld.so.cache"]
        return [*((folder, READ) for folder in folders), *self.bare]

    @property
    def bare(self) -> Readable:
        """For a native program, which needs nothing of the system and finds nothing there that it could execute."""
        own = [("/tmp", BUT_EXECUTE), ("/proc", READ & BUT_EXECUTE)]  # /dev/shm is /tmp
        return [*((device, READ_WRITE_FILE) for device in DEVICES), *(own if self.tier != "T2" else [])]

    def command(self, fd: int) -> list[str]:
        start = [self.python, "-s", "-S", "-B", "-c", STARTER, str(fd)]
        return start if self.tier == "T2" else [*bubblewrap(self), *start]


def bubblewrap(spec: ZygoteSpec) -> list[str]:
    """The outer sandbox of tier T1: a root folder that holds what programs may read and nothing else, no network, no processes."""
    binds = [part for folder in spec.folders for part in ("--ro-bind", folder, folder)]
    links = [part for name in ("bin", "lib", "lib64") for part in ("--symlink", f"usr/{name}", f"/{name}")]
    # Debian's numpy finds its libblas.so.3 by way of the alternatives, which are links and nothing else.
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
        *("--dir", "/dev/shm", "--dir", "/tmp"),  # where each run mounts a folder of its own
        *("--remount-ro", "/", "--chdir", "/", "--"),
    ]


class Zygote:
    """One zygote and the runs on it, from any thread. The kernel ends it with the thread that has made it."""

    def __init__(self, spec: ZygoteSpec) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.spec, in_bubble = spec, spec.tier != "T2"
        # Root outside would be root's id inside, whom no limit on processes binds.
        as_user = (
            {"user": spec.uid, "group": spec.uid, "extra_groups": []} if in_bubble and spec.uid is not None else {}
        )
        with theirs, self._no_zygote_without_rights(spec):
            self._process: Any = subprocess.Popen(
                spec.command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                **as_user,
            )
        config = {
            "preload": list(spec.preload),
            "path": list(spec.path),
            "uid": None if in_bubble else spec.uid,
            "namespaces": in_bubble,
            "proc": spec.tier == "T1",
            "folders": spec.folders,
            "readable": spec.readable,
            "bare": spec.bare,
            "filters": {
                kind: seccomp.program(platform.machine(), changing=in_bubble, executing=kind == "native").hex()
                for kind in ("python", "native")
            },
            "pid_mark": seccomp.PID_MARK,
            "clone": numbers(platform.machine())["clone"],
        }
        self._lock = threading.Lock()
        self.runs = self._active = 0
        try:
            self._control.send(json.dumps(config).encode())
            self._control.settimeout(START_S)
            self.features: Mapping[str, Any] = json.loads(self._control.recv(1 << 16))
        except (OSError, ValueError) as error:
            said = self.close()[-500:]
            raise SandboxUnavailable(
                f"{spec.python} cannot run programs for the sandbox: {error}; it said: {said}"
            ) from error

    @contextmanager
    def _no_zygote_without_rights(self, spec: ZygoteSpec) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._control.close()
            raise SandboxUnavailable(f"{spec.command(0)[0]} cannot be started for the sandbox: {error}") from error

    def run(self, program: Program | Native) -> Ended:
        """Start one run and wait for its end, at most its wall limit and what it takes to begin and end it.

        C++ is run by `r1ray.sandbox.pool.Sandbox`, which has it built first.
        """
        assert isinstance(program, Native) or program.language == "python"
        try:
            ours, theirs = wires(program)
        except OSError as error:
            return Ended(status="sandbox_error", why=f"a run cannot be begun: {error}")
        try:
            try:
                job = job_of(program, self.spec.tier).packed()
                assert len(job) <= zygote.JOB_BYTES
                descriptors = zygote.DESCRIPTORS.pack(*(theirs[name] for name in zygote.FDS))
                with self._lock:
                    self.runs, self._active = self.runs + 1, self._active + 1
                    self._control.sendmsg([job], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
            finally:
                for fd in theirs.values():
                    os.close(fd)
            return self._result(program, ours)
        except OSError as error:
            return Ended(status="sandbox_error", why=f"the zygote is gone: {error}")
        finally:
            with self._lock:
                self._active -= 1
            for fd in ours.values():
                os.close(fd)

    def _result(self, program: Program | Native, ours: dict[str, int]) -> Ended:
        read, flooded = collect(
            {name: ours[name] for name in ("stdout", "stderr", "line") if name in ours},
            end=lambda: let_go(ours["line"]),
            most={"stdout": program.limits.output_bytes, "stderr": program.limits.output_bytes, "line": 4096},
            deadline=time.monotonic() + zygote.SETUP_S + program.limits.wall_s + GRACE_S,
        )
        if len(read["line"]) != zygote.REPORT.size:
            said = read["line"].decode(errors="replace") or "the zygote gave no report"
            return Ended(status="sandbox_error", why=said)
        report = report_of(read["line"])
        ended = {"cpu_s": report["cpu_s"], "wall_s": report["wall_s"]}
        status, why = status_of(report, program.limits, flooded=flooded)
        written = os.pread(ours["file"], program.limits.file_bytes, 0) if "file" in ours else read["stdout"]
        return Ended(status=status, why=why, stdout=written, stderr=read["stderr"], **ended)

    def close(self) -> str:
        """End it and all that runs on it; what it has complained of."""
        self._control.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            said: bytes = self._process.communicate(timeout=GRACE_S)[1]
        except subprocess.TimeoutExpired:
            return ""
        return said.decode(errors="replace")

    @property
    def worn(self) -> bool:
        return self.runs >= RECYCLE or self._process.poll() is not None

    def closed_when_idle(self) -> bool:
        """Close it if nothing runs on it any more; whether that is so."""
        with self._lock:
            if self._active:
                return False
        self.close()
        return True


def wires(program: Program | Native) -> tuple[dict[str, int], dict[str, int]]:
    """({name: our end}, {name: the zygote's}) of a run. What it writes to a file is in `file`, in place of `stdout`."""
    ours: dict[str, int] = {}
    theirs: dict[str, int] = {}
    try:
        theirs["code"] = code_of(program)
        theirs["stdin"] = in_memory(program.stdin)
        if isinstance(program, Native) and program.writes_file:
            theirs["stdout"] = os.memfd_create("", os.MFD_CLOEXEC)
            ours["file"] = os.dup(theirs["stdout"])
        for name in ("stdout", "stderr"):
            if name not in theirs:
                ours[name], theirs[name] = os.pipe()
                os.fchmod(theirs[name], 0o200)  # who opened it by name to read from it would wait for ever
        ours["line"], theirs["line"] = (end.detach() for end in socket.socketpair())
    except OSError:
        for fd in (*ours.values(), *theirs.values()):
            os.close(fd)
        raise
    return ours, theirs


def let_go(line: int) -> None:
    """Of a run: the zygote ends it then, and its report still comes."""
    with socket.socket(fileno=os.dup(line)) as end:
        end.shutdown(socket.SHUT_WR)


def code_of(program: Program | Native) -> int:
    """A descriptor of what is run."""
    if isinstance(program, Native) and isinstance(program.file, str):
        return os.open(program.file, os.O_RDONLY | os.O_CLOEXEC)
    code = program.code if isinstance(program, Program) else program.file
    assert isinstance(code, bytes)
    return in_memory(code)


def job_of(program: Program | Native, tier: Tier) -> inside.Job:
    """What the zygote is told of a run."""
    limits = program.limits
    if isinstance(program, Program):
        kind = inside.SCRIPT if program.function is None else inside.FUNCTION
        texts = [program.function or ""]
    elif isinstance(program.file, bytes):
        kind, texts = inside.NATIVE, program.arguments
    elif program.writes_file and tier == "T1-noproc":
        kind = inside.COPIED_TOOL
        texts = [f"/tmp/{inside.COPIED}" if part == OUTPUT else part for part in program.arguments]
    else:
        kind, texts = inside.TOOL, program.arguments
    return inside.Job(
        kind=kind,
        wall_s=limits.wall_s,
        cpu_s=limits.cpu_s,
        memory_bytes=limits.memory_bytes,
        file_bytes=limits.file_bytes,
        stack_bytes=CPP_STACK_BYTES if kind == inside.NATIVE else STACK_BYTES,
        code_bytes=len(program.code) if isinstance(program, Program) else 0,
        texts=[text.encode() for text in texts],
    )


def report_of(data: bytes) -> dict[str, Any]:
    """A zygote's report."""
    status, cpu_s, wall_s, killed, waited_s = zygote.REPORT.unpack(data)
    waited_s = waited_s if waited_s >= 0 else None
    return {"status": status, "cpu_s": cpu_s, "wall_s": wall_s, "killed": zygote.KILLED[killed], "waited_s": waited_s}


def status_of(report: Mapping[str, Any], limits: Limits, *, flooded: bool) -> tuple[Status, str]:
    """What a zygote's report means. Only that it is not `ok` matters to a reward: a program can pretend to the kind."""
    status = report["status"]
    if flooded:
        return "output_limit", ""
    if report["killed"] == "wall":
        waited_s = report["waited_s"]
        ready = waited_s is None or waited_s > limits.wall_s / 4  # a program that sleeps has nobody to blame
        return "timeout", "starved" if ready and report["cpu_s"] < limits.cpu_s / 2 else ""
    if report["killed"] == "tasks":
        return "runtime_error", ""
    if report["killed"] in ("setup", "supervisor"):
        return "sandbox_error", "it did not come to its beginning or its end in time"
    by_kernel = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU)
    if report["killed"] == "cpu" or (by_kernel and report["cpu_s"] >= limits.cpu_s - CPU_MARGIN_S):
        return "timeout", ""
    if os.WIFSIGNALED(status):
        return ("memory" if os.WTERMSIG(status) == signal.SIGKILL else "runtime_error"), ""
    match os.WEXITSTATUS(status):
        case 0:
            return "ok", ""
        case inside.MEMORY_EXIT:
            return "memory", ""
        case _:
            return "runtime_error", ""


def collect(
    sources: Mapping[str, int], *, end: Callable[[], None], most: Mapping[str, int], deadline: float
) -> tuple[dict[str, bytes], bool]:
    """({name: what came}, whether one of them had more than the most). At a flood and at the deadline it ends the run."""
    read = {name: bytearray() for name in sources}
    name_of = {fd: name for name, fd in sources.items()}
    poll = select.poll()
    for fd in name_of:
        os.set_blocking(fd, False)
        poll.register(fd, select.POLLIN)
    flooded, killed = False, False
    while name_of:
        for fd, _ in poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
            name = name_of[fd]
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                poll.unregister(fd)
                del name_of[fd]
            elif len(read[name]) + len(chunk) <= most[name]:
                read[name] += chunk
            else:
                flooded = True
        late = time.monotonic() >= deadline
        if (flooded or late) and not killed:
            killed = True
            end()
            deadline = time.monotonic() + GRACE_S
        elif late:
            break
    return {name: bytes(data) for name, data in read.items()}, flooded


def in_memory(data: bytes) -> int:
    """A descriptor from which these bytes are read, and which nobody can write to any more."""
    fd = os.memfd_create("", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        os.lseek(fd, 0, os.SEEK_SET)
    except OSError:
        os.close(fd)
        raise
    return fd
