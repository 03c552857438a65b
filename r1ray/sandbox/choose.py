"""Which sandbox works here: every tier is tried for real, and the strongest that passes its own attacks is taken, or none."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from r1ray.sandbox.base import Ended, Language, Limits, Program, SandboxUnavailable, Tier
from r1ray.sandbox.cpp import REMEDY
from r1ray.sandbox.pool import RETRIES, Sandbox
from r1ray.sandbox.supervisor import Zygote, ZygoteSpec

TIERS: Sequence[Tier] = ("T1", "T1-noproc", "T2")
"""The strongest first."""
FIRST_UID = 60_000
PYTHON = "/usr/bin/python3"
QUICK = Limits(cpu_s=1.0, wall_s=30.0, memory_bytes=256 << 20, output_bytes=1 << 16, file_bytes=1 << 20)
REMEDIES: Mapping[Tier, str] = {
    "T1": "install bubblewrap, and allow user namespaces (in Kubernetes: hostUsers: false, procMount: Unmasked)",
    "T1-noproc": "install bubblewrap, and allow user namespaces",
    "T2": "a kernel of 5.13 or later with Landlock (lsm=...,landlock), and a container runtime that allows landlock_* and seccomp",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A program whose end shows whether a wall stands."""

    name: str
    code: str
    good: Callable[[Ended], bool]
    stdin: str = ""
    limits: Limits = QUICK


def _refused(name: str, code: str) -> Canary:
    """It says "in" when it came through."""
    guarded = "try:\n" + "".join(f"    {line}\n" for line in code.splitlines())
    return Canary(
        name=name,
        code=guarded + "except OSError:\n    print('out')\nelse:\n    print('in')",
        good=lambda ended: ended.status == "ok" and ended.stdout == b"out\n",
    )


def _says(text: str) -> Callable[[Ended], bool]:
    return lambda ended: ended.status == "ok" and ended.stdout.decode(errors="replace") == text


CANARIES: Sequence[Canary] = (
    Canary(name="an honest sum", code="print(sum(map(int, input().split())))", stdin="1 2", good=_says("3\n")),
    Canary(
        name="standard input as a file", code="print(open(0).read().upper(), end='')", stdin="ab\n", good=_says("AB\n")
    ),
    Canary(
        name="threads",
        code="import threading\nt = threading.Thread(target=print, args=('b',))\nt.start()\nt.join()",
        good=_says("b\n"),
    ),
    _refused("the network", "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)"),
    _refused("secrets of the machine", "open('/etc/shadow').read()"),
    _refused("files of the machine", "open('/etc/passwd').read()"),
    _refused("the environment of others", "open('/proc/%d/environ' % __import__('os').getppid(), 'rb').read(1)[0]"),
    _refused("its parent", "import os, signal\nos.kill(os.getppid() or 1, signal.SIGKILL)"),
    _refused("another process", "import os\nos.fork()"),
    _refused("another program", "import os\nos.execv('/bin/true', ['true'])"),
    _refused("writing to the system", "open('/usr/r1ray_was_here', 'w')"),
    _refused(
        "ptrace",
        "import ctypes, os\nc = ctypes.CDLL(None, use_errno=True)\nif c.ptrace(16, os.getppid(), 0, 0) < 0: raise OSError",
    ),
    Canary(
        name="memory", code="x = bytearray(1 << 30)", good=lambda ended: ended.status in ("memory", "runtime_error")
    ),
    Canary(
        name="the wall clock",
        code="import time\ntime.sleep(60)",
        limits=replace(QUICK, wall_s=0.5),
        good=lambda ended: ended.status == "timeout" and ended.wall_s < 30,
    ),
    Canary(name="a flood", code="while True: print('x' * 1000)", good=lambda ended: ended.status == "output_limit"),
)


CHANGES = ("os.chmod(f, 0o777)", "os.utime(f, (1, 1))", "os.truncate(f, 0)", "open(f, 'w')", "os.unlink(f)")
"""What a program tries on a file that is not its own."""


