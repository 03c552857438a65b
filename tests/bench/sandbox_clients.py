"""Two clients that run one small program repeatedly, in one of the ways that `tests.bench.sandbox` compares.

A script that any user can run with only Python and this repository: `python3 tests/bench/sandbox_clients.py T1 5 math,json`.
Prints runs per second; with `kill` as the way, how many milliseconds each kill came after its limit.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from r1ray.sandbox.base import Limits, Program
from r1ray.sandbox.choose import PYTHON, folders_of, unprivileged_uid
from r1ray.sandbox.pool import Sandbox
from r1ray.sandbox.spec import STDLIB, ZygoteSpec, bubblewrap
from r1ray.sandbox.supervisor import Zygote

CLIENTS, WARMUPS = 2, 3
STDIN, WANTED = b"1 2\n", b"3\n"
KILLS, LIMIT_S = 200, 0.1


def program(modules: Sequence[str]) -> bytes:
    return f"import {', '.join(modules)}\nprint(sum(map(int, input().split())))".encode()


def spec_of(tier: Any, packages: Sequence[str]) -> ZygoteSpec:
    path = folders_of(packages, PYTHON)
    return ZygoteSpec(python=PYTHON, preload=(*STDLIB, *packages), path=path, uid=unprivileged_uid(), tier=tier)


def in_sandbox(tier: str, packages: Sequence[str]) -> Callable[[], bytes]:
    """The way reward workers run programs."""
    sandbox = Sandbox(spec_of(tier, packages), slots=1)
    run = Program(code=program((*STDLIB, *packages)), stdin=STDIN)
    return lambda: sandbox.run(run).stdout


def in_bubblewrap(packages: Sequence[str]) -> Callable[[], bytes]:
    """A fresh interpreter in the same outer sandbox, which imports what the program needs."""
    spec = spec_of("T1", packages)
    lines = f"import sys; sys.path += {list(spec.path)!r}\n".encode() + program((*STDLIB, *packages))
    command = [*bubblewrap(spec), PYTHON, "-s", "-S", "-B", "-c", lines.decode()]
    return lambda: subprocess.run(command, input=STDIN, stdout=subprocess.PIPE, check=True).stdout


def forked(packages: Sequence[str]) -> Callable[[], bytes]:
    """A fork of this interpreter after it has imported the same modules: no isolation, limits or clock."""
    sys.path += folders_of(packages, PYTHON)
    code = program((*STDLIB, *packages))
    exec(code.split(b"\n")[0])

    def run() -> bytes:
        (theirs, ours), (result, written) = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(theirs, 0)
            os.dup2(written, 1)
            os.closerange(3, 64)
            sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
            exec(compile(code, "program.py", "exec"), {"__name__": "__main__"})
            sys.stdout.flush()
            os._exit(0)
        os.close(theirs)
        os.close(written)
        os.write(ours, STDIN)
        os.close(ours)
        with open(result, "rb") as file:
            found = file.read()
        os.waitpid(pid, 0)
        return found

    return run


def client(way: str, seconds: float, packages: Sequence[str], begin: Any, done: Any) -> None:
    make = {"bwrap": in_bubblewrap, "fork": forked}
    run = make[way](packages) if way in make else in_sandbox(way, packages)
    for _ in range(WARMUPS):
        assert run() == WANTED
    begin.wait()
    start, runs = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        assert run() == WANTED
        runs += 1
    done.put(runs / (time.monotonic() - start))


def rate(way: str, seconds: float, packages: Sequence[str]) -> float:
    context = multiprocessing.get_context("fork")
    begin, done = context.Barrier(CLIENTS), context.Queue()
    clients = [context.Process(target=client, args=(way, seconds, packages, begin, done)) for _ in range(CLIENTS)]
    for process in clients:
        process.start()
    for process in clients:
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)
    return sum(done.get() for _ in clients)


def kills() -> list[float]:
    zygote = Zygote(spec_of("T2", ()))
    limits = Limits(cpu_s=9, wall_s=LIMIT_S)
    ends = [zygote.run(Program(code=b"while True: pass", limits=limits)) for _ in range(KILLS)]
    zygote.close()
    assert all(result.status == "timeout" for result in ends)
    return [1000 * (result.wall_s - LIMIT_S) for result in ends]


if __name__ == "__main__":
    if sys.argv[1] == "kill":
        print(json.dumps(kills()))
    else:
        print(rate(sys.argv[1], float(sys.argv[2]), [name for name in sys.argv[3].split(",") if name]))
