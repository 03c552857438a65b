"""Killed anywhere and resumed, a run is the one that was never killed: every metric but times, to the last bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
REPO = Path(__file__).parents[2]
STEPS = 5
COMMAND = [
    *(sys.executable, "-m", "r1ray.main", "scale=smoke", "deterministic=true", f"steps={STEPS}", "log.wandb=disabled"),
    *(
        "name=run",
        "algo.minibatches=2",
        "algo.kl_coef=0.01",
        "algo.reference_refresh_updates=4",
        "trainer.zero_stage=1",
    ),
    *("checkpoint.every_steps=2", "eval.every_steps=2", "eval.sets.countdown.args.num_problems=16", "trainer.lr=1e-3"),
]
KILLS = int(os.environ.get("R1RAY_KILLS", "2"))
"""Random points at which a run is killed; a long check sets more."""


def start(cwd: Path, *more: str) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(REPO)}
    with (cwd / "output").open("a") as output:
        return subprocess.Popen(
            [*COMMAND, *more], cwd=cwd, env=env, stdout=output, stderr=output, start_new_session=True, text=True
        )


def finished(cwd: Path, *more: str) -> list[dict[str, Any]]:
    """The run's rows, without what depends on the clock."""
    assert start(cwd, *more).wait(400) == 0, (cwd / "output").read_text()
    rows = [json.loads(line) for line in (cwd / "runs/run/stages/rl/metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "tokens_per_second/"))} for row in rows]


def kill_everything(process: subprocess.Popen[str]) -> None:
    """As when the machine goes down: the driver and every process of its Ray, without a word."""
    import psutil

    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        try:
            member.send_signal(signal.SIGSTOP)
        except psutil.NoSuchProcess:
            continue
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(30)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], float]:
    """(rows, seconds from the first row to the last)."""
    cwd = tmp_path_factory.mktemp("whole")
    begin = time.monotonic()
    return finished(cwd), time.monotonic() - begin


def test_two_runs_are_the_same(uninterrupted: tuple[list[dict[str, Any]], float], tmp_path: Path) -> None:
    assert [row["step"] for row in uninterrupted[0]] == list(range(STEPS + 1))
    assert finished(tmp_path) == uninterrupted[0]


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_and_resumed_run_is_the_same(
    number: int, uninterrupted: tuple[list[dict[str, Any]], float], tmp_path: Path
) -> None:
    rows, seconds = uninterrupted
    process = start(tmp_path)
    share = random.Random(number).random()
    time.sleep(share * seconds)
    kill_everything(process)
    assert finished(tmp_path, "resume=auto") == rows, f"killed after {share:.2f} of the run"


def test_a_run_that_has_lost_workers_is_the_same(
    uninterrupted: tuple[list[dict[str, Any]], float], tmp_path: Path
) -> None:
    faults = "fault=[rollout-1:kill@2+0.3,reward-0:kill@3,trainer-0:kill@4+0.5]"
    assert finished(tmp_path, faults) == uninterrupted[0]
    events = [json.loads(line) for line in (tmp_path / "runs/run/events.jsonl").read_text().splitlines()]
    assert {event["worker"] for event in events if event["kind"] == "worker_restarted"} >= {"rollout-1", "trainer"}
