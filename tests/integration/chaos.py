"""Inject faults into every role of a real run at random points and check that nothing is lost: the fault matrix, row by row.

    python tests/integration/chaos.py                  until every row of the table has 20 faults; resumes where it stopped
    python tests/integration/chaos.py --rows policy:stop driver:kill --faults 5

A run takes many faults, each two steps after the previous one. It must finish without help (after a row that ends it: with the same
command and resume=auto), with every step once, a ledger in which each prompt is trained on once or accounted for, groups of the
right size, no process left over and no wait beyond its limit.
"""

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from ray_nodes import Cluster, kill, runs
from real_run import Run, ended, json_lines

from r1ray.run.ledger import audit, read_ledger

TABLE = Path(__file__).with_name("chaos.jsonl")
LIVE = (
    *("rollout:kill", "rollout:stop", "rollout:fail", "rollout:kill_in_sync", "reward:kill", "reward:stop"),
    *("reference:kill", "reference:stop", "policy:kill", "policy:stop"),
)
"""Rows that a run survives, injected with `fault=`."""
ENDING = ("driver:kill", "driver:term", "head:kill", "checkpoint:kill")
"""Rows that end a run: kill all its processes, SIGTERM to the driver, kill Ray's head, kill all processes during a checkpoint."""
MACHINES = ("node:kill", "node:memory")
"""Rows that a run survives and that affect a machine and so any of its workers: kill all processes of a Ray node other than the
head, and exhaust memory, so that Ray kills processes of its choice."""
ROWS = (*LIVE, *MACHINES, *ENDING)
WORKERS = {"rollout": 2, "reward": 2, "reference": 1, "policy": 2}
GROUPS = 8
LIMIT_S = 150.0
"""Seconds from a fault to the end of a step that began after it, on a machine that other processes may use."""
RUN_LIMIT_S = 1800.0
OVERRIDES = [
    *("scale=smoke", "eval.before_training=false", "eval.sets.countdown.args.num_problems=8"),
    *("algo.kl_coef=0.01", "algo.reference_refresh_updates=7", "checkpoint.every_steps=3"),
    *("cluster.heartbeat_s=2", "cluster.max_restarts=1000", f"algo.prompts_per_step={GROUPS}"),
]
SMALL = ["rollout.num_workers=1", "reward.num_workers=1"]
"""Engines and reward workers take most of the startup time and leave nothing behind that a resumed run needs."""
WHOLE = 3
"""For rows that end a run: the first faults hit a run with all workers, later ones a small one."""
STEPS_TO_END = 12
"""Steps of a run for every time that it is ended: at most three before, and what it does in a second on a fast machine."""


@dataclass(slots=True)
class Injection:
    """One injected fault of a live row, and its consequences."""

    row: str
    fault: str
    """In the format of `fault=`."""
    noticed_s: float | None = None
    """Seconds until a worker was restarted; None where the failed worker was not needed before the next step ended."""
    recovered_s: float | None = None
    """Seconds until the next step was complete."""


@dataclass(slots=True)
class Outcome:
    """One run. `failures` is empty when it survived."""

    failures: list[str] = field(default_factory=list)
    injections: list[Injection] = field(default_factory=list)
    seconds: float = 0.0


def plan(rows: Sequence[str], rng: random.Random) -> tuple[list[str], int]:
    """A `fault=` for each of these live rows, each at a random point of every second step; and the number of steps."""
    faults = []
    for place, row in enumerate(rows):
        role, action = row.split(":")
        index, seconds = rng.randrange(WORKERS[role]), round(rng.uniform(0, 2.5), 2)
        faults.append(f"{role}-{index}:{action}@{2 * place + 2}+{seconds:g}")
    return faults, 2 * len(rows) + 3


