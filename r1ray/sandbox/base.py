"""What is run in a sandbox, within which limits, and how it can end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Language = Literal["python", "cpp"]
Tier = Literal["T1", "T1-noproc", "T2"]
"""T1: namespaces of its own, inside bubblewrap. T1-noproc: the same where /proc is masked. T2: Landlock and seccomp alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one run."""

    cpu_s: float = 6.0
    wall_s: float = 18.0
    """Generous: a busy machine must change no verdict, the processor's time is what is judged."""
    memory_bytes: int = 1 << 30
    """Beyond what the interpreter itself takes."""
    output_bytes: int = 1 << 20
    """Of standard output and of standard error."""
    file_bytes: int = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program with its standard input; or a function in it, called once for every line of JSON arguments in `stdin`.

    C++ is C++17, and whole programs only.
    """

    code: bytes
    stdin: bytes = b""
    language: Language = "python"
    function: str | None = None
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        assert self.language == "python" or self.function is None, "C++ has no functions to call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """A file that the kernel executes: a program that was built here, or a tool of the compiler. One process, as every run is."""

    file: bytes | str
    """A static program, which reads nothing of the system; or the path of a tool, which reads what Python programs may."""
    arguments: Sequence[str] = ("program",)
    """The first is its name."""
    stdin: bytes = b""
    limits: Limits = Limits()
    writes_file: bool = False
    """What it writes to the file `OUTPUT`, and not what it prints, is the run's `stdout`."""


OUTPUT = "/proc/self/fd/1"
"""In the arguments of a tool: the file that it is to write. There need not be a folder that it may write to."""

Status = Literal["ok", "timeout", "memory", "runtime_error", "output_limit", "compile_error", "sandbox_error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended. `ok`: by itself, with exit code 0; what it wrote is still to be judged. `stdout` is bytes of untrusted text.

    `sandbox_error` is never the program's doing: it did not come so far as to be read.
    """

    status: Status
    stdout: bytes = b""
    stderr: bytes = b""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    why: str = ""
    """Of a sandbox_error; "starved" of a timeout that is."""

    @property
    def starved(self) -> bool:
        """Killed by the wall clock with less than half of its processor time used, though ready to run: the neighbours' doing."""
        return self.status == "timeout" and self.why == "starved"


class Settings(Protocol):
    """Where programs run, and as what; `r1ray.config.SandboxConfig` describes each."""

    @property
    def url(self) -> str | None: ...
    @property
    def min_tier(self) -> Tier: ...
    @property
    def python(self) -> str: ...
    @property
    def packages(self) -> Sequence[str]: ...


class SandboxUnavailable(RuntimeError):
    """No sandbox of the wanted strength works here; the message names the probe that failed and the remedy."""


class Runner(Protocol):
    """What runs programs: `r1ray.sandbox.pool.Sandbox`, `r1ray.sandbox.remote.RemoteSandbox`."""

    def run(self, program: Program) -> Ended: ...


Readable = Sequence[tuple[str, int]]
"""(path, Landlock's rights on it)."""
