"""The fault matrix in short: one run with every fault that a run survives, and one that is stopped (chaos.py has all of it)."""

from pathlib import Path

import chaos
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]


def test_run_survives_every_fault_of_a_worker(tmp_path: Path) -> None:
    outcome = chaos.survive(chaos.LIVE, folder=tmp_path, seed=0)
    assert not outcome.failures, "\n".join(outcome.failures)
    assert [injection.row for injection in outcome.injections if injection.recovered_s is not None] == list(chaos.LIVE)


def test_run_that_is_ended_repeatedly_resumes(tmp_path: Path) -> None:
    rows = ["driver:term", "checkpoint:kill"]
    outcome = chaos.end_and_resume(rows, folder=tmp_path, seed=0)
    assert not outcome.failures, "\n".join(outcome.failures)
    assert [injection.row for injection in outcome.injections if injection.recovered_s is not None] == rows


def test_next_rows_are_those_with_the_fewest_faults() -> None:
    table = [{"row": "rollout:kill"}] * 2 + [{"row": "policy:stop"}]
    assert chaos._next(["rollout:kill", "policy:stop"], table, faults=3, per_run=2) == ["policy:stop", "rollout:kill"]
    assert chaos._next(["rollout:kill", "driver:kill"], [{"row": "rollout:kill"}], faults=1, per_run=2) == [
        "driver:kill"
    ]
    assert chaos._next(["node:kill", "driver:kill"], [], faults=3, per_run=2) == ["node:kill", "node:kill"]
    assert chaos._next(["rollout:kill"], [{"row": "rollout:kill"}], faults=1, per_run=2) == []
    ending = ["driver:kill", "driver:term"]
    table = [{"row": row} for row in ["driver:kill"] * 3 + ["driver:term"] * 2]
    assert chaos._next(ending, table, faults=5, per_run=4) == ["driver:term"], (
        "a run with all workers for the row that has had two"
    )
    assert (
        chaos._next(ending, [*table, {"row": "driver:term"}], faults=5, per_run=4) == ["driver:kill", "driver:term"] * 2
    )
