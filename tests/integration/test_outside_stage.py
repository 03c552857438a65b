"""A run with a stage kind of the user's, named by its import path, with typed arguments; nothing of r1ray is changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.integration
REPO = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_a_stage_kind_from_outside_runs(tmp_path: Path) -> None:
    stages = "stages={count: {kind: 'tests.fixtures.count_stage:COUNT', args: {num_prompts: 3}}}"
    small = ["stages.rl=null", "rollout.num_workers=1", "reward.num_workers=1", "rollout.max_response_length=32"]
    command = [sys.executable, "-m", "r1ray.main", "name=counted", "log.wandb=disabled", stages, *small]
    env = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout

    run = tmp_path / "runs/counted"
    (row,) = [json.loads(line) for line in (run / "stages/count/metrics.jsonl").read_text().splitlines()]
    assert row["count/completions"] == 3 * 2, "num_prompts is given, completions_per_prompt is the kind's default"
    assert 6 <= row["count/tokens"] <= 6 * 32
    assert yaml.safe_load((run / "config.yaml").read_text())["stages"] == {
        "count": {"kind": "tests.fixtures.count_stage:COUNT", "args": {"num_prompts": 3, "completions_per_prompt": 2}}
    }
