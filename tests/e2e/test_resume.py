"""A run that is killed anywhere and resumed equals an uninterrupted one: every metric except times, to the last bit."""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from real_run import Run, ended

pytestmark = pytest.mark.integration
STEPS = 5
OVERRIDES = [
    *("scale=smoke", "deterministic=true", f"steps={STEPS}", "algo.num_minibatches=2", "algo.kl_coef=0.01"),
    *("algo.reference_refresh_updates=4", "trainer.zero_stage=1", "trainer.lr=1e-3", "checkpoint.every_steps=2"),
    *("eval.every_steps=2", "eval.sets.countdown.args.num_problems=16"),
]
KILLS = int(os.environ.get("R1RAY_KILLS", "2"))
"""Number of random points at which runs are killed; set higher for a long check."""
KILLS_A_RUN = 4


def finished(run: Run) -> list[dict[str, Any]]:
    """The run's rows without values that depend on the clock."""
    with ended(run):
        assert run.process.wait(400) == 0, run.output()
    clocks = ("time/", "tokens_per_second/", "memory/")
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in run.rows()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], float]:
    """(rows, seconds from the first row to the last)."""
    cwd = tmp_path_factory.mktemp("whole")
    begin = time.monotonic()
    return finished(Run(cwd, OVERRIDES)), time.monotonic() - begin


def test_two_runs_are_equal(uninterrupted: tuple[list[dict[str, Any]], float], tmp_path: Path) -> None:
    assert [row["step"] for row in uninterrupted[0]] == list(range(STEPS + 1))
    assert finished(Run(tmp_path, OVERRIDES)) == uninterrupted[0]


@pytest.mark.timeout(300 + 120 * KILLS)
def test_run_that_is_killed_repeatedly_equals_an_uninterrupted_one(
    uninterrupted: tuple[list[dict[str, Any]], float], tmp_path: Path
) -> None:
    rows, seconds = uninterrupted
    rng, kills, number = random.Random(KILLS), 0, 0
    while kills < KILLS:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        run, points = Run(folder, OVERRIDES), []
        while len(points) < min(KILLS_A_RUN, KILLS - kills):
            point = rng.random() * seconds
            time.sleep(point)
            if run.process.poll() is not None:
                break
            run.kill_family()
            points.append(f"{point:.1f} s with {len(run.rows())} rows")
            run.resume()
        kills += len(points)
        print(f"run {number} killed after {', '.join(points)}")
        assert finished(run) == rows


def test_run_that_lost_workers_equals_an_uninterrupted_one(
    uninterrupted: tuple[list[dict[str, Any]], float], tmp_path: Path
) -> None:
    run = Run(
        tmp_path, [*OVERRIDES, "fault=[rollout-1:kill@2+0.3,reward-0:kill@3,policy-0:kill@4+0.5,rollout-0:kill@4+0.5]"]
    )
    assert finished(run) == uninterrupted[0]
    assert {event["worker"] for event in run.events("worker_restarted")} >= {"rollout-0", "rollout-1", "policy"}
