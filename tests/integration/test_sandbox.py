"""The sandbox against real programs, hostile and honest, in every tier that works on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import attack_suite
import container
import psutil
import pytest

from r1ray.check import load
from r1ray.cli import compose
from r1ray.config import SandboxConfig
from r1ray.sandbox import choose as choosing
from r1ray.sandbox import current
from r1ray.sandbox.base import Limits, Program, RunResult, SandboxUnavailable
from r1ray.sandbox.choose import PYTHON, REMEDIES, TIERS, check_python, choose, first_failure, unprivileged_uid
from r1ray.sandbox.pool import Sandbox
from r1ray.sandbox.spec import ZygoteSpec
from r1ray.sandbox.supervisor import Zygote
from r1ray.stages.pipeline import check_sandbox

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
SUM = Program(code=b"print(sum(map(int, input().split())))", stdin=b"1 2\n")
SPIN = Program(code=b"while True: pass", limits=Limits(cpu_s=30, wall_s=60))
QUICK = Limits(cpu_s=1.0, wall_s=3.0, memory_bytes=256 << 20)


HERE = [tier for tier in TIERS if tier == "T2" or shutil.which("bwrap")]
T1, NOPROC, T2 = (
    pytest.param(tier, marks=pytest.mark.skipif(tier not in HERE, reason="bubblewrap is not installed"))
    for tier in TIERS
)


@pytest.fixture(scope="module")
def zygotes() -> Iterator[dict[str, Zygote]]:
    """One zygote of every tier."""
    os.environ["R1RAY_CANARY"] = attack_suite.CANARY.decode()
    made = {tier: Zygote(attack_suite.spec_of(tier)) for tier in HERE}
    yield made
    for zygote in made.values():
        zygote.close()
    del os.environ["R1RAY_CANARY"]


@pytest.mark.parametrize("tier", [T1, T2])
@pytest.mark.parametrize("name", attack_suite.ENTRIES)
def test_program_gets_an_allowed_verdict(name: str, tier: str, zygotes: dict[str, Zygote]) -> None:
    _, wrong = attack_suite.tried(zygotes[tier], name)
    assert not wrong


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("uid", [0, 65534])
@pytest.mark.parametrize("tier", [T1, NOPROC, T2])
def test_verdicts_are_the_same_twice_and_for_an_unprivileged_user(tier: str, uid: int) -> None:
    if os.geteuid() not in (0, uid):
        pytest.skip("only root can switch users")
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if os.geteuid() != uid else []
    command = [*become, PYTHON, attack_suite.__file__, tier]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{tier}, uid {uid}: ")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can create a container")
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize(("kind", "tier"), [("default", "T2"), ("unconfined", "T1-noproc")])
def test_verdicts_are_the_same_in_a_container(kind: str, tier: str, uid: int) -> None:
    if tier not in HERE:
        pytest.skip("bubblewrap is not installed")
    command = [PYTHON, container.__file__, kind, str(uid), PYTHON, attack_suite.__file__, "chosen"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{tier}, uid {uid}: "), done.stderr


@pytest.mark.parametrize("tier", [T1, NOPROC, T2])
def test_every_tier_passes_its_self_test(tier: str) -> None:
    assert first_failure(attack_suite.spec_of(tier)) is None


def test_no_process_is_left_a_second_after_a_run(zygotes: dict[str, Zygote]) -> None:
    for tier, zygote in zygotes.items():
        before = family(zygote)
        daemon = "import os, time\nfor _ in range(3):\n    try: os.fork()\n    except OSError: pass\ntime.sleep(60)"
        assert zygote.run(Program(code=daemon.encode(), limits=replace(QUICK, wall_s=0.5))).status == "timeout"
        time.sleep(1)
        assert family(zygote) == before, tier


def family(zygote: Zygote) -> set[int]:
    process = psutil.Process(zygote._process.pid)
    return {process.pid, *(child.pid for child in process.children(recursive=True))}


@pytest.mark.parametrize("tier", [T1, NOPROC, T2])
def test_all_processes_end_with_the_supervisor(tier: str) -> None:
    """SIGKILL of a worker while a program runs in its sandbox."""

    def begin() -> Zygote:
        zygote = Zygote(attack_suite.spec_of(tier))
        threading.Thread(target=zygote.run, args=[SPIN], daemon=True).start()
        return zygote

    assert not left_of_a_worker(begin, within_s=10)


def left_of_a_worker(begin: Callable[[], Zygote], *, within_s: float) -> list[int]:
    """Processes that are alive `within_s` after the SIGKILL of a process in which this zygote runs something."""
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        zygote = begin()
        idle = 1 if zygote.spec.tier == "T2" else 3  # bubblewrap has two processes
        end = time.monotonic() + 20
        while len(members := family(zygote)) <= idle and time.monotonic() < end:
            time.sleep(0.1)
        os.write(writing, " ".join(map(str, members if len(members) > idle else ())).encode() or b" ")
        time.sleep(60)
        os._exit(1)
    members = [int(pid) for pid in os.read(reading, 1000).split()]
    assert members, "no program has run"
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    deadline = time.monotonic() + within_s
    while any(map(alive, members)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [pid for pid in members if alive(pid)]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_lost_zygote_is_replaced_without_losing_a_verdict() -> None:
    with Sandbox(attack_suite.spec_of("T2"), slots=2) as sandbox:
        assert sandbox.run(SUM).stdout == b"3\n"
        os.kill(sandbox._zygote._process.pid, signal.SIGKILL)
        assert sandbox.run(SUM).stdout == b"3\n"
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(sandbox.run, Program(code=b"import time; time.sleep(1); print(5)"))
            time.sleep(0.3)
            os.kill(sandbox._zygote._process.pid, signal.SIGKILL)
            assert running.result().stdout == b"5\n", "restarted on another zygote"


def test_retired_zygote_ends_after_its_last_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1ray.sandbox.supervisor.MAX_RUNS", 2)
    with Sandbox(attack_suite.spec_of("T2"), slots=2) as sandbox, ThreadPoolExecutor(1) as thread:
        first = sandbox._zygote
        running = thread.submit(sandbox.run, Program(code=b"import time; time.sleep(1); print(5)"))
        for _ in range(4):
            assert sandbox.run(SUM).stdout == b"3\n"
        assert sandbox._zygote is not first
        assert running.result().stdout == b"5\n"


def test_hostile_programs_do_not_change_verdicts_of_honest_ones() -> None:
    """40 hostile programs on as many slots as there are cores, and an honest one after each."""
    hostile = [name for name, entry in attack_suite.ENTRIES.items() if entry["category"] == "resource"]
    chosen = [attack_suite.ENTRIES[hostile[i % len(hostile)]] for i in range(40)]
    with (
        Sandbox(attack_suite.spec_of("T2"), slots=len(os.sched_getaffinity(0))) as sandbox,
        ThreadPoolExecutor(16) as pool,
    ):
        honest = []
        for entry in chosen:
            pool.submit(attack_suite.run, sandbox, {**entry, "limits": {"cpu": 1, "wall": 3, "memory_mb": 256}})
            honest.append(pool.submit(sandbox.run, SUM))
        assert [(done.result().status, done.result().stdout) for done in honest] == [("ok", b"3\n")] * 40


def test_program_that_got_no_cpu_time_is_run_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(attack_suite.spec_of("T2"), slots=1) as sandbox:
        ends = iter([RunResult(status="timeout", reason="starved"), RunResult(status="ok", stdout=b"3\n")])
        held = []
        monkeypatch.setattr(sandbox._zygote, "run", lambda program: held.append(others_may_run()) or next(ends))
        assert sandbox.run(SUM).stdout == b"3\n"
        assert held == [True, False]


def others_may_run() -> bool:
    probe = "import fcntl; fcntl.flock(open('/tmp/r1ray-sandbox-run.lock'), fcntl.LOCK_SH | fcntl.LOCK_NB)"
    return subprocess.run([PYTHON, "-c", probe], capture_output=True, check=False).returncode == 0


def test_limits_are_enforced_promptly() -> None:
    zygote = Zygote(attack_suite.spec_of("T2"))
    wall = zygote.run(Program(code=b"import time; time.sleep(9)", limits=Limits(cpu_s=1, wall_s=0.5)))
    assert wall.status == "timeout" and 0.5 <= wall.wall_s < 1.0
    cpu = zygote.run(Program(code=b"while True: pass", limits=Limits(cpu_s=0.5, wall_s=20)))
    assert cpu.status == "timeout" and 0.45 <= cpu.cpu_s < 0.7
    zygote.close()


@pytest.mark.parametrize("tier", [T1, NOPROC, T2])
def test_standard_input_may_exceed_the_file_size_limit(tier: str, zygotes: dict[str, Zygote]) -> None:
    limits = Limits(file_bytes=1 << 20)
    result = zygotes[tier].run(Program(code=b"print(len(input()))", stdin=b"7" * (3 << 20), limits=limits))
    assert (result.status, result.stdout) == ("ok", b"%d\n" % (3 << 20))


def test_program_with_too_many_threads_is_killed(zygotes: dict[str, Zygote]) -> None:
    code = b"import threading, time\nfor _ in range(90): threading.Thread(target=time.sleep, args=(30,), daemon=True).start()"
    result = zygotes["T2"].run(Program(code=code, limits=Limits(cpu_s=5, wall_s=20)))
    assert result.status == "runtime_error" and result.wall_s < 10


def test_exhausted_descriptors_are_recovered(zygotes: dict[str, Zygote]) -> None:
    import resource

    before, (soft, hard) = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)
    for room in range(2, 12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + room, hard))
        zygotes["T2"].run(SUM)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == before
    assert zygotes["T2"].run(SUM).status == "ok"


def test_asyncio_and_threads_work_in_programs() -> None:
    code = b"""
