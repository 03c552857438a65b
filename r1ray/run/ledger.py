"""The ledger: what happened to every problem that was drawn. Append-only, and on the disk before any completion of a later step.

    {"step": 3, "draw": 17, "attempt": 0, "state": "dispatched", "problem": "countdown/5", "epoch": 0, "group_size": 8}
    {"step": 3, "draw": 17, "attempt": 0, "state": "generated", "completions": 8, "versions": [2]}
    {"step": 3, "draw": 17, "attempt": 0, "state": "scored", "usable": 8}
    {"step": 3, "draw": 17, "attempt": 0, "state": "trained"}

For every scoring that failed and was repeated on the same completions there is, between `generated` and `scored`,

    {"step": 3, "draw": 17, "attempt": 0, "state": "unscored", "components": ["judge"]}

A draw ends as `trained`, as `not_trained` (the filter rejected its group, or enough others were accepted) or as `dropped` (after
rollout.max_attempts). A run that resumes from step N writes `{"state": "resumed", "step": N}`, which cancels all rows above it
about later steps.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from r1ray.run.files import append, make_folder, read_jsonl

FINAL_STATES = ("trained", "not_trained", "dropped")


class Ledger:
    """Collects rows; `sync` puts them on the disk.

    Args:
        step: the step from which the stage resumes; 0 for a new one.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        make_folder(path.parent)
        self.path = path
        self._lines: list[str] = []
        if path.exists() and path.stat().st_size:
            # A crash may have cut the last line short: the next row must not be appended to it.
            self._lines = [] if path.read_bytes().endswith(b"\n") else ["\n"]
            self.write("resumed", step=step)
        self.sync()

    def write(self, state: str, **fields: Any) -> None:
        self._lines.append(json.dumps({"state": state, **fields}) + "\n")

    def sync(self) -> None:
        """Raises OSError if the write fails; the rows are kept for the next call."""
        append(self.path, "".join(self._lines), sync=True)
        self._lines.clear()


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The rows that count, in order, without those that a resume from an earlier step has cancelled."""
    rows: list[dict[str, Any]] = []
    for row in read_jsonl(path):
        if row["state"] == "resumed":
            rows = [kept for kept in rows if kept["step"] <= row["step"]]
        else:
            rows.append(row)
    return rows


def audit(rows: Iterable[dict[str, Any]], *, steps: int, groups_per_step: int) -> list[str]:
    """The faults of steps 1 to `steps`: lost or duplicate draws, groups of a wrong size. [] if every draw is accounted for."""
    faults: list[str] = []
    draws: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["step"] <= steps:
            draws.setdefault(row["draw"], []).append(row)
    missing = sorted(set(range(len(draws))) - set(draws))
    if missing:
        faults.append(f"draws {missing[:8]} were never dispatched")
    taken: dict[tuple[str, int], int] = {}
    trained: dict[int, int] = {}
    for draw, history in sorted(draws.items()):
        faults += [f"draw {draw}: {fault}" for fault in _faults(history)]
        first = history[0]
        key = (first.get("problem", "?"), first.get("epoch", 0))
        if key in taken:
            faults.append(f"draw {draw}: problem {key[0]} of epoch {key[1]} was already draw {taken[key]}")
        taken[key] = draw
        step = trained.setdefault(first["step"], 0)
        trained[first["step"]] = step + sum(row["state"] == "trained" for row in history)
    faults += [
        f"step {step}: {num} groups trained on, not {groups_per_step}"
        for step, num in trained.items()
        if num != groups_per_step
    ]
    if missing_steps := sorted(set(range(1, steps + 1)) - set(trained)):
        faults.append(f"steps {missing_steps} dispatched nothing")
    return faults


def _faults(history: list[dict[str, Any]]) -> list[str]:
    """The faults of one draw, from its rows."""
    if len({row["step"] for row in history}) > 1:
        return [f"belongs to steps {sorted({row['step'] for row in history})}"]
    faults: list[str] = []
    ends = [row for row in history if row["state"] in FINAL_STATES]
    if len(ends) != 1:
        faults.append(f"ended {len(ends)} times ({', '.join(row['state'] for row in ends) or 'lost'})")
    for attempt in {row["attempt"] for row in history}:
        states = [
            row["state"]
            for row in history
            if row["attempt"] == attempt and row["state"] not in (*FINAL_STATES, "unscored")
        ]
        if sorted(states) != ["dispatched", "generated", "scored"]:
            faults.append(f"attempt {attempt} was {', '.join(states)} (once each: dispatched, generated, scored)")
    size = history[0].get("group_size")
    sizes = {row["completions"] for row in history if row["state"] == "generated"}
    if sizes - {size}:
        faults.append(f"has groups of {sorted(sizes)} completions, not {size}")
    return faults
