"""C++ programs, compiled and run in the sandbox, honest and hostile, in every tier that works on this machine."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import attack_suite
import cpp_suite
import psutil
import pytest
from cpp_suite import HONEST, SCANF, cpp
from test_sandbox import NOPROC, T1, T2, family, left_of_a_worker

from r1ray.sandbox import cpp as compiling
from r1ray.sandbox.base import Executable, Limits, SandboxUnavailable
from r1ray.sandbox.choose import PYTHON, check_cpp, choose, unprivileged_uid
from r1ray.sandbox.pool import Sandbox
from r1ray.sandbox.spec import READ, ZygoteSpec
from r1ray.sandbox.supervisor import Zygote

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed"),
]
SLOW = """
template <int n> constexpr long f() { long s = n; for (int a = 0; a < 1000; a++) for (int b = 0; b < 1000; b++) s += b; return s; }
constexpr long x[] = {f<0>(), f<1>(), f<2>(), f<3>(), f<4>(), f<5>(), f<6>(), f<7>(), f<8>(), f<9>(), f<10>(), f<11>(), f<12>()};
int main() {}
"""
"""To compile."""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(attack_suite.spec_of("T2"), slots=2) as made:
        yield made


@pytest.mark.parametrize("tier", [T1, T2, pytest.param("T1-noproc", marks=[*NOPROC.marks, pytest.mark.slow])])
def test_programs_end_as_expected(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1RAY_CANARY", "1")
    with Sandbox(attack_suite.spec_of(tier), slots=1) as made:
        assert not cpp_suite.faults(made)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")
@pytest.mark.parametrize("tier", [T1, NOPROC, T2])
def test_programs_end_as_expected_for_an_unprivileged_user(tier: str) -> None:
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", PYTHON, cpp_suite.__file__, tier]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stdout + done.stderr


def test_program_is_compiled_once_for_all_inputs_and_threads(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda n: sandbox.run(cpp(SCANF, f"{n} 0.5")), range(6)))
    assert [result.stdout for result in ends] == [b"%.3f\n" % (n / 2) for n in range(6)]
    assert sandbox.num_runs == len(compiling.STEPS) + 6


def test_program_that_does_not_compile_is_tried_once(sandbox: Sandbox) -> None:
    for _ in range(3):
        result = sandbox.run(cpp("int main() { return nothing; }"))
        assert result.status == "compile_error" and b"'nothing' was not declared" in result.stderr
    assert sandbox.num_runs == 1


def test_compilation_is_one_process_and_is_killed_at_its_limit(sandbox: Sandbox) -> None:
    tools = [replace(tool, limits=replace(tool.limits, cpu_s=30, wall_s=2)) for tool in sandbox._compiler.tools]
    sandbox._compiler.tools = tools
    before = family(sandbox._zygote)
    seen = set[str]()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(sandbox.run, cpp(SLOW))
        while not running.done():
            members = family(sandbox._zygote) - before
            assert len(members) <= 1, "it has started another process"
            seen |= {psutil.Process(pid).name() for pid in members if psutil.pid_exists(pid)}
            time.sleep(0.1)
    assert running.result().status == "timeout"
    assert "cc1plus" in seen or "4" in seen, seen
    time.sleep(0.5)
    assert family(sandbox._zygote) == before


@pytest.mark.parametrize("tier", [T1, T2])
@pytest.mark.parametrize("source", [SLOW, "int main() { for (volatile int i = 0;; i++); }"], ids=["build", "program"])
def test_all_processes_end_with_the_supervisor(tier: str, source: str) -> None:
    """SIGKILL of a worker while its sandbox compiles or runs a program."""

    def begin() -> Zygote:
        made = Sandbox(attack_suite.spec_of(tier), slots=1)
        patient = Limits(cpu_s=60, wall_s=90)
        threading.Thread(target=made.run, args=[cpp(source, limits=patient)], daemon=True).start()
        while made.num_runs < (len(compiling.STEPS) if source is not SLOW else 0):
            time.sleep(0.1)
        return made._zygote

    assert not left_of_a_worker(begin, within_s=5)


def test_program_starts_with_little_memory(sandbox: Sandbox) -> None:
    """Less than the interpreter that executes the program has used."""
    small = Limits(memory_bytes=8 << 20)
    assert sandbox.run(cpp(SCANF, "1 2", small)).stdout == b"2.000\n"
    tiny = sandbox.run(cpp(SCANF.replace("int main() {", "char x[1 << 25]; int main() { x[0] = 1;"), "1 2", small))
    assert tiny.status in ("memory", "runtime_error")


def test_zygote_lost_during_compilation_loses_no_verdict(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(sandbox.run, cpp(HONEST, "sum 1 2"))
        time.sleep(0.4)
        os.kill(sandbox._zygote._process.pid, signal.SIGKILL)
        assert running.result().stdout == b"3\n", "restarted on another zygote"


def test_file_that_the_kernel_cannot_execute_is_a_runtime_error(sandbox: Sandbox) -> None:
    """With sandbox_error the completion would not be scored."""
    assert sandbox._run(Executable(file=b"no program")).status == "runtime_error"
    assert sandbox._run(Executable(file="/etc/hostname")).status == "sandbox_error"


@pytest.mark.parametrize("tier", [T1, NOPROC, T2])
def test_every_tier_passes_its_self_test(tier: str) -> None:
    check_cpp(attack_suite.spec_of(tier))


def test_self_test_notices_missing_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ZygoteSpec, "minimal", [("/usr", READ), ("/lib64", READ)])
    with pytest.raises(SandboxUnavailable, match=r"self-test ended with ok "):
        check_cpp(attack_suite.spec_of("T2"))


def test_missing_compiler_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, which = ZygoteSpec(python=PYTHON, uid=unprivileged_uid()), shutil.which
    monkeypatch.setattr("r1ray.sandbox.choose.first_failure", lambda spec: None)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == "g++" else which(name, path=path))
    assert choose(spec, min_tier="T2", languages={"python"}).tier == "T1"
    start = time.monotonic()
    with pytest.raises(SandboxUnavailable, match=r"there is no g\+\+ .*apt-get install g\+\+"):
        choose(spec, min_tier="T2", languages={"python", "cpp"})
    assert time.monotonic() - start < 5
