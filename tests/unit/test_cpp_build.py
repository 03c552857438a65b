"""How a C++ program is compiled: the steps, the meaning of their exit codes, and how often they run. Without a compiler."""

import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from r1ray.sandbox.base import OUTPUT, Executable, RunResult, SandboxUnavailable
from r1ray.sandbox.cpp import CACHE_SIZE, INPUT, MESSAGE_BYTES, THREADS, Compiler, tools_of_gpp

TOOLS = [Executable(file=f"/usr/bin/{name}") for name in ("cc1plus", "as", "ld")]


class Steps:
    """A fake of the sandbox: returns the result of each step by its tool."""

    def __init__(self, end: Callable[[str, bytes], RunResult]) -> None:
        self.end, self.runs = end, list[str]()

    def run(self, step: Executable) -> RunResult:
        self.runs.append(str(step.file).rpartition("/")[2])
        return self.end(self.runs[-1], step.stdin)


def compiler(end: Callable[[str, bytes], RunResult]) -> tuple[Compiler, Steps]:
    steps = Steps(end)
    made = Compiler(steps.run)
    made.tools = TOOLS
    return made, steps


def good(tool: str, given: bytes) -> RunResult:
    return RunResult(status="ok", stdout=given + b">" + tool.encode())


def test_each_step_reads_the_output_of_the_previous_step() -> None:
    made, steps = compiler(good)
    assert made.build(b"source") == b"source" + THREADS + b">cc1plus>as>ld"
    assert steps.runs == ["cc1plus", "as", "ld"]


@pytest.mark.parametrize("tool", ["cc1plus", "as", "ld"])
@pytest.mark.parametrize(
    ("result", "status"),
    [
        ("runtime_error", "compile_error"),
        ("memory", "compile_error"),
        ("output_limit", "compile_error"),
        ("timeout", "timeout"),
        ("sandbox_error", "sandbox_error"),
    ],
)
def test_failing_step_is_the_last(tool: str, result: Any, status: str) -> None:
    said = b"no" * MESSAGE_BYTES
    failing = RunResult(status=result, stdout=b"half", stderr=said)
    made, steps = compiler(lambda name, given: failing if name == tool else good(name, given))
    built = made.build(b"source")
    assert isinstance(built, RunResult)
    assert (built.status, built.stdout, len(built.stderr)) == (status, b"", MESSAGE_BYTES)
    assert steps.runs[-1] == tool


@pytest.mark.parametrize(
    ("result", "times"),
    [
        (RunResult(status="ok"), 1),
        (RunResult(status="runtime_error"), 1),
        (RunResult(status="timeout"), 1),
        (RunResult(status="timeout", reason="starved"), 3),
        (RunResult(status="sandbox_error"), 3),
    ],
)
def test_results_caused_by_the_program_are_cached(result: RunResult, times: int) -> None:
    made, steps = compiler(lambda name, given: result)
    for _ in range(3):
        made.build(b"source")
    assert steps.runs.count("cc1plus") == times


def test_cache_keeps_the_programs_used_last() -> None:
    made, steps = compiler(good)
    for n in (*range(CACHE_SIZE), 0, CACHE_SIZE, 0, 1):
        made.build(b"%d" % n)
    assert steps.runs.count("cc1plus") == CACHE_SIZE + 2, "0 was used again, so 1 was evicted"


def test_concurrent_requests_compile_once() -> None:
    asked = threading.Barrier(2)

    def slow(tool: str, given: bytes) -> RunResult:
        if tool == "cc1plus":
            asked.wait(5)
        return good(tool, given)

    made, steps = compiler(slow)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(made.build, b"source") for _ in range(4)]
        asked.wait(5)
        assert {done.result() for done in waiting} == {b"source" + THREADS + b">cc1plus>as>ld"}
    assert len(steps.runs) == 3


def test_machine_failure_is_reported_to_all_and_not_cached() -> None:
    def broken(tool: str, given: bytes) -> RunResult:
        raise RuntimeError("no zygote")

    made, steps = compiler(broken)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no zygote"):
            made.build(b"source")
    assert len(steps.runs) == 2


SAID = """COLLECT_GCC=g++
Target: aarch64-linux-gnu
COLLECT_GCC_OPTIONS='-O2' '-S'
{command}
COLLECT_GCC_OPTIONS='-O2' '-S'
"""
COMMANDS = {
    "c++": ' /usr/lib/gcc/cc1plus -quiet "-D_GNU_SOURCE" - -o -',
    "assembler": f" as -EL {INPUT} -o {OUTPUT}",
    "-static": f" /usr/lib/gcc/collect2 -static -o {OUTPUT} crt1.o {INPUT} -lc",
}


def test_steps_come_from_gpp(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str], **_: Any) -> Any:
        if "-print-prog-name=ld" in command:
            return subprocess.CompletedProcess(command, 0, "ld\n", "")
        step = next(text for word, text in COMMANDS.items() if word in command)
        return subprocess.CompletedProcess(command, 0, "", SAID.format(command=step))

    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: name if name[0] == "/" else f"/usr/bin/{name}")
    compiling, assembling, linking = tools_of_gpp()
    assert compiling.file == "/usr/lib/gcc/cc1plus"
    assert compiling.arguments == ("/usr/lib/gcc/cc1plus", "-quiet", "-D_GNU_SOURCE", "-", "-o", "-")
    assert (assembling.file, linking.file) == ("/usr/bin/as", "/usr/bin/ld"), "not collect2, which starts ld"
    assert linking.arguments == ("ld", "-static", "-o", OUTPUT, "crt1.o", INPUT, "-lc")
    assert [tool.writes_file for tool in (compiling, assembling, linking)] == [False, True, True]


@pytest.mark.parametrize("missing", ["g++", "as"])
def test_incomplete_compiler_is_reported(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 0, "", " as - -o -\n")

    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == missing else f"/usr/bin/{name}")
    with pytest.raises(SandboxUnavailable, match=rf"there is no {missing.replace('+', '.')}.*apt-get install g\+\+"):
        tools_of_gpp()


def test_failing_compiler_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "g++: fatal error: no input\n")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: failed)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/usr/bin/{name}")
    with pytest.raises(SandboxUnavailable, match=r"failed: g\+\+: fatal error: no input \(remedy"):
        tools_of_gpp()