import asyncio, concurrent.futures
async def main():
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        print(await loop.run_in_executor(pool, lambda: 1), await asyncio.wait_for(asyncio.sleep(0, 2), 1))
asyncio.run(main())
"""
    for tier in HERE:
        zygote = Zygote(attack_suite.spec_of(tier))
        result = zygote.run(Program(code=code))
        zygote.close()
        assert (result.status, result.stdout) == ("ok", b"1 2\n"), (tier, result)


def test_missing_sandbox_is_reported_with_cause_and_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(
        Zygote, "run", lambda self, program: RunResult(status="sandbox_error", reason="landlock: not permitted")
    )
    start = time.monotonic()
    with pytest.raises(SandboxUnavailable) as caught:
        choose(ZygoteSpec(python=PYTHON, uid=unprivileged_uid()), min_tier="T2")
    assert time.monotonic() - start < 5
    said = str(caught.value)
    assert "bubblewrap (bwrap) is not installed" in said and "landlock: not permitted" in said
    assert all(remedy in said for remedy in REMEDIES.values())


def test_missing_interpreter_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "python3")
    with pytest.raises(SandboxUnavailable, match=rf"no interpreter {missing} .* sandbox\.python"):
        check_python(missing)


def test_self_test_notices_missing_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that allows everything must be noticed by the self-test."""
    monkeypatch.setattr("r1ray.sandbox.seccomp.DENY", 0x7FFF0000)
    reason = first_failure(attack_suite.spec_of("T2"))
    assert reason is not None and "the self-test 'starting another process'" in reason


