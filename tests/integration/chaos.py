"""Injure every role of a real run at random points, and see that nothing is lost: the fault matrix, row by row.

    python tests/integration/chaos.py                  until every row of the table has 20 faults; it goes on where it stopped
    python tests/integration/chaos.py --rows trainer:stop driver:kill --faults 5

A run takes many faults, a new one two steps after the last. It has to finish by itself (after a row that ends it: by the same
command with resume=auto), with every step once, a ledger in which each prompt is trained on once or accounted for, groups of the
right size, no process left behind and no wait beyond its limit.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from r1ray.run.ledger import audit, read_ledger

REPO = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("chaos.jsonl")
LIVE = (
    *("rollout:kill", "rollout:stop", "rollout:fail", "rollout:kill_in_sync", "reward:kill", "reward:stop"),
    *("reference:kill", "reference:stop", "trainer:kill", "trainer:stop"),
)
"""Rows that a run survives: `fault=` does them."""
ENDING = ("driver:kill", "driver:term", "head:kill", "checkpoint:kill")
"""Rows that end it: all of its processes, SIGTERM to the driver, Ray's head, all of its processes while a checkpoint is written."""
ROWS = (*LIVE, *ENDING)
WORKERS = {"rollout": 2, "reward": 2, "reference": 1, "trainer": 2}
GROUPS = 8
LIMIT_S = 150.0
"""From a fault to the end of a step begun after it, on a machine that others may use too."""
RUN_LIMIT_S = 1800.0
OVERRIDES = [
    *("scale=smoke", "name=run", "log.wandb=disabled", "eval.before=false", "eval.sets.countdown.args.num_problems=8"),
    *("algo.kl_coef=0.01", "algo.reference_refresh_updates=7", "checkpoint.every_steps=3"),
    *("cluster.heartbeat_s=2", "cluster.max_restarts=1000", f"algo.problems_per_step={GROUPS}"),
]


@dataclass(slots=True)
class Injury:
    """One fault of a live row, and what came of it."""

    row: str
    fault: str
    """As `fault=` takes it."""
    noticed_s: float | None = None
    """Until a worker was restarted; None where nobody needed the one that was hurt."""
    recovered_s: float | None = None
    """Until the next step was whole."""


@dataclass(slots=True)
class Outcome:
    """One run. `wrong` is empty when it survived."""

    wrong: list[str] = field(default_factory=list)
    injuries: list[Injury] = field(default_factory=list)
    seconds: float = 0.0


class Run:
    """A run as its user sees it: a command, its output, its directory; and every process that it has ever had."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.folder = folder / "runs/run"
        self._output = folder / "output"
        self._seen: dict[int, float] = {}
        self._command = [sys.executable, "-m", "r1ray.main", *OVERRIDES, *overrides]
        self._cwd = folder
        self.process = self._start()

    def _start(self, *more: str) -> "subprocess.Popen[bytes]":
        with self._output.open("a") as output:
            return subprocess.Popen(
                [*self._command, *more],
                cwd=self._cwd,
                env=os.environ | {"PYTHONPATH": str(REPO)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def again(self) -> None:
        """As a user, a job or KubeRay would."""
        self.process = self._start("resume=auto")

    def family(self) -> list[psutil.Process]:
        """The driver and all processes of its Ray that live now."""
        try:
            driver = psutil.Process(self.process.pid)
            members = [driver, *driver.children(recursive=True)]
            self._seen |= {member.pid: member.create_time() for member in members}
        except psutil.NoSuchProcess:
            return []
        return members

    def left_behind(self, *, within_s: float = 10) -> list[str]:
        """Those that still live then."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            alive = []
            for pid, created in self._seen.items():
                try:
                    process = psutil.Process(pid)
                    if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                        alive.append(f"{pid} {process.name()}")
                except psutil.NoSuchProcess:
                    continue
            if not alive:
                return []
            time.sleep(0.5)
        return alive

    def kill_family(self) -> None:
        """As when the machine goes down."""
        family = self.family()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for member in family:
                try:
                    member.send_signal(number)
                except psutil.NoSuchProcess:
                    continue
        self.process.wait(30)

    def rows(self) -> list[dict[str, Any]]:
        return _json_lines(self.folder / "stages/rl/metrics.jsonl")

    def events(self) -> list[dict[str, Any]]:
        return _json_lines(self.folder / "events.jsonl")

    def output(self) -> str:
        return self._output.read_text()[-3000:]


