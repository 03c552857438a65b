"""The ledger: what became of every problem that was drawn, append-only, on the disk before a later step's first completion.

    {"step": 3, "draw": 17, "attempt": 0, "state": "dispatched", "problem": "countdown/5", "epoch": 0, "group_size": 8}
    {"step": 3, "draw": 17, "attempt": 0, "state": "generated", "completions": 8, "versions": [2]}
    {"step": 3, "draw": 17, "attempt": 0, "state": "scored", "usable": 8}
    {"step": 3, "draw": 17, "attempt": 0, "state": "trained"}

Between `generated` and `scored` may stand, for every scoring that failed and was made again on the same completions,

    {"step": 3, "draw": 17, "attempt": 0, "state": "unscored", "parts": ["judge"]}

A draw ends as `trained`, as `left` (its group was not kept, or enough others were) or as `dropped` (after rollout.max_attempts). A
run that goes on from step N writes `{"state": "resumed", "step": N}`: what stands above it about later steps never happened.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ENDS = ("trained", "left", "dropped")


class Ledger:
    """Append rows; `sync` puts them on the disk.

    Args:
        step: the step from which the stage goes on; 0 for one that begins.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        if path.exists() and path.stat().st_size:
            # A crash may have cut the last line short: what is written now must not be glued to it.
            whole = path.read_bytes().endswith(b"\n")
            self._lines = [] if whole else ["\n"]
            self.write("resumed", step=step)
        else:
            self._lines = []
        self.sync()

    def write(self, state: str, **fields: Any) -> None:
        self._lines.append(json.dumps({"state": state, **fields}) + "\n")

    def sync(self) -> None:
        """Raises OSError when the disk refuses; the rows are kept for the next call."""
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a") as file:
                file.write("".join(self._lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            os.truncate(self.path, before)  # nothing of it is there twice, and no half row
            raise
        self._lines.clear()


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The rows that count, in order: those of steps that were given up when the run went on from an earlier one are left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut short by a crash, so it was never relied upon
        if row["state"] == "resumed":
            rows = [kept for kept in rows if kept["step"] <= row["step"]]
        else:
            rows.append(row)
    return rows


def audit(rows: Iterable[dict[str, Any]], *, steps: int, groups_per_step: int) -> list[str]:
    """What is wrong with steps 1 to `steps`: lost, doubled or wrongly sized groups. [] when every draw is accounted for."""
    wrong: list[str] = []
    draws: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["step"] <= steps:
            draws.setdefault(row["draw"], []).append(row)
    missing = sorted(set(range(len(draws))) - set(draws))
    if missing:
        wrong.append(f"draws {missing[:8]} were never dispatched")
    taken: dict[tuple[str, int], int] = {}
    trained: dict[int, int] = {}
    for draw, history in sorted(draws.items()):
        wrong += [f"draw {draw}: {fault}" for fault in _faults(history)]
        first = history[0]
        key = (first.get("problem", "?"), first.get("epoch", 0))
        if key in taken:
            wrong.append(f"draw {draw}: problem {key[0]} of epoch {key[1]} was draw {taken[key]} already")
        taken[key] = draw
        step = trained.setdefault(first["step"], 0)
        trained[first["step"]] = step + sum(row["state"] == "trained" for row in history)
    wrong += [
        f"step {step}: {num} groups trained on, not {groups_per_step}"
        for step, num in trained.items()
        if num != groups_per_step
    ]
    if missing_steps := sorted(set(range(1, steps + 1)) - set(trained)):
        wrong.append(f"steps {missing_steps} dispatched nothing")
    return wrong


def _faults(history: list[dict[str, Any]]) -> list[str]:
    """What is wrong with one draw's rows."""
    if len({row["step"] for row in history}) > 1:
        return [f"belongs to steps {sorted({row['step'] for row in history})}"]
    faults = []
    ends = [row for row in history if row["state"] in ENDS]
    if len(ends) != 1:
        faults.append(f"ended {len(ends)} times ({', '.join(row['state'] for row in ends) or 'lost'})")
    for attempt in {row["attempt"] for row in history}:
        states = [
            row["state"] for row in history if row["attempt"] == attempt and row["state"] not in (*ENDS, "unscored")
        ]
        if sorted(states) != ["dispatched", "generated", "scored"]:
            faults.append(f"attempt {attempt} was {', '.join(states)}")
    size = history[0].get("group_size")
    sizes = {row["completions"] for row in history if row["state"] == "generated"}
    if sizes - {size}:
        faults.append(f"has groups of {sorted(sizes)} completions, not {size}")
    return faults