CPP_CANARY = r"""
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
"""It writes the sum and nothing else; had another program been executed, it would have written nothing."""


def choose(spec: ZygoteSpec, *, min_tier: Tier, languages: Collection[Language] = ()) -> ZygoteSpec:
    """`spec` with the strongest tier that works here, for programs in these languages; Python is always one.

    Raises:
        SandboxUnavailable: none from `min_tier` up does; the message says for each tier which probe failed and what would help.
            Or there is no working g++.
    """
    reasons: list[str] = []
    for tier in TIERS[: TIERS.index(min_tier) + 1]:
        tried = replace(spec, tier=tier)
        reason = why_not(tried)
        if reason is None:
            if "cpp" in languages:
                check_cpp(tried)
            return replace(tried, refused=reasons)
        reasons.append(f"{tier}: {reason} (remedy: {REMEDIES[tier]})")
    raise SandboxUnavailable(
        f"no sandbox of tier {min_tier} or stronger works here, and model-written programs run in nothing less. "
        + "; ".join(reasons)
    )


def check_python(python: str) -> None:
    """Raises SandboxUnavailable for an interpreter that cannot run programs."""
    if not os.access(python, os.X_OK):
        raise SandboxUnavailable(
            f"there is no interpreter {python} to run model-written programs: name one by sandbox.python that every user of "
            "this machine may read (Debian, Ubuntu: apt-get install python3)"
        )
    if "/" in ZygoteSpec(python=python).folders:
        raise SandboxUnavailable(
            f"sandbox.python={python} lies so high that programs could read everything: name another"
        )


def folders_of(packages: Sequence[str], python: str) -> list[str]:
    """From which folders this interpreter imports them. Raises SandboxUnavailable for a package that it cannot import."""
    if not packages:
        return []
    ask = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.path, sep='\\n')"
    done = subprocess.run([python, "-I", "-c", ask, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        why = done.stderr.strip().rpartition("\n")[2]
        raise SandboxUnavailable(
            f"sandbox.packages={list(packages)}: {python} cannot import them ({why}): install them for that interpreter, or name "
            "another by sandbox.python"
        )
    return [folder for folder in done.stdout.split("\n") if folder.endswith("-packages") and os.path.isdir(folder)]


def why_not(spec: ZygoteSpec) -> str | None:
    """The first probe or canary that fails on this tier; None when all is well."""
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
    """Raises SandboxUnavailable where C++ programs cannot be built, or can do what they must not."""
    with Sandbox(spec, slots=1) as sandbox:
        ended = sandbox.run(Program(code=CPP_CANARY.encode(), stdin=b"1 2", language="cpp", limits=QUICK))
    if (ended.status, ended.stdout) != ("ok", b"3\n"):
        said = ended.why or ascii((ended.stdout + ended.stderr)[-300:].decode(errors="replace"))
        remedy = f" (remedy: {REMEDY})" if ended.status == "compile_error" else ""
        raise SandboxUnavailable(
            f"C++ programs do not run in the sandbox here, of tier {spec.tier}: the self-test ended with {ended.status} "
            f"{said}{remedy}"
        )


def failures(zygote: Zygote) -> Iterator[str]:
    """Of the self-test, which a sandbox has to pass before it is used."""
    for canary in CANARIES:
        program = Program(code=canary.code.encode(), stdin=canary.stdin.encode(), limits=canary.limits)
        for _ in range(1 + RETRIES):  # as for every program: on a busy machine a run may not come so far as to begin
            ended = zygote.run(program)
            if ended.status != "sandbox_error":
                break
        if not canary.good(ended):
            yield f"the self-test '{canary.name}' ended with {ended.status} {ended.why or ascii(ended.stdout[:80])}"
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        # It would be allowed to, by the file's mode.
        file.write(b"whole")
        file.flush()
        os.fchmod(file.fileno(), 0o666)
        before = os.fstat(file.fileno())
        for change in CHANGES:
            zygote.run(Program(code=f"import os\nf = {file.name!r}\n{change}".encode(), limits=QUICK))
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mode, before.st_mtime) != (after.st_size, after.st_mode, after.st_mtime):
            yield "the self-test 'changing a file of ours' came through"


def unprivileged_uid() -> int | None:
    """Whose rights programs get where this process may become somebody else: nobody's, and not the same in every worker.

    None where it may not: then programs have its own.
    """
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    setgid_and_setuid = 0b11 << 6
    able = int(effective.split()[1], 16) & setgid_and_setuid == setgid_and_setuid
    return FIRST_UID + os.getpid() % 5000 if able else None
