"""Workers killed and stopped in the middle of a run: it goes on, no step is lost, and the event says who was replaced."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.integration
REPO = Path(__file__).parents[2]
STEPS = 6


def wait_for(what: str, there: Callable[[], Any], *, seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := there():
            return found
        time.sleep(0.2)
    pytest.fail(f"no {what} within {seconds:.0f} s")


def rows_of(run: Path) -> list[dict[str, Any]]:
    file = run / "stages/rl/metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def worker(driver: psutil.Process, name: str) -> psutil.Process:
    """The longest-running process of a role; Ray names it after its class and, while it runs, its method."""
    found = [child for child in driver.children(recursive=True) if name in "".join(child.cmdline())]
    return min(found, key=lambda process: process.create_time())


def test_killed_and_stopped_workers_are_replaced(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "r1ray.main", "scale=smoke", "name=run", f"steps={STEPS}", "log.wandb=disabled"),
        *("rollout.timeout_s=40", "reward.timeout_s=20", "eval.before=false"),
    ]
    run = tmp_path / "runs/run"
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPO)}, stdout=output, stderr=output
        )
    driver = psutil.Process(process.pid)
    try:
        for step, name, fault in (
            (1, "RolloutWorker", signal.SIGKILL),
            (2, "RewardWorker", signal.SIGKILL),
            (3, "RolloutWorker", signal.SIGSTOP),
        ):
            wait_for(f"step {step}", lambda step=step: len(rows_of(run)) >= step or process.poll() is not None)
            assert process.poll() is None, (tmp_path / "output").read_text()
            worker(driver, name).send_signal(fault)
        assert process.wait(400) == 0, (tmp_path / "output").read_text()
    finally:
        process.kill()
    rows = rows_of(run)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(row["sync/canary_gap"] < 1e-4 and row["logprob_gap/max"] < 1e-3 for row in rows)
    assert all(row["staleness/max"] == 0 and row["updates_skipped"] == 0 for row in rows)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    replaced = [event["worker"] for event in events if event["kind"] == "worker_restarted"]
    assert [name.split("-")[0] for name in replaced] == ["rollout", "reward", "rollout"]