def survive(rows: Sequence[str], *, folder: Path, seed: int) -> Outcome:
    """One run with a fault of each of these live rows, one after another."""
    faults, steps = plan(rows, random.Random(seed))
    begin = time.monotonic()
    run = Run(folder, [*OVERRIDES, f"steps={steps}", f"fault=[{','.join(faults)}]"])
    outcome = Outcome(injections=[Injection(row, fault) for row, fault in zip(rows, faults, strict=True)])
    with ended(run):
        _watch(run, outcome, limit=begin + RUN_LIMIT_S)
        if run.process.poll() != 0:
            outcome.failures.append(f"exit code {run.process.poll()}: {run.output()}")
    outcome.failures += problems_of(run, steps=steps)
    fired = sum(injection.recovered_s is not None for injection in outcome.injections)
    if fired != len(faults):
        outcome.failures.append(f"{fired} of {len(faults)} faults were recovered from")
    outcome.seconds = time.monotonic() - begin
    return outcome


def _watch(run: Run, outcome: Outcome, *, limit: float) -> None:
    """Record when each fault was injected, noticed and recovered from."""
    struck: dict[str, float] = {}
    known = 0
    while run.process.poll() is None:
        run.family()
        now, events, done = time.monotonic(), run.events(), len(run.rows())
        for injection in outcome.injections:
            named = injection.fault.partition("@")
            if injection.fault not in struck and any(
                e["kind"] == "fault_injected" and _same(e["fault"], injection.fault) for e in events
            ):
                struck[injection.fault] = now
            since = struck.get(injection.fault)
            if since is None or injection.recovered_s is not None:
                continue
            role = named[0].partition("-")[0]
            restarts = [e for e in events if e["kind"] == "worker_restarted" and e["worker"].startswith(role)]
            mine = sum(i.fault.startswith(role) and i.noticed_s is not None for i in outcome.injections)
            if injection.noticed_s is None and len(restarts) > mine:
                injection.noticed_s = round(now - since, 1)
            step = int(named[2].partition("+")[0])
            if done > known and done > step + (injection.noticed_s is None):
                injection.recovered_s = round(now - since, 1)
                if injection.recovered_s > LIMIT_S:
                    outcome.failures.append(f"{injection.fault} took {injection.recovered_s} s")
        known = done
        if now > limit:
            outcome.failures.append(f"the run has not ended within {RUN_LIMIT_S:.0f} s")
            return
        time.sleep(0.1)


def _same(event: str, fault: str) -> bool:
    return event == fault if "+" in fault else event == f"{fault}+0"


def lose_machines(row: str, *, faults: int, folder: Path, seed: int) -> Outcome:
    """One run whose machines get the faults of this row; a new one when the previous one has been recovered from."""
    rng, outcome, begin = random.Random(seed), Outcome(), time.monotonic()
    steps = 6 * faults + 3
    with {"node:kill": nodes_to_kill, "node:memory": memory_to_fill}[row](rng) as (env, strike):
        run = Run(folder, [*OVERRIDES, f"steps={steps}"], env=env)
        with ended(run):
            for _ in range(faults):
                there = len(run.rows()) + 1
                if not _wait(run, lambda there=there: len(run.rows()) >= there):
                    break
                time.sleep(rng.random() * 2.0)
                restarts = len(run.events("worker_restarted"))
                struck = time.monotonic()
                injection = Injection(row, f"{row} after step {len(run.rows())}: {strike(run)}")
                outcome.injections.append(injection)
                whole = len(run.rows()) + 2
                _wait(
                    run,
                    lambda n=restarts, whole=whole: len(run.events("worker_restarted")) > n or len(run.rows()) >= whole,
                )
                if len(run.events("worker_restarted")) > restarts:
                    injection.noticed_s = round(time.monotonic() - struck, 1)
                if _wait(run, lambda whole=whole: len(run.rows()) >= whole):
                    injection.recovered_s = round(time.monotonic() - struck, 1)
                    if injection.recovered_s > LIMIT_S:
                        outcome.failures.append(f"{injection.fault} took {injection.recovered_s} s")
            _wait(run, lambda: False)
            if run.process.poll() != 0:
                outcome.failures.append(f"exit code {run.process.poll()}: {run.output()}")
        outcome.failures += problems_of(run, steps=steps)
    overcome = sum(injection.recovered_s is not None for injection in outcome.injections)
    if overcome != faults:
        outcome.failures.append(f"{overcome} of {faults} faults were recovered from")
    outcome.seconds = time.monotonic() - begin
    return outcome


Strike = Callable[[Run], str]
"""Injects a fault into a machine; returns a description."""