def plan(rows: Sequence[str], rng: random.Random) -> tuple[list[str], int]:
    """A `fault=` for each of these live rows, each at a random point of every second step; and the steps that takes."""
    faults = []
    for place, row in enumerate(rows):
        role, action = row.split(":")
        index, seconds = rng.randrange(WORKERS[role]), round(rng.uniform(0, 2.5), 2)
        faults.append(f"{role}-{index}:{action}@{2 * place + 2}+{seconds:g}")
    return faults, 2 * len(rows) + 3


def survive(rows: Sequence[str], *, folder: Path, seed: int) -> Outcome:
    """One run that is hurt in the ways of these live rows, one after the other."""
    faults, steps = plan(rows, random.Random(seed))
    begin = time.monotonic()
    run = Run(folder, f"steps={steps}", f"fault=[{','.join(faults)}]")
    outcome = Outcome(injuries=[Injury(row, fault) for row, fault in zip(rows, faults, strict=True)])
    with ended(run):
        _watch(run, outcome, limit=begin + RUN_LIMIT_S)
        if run.process.poll() != 0:
            outcome.wrong.append(f"exit code {run.process.poll()}: {run.output()}")
    outcome.wrong += judged(run, steps=steps)
    fired = sum(injury.recovered_s is not None for injury in outcome.injuries)
    if fired != len(faults):
        outcome.wrong.append(f"{fired} of {len(faults)} faults were survived")
    outcome.seconds = time.monotonic() - begin
    return outcome


def _watch(run: Run, outcome: Outcome, *, limit: float) -> None:
    """Note when each fault struck, was noticed and was overcome."""
    struck: dict[str, float] = {}
    known = 0
    while run.process.poll() is None:
        run.family()
        now, events, done = time.monotonic(), run.events(), len(run.rows())
        for injury in outcome.injuries:
            named = injury.fault.partition("@")
            if injury.fault not in struck and any(
                e["kind"] == "fault" and _same(e["fault"], injury.fault) for e in events
            ):
                struck[injury.fault] = now
            since = struck.get(injury.fault)
            if since is None or injury.recovered_s is not None:
                continue
            role = named[0].partition("-")[0]
            restarts = [e for e in events if e["kind"] == "worker_restarted" and e["worker"].startswith(role)]
            mine = sum(i.fault.startswith(role) and i.noticed_s is not None for i in outcome.injuries)
            if injury.noticed_s is None and len(restarts) > mine:
                injury.noticed_s = round(now - since, 1)
            step = int(named[2].partition("+")[0])
            if done > known and done > step + (injury.noticed_s is None):
                injury.recovered_s = round(now - since, 1)
                if injury.recovered_s > LIMIT_S:
                    outcome.wrong.append(f"{injury.fault} took {injury.recovered_s} s")
        known = done
        if now > limit:
            outcome.wrong.append(f"the run has not ended within {RUN_LIMIT_S:.0f} s")
            return
        time.sleep(0.1)


def _same(event: str, fault: str) -> bool:
    return event == fault if "+" in fault else event == f"{fault}+0"


