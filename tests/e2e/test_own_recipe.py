"""What a new user does: the commands on recipes in `conf/README.md`, one by one, up to three steps on their own problems."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
REPO = Path(__file__).parents[2]
SECTION = re.search(r"## Recipes of the papers\n.*?(?=\n## Stages)", (REPO / "conf/README.md").read_text(), re.DOTALL)
assert SECTION
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", SECTION[0], re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.timeout(1200)
def test_own_recipe_works_as_the_readme_says(tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(REPO / "tests")  # the files of this repository that the reader has
    env = os.environ | {"PYTHONPATH": str(REPO), "WANDB_MODE": "disabled"}
    printed = []
    for command in COMMANDS:
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        printed.append(done.stdout)

    assert any("algo.clip_high" in text and "0.3" in text for text in printed)
    stage = tmp_path / "runs/mine/stages/rl"
    rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["eval/mine/accuracy"] > 0 and "eval/mine/accuracy" in rows[-1]
    assert rows[-1]["update"] == 12  # three steps of four updates
    assert all(0 < row["solve_rate"] < 1 and row["grad_norm"] > 0 for row in rows[1:])
    assert all(row["reward/accuracy/mean"] > 0 and row["reward/overlong/mean"] <= 0 for row in rows[1:])
    assert (stage / "checkpoints/latest/hf/config.json").exists()
    assert "<html" in (tmp_path / "runs/mine/report.html").read_text()[:2000]