@contextmanager
def nodes_to_kill(rng: random.Random) -> Iterator[tuple[Mapping[str, str], Strike]]:
    """A head and three nodes for the workers; a killed node is replaced, as by an autoscaler."""
    cluster = Cluster(head=["--num-cpus=0"], RAY_health_check_period_ms="1000")
    try:
        join = [f"--address={cluster.gcs}", "--num-cpus=4"]
        nodes = [cluster.start(*join) for _ in range(3)]

        def strike(_: Run) -> str:
            index = rng.choice([index for index, node in enumerate(nodes) if runs(node, "Worker")])
            kill(nodes[index])
            nodes[index] = cluster.start(*join)
            return f"node {index}"

        yield {**cluster.env, "RAY_ADDRESS": cluster.gcs}, strike
    finally:
        cluster.end()


@contextmanager
def memory_to_fill(_: random.Random) -> Iterator[tuple[Mapping[str, str], Strike]]:
    """Ray's own memory limit, low enough that reaching it endangers no other process."""

    def strike(run: Run) -> str:
        workers = {member.pid for member in run.family() if "Worker" in member.name()}
        held: list[mmap.mmap] = []
        while workers <= {member.pid for member in run.family()}:
            assert psutil.virtual_memory().available > 2 << 30, "Ray has killed no process"
            held.append(mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))
        return f"{len(held) * 256} MiB"

    memory = psutil.virtual_memory()
    limit = 1 - (memory.available - (9 << 29)) / memory.total
    yield {**os.environ, "RAY_memory_usage_threshold": f"{limit:.3f}"}, strike


def end_and_resume(rows: Sequence[str], *, folder: Path, seed: int, small: bool = False) -> Outcome:
    """One run that is ended in the ways of these rows, at random points, and resumed each time; small: one worker per role."""
    rng, outcome, begin = random.Random(seed), Outcome(), time.monotonic()
    steps = STEPS_TO_END * len(rows) + 3
    run = Run(folder, [*OVERRIDES, *(SMALL if small else ()), f"steps={steps}"])
    with ended(run):
        for row in rows:
            # More steps than an earlier process has logged, so that this process has reached this step itself.
            first = len(run.rows()) + rng.randint(1, 3)
            if not _wait(run, lambda first=first: len(run.rows()) >= first):
                outcome.failures.append(f"step {first} was not reached: {run.output()}")
                return outcome
            time.sleep(rng.random())
            struck = time.monotonic()
            expected = _end(row, run)
            if run.process.wait(120) != expected:
                outcome.failures.append(
                    f"{row}: exit code {run.process.returncode} instead of {expected}: {run.output()}"
                )
            whole = len(run.rows()) + 1
            run.resume()
            injection = Injection(row, f"{row} after step {first}{', small' if small else ''}")
            outcome.injections.append(injection)
            if _wait(run, lambda whole=whole: len(run.rows()) >= whole):
                injection.recovered_s = round(time.monotonic() - struck, 1)
        _wait(run, lambda: False)
        if run.process.poll() != 0:
            outcome.failures.append(f"resumed: exit code {run.process.poll()}: {run.output()}")
    outcome.failures += problems_of(run, steps=steps)
    overcome = sum(injection.recovered_s is not None for injection in outcome.injections)
    if overcome != len(rows):
        outcome.failures.append(f"{overcome} of {len(rows)} ends were recovered from")
    outcome.seconds = time.monotonic() - begin
    return outcome


def _end(row: str, run: Run) -> int:
    """End the run in the way of this row; returns the expected exit code."""
    if row == "driver:term":
        run.process.send_signal(signal.SIGTERM)
        return 75
    if row == "head:kill":
        [head] = [member for member in run.family() if "gcs_server" in member.name()]
        head.kill()
        return 1
    if row == "checkpoint:kill":
        _wait(run, lambda: any((run.folder / "stages/rl/checkpoints").glob(".writing-*")))
    run.kill_family()
    return -signal.SIGKILL


def _wait(run: Run, there: Any) -> bool:
    """Wait for a condition; False when the run has ended before."""
    limit = time.monotonic() + RUN_LIMIT_S
    while run.process.poll() is None and time.monotonic() < limit:
        run.family()
        if there():
            return True
        time.sleep(0.01)
    return False


