"""What the README says about `launch/quickstart.sh`, and the control. About six minutes per run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1800)]
REPO = Path(__file__).parents[2]
COIN = [
    "reward.components.coin={name: 'tests.fixtures.coin_flip:coin_flip'}",
    "reward.components.accuracy.weight=0",
    "reward.components.format.weight=0",
]


def evaluations(cwd: Path, *overrides: str) -> list[dict[str, Any]]:
    """The rows of a whole run in which the held-out set was evaluated."""
    env = os.environ | {"PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", "r1ray.main", "name=demo", "log.wandb=disabled", *overrides]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (cwd / "runs/demo/stages/rl/metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "eval/countdown/accuracy" in row]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_solve_rate_and_length_increase(seed: int, tmp_path: Path) -> None:
    before, *_, after = evaluations(tmp_path, f"seed={seed}")
    first, last = before["eval/countdown/accuracy"], after["eval/countdown/accuracy"]
    assert last >= 2 * first and last - first >= 0.30
    assert after["eval/countdown/response_length"] >= 1.3 * before["eval/countdown/response_length"]
    # One in a thousand of 2048 completions is two.
    assert after["eval/countdown/truncated"] <= before["eval/countdown/truncated"] + 0.001


def test_coin_flip_reward_teaches_nothing(tmp_path: Path) -> None:
    before, *_, after = evaluations(tmp_path, *COIN)
    assert after["eval/countdown/accuracy"] - before["eval/countdown/accuracy"] < 0.06
