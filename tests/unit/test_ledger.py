"""The ledger through crashes and full disks, and the faults that the audit finds in its rows."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r1ray.run.ledger import Ledger, audit, read_ledger

Rows = list[dict[str, Any]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stages" / "rl" / "ledger.jsonl"


def numbers(path: Path) -> list[int]:
    return [row["draw"] for row in read_ledger(path)]


def written(path: Path, *draws: int, step: int = 1) -> Ledger:
    ledger = Ledger(path, step=0)
    for draw in draws:
        ledger.write("dispatched", step=step, draw=draw)
    ledger.sync()
    return ledger


def test_rows_are_read_in_order(path: Path) -> None:
    ledger = written(path, 0)
    ledger.write("generated", step=1, draw=0, completions=8)
    ledger.sync()
    assert read_ledger(path) == [
        {"state": "dispatched", "step": 1, "draw": 0},
        {"state": "generated", "step": 1, "draw": 0, "completions": 8},
    ]


def test_rows_are_on_the_disk_when_sync_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: forced.append(path.read_text() if path.exists() else ""))
    written(path, 0)
    assert '"draw": 0' in forced[-1]


def test_a_resume_cancels_the_rows_of_later_steps(path: Path) -> None:
    ledger = written(path, 0, step=1)
    for step in (2, 3):
        ledger.write("dispatched", step=step, draw=step - 1)
    ledger.sync()
    resumed = Ledger(path, step=2)
    resumed.write("dispatched", step=3, draw=7)
    resumed.sync()
    assert numbers(path) == [0, 1, 7]


def test_a_run_from_scratch_cancels_all_rows(path: Path) -> None:
    written(path, 0, 1)
    written(path, 5)
    assert numbers(path) == [5]


def test_a_line_cut_short_is_ignored_and_not_joined_to_the_next(path: Path) -> None:
    written(path, 0, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert numbers(path) == [0]
    ledger = Ledger(path, step=0)
    assert numbers(path) == [], "joined to it, the row `resumed` would be ignored as well"
    ledger.write("dispatched", step=1, draw=2)
    ledger.sync()
    assert numbers(path) == [2]


@pytest.mark.parametrize(("module", "function"), [(Path, "open"), (os, "fsync")])
def test_rows_that_the_disk_refuses_are_written_once_later(
    module: Any, function: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = written(path, 0)
    ledger.write("dispatched", step=1, draw=1)
    with monkeypatch.context() as failing:
        failing.setattr(module, function, refuse)
        with pytest.raises(OSError, match="No space left"):
            ledger.sync()
    ledger.sync()
    assert numbers(path) == [0, 1]


def refuse(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def draw(number: int, *, step: int = 1, end: str = "trained", attempts: int = 1, size: int = 4) -> Rows:
    """All rows of one draw."""
    rows: Rows = []
    for attempt in range(attempts):
        where = {"step": step, "draw": number, "attempt": attempt}
        rows += [
            where | {"state": "dispatched", "problem": f"p{number}", "epoch": 0, "group_size": 4},
            where | {"state": "generated", "completions": size, "versions": [0]},
            where | {"state": "scored", "usable": size},
        ]
    return [*rows, {"step": step, "draw": number, "attempt": attempts - 1, "state": end}]


def sound() -> Rows:
    """Two steps of two groups: one draw is left, one dropped, one generated twice."""
    return [
        *(*draw(0), *draw(1, end="not_trained"), *draw(2)),
        *(*draw(3, step=2, attempts=2), *draw(4, step=2, end="dropped", attempts=3), *draw(5, step=2)),
    ]


def check(rows: Rows, *, steps: int = 2) -> list[str]:
    return audit(rows, steps=steps, groups_per_step=2)


def test_a_sound_ledger_has_no_faults() -> None:
    assert check(sound()) == []


def test_steps_after_the_last_are_not_judged() -> None:
    assert check([*sound(), *draw(6, step=3)[:1]]) == []


def of(number: int, *states: str) -> Callable[[dict[str, Any]], bool]:
    """Rows of a draw, in these states or in all."""
    return lambda row: row["draw"] == number and (not states or row["state"] in states)


def without(unwanted: Callable[[dict[str, Any]], bool]) -> Rows:
    return [row for row in sound() if not unwanted(row)]


def changed(wanted: Callable[[dict[str, Any]], bool], **fields: Any) -> Rows:
    return [row | fields if wanted(row) else row for row in sound()]


def doubled(wanted: Callable[[dict[str, Any]], bool]) -> Rows:
    def twice() -> Iterator[dict[str, Any]]:
        for row in sound():
            yield from [row] * (1 + wanted(row))

    return list(twice())


FAULTS: dict[str, tuple[Rows, str]] = {
    "a draw without an end": (without(of(1, "not_trained")), "draw 1: ended 0 times (lost)"),
    "a draw that was never dispatched": (without(of(1)), "draws [1] were never dispatched"),
    "a draw that was dispatched twice": (doubled(of(1, "dispatched")), "draw 1: attempt 0 was dispatched, dispatched"),
    "a draw that was generated twice": (doubled(of(1, "generated")), "draw 1: attempt 0 was dispatched, generated, generated"),
    "a draw that was never scored": (without(of(1, "scored")), "draw 1: attempt 0 was dispatched, generated"),
    "a draw of two steps": (changed(of(2, "trained"), step=2), "draw 2: belongs to steps [1, 2]"),
    "a problem drawn twice in an epoch": (
        changed(of(3, "dispatched"), problem="p0"), "draw 3: problem p0 of epoch 0 was already draw 0",
    ),
    "a completion too few": (changed(of(2, "generated"), completions=3), "draw 2: has groups of [3] completions, not 4"),
    "a group trained on twice": (doubled(of(2, "trained")), "draw 2: ended 2 times (trained, trained)"),
    "a group trained on and left": ([*sound(), *draw(1)[-1:]], "draw 1: ended 2 times (not_trained, trained)"),
    "a step of too many groups": (changed(of(1, "not_trained"), state="trained"), "step 1: 3 groups trained on, not 2"),
    "a step of too few groups": (changed(of(0, "trained"), state="not_trained"), "step 1: 1 groups trained on, not 2"),
    "a step that is missing": (sound()[:12], "steps [2] dispatched nothing"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_the_audit_finds(case: str) -> None:
    rows, fault = FAULTS[case]
    assert any(fault in found for found in check(rows)), check(rows)


def test_a_problem_may_come_again_in_another_epoch() -> None:
    again = [row | ({"problem": "p0", "epoch": 1} if of(3, "dispatched")(row) else {}) for row in sound()]
    assert check(again) == []