def end_and_resume(row: str, *, folder: Path, seed: int, steps: int = 8) -> Outcome:
    """One run that is ended in the way of this row at a random point, and goes on."""
    rng, outcome, begin = random.Random(seed), Outcome(), time.monotonic()
    run = Run(folder, f"steps={steps}")
    with ended(run):
        first = rng.randint(1, steps - 3)
        if not _wait(run, lambda: len(run.rows()) >= first):
            outcome.wrong.append(f"step {first} never came: {run.output()}")
            return outcome
        time.sleep(rng.random() * 2.0)
        expected = _end(row, run)
        if run.process.wait(120) != expected:
            outcome.wrong.append(f"exit code {run.process.returncode} instead of {expected}: {run.output()}")
        # Ray's own agents try for minutes to tell a head that is gone of the raylet's end.
        gone = run.left_behind(within_s=300 if row == "head:kill" else 10)
        outcome.wrong += [f"left behind by the first: {name}" for name in gone]
        run.again()
        _wait(run, lambda: False)
        if run.process.poll() != 0:
            outcome.wrong.append(f"resumed: exit code {run.process.poll()}: {run.output()}")
    outcome.wrong += judged(run, steps=steps)
    outcome.seconds = time.monotonic() - begin
    outcome.injuries = [Injury(row, f"{row} after step {first}", recovered_s=round(outcome.seconds, 1))]
    return outcome


def _end(row: str, run: Run) -> int:
    """Do it; the exit code to expect."""
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
    """Until it is there, or the run has ended."""
    limit = time.monotonic() + RUN_LIMIT_S
    while run.process.poll() is None and time.monotonic() < limit:
        run.family()
        if there():
            return True
        time.sleep(0.01)
    return False


@contextmanager
def ended(run: Run) -> Iterator[None]:
    """Whatever happens, no process of ours outlives this."""
    try:
        yield
    finally:
        if run.process.poll() is None:
            run.kill_family()


def judged(run: Run, *, steps: int) -> list[str]:
    """Everything that is wrong with a run that should have finished."""
    wrong = [f"left behind: {name}" for name in run.left_behind()]
    found = [row["step"] for row in run.rows()]
    if found != list(range(1, steps + 1)):
        wrong.append(f"metrics hold steps {found}")
    ledger = run.folder / "stages/rl/ledger.jsonl"
    wrong += audit(read_ledger(ledger), steps=steps, groups_per_step=GROUPS) if ledger.exists() else ["no ledger"]
    wrong += [
        f"step {row['step']}: trained on other weights than were served" for row in run.rows() if row["staleness/max"]
    ]
    wrong += [
        f"step {row['step']}: gap {row['logprob_gap/max']}" for row in run.rows() if not row["logprob_gap/max"] < 1e-3
    ]
    return wrong


def _json_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # being written
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--faults", type=int, default=20, help="for every row, those of the table included")
    parser.add_argument("--per-run", type=int, default=10, help="faults of live rows in one run")
    parser.add_argument("--table", type=Path, default=TABLE)
    args = parser.parse_args()
    while rows := _next(args.rows, _json_lines(args.table), faults=args.faults, per_run=args.per_run):
        seed = len(_json_lines(args.table))
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        where = {"folder": folder, "seed": seed}
        outcome = survive(rows, **where) if rows[0] in LIVE else end_and_resume(rows[0], **where)
        if outcome.wrong:
            print("\n".join([*outcome.wrong, f"its directory stays: {folder}"]))
            return 1
        shutil.rmtree(folder)
        with args.table.open("a") as table:
            for injury in outcome.injuries:
                table.write(json.dumps(asdict(injury) | {"seed": seed}) + "\n")
        print(
            f"{len(outcome.injuries)} faults survived in {outcome.seconds:.0f} s: {', '.join(i.fault for i in outcome.injuries)}"
        )
    print(summary(_json_lines(args.table)))
    return 0


def _next(rows: Sequence[str], table: Sequence[dict[str, Any]], *, faults: int, per_run: int) -> list[str]:
    """The rows of the next run: live ones in turn, those with the fewest faults first, else one that ends it."""
    missing = {row: faults - sum(entry["row"] == row for entry in table) for row in rows}
    live: list[str] = []
    while len(live) < per_run:
        left = [row for row in LIVE if missing.get(row, 0) > live.count(row)]
        if not left:
            break
        live.append(max(left, key=lambda row: missing[row] - live.count(row)))
    return live or [row for row in ENDING if missing.get(row, 0) > 0][:1]


def summary(table: Sequence[dict[str, Any]]) -> str:
    lines = ["row                    faults  noticed s (median, max)  whole again s (median, max)"]
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