def problems_of(run: Run, *, steps: int) -> list[str]:
    """Everything that is failures with a run that should have finished."""
    # For a minute Ray's own agents try to report the raylet's end to a head that no longer exists.
    failures = [f"left behind: {name}" for name in run.left_behind(within_s=120)]
    found = [row["step"] for row in run.rows()]
    if found != list(range(1, steps + 1)):
        failures.append(f"metrics have steps {found}")
    ledger = run.folder / "stages/rl/ledger.jsonl"
    failures += audit(read_ledger(ledger), steps=steps, groups_per_step=GROUPS) if ledger.exists() else ["no ledger"]
    failures += [
        f"step {row['step']}: trained on completions of older weights" for row in run.rows() if row["staleness/max"]
    ]
    failures += [
        f"step {row['step']}: gap {row['mismatch/logprob_gap/max']}"
        for row in run.rows()
        if not row["mismatch/logprob_gap/max"] < 1e-3
    ]
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--faults", type=int, default=20, help="faults for every row, including those of the table")
    parser.add_argument("--per-run", type=int, default=10, help="faults in one run")
    parser.add_argument("--table", type=Path, default=TABLE)
    args = parser.parse_args()
    while rows := _next(args.rows, json_lines(args.table), faults=args.faults, per_run=args.per_run):
        seed = len(json_lines(args.table))
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        where = {"folder": folder, "seed": seed}
        if rows[0] in LIVE:
            outcome = survive(rows, **where)
        elif rows[0] in MACHINES:
            outcome = lose_machines(rows[0], faults=len(rows), **where)
        else:
            had = sum(entry["row"] == rows[0] for entry in json_lines(args.table))
            outcome = end_and_resume(rows, small=had >= WHOLE, **where)
        if outcome.failures:
            print("\n".join([*outcome.failures, f"its directory is kept: {folder}"]))
            return 1
        shutil.rmtree(folder)
        with args.table.open("a") as table:
            for injection in outcome.injections:
                table.write(json.dumps(asdict(injection) | {"seed": seed}) + "\n")
        print(
            f"{len(outcome.injections)} faults recovered from in {outcome.seconds:.0f} s: "
            f"{', '.join(injection.fault for injection in outcome.injections)}"
        )
    print(summary(json_lines(args.table)))
    return 0


def _next(rows: Sequence[str], table: Sequence[dict[str, Any]], *, faults: int, per_run: int) -> list[str]:
    """The rows of the next run: alternating live ones, those with the fewest faults first; otherwise one machine row as often as
    one run takes it; otherwise rows that end the run, also alternating, first those that still need a run with all workers.
    """
    had = {row: sum(entry["row"] == row for entry in table) for row in rows}
    if live := _alternating({row: faults - had[row] for row in LIVE if row in had}, per_run):
        return live
    for row in MACHINES:
        if row in had and had[row] < faults:
            return [row] * min(faults - had[row], per_run)
    ending = [row for row in ENDING if row in had]
    whole = _alternating({row: min(faults, WHOLE) - had[row] for row in ending}, per_run)
    return whole or _alternating({row: faults - had[row] for row in ending}, per_run)


def _alternating(missing: Mapping[str, int], most: int) -> list[str]:
    """Up to `most` of these rows, each as often as it is missing, always taking next the row with the most missing."""
    chosen: list[str] = []
    while len(chosen) < most:
        left = {row: num - chosen.count(row) for row, num in missing.items() if num > chosen.count(row)}
        if not left:
            break
        chosen.append(max(left, key=lambda row: left[row]))
    return chosen


def summary(table: Sequence[dict[str, Any]]) -> str:
    lines = ["row                    faults  noticed s (median, max)  recovered s (median, max)"]
    for row in ROWS:
        entries = [entry for entry in table if entry["row"] == row]
        columns = []
        for name in ("noticed_s", "recovered_s"):
            values = sorted(entry[name] for entry in entries if entry[name] is not None)
            columns.append(f"{values[len(values) // 2]:6.1f} {values[-1]:6.1f}" if values else "     -      -")
        lines.append(f"{row:22} {len(entries):6}  {columns[0]:24} {columns[1]}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