def test_strongest_working_tier_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ZygoteSpec(python=PYTHON)
    monkeypatch.setattr(choosing, "first_failure", lambda spec: "no" if spec.tier == "T1" else None)
    chosen = choose(spec, min_tier="T2")
    assert chosen.tier == "T1-noproc" and len(chosen.refused) == 1 and chosen.refused[0].startswith("T1: ")
    monkeypatch.setattr(choosing, "first_failure", lambda spec: "no")
    with pytest.raises(SandboxUnavailable, match="tier T1 or stronger") as caught:
        choose(spec, min_tier="T1")
    assert "T2" not in str(caught.value)


def test_programs_can_import_configured_packages(tmp_path: Path) -> None:
    os.chmod(tmp_path.parent, 0o755)
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    [packages] = (tmp_path / "env").glob("lib/python3*/site-packages")
    (packages / "toy.py").write_text("import time\nMADE = time.time()\n")
    cfg = SandboxConfig(url=None, min_tier="T2", python=str(tmp_path / "env/bin/python"), packages=["toy"])
    made = Program(code=b"import toy; print(toy.MADE)")
    with Sandbox(current.spec_of(cfg, ()), slots=1) as sandbox:
        first, second = sandbox.run(made), sandbox.run(made)
        assert first.status == "ok" and first.stdout == second.stdout  # it was imported before the programs ran
    with Sandbox(current.spec_of(cfg.model_copy(update={"packages": []}), ()), slots=1) as sandbox:
        assert sandbox.run(made).status == "runtime_error"
    with pytest.raises(SandboxUnavailable, match=r"sandbox\.packages=.*No module named 'tooy'"):
        current.spec_of(cfg.model_copy(update={"packages": ["tooy"]}), ())


