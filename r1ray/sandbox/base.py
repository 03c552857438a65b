"""Programs for the sandbox, their limits, and the result of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Language = Literal["python", "cpp"]
Tier = Literal["T1", "T1-noproc", "T2"]
"""T1: each program has its own namespaces inside bubblewrap. T1-noproc: the same on a machine where /proc is masked. T2: only
Landlock and seccomp."""

STDERR_BYTES, STDERR_KEPT = 8 << 20, 1 << 16
"""Debug output on standard error does not count against a program's limit; only its beginning is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one run."""

    cpu_s: float = 6.0
    wall_s: float = 18.0
    """Generous, because a busy machine must not change a verdict: CPU time is the limit that counts."""
    memory_bytes: int = 1 << 30
    """On top of what the interpreter itself takes."""
    output_bytes: int = 1 << 20
    """The limit of standard output. To standard error a program may write STDERR_BYTES."""
    file_bytes: int = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program with its standard input; or a function in it, called once for every line of JSON arguments in `stdin`.

    C++ means C++17. A C++ program is always run as a whole; its functions cannot be called.
    """

    code: bytes
    stdin: bytes = b""
    language: Language = "python"
    function: str | None = None
    integer_keys: bool = False
    """The first argument of a function is an object of JSON that has integers as keys, where all of them can be."""
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        assert self.language == "python" or self.function is None, "C++ has no functions to call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Executable:
    """A file that the kernel executes: a compiled program or a tool of the compiler. It is one process, like every run."""

    file: bytes | str
    """The bytes of a static program, which can read no file of the system; or the path of a tool, which can read what Python
    programs can."""
    arguments: Sequence[str] = ("program",)
    """argv; the first is the program's name."""
    stdin: bytes = b""
    limits: Limits = Limits()
    writes_file: bool = False
    """The result's `stdout` is what the tool writes to the file `OUTPUT`, not what it prints."""


OUTPUT = "/proc/self/fd/1"
"""In the arguments of a tool: the output file. It is a descriptor, so the tool needs no writable folder."""

Status = Literal["ok", "timeout", "memory", "runtime_error", "output_limit", "compile_error", "sandbox_error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The result of a run. `ok`: the program exited with code 0; its output is not compared yet. `stdout` is untrusted bytes.

    `sandbox_error` is never caused by the program: the run failed before the program was read.
    """

    status: Status
    stdout: bytes = b""
    stderr: bytes = b""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    reason: str = ""
    """The cause of a sandbox_error. A timeout has the reason "starved" if other processes had the CPU (`starved`), else none."""

    @property
    def starved(self) -> bool:
        """Killed at the wall limit after less than half of its CPU limit, though ready to run: other processes had the CPU."""
        return self.status == "timeout" and self.reason == "starved"


class Settings(Protocol):
    """How the sandbox is configured; `r1ray.config.SandboxConfig` describes each setting."""

    @property
    def url(self) -> str | None: ...
    @property
    def min_tier(self) -> Tier: ...
    @property
    def python(self) -> str: ...
    @property
    def packages(self) -> Sequence[str]: ...


class SandboxUnavailable(RuntimeError):
    """No sandbox of the required tier works on this machine; the message names the probe that failed and the remedy."""


class Runner(Protocol):
    """Runs programs: `r1ray.sandbox.pool.Sandbox` or `r1ray.sandbox.remote.RemoteSandbox`."""

    def run(self, program: Program) -> RunResult: ...


Readable = Sequence[tuple[str, int]]
"""(path, Landlock access rights)."""
