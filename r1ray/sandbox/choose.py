"""Chooses the sandbox of this machine: starts every tier, strongest first, and takes the first that passes the self-tests."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r1ray.sandbox.base import Language, Limits, Program, RunResult, SandboxUnavailable, Tier
from r1ray.sandbox.cpp import REMEDY
from r1ray.sandbox.pool import RETRIES, Sandbox
from r1ray.sandbox.spec import ZygoteSpec
from r1ray.sandbox.supervisor import Zygote

TIERS: Sequence[Tier] = ("T1", "T1-noproc", "T2")
"""Strongest first."""
FIRST_UID = 60_000
PYTHON = "/usr/bin/python3"
QUICK = Limits(cpu_s=1.0, wall_s=30.0, memory_bytes=256 << 20, output_bytes=1 << 16, file_bytes=1 << 20)
REMEDIES: Mapping[Tier, str] = {
    "T1": "install bubblewrap, and allow user namespaces (in Kubernetes: hostUsers: false, procMount: Unmasked)",
    "T1-noproc": "install bubblewrap, and allow user namespaces",
    "T2": "use kernel 5.13 or later with Landlock (lsm=...,landlock), in a container runtime that allows landlock_* and seccomp",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """A program whose result shows whether a restriction is in force."""

    name: str
    code: str
    good: Callable[[RunResult], bool]
    stdin: str = ""
    limits: Limits = QUICK


def _blocked(name: str, code: str) -> SelfTest:
    """The code must raise OSError: the program then prints "out", otherwise "in"."""
    guarded = "try:\n" + "".join(f"    {line}\n" for line in code.splitlines())
    return SelfTest(
        name=name,
        code=guarded + "except OSError:\n    print('out')\nelse:\n    print('in')",
        good=lambda result: result.status == "ok" and result.stdout == b"out\n",
    )


def _prints(text: str) -> Callable[[RunResult], bool]:
    return lambda result: result.status == "ok" and result.stdout.decode(errors="replace") == text


SELF_TESTS: Sequence[SelfTest] = (
    SelfTest(name="a correct program", code="print(sum(map(int, input().split())))", stdin="1 2", good=_prints("3\n")),
    SelfTest(
        name="standard input as a file",
        code="print(open(0).read().upper(), end='')",
        stdin="ab\n",
        good=_prints("AB\n"),
    ),
    SelfTest(
        name="threads",
        code="import threading\nt = threading.Thread(target=print, args=('b',))\nt.start()\nt.join()",
        good=_prints("b\n"),
    ),
    _blocked("opening a network connection", "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)"),
    _blocked("reading /etc/shadow", "open('/etc/shadow').read()"),
    _blocked("reading /etc/passwd", "open('/etc/passwd').read()"),
    _blocked(
        "reading the parent's environment", "open('/proc/%d/environ' % __import__('os').getppid(), 'rb').read(1)[0]"
    ),
    _blocked("killing the parent process", "import os, signal\nos.kill(os.getppid() or 1, signal.SIGKILL)"),
    _blocked("starting another process", "import os\nos.fork()"),
    _blocked("executing another program", "import os\nos.execv('/bin/true', ['true'])"),
    _blocked("writing to the system", "open('/usr/r1ray_was_here', 'w')"),
    _blocked(
        "ptrace",
        "import ctypes, os\nc = ctypes.CDLL(None, use_errno=True)\nif c.ptrace(16, os.getppid(), 0, 0) < 0: raise OSError",
    ),
    SelfTest(
        name="memory", code="x = bytearray(1 << 30)", good=lambda result: result.status in ("memory", "runtime_error")
    ),
    SelfTest(
        name="the wall clock",
        code="import time\ntime.sleep(60)",
        limits=replace(QUICK, wall_s=0.5),
        good=lambda result: result.status == "timeout" and result.wall_s < 30,
    ),
    SelfTest(
        name="the output limit",
        code="while True: print('x' * 1000)",
        good=lambda result: result.status == "output_limit",
    ),
)


CHANGES = ("os.chmod(f, 0o777)", "os.utime(f, (1, 1))", "os.truncate(f, 0)", "open(f, 'w')", "os.unlink(f)")
"""Attempts to change a file outside of the sandbox."""


CPP_SELF_TEST = r"""
#include <bits/stdc++.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
int main() {
    int a, b;
    try { std::cin >> a >> b; throw a + b; } catch (int sum) { printf("%d\n", sum); }
    char *name[] = {(char *)"true", nullptr}, *none[] = {nullptr};
    for (const char *path : {"/etc/passwd", "/usr/bin/true", "/proc/1/environ"})
        if (int fd = open(path, O_RDONLY); fd >= 0 && read(fd, &a, 1) > 0) puts(path);
    if (socket(AF_INET, SOCK_STREAM, 0) >= 0) puts("a socket");
    if (kill(getppid(), 0) == 0) puts("its parent");
    if (fork() >= 0) puts("another process"), _exit(0);
    execve("/usr/bin/true", name, none), syscall(SYS_execveat, 4, "/usr/bin/true", name, none, 0x1000);
}
"""
"""Prints the sum and nothing else. If it executed another program, it would print nothing."""


def choose(spec: ZygoteSpec, *, min_tier: Tier, languages: Collection[Language] = ()) -> ZygoteSpec:
    """`spec` with the strongest tier that works on this machine, for programs in Python and in `languages`.

    Raises:
        SandboxUnavailable: no tier from `min_tier` up works (the message has the failed probe and the remedy of each), or g++ does
            not work and is needed.
    """
    reasons: list[str] = []
    for tier in TIERS[: TIERS.index(min_tier) + 1]:
        tried = replace(spec, tier=tier)
        reason = first_failure(tried)
        if reason is None:
            if "cpp" in languages:
                check_cpp(tried)
            return replace(tried, refused=reasons)
        reasons.append(f"{tier}: {reason} (remedy: {REMEDIES[tier]})")
    raise SandboxUnavailable(
        f"no sandbox of tier {min_tier} or stronger works on this machine, and model-written programs never run in a weaker one. "
        + "; ".join(reasons)
    )


def check_python(python: str) -> None:
    """Raises SandboxUnavailable for an interpreter that cannot run programs."""
    if not os.access(python, os.X_OK):
        raise SandboxUnavailable(
            f"there is no interpreter {python} to run model-written programs: set sandbox.python to one that every user of this "
            "machine can read (Debian, Ubuntu: apt-get install python3)"
        )
    if "/" in ZygoteSpec(python=python).folders:
        raise SandboxUnavailable(
            f"sandbox.python={python} is installed directly under /, so programs could read every file of this machine: set it to "
            "an interpreter in /usr or in a folder of its own"
        )


def installed(packages: Sequence[str], python: str) -> list[str]:
    """Those of the packages that this interpreter can import."""
    ask = "import sys; from importlib.util import find_spec; print(*filter(find_spec, sys.argv[1:]))"
    return subprocess.run(
        [python, "-I", "-c", ask, *packages], capture_output=True, text=True, check=True
    ).stdout.split()


def folders_of(packages: Sequence[str], python: str) -> list[str]:
    """The folders from which this interpreter imports the packages. Raises SandboxUnavailable when it cannot import one."""
    if not packages:
        return []
    ask = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.path, sep='\\n')"
    done = subprocess.run([python, "-I", "-c", ask, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise SandboxUnavailable(
            f"sandbox.packages={list(packages)}: {python} cannot import them ({reason}): install them for that interpreter, or set "
            "sandbox.python to another"
        )
    return [folder for folder in done.stdout.split("\n") if folder.endswith("-packages") and os.path.isdir(folder)]


def first_failure(spec: ZygoteSpec) -> str | None:
    """The first probe or self-test that fails on this tier; None when all pass."""
    if spec.tier != "T2" and shutil.which("bwrap") is None:
        return "bubblewrap (bwrap) is not installed"
    try:
        zygote = Zygote(spec)
    except SandboxUnavailable as error:
        return str(error)
    try:
        if spec.tier == "T2" and not zygote.features["landlock"]:
            return "the kernel has no Landlock"
        return next(failures(zygote), None)
    finally:
        zygote.close()


def check_cpp(spec: ZygoteSpec) -> None:
    """Raises SandboxUnavailable when C++ programs cannot be compiled or are not confined."""
    with Sandbox(spec, slots=1) as sandbox:
        result = sandbox.run(Program(code=CPP_SELF_TEST.encode(), stdin=b"1 2", language="cpp", limits=QUICK))
    if (result.status, result.stdout) != ("ok", b"3\n"):
        said = result.reason or ascii((result.stdout + result.stderr)[-300:].decode(errors="replace"))
        remedy = f" (remedy: {REMEDY})" if result.status == "compile_error" else ""
        raise SandboxUnavailable(
            f"C++ programs do not run in this machine's sandbox of tier {spec.tier}: the self-test ended with {result.status} "
            f"{said}{remedy}"
        )


def failures(zygote: Zygote) -> Iterator[str]:
    """Failures of the self-tests, which a sandbox must pass before it is used."""
    for test in SELF_TESTS:
        program = Program(code=test.code.encode(), stdin=test.stdin.encode(), limits=test.limits)
        for _ in range(1 + RETRIES):  # as for every program: on a busy machine a run may fail to start
            result = zygote.run(program)
            if result.status != "sandbox_error":
                break
        if not test.good(result):
            yield f"the self-test '{test.name}' ended with {result.status} {result.reason or ascii(result.stdout[:80])}"
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        # The file's mode alone would allow the changes.
        file.write(b"whole")
        file.flush()
        os.fchmod(file.fileno(), 0o666)
        before = os.fstat(file.fileno())
        for change in CHANGES:
            zygote.run(Program(code=f"import os\nf = {file.name!r}\n{change}".encode(), limits=QUICK))
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mode, before.st_mtime) != (after.st_size, after.st_mode, after.st_mtime):
            yield "the self-test 'changing a file outside' was not blocked"


def unprivileged_uid() -> int | None:
    """The user id for programs: an unprivileged one that differs between workers.

    None where this process may not change its user: then programs run as the same user.
    """
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    setgid_and_setuid = 0b11 << 6
    able = int(effective.split()[1], 16) & setgid_and_setuid == setgid_and_setuid
    return FIRST_UID + os.getpid() % 5000 if able else None