def test_sortedcontainers_is_supplied_where_it_is_installed(tmp_path: Path) -> None:
    os.chmod(tmp_path.parent, 0o755)
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    [packages] = (tmp_path / "env").glob("lib/python3*/site-packages")
    cfg = SandboxConfig(url=None, min_tier="T2", python=str(tmp_path / "env/bin/python"), packages=[])
    function = Program(code=b"def f(a):\n    return list(SortedList(a))", stdin=b"[[2, 1]]\n", function="f")
    program = Program(code=b"from sortedcontainers import SortedList\nprint(*SortedList([2, 1]))")
    for text, status, stdouts in (
        ("", "runtime_error", (b"", b"")),
        ("__all__ = ['SortedList']\nSortedList = sorted", "ok", (b"[1, 2]\n", b"1 2\n")),
    ):
        if text:
            (packages / "sortedcontainers.py").write_text(text)
        with Sandbox(current.spec_of(cfg, ()), slots=1) as sandbox:
            results = [sandbox.run(asked) for asked in (function, program)]
        assert [(result.status, result.stdout) for result in results] == [(status, stdout) for stdout in stdouts]


def test_package_with_a_running_thread_does_not_delay_programs() -> None:
    busy = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # the sandbox has another /tmp
        os.chmod(folder, 0o755)
        Path(folder, "busy.py").write_text(busy)
        for tier in HERE:
            zygote = Zygote(replace(attack_suite.spec_of(tier), preload=["busy"], path=[folder]))
            result = zygote.run(Program(code=b"import busy, threading; print(threading.active_count())", limits=QUICK))
            zygote.close()
            assert (result.status, result.stdout) == ("ok", b"1\n"), (tier, result)


def test_programs_have_their_own_pid_and_random_state(zygotes: dict[str, Zygote]) -> None:
    """They are forked without the work that Python and the C library normally do at a fork."""
    code = b"""
import os, random, threading
print(threading.get_native_id() == os.getpid(), random.random())
lock = threading.RLock()
with lock: threading.Thread(target=lambda: print(lock.acquire(blocking=False))).start()
"""
    for tier, zygote in zygotes.items():
        first, second = (zygote.run(Program(code=code)).stdout.split() for _ in range(2))
        assert first[0] == second[0] == b"True" and first[2] == second[2] == b"False", (tier, first, second)
        assert first[1] != second[1], "the same random numbers"


def test_run_without_the_sandbox_it_needs_is_refused_before_it_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "r1ray.main", f"run_dir={tmp_path}/run", "data=mixture", "sandbox.python=/nowhere"]
    done = subprocess.run([*command, "scale=smoke"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1 and "sandbox.python" in done.stderr and "apt-get install python3" in done.stderr
    assert "stage_started" not in (tmp_path / "run/events.jsonl").read_text()


def test_run_without_programs_needs_no_sandbox() -> None:
    checked = load(compose(["sandbox.python=/nowhere"]))
    assert check_sandbox(checked.config) == {}
    with pytest.raises(SandboxUnavailable):
        check_sandbox(load(compose(["sandbox.python=/nowhere", "data=mixture"])).config)
